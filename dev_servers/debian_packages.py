"""A program of a Debian or Ubuntu package without root: the system's own apt-get fetches it, and it is unpacked into the cache.

apt checks what it fetches against the signed lists of the system's own sources, so no address and no hash stands here. Nothing is
installed, no service is started, and only files below the cache are written.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dev_servers.cache import cache_directory
from dev_servers.process import DevServerError

FETCH_SECONDS = 300.0
PARTS_OF_PAGES = re.compile(r"^(?:libjs|fonts)-\S+$")
"""Packages that a package's own web pages are made of. Libraries that programs need are not fetched: only libc is used so far."""

NEVER_READ = "usr/share/javascript/*/data/unpacked"
"""Of these, time zones of many years as text: 200 MB."""


def unpacked(package: str) -> Path:
    """Below which directory the package's files are, or will be: ``usr/bin`` and so on."""
    return cache_directory() / "debian" / package


def fetch(package: str) -> None:
    """Fetch and unpack it, and what its web pages are made of. Raises :class:`DevServerError` that says what to do instead.

    Of several processes that fetch at once each unpacks by itself, and the first one's files stay.
    """
    for name in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(name) is None:
            raise DevServerError(package, f"{name}, which would fetch it, is not on this system")
    sys.stderr.write(f"fetching the package {package} with apt-get, only this once; nothing is installed\n")
    place = unpacked(package)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix="fetch-") as scratch:
        downloads, files = Path(scratch, "downloads"), Path(scratch, "files")
        downloads.mkdir()
        try:
            _download(package, [], downloads)
        except DevServerError:  # a fresh container has no lists, an old machine lists of what is no longer there
            own_lists = _own_lists(Path(scratch))
            _run(package, ["apt-get", *own_lists, "update"], downloads)
            _download(package, own_lists, downloads)
        for file in downloads.glob("*.deb"):
            _run(package, ["dpkg-deb", "--extract", str(file), str(files)], downloads)
        for directory in files.glob(NEVER_READ):
            shutil.rmtree(directory)
        try:
            files.rename(place)
        except OSError:
            if not place.is_dir():
                raise


def _download(package: str, options: Sequence[str], directory: Path) -> None:
    kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    listed = _run(package, ["apt-cache", *options, "depends", "--recurse", *(f"--no-{kind}" for kind in kinds), package], directory)
    parts = [line for line in listed.splitlines() if PARTS_OF_PAGES.match(line)]
    # As root apt would fetch as a user of its own, who may not write here.
    _run(package, ["apt-get", *options, "-o", "APT::Sandbox::User=root", "download", package, *parts], directory)


def _own_lists(scratch: Path) -> list[str]:
    """Options of apt for lists of our own: only root may renew the system's."""
    lists = scratch / "lists"
    for directory in (lists / "partial", scratch / "archives" / "partial"):
        directory.mkdir(parents=True)
    return [
        "-o", f"Dir::State={scratch}", "-o", f"Dir::State::lists={lists}", "-o", "Dir::State::status=/var/lib/dpkg/status",
        "-o", f"Dir::Cache={scratch}", "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip


def _run(package: str, command: Sequence[str], directory: Path) -> str:
    """What it prints. Raises :class:`DevServerError` with its last line."""
    try:
        done = subprocess.run(  # noqa: S603 - apt and dpkg, with arguments from above
            command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise DevServerError(package, f"{command[0]} did not fetch it within {FETCH_SECONDS:g} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise DevServerError(package, f"{command[0]} can't fetch it: {said}")
    return done.stdout
