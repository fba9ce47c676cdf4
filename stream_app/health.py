"""What /livez and /readyz answer.

/livez says whether only a restart can help: the event loop has not moved for a while. Postgres or Kafka being away is no reason: a
restarted worker would not find them either, and would lose what it holds in hand. /readyz says what is being waited for.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from pipeline.operations import Health
from stream_app.partitions import Partitions

LOOP_STUCK_SECONDS = 60.0
_BEAT_SECONDS = 1.0


class WorkerHealth:
    """Written by the event loop, read by the operations server's threads."""

    def __init__(self, partitions: Partitions, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._partitions = partitions
        self._monotonic = monotonic
        self._beat_at = monotonic()
        self.waiting_for: str | None = "start"

    async def beat(self) -> None:
        """Show for ever that the event loop moves."""
        while True:
            self._beat_at = self._monotonic()
            await asyncio.sleep(_BEAT_SECONDS)

    def livez(self) -> Health:
        """503 when only a restart can help."""
        silent = self._monotonic() - self._beat_at
        return Health(silent < LOOP_STUCK_SECONDS, {"event_loop_silent_seconds": round(silent, 1)})

    def readyz(self) -> Health:
        """503 while anything is waited for: it is named."""
        details: dict[str, Any] = {}
        if self.waiting_for is not None:
            details["waiting_for"] = self.waiting_for
        elif not self._partitions.assigned:
            details["waiting_for"] = "an assignment from the Kafka consumer group"
        problems = self._partitions.problems()
        if problems:
            details["partitions"] = problems
        return Health(not details, details)
