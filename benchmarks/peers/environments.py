"""Virtual environments, under ``.cache/bench``, for peers whose packages don't go with ours. ``make bench-peers`` makes them."""

import shutil
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
LOCKS = Path(__file__).parent
ENVIRONMENTS = PROJECT / ".cache" / "bench"


@dataclass(frozen=True, slots=True)
class Environment:
    """One virtual environment; ``NAME.in`` beside this file says what it is for, ``NAME.lock`` what is in it."""

    name: str
    root: Path = ENVIRONMENTS

    @property
    def lock(self) -> Path:
        """The packages, each with its hashes."""
        return LOCKS / f"{self.name}.lock"

    @property
    def directory(self) -> Path:
        """Where it is."""
        return self.root / self.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.directory / "bin" / "python"

    @property
    def _installed(self) -> Path:
        """The lock that it was made from; written when it is whole."""
        return self.directory / "installed.lock"

    def missing(self) -> str | None:
        """Why it can't be used."""
        if not self._installed.exists():
            return f"{self.name} is not installed: `make bench-peers` does it"
        if self._installed.read_bytes() != self.lock.read_bytes():
            return f"{self.name} is not the version that its lock names: `make bench-peers` installs that"
        return None

    def make(self) -> None:
        """Anew, unless it is what its lock says. Raises subprocess.CalledProcessError when pip can't; pip has said why."""
        if self.missing() is None:
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        venv.create(self.directory, with_pip=True)
        options = ("--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:")
        subprocess.run([self.python, "-m", "pip", "install", *options, "-r", self.lock], check=True)  # noqa: S603 - our own
        shutil.copyfile(self.lock, self._installed)


QUIX_STREAMS = Environment("quix-streams")
AIOBOTOCORE = Environment("aiobotocore")
EVERY = (QUIX_STREAMS, AIOBOTOCORE)
