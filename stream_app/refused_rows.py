"""Tells of rows that are dead letters since Postgres refused them: in the log, once a minute a reason at most, and for /readyz."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from stream_app.dead_letters import DeadLetter
from stream_app.positions import Partition
from stream_app.refusals import Refusal

log = structlog.get_logger(__name__)

SAID_AGAIN_SECONDS = 60.0
SHOWN_SECONDS = 600.0
"""So long after its last row a reason is shown."""

REASONS_MAX = 100
"""Of all that are kept: reasons are names of the schema, so there are few."""


@dataclass(slots=True)
class _Seen:
    """Of one reason."""

    partition: Partition
    offset: int
    """Those of the last row."""
    at: float
    rows: int = 0
    """Since it was first shown."""
    unsaid: int = 0
    said_at: float | None = None


class RefusedRows:
    """Of one worker, all its partitions together. Event loop only, but for :meth:`recent`, which the metrics thread may call."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._seen: dict[Refusal, _Seen] = {}

    def became(self, partition: Partition, letter: DeadLetter) -> None:
        """A dead letter was written."""
        if letter.refusal is None or (letter.refusal not in self._seen and len(self._seen) >= REASONS_MAX):
            return
        seen = self._seen.setdefault(letter.refusal, _Seen(partition, letter.offset, self._monotonic()))
        seen.partition, seen.offset, seen.at = partition, letter.offset, self._monotonic()
        seen.rows += 1
        seen.unsaid += 1

    def look(self) -> None:
        """Say what is due. Called after each batch that had some, and every few seconds."""
        now = self._monotonic()
        for refusal, seen in list(self._seen.items()):
            if seen.unsaid and (seen.said_at is None or now - seen.said_at >= SAID_AGAIN_SECONDS):
                log.warning(
                    "row_refused",
                    rows=seen.unsaid,
                    topic=seen.partition.topic,
                    partition=seen.partition.partition,
                    last_offset=seen.offset,
                    **refusal.named(),
                )
                seen.unsaid, seen.said_at = 0, now
            if now - seen.at >= SHOWN_SECONDS:
                del self._seen[refusal]

    def recent(self) -> list[Mapping[str, str | int]]:
        """Each reason of the last minutes, and of how many rows."""
        return [{**refusal.named(), "rows": seen.rows} for refusal, seen in list(self._seen.items())]
