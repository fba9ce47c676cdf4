"""The end of a process is sure: whatever hangs when it is to stop or has crashed, it ends within a bound, with a code and a line.

A thread of its own watches, from the start: when things are as bad as that, an event loop may stand still, a lock be held for ever,
and no other thread be had. It leaves as long as an orderly end may take, for what is in hand is written meanwhile; then it ends the
process by ``os._exit``. That loses nothing: what was not written is read again.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from pipeline.operations import Health

log = structlog.stdlib.get_logger("pipeline.ending")

EXIT_CRASHED = 70
"""It crashed, and its orderly end did not come to an end (sysexits.h: EX_SOFTWARE)."""

EXIT_REFUSED = 78
"""What a person has to mend was found before it began; to start it again as it is changes nothing (sysexits.h: EX_CONFIG)."""

EXIT_STOP_OUTLASTED = 124
"""It was told to stop, and did not within its bound; as timeout(1) has it."""

LOOK_SECONDS = 1.0
LAST_LINE_SECONDS = 1.0
"""For the last line: who reads the log may have stopped reading, and the handler's lock may be held."""


class Ending:
    """Ends the process ``seconds`` after a stop has begun or a crash was seen, unless it has ended by itself."""

    def __init__(self, seconds: float, *crashes: Callable[[], str | None]) -> None:
        """``crashes``: each says what has crashed, if anything; called every second, in the watching thread."""
        self._seconds = seconds
        self._crashes = list(crashes)
        self._stopping = threading.Event()
        self.crashed: str | None = None
        """What has; it does not come back."""

    def also_watch(self, crash: Callable[[], str | None]) -> None:
        """Ask this one, too; before :meth:`start`."""
        self._crashes.append(crash)

    def start(self) -> None:
        """Watch from now on."""
        threading.Thread(target=self._watch, name="ending", daemon=True).start()

    def stopping(self, error: BaseException | None = None) -> None:
        """A stop has begun, by a signal or by ``error``: it may take so long, or what is left of that since a crash was seen."""
        if error is not None and not self._stopping.is_set():
            self.crashed = self.crashed or type(error).__name__
        self._stopping.set()

    def livez(self, check: Callable[[], Health]) -> Callable[[], Health]:
        """The check, which fails when something has crashed: also where that could not be ended."""

        def checked() -> Health:
            health = check()
            if self.crashed is None:
                return health
            return replace(health, ok=False, details={**health.details, "crashed": self.crashed})

        return checked

    def _watch(self) -> None:
        while self.crashed is None and not self._stopping.wait(LOOK_SECONDS):
            try:
                self.crashed = next(filter(None, (crash() for crash in self._crashes)), None)
            except Exception as error:  # noqa: BLE001 - a watch that ends in silence is the worst
                self.crashed = f"whether something has crashed can't be told ({type(error).__name__})"
        if self.crashed is not None:
            _say_within(LAST_LINE_SECONDS, lambda: log.critical("crashed", what=self.crashed, ends_within_seconds=self._seconds))
        time.sleep(self._seconds)
        code = EXIT_STOP_OUTLASTED if self.crashed is None else EXIT_CRASHED
        why = "its stop took too long" if self.crashed is None else f"after a crash, its stop took too long: {self.crashed}"
        _say_within(LAST_LINE_SECONDS, lambda: log.critical("ended_at_once", why=why, seconds=self._seconds, exit_code=code))
        os._exit(code)


def _say_within(seconds: float, say: Callable[[], None]) -> None:
    thread = threading.Thread(target=say, name="last-line", daemon=True)
    with suppress(RuntimeError):  # there may be no thread to be had any more
        thread.start()
        thread.join(seconds)
