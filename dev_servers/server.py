"""What the dev servers have in common: started, stopped, killed and started again on the same port, in a directory of their own."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import ClassVar, Self

from dev_servers.process import ChildProcess, DevServerError, Launch

INTERRUPT_SECONDS = 0.1


class Server(ABC):
    """One server on 127.0.0.1. Its data and its log are in ``directory``, and are there again after another start."""

    name: ClassVar[str]
    start_seconds: ClassVar[float] = 60.0

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.log_file = self.directory / f"{self.name}.log"
        self._child: ChildProcess | None = None
        self._log_from = 0  # where the log of the present start begins

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables that point bridge, worker and boto3 here."""
        return {}

    @property
    def child(self) -> ChildProcess:
        """The running process, for tests that stop or watch it."""
        if self._child is None:
            raise RuntimeError(f"{self.name} is not started")
        return self._child

    def start(self) -> Self:
        """Start it and wait until it answers. Raises :class:`DevServerError` with the end of its log."""
        if self._child is not None:
            raise RuntimeError(f"{self.name} is already started")
        self.directory.mkdir(parents=True, exist_ok=True)
        child = ChildProcess(self.name, self._launch(), self.log_file)
        self._log_from = child.log_from
        self._child = child  # from here on another thread may stop it
        try:
            child.wait_until(self._is_ready, self.start_seconds)
        except BaseException:
            self._child = None
            child.kill()
            raise
        return self

    def stop(self, number: Signals | None = None) -> None:
        """Stop it in its orderly way, or by the signal ``number``. Nothing happens when it isn't started."""
        child, self._child = self._child, None
        if child is not None:
            child.stop(number)

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        self.stop(Signals.SIGKILL)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @abstractmethod
    def _launch(self) -> Launch:
        """Make the directory ready and say what to run."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether it answers; asked again and again from the start on."""


def start_together(
    servers: Sequence[Server],
    on_ready: Callable[[Server, float], None] = lambda _, __: None,
    interrupt: Callable[[], None] = lambda: None,
) -> None:
    """Start all at once; ``on_ready`` is called with each and its seconds. If one fails, all are stopped.

    ``interrupt`` is called again and again meanwhile; what it raises counts as a failure.
    """
    began = time.monotonic()
    with ThreadPoolExecutor(max(len(servers), 1)) as pool:
        starts = {pool.submit(server.start): server for server in servers}
        try:
            pending = set(starts)
            while pending:
                done, pending = wait(pending, INTERRUPT_SECONDS, FIRST_COMPLETED)
                interrupt()
                for start in done:
                    start.result()
                    on_ready(starts[start], time.monotonic() - began)
        except BaseException:
            stop_together(servers)  # ends the starts that wait for an answer, too
            wait(starts)
            stop_together(servers)  # those that had nothing to stop yet: Postgres was making its data directory
            raise


def stop_together(servers: Sequence[Server]) -> None:
    """Stop all at once; returns when nothing is left of them."""
    with ThreadPoolExecutor(max(len(servers), 1)) as pool:
        list(pool.map(lambda server: server.stop(), servers))


__all__ = ["DevServerError", "Server", "start_together", "stop_together"]
