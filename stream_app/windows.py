"""When a micro-batch closes: by rows, by bytes, or by time; whichever comes first.

The policy is a value, the state another object, and the clock is handed in, so both are tested without waiting.
"""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Generic, Protocol, TypeVar

RECORD_OVERHEAD_BYTES = 768
"""What a fetched record takes beside its key and value: the objects and its headers. Measured with the bridge's headers: 747."""


class SizedRecord(Protocol):
    """What a window asks of a record."""

    @property
    def key(self) -> bytes | None:
        """What it was partitioned by."""

    @property
    def value(self) -> bytes | None:
        """The body."""


RecordT = TypeVar("RecordT", bound=SizedRecord)


class Trigger(StrEnum):
    """Why a window closed."""

    ROWS = "rows"
    BYTES = "bytes"
    SECONDS = "seconds"
    FLUSH = "flush"


@dataclass(frozen=True, slots=True)
class WindowPolicy:
    """The bounds of one micro-batch, in memory. A record larger than ``bytes`` makes a window of its own."""

    rows: int
    bytes: int
    seconds: float


def memory_bytes(records: Collection[SizedRecord]) -> int:
    """What these records hold in memory, near enough to bound it."""
    return sum([len(record.value or b"") + len(record.key or b"") for record in records]) + len(records) * RECORD_OVERHEAD_BYTES


class Window(Generic[RecordT]):
    """The records of one partition that wait to be written, in order."""

    def __init__(self, policy: WindowPolicy) -> None:
        self.policy = policy
        self.rows = 0
        self.bytes = 0
        self.due_at: float | None = None
        self.oldest: RecordT | None = None
        """The record that has waited longest; an attribute, since the metrics thread looks at it too."""
        self._records: deque[RecordT] = deque()

    def add(self, records: Sequence[RecordT], held_bytes: int, now: float) -> None:
        """Take records in at monotonic second ``now``; ``held_bytes``: their :func:`memory_bytes`, which the caller knows."""
        self._records.extend(records)
        self.rows += len(records)
        self.bytes += held_bytes
        if self.due_at is None:
            self.due_at = now + self.policy.seconds
            self.oldest = self._records[0]

    def due(self, now: float) -> Trigger | None:
        """Why the window must close at ``now``, or None."""
        if self.rows >= self.policy.rows:
            return Trigger.ROWS
        if self.bytes >= self.policy.bytes:
            return Trigger.BYTES
        if self.due_at is not None and now >= self.due_at:
            return Trigger.SECONDS
        return None

    def seconds_until_due(self, now: float) -> float | None:
        """How long the window may stay open without further records; None while it is empty."""
        return None if self.due_at is None else max(0.0, self.due_at - now)

    def take(self, now: float) -> list[RecordT]:
        """Close the window: its records up to the bounds. What is over opens the next window at ``now``."""
        if self.bytes <= self.policy.bytes:
            count = min(self.rows, self.policy.rows)
        else:
            count, total = 0, 0
            for record in islice(self._records, self.policy.rows):
                total += memory_bytes((record,))
                if total > self.policy.bytes and count:
                    break
                count += 1
        popleft = self._records.popleft
        taken = [popleft() for _ in range(count)]
        self.rows -= count
        # Either side tells the other; the shorter one is counted.
        self.bytes = memory_bytes(self._records) if self.rows < count else self.bytes - memory_bytes(taken)
        self.due_at = now + self.policy.seconds if self._records else None
        self.oldest = self._records[0] if self._records else None
        return taken

    def clear(self) -> int:
        """Drop everything; the bytes that were held are returned."""
        held = self.bytes
        self._records.clear()
        self.rows = self.bytes = 0
        self.due_at = self.oldest = None
        return held
