"""SIGTERM and SIGINT, for a process of many threads and no event loop.

A handler of Python's own may never run here. The system may let any thread take a signal, above all one that just starts another
thread; Python calls the handler in the main thread, and only when that wakes: the system woke it for a signal that was then gone,
so it went back to sleep. (Seen: 43 of 200 were lost, sent to a process that starts threads while its main thread waits.) And a
handler that sets an Event can stop for ever at a lock that the main thread holds. So all threads leave both signals to one that
waits for nothing else.
"""

import os
import signal
from collections.abc import Callable
from threading import Thread

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def call_on_stop_signal(stop: Callable[[], None]) -> None:
    """Call ``stop`` in a thread of its own at the first signal; the second ends the process at once with 128 and its number.

    To be called before other threads are started: they inherit that they do not take these signals. So do processes.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def wait_for_signals() -> None:
        signal.sigwait(STOP_SIGNALS)
        stop()
        os._exit(128 + signal.sigwait(STOP_SIGNALS))  # without a flush: whoever stops twice may do so because stderr is stuck

    Thread(target=wait_for_signals, name="stop-signals", daemon=True).start()
