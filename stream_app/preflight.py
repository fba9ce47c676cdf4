"""What a worker looks at before it joins the consumer group: one that can't write takes no partition from those that can.

A check raises :class:`FatalError` for what only a person mends, which ends the worker, and :class:`RetryableError` for what may
pass, which is waited for outside the group. After a wait all are looked at again: a worker joins when all have passed in one round.

Once it runs it keeps its partitions whatever comes, and tries for ever: then nobody can say whether others could write.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from pipeline.errors import RetryableError
from stream_app.health import Dependency

log = structlog.get_logger(__name__)

WAIT_SECONDS = 1.0
"""Between two rounds."""

REPEAT_SECONDS = 60.0
"""How often it is said what is waited for, while that stays the same check."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at."""

    name: str
    dependency: Dependency
    look: Callable[[], Awaitable[None]]


async def look_at_all(checks: Sequence[Check]) -> list[tuple[Check, RetryableError]]:
    """One round; what is to be waited for, at most one check of each dependency. Raises FatalError.

    When a dependency does not answer, the rest of its checks would only say so again.
    """
    waits: list[tuple[Check, RetryableError]] = []
    for check in checks:
        if any(check.dependency == waiting.dependency for waiting, _ in waits):
            continue
        try:
            await check.look()
        except RetryableError as error:
            waits.append((check, error))
    return waits


class WaitLog:
    """Says what is waited for, of each dependency: at once, when it is another check's, once a minute, and when it is over."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._waits: dict[Dependency, tuple[str, float, float]] = {}  # the check, when it began, when it was said

    def waits(self, check: Check, error: RetryableError) -> None:
        """It is waited for what the check found."""
        now = self._monotonic()
        name, began_at, said_at = self._waits.get(check.dependency, ("", now, now))
        if name != check.name or now - said_at >= REPEAT_SECONDS:
            self._waits[check.dependency] = check.name, began_at, now
            log.warning(
                "start_waits",
                dependency=check.dependency,
                check=check.name,
                problem=str(error),
                waited_seconds=round(now - began_at, 1),
            )

    def passed(self, dependency: Dependency) -> None:
        """All checks of the dependency have passed."""
        waited = self._waits.pop(dependency, None)
        if waited is not None:
            log.info("start_goes_on", dependency=dependency, waited_seconds=round(self._monotonic() - waited[1], 1))
