"""Threads that are watched: one that ends by an error is reported at once, one that makes no step any more is seen by /livez."""

import threading
import time
from collections.abc import Callable, Sequence

import structlog

from pipeline.errors import FatalError

_log = structlog.stdlib.get_logger("bridges.threads")

Beat = Callable[[], None]
"""To be called by a thread at each step of its loop."""


class ThreadDiedError(FatalError):
    """A thread ended by an error that nobody raised on purpose."""


class StepThreads:
    """Daemon threads: a request that hangs does not keep the process from ending."""

    def __init__(self, on_failure: Callable[[FatalError], None], monotonic: Callable[[], float] = time.monotonic) -> None:
        """``on_failure`` is called in the thread that ended by an error."""
        self._on_failure = on_failure
        self._monotonic = monotonic
        self._beats: dict[str, float] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._failed: set[str] = set()

    def start(self, name: str, body: Callable[[Beat], None]) -> None:
        """Run ``body`` in a new thread until it returns."""
        thread = threading.Thread(target=self._run, args=(name, body), name=name, daemon=True)
        self._beats[name] = self._monotonic()
        self._threads[name] = thread
        thread.start()

    def join(self, prefix: str, deadline: float) -> bool:
        """Wait until the threads whose names begin so have returned; False if one has not by ``deadline``."""
        threads = [thread for name, thread in list(self._threads.items()) if name.startswith(prefix)]
        for thread in threads:
            thread.join(max(0.0, deadline - self._monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def failed(self) -> list[str]:
        """The names of those that ended by an error."""
        return sorted(self._failed)

    def silent(self, seconds: float) -> list[str]:
        """The names of those that are alive and made no step for ``seconds``."""
        before = self._monotonic() - seconds
        return sorted(name for name, beat in list(self._beats.items()) if beat < before and self._threads[name].is_alive())

    def _run(self, name: str, body: Callable[[Beat], None]) -> None:
        def beat() -> None:
            self._beats[name] = self._monotonic()

        try:
            body(beat)
        except FatalError as error:
            self._failed.add(name)
            self._on_failure(error)
        except BaseException as error:  # noqa: BLE001 - whatever it is: a thread that is missing in silence is the worst
            self._failed.add(name)
            _log.exception("thread_died", thread=name)
            self._on_failure(
                ThreadDiedError(f"the thread {name} ended by {type(error).__name__}, see the log; start the bridge again")
            )


def in_parallel(work: Sequence[Callable[[], None]], threads_max: int, seconds: float | None = None) -> bool:
    """Do all of ``work`` in up to ``threads_max`` threads; False if some was not done within ``seconds``.

    What is late goes on in its thread. Work that raises ends its thread: it has to deal with its errors itself.
    """
    left = iter(work)
    taking = threading.Lock()

    def take() -> None:
        while True:
            with taking:
                one = next(left, None)
            if one is None:
                return
            one()

    threads = [threading.Thread(target=take, name=f"requests-{n}", daemon=True) for n in range(min(threads_max, len(work)))]
    deadline = None if seconds is None else time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)
