"""Where a demo that stays up is found: an environment file for a shell, and its processes for ``make demo KILL=…``."""

import fcntl
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dev_servers.postgres import program
from dev_servers.process import DevServerError

ENVIRONMENT_FILE = Path(".demo/demo.env")


class DemoPlace:
    """An environment file, and beside it the processes. There is at most one demo at a place."""

    def __init__(self, environment_file: Path) -> None:
        self.environment_file = environment_file
        self._processes_file = environment_file.with_suffix(".json")
        self._lock_file = environment_file.with_suffix(".lock")

    @contextmanager
    def taken(self) -> Iterator[None]:
        """For as long as the body runs. Raises :class:`DevServerError` when another demo is there."""
        self.environment_file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock_file.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DevServerError(
                    "demo", f"another one stays up with {self.environment_file}; stop that one first, or give another --env-file"
                ) from None
            try:
                yield
            finally:
                for file in (self.environment_file, self._processes_file, self._lock_file):
                    file.unlink(missing_ok=True)

    def write_environment(self, environment: Mapping[str, str]) -> None:
        """For ``set -a; . FILE``: the addresses, and a PATH where our commands and psql are found."""
        lines = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
        path = f"{Path(sys.executable).parent}:{program('psql').parent}"
        _write(self.environment_file, "\n".join([*lines, f'PATH={shlex.quote(path)}:"$PATH"', ""]))

    def write_processes(self, pids: Mapping[str, int]) -> None:
        """Anew whenever one was started again."""
        _write(self._processes_file, json.dumps(pids))

    def processes(self) -> dict[str, int]:
        """Of the demo that is there. Raises :class:`DevServerError` when there is none."""
        try:
            with self._lock_file.open() as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return dict(json.loads(self._processes_file.read_text()))
        except FileNotFoundError:
            pass
        raise DevServerError("demo", "none stays up here; start one: make demo KEEP=1")


def _write(file: Path, text: str) -> None:
    """Whole or not at all; readable by the owner only, for there is a password in it."""
    descriptor, scratch = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    with os.fdopen(descriptor, "w") as content:
        content.write(text)
    Path(scratch).replace(file)
