"""One child process: its log in a file, a start that waits until it is ready, an end that leaves nothing behind."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SUPERVISOR = Path(__file__).with_name("supervisor.py")
LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 16_384
READY_POLL_SECONDS = 0.02
PREVIOUS_SECONDS = 30.0
"""How long a start waits for the same directory's previous child, which may be stopping since its asker was killed."""


class DevServerError(Exception):
    """A server or process could not be started or ended early: which one, why, and the end of its log."""

    def __init__(self, name: str, reason: str, log_file: Path | None = None, log_from: int = 0) -> None:
        message = f"{name}: {reason}"
        if log_file is not None:
            tail = log_tail(log_file, log_from)
            message += f"\nthe end of {log_file}:\n{tail}" if tail else f"\nits log, {log_file}, is empty"
        super().__init__(message)
        self.name = name
        self.reason = reason


def log_tail(log_file: Path, log_from: int = 0) -> str:
    """The last lines that were written to the log after byte ``log_from``, each with two spaces before it."""
    with log_file.open("rb") as log:
        end = log.seek(0, os.SEEK_END)
        log.seek(max(log_from, end - LOG_TAIL_BYTES))
        lines = log.read().decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])


@dataclass(frozen=True, slots=True)
class Launch:
    """What to run and how it is stopped."""

    command: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Set on top of our own environment."""
    directory: Path | None = None
    """The working directory."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0
    """After the stop signal; then SIGKILL."""
    leave_root: bool = False
    """Run as ``nobody`` if we are root."""


class ChildProcess:
    """A running child. It ends when this process ends, whatever ends it: see :mod:`dev_servers.supervisor`."""

    def __init__(self, name: str, launch: Launch, log_file: Path) -> None:
        """Start it. Raises :class:`DevServerError` when that can't be done, or when the log's directory has another child."""
        self.name = name
        self.log_file = log_file
        self.log_from = log_file.stat().st_size if log_file.exists() else 0
        """Where this run's lines begin: the log is appended to."""
        self._launch = launch
        self._returncode: int | None = None
        self._collecting = threading.Lock()
        lock = self._lock()
        try:
            with log_file.open("ab") as log:
                self._supervisor = subprocess.Popen(  # noqa: S603 - the command is the caller's purpose
                    [sys.executable, "-I", "-S", SUPERVISOR, self._options()],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env={**os.environ, **launch.environment},
                    start_new_session=True,  # Ctrl-C in a terminal is for us: we stop the children in order
                    pass_fds=[lock],
                )
        finally:
            os.close(lock)
        if self._supervisor.stdout is None:
            raise RuntimeError("the supervisor was started with a pipe")
        self._reports = self._supervisor.stdout
        word, _, rest = self._reports.readline().decode().strip().partition(" ")
        if word != "started":
            self._close()
            self._reports.close()
            raise DevServerError(name, f"could not be started: {rest}", log_file, self.log_from)
        self.pid = int(rest)

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that ended it. Only known once nothing is left of it."""
        if self._returncode is None and self._supervisor.poll() is not None:
            self._collect()
        return self._returncode

    def wait_until(self, ready: Callable[[], bool], seconds: float, state: Callable[[], str] = lambda: "") -> None:
        """Poll ``ready``; raises :class:`DevServerError`, with the child stopped, when it ends before or the time is over.

        ``state``: what more to say when the time is over.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if self.returncode is not None:
                raise DevServerError(self.name, f"ended while starting, {self.how_it_ended()}", self.log_file, self.log_from)
            if time.monotonic() >= deadline:
                reason = f"was not ready within {seconds:g} s{state()}"
                self.kill()
                raise DevServerError(self.name, reason, self.log_file, self.log_from)
            time.sleep(READY_POLL_SECONDS)

    def send_signal(self, number: signal.Signals) -> None:
        """Send the child a signal, SIGSTOP and SIGCONT too. Nothing happens when it has ended."""
        self._tell(number)

    def wait(self, seconds: float) -> int:
        """Its return code, once it ends by itself. Raises :class:`DevServerError` when it takes longer."""
        try:
            self._supervisor.wait(seconds)
        except subprocess.TimeoutExpired:
            raise DevServerError(self.name, f"did not end within {seconds:g} s", self.log_file, self.log_from) from None
        return self._collect()

    def stop(self, number: signal.Signals | None = None) -> int:
        """End it by its stop signal or ``number``, by SIGKILL when that takes too long; returns when nothing is left of it."""
        if number is not None:
            self._tell(number)
        self._close()
        return self._collect()

    def kill(self) -> int:
        """SIGKILL; returns when nothing is left of it."""
        return self.stop(signal.SIGKILL)

    def check(self) -> None:
        """Raise :class:`DevServerError` if it has ended."""
        if self.returncode is not None:
            raise DevServerError(self.name, f"ended early, {self.how_it_ended()}", self.log_file, self.log_from)

    def how_it_ended(self) -> str:
        """Of one that has ended: by which signal, or with which exit code."""
        code = self._collect()
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"

    def _options(self) -> str:
        return json.dumps(
            {
                "command": [str(part) for part in self._launch.command],
                "directory": None if self._launch.directory is None else str(self._launch.directory),
                "stop_signal": self._launch.stop_signal,
                "stop_seconds": self._launch.stop_seconds,
                "leave_root": self._launch.leave_root,
            }
        )

    def _lock(self) -> int:
        """A lock beside the log, which the supervisor inherits: it is held for as long as anything of this child may be left."""
        lock = os.open(self.log_file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + PREVIOUS_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(READY_POLL_SECONDS)
                    continue
                os.close(lock)
                raise DevServerError(self.name, f"another one is running in {self.log_file.parent}; stop that one first") from None
            return lock

    def _tell(self, number: signal.Signals) -> None:
        if self._supervisor.stdin is None or self._supervisor.stdin.closed:
            return
        try:
            self._supervisor.stdin.write(b"%d\n" % number)
            self._supervisor.stdin.flush()
        except BrokenPipeError:
            return  # it has ended

    def _close(self) -> None:
        """End the lifeline and wait: the supervisor does the rest."""
        if self._supervisor.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it has ended already
                self._supervisor.stdin.close()
        self._supervisor.wait()

    def _collect(self) -> int:
        with self._collecting:
            return self._collect_once()

    def _collect_once(self) -> int:
        if self._returncode is None:
            word, _, rest = self._reports.read().decode().strip().rpartition(" ")
            self._returncode = int(rest) if word.endswith("ended") else -signal.SIGKILL
            self._reports.close()
            if self._supervisor.stdin is not None and not self._supervisor.stdin.closed:
                self._close()
        return self._returncode
