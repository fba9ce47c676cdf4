"""When a micro-batch closes: by rows, by bytes, or by time; whichever comes first.

The policy is a value, the state another object, and the clock is handed in, so both are tested without waiting.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic

from stream_app.chunk import RECORD_OVERHEAD_BYTES, Chunk, RecordT, Unread, Unreadable, memory_bytes

SLICE_RECORDS = 128
"""So many are unpacked at a time: a hundred kilobytes, which stay in the processor's cache through all passes over them, also while
others want it. It is also what one bad record costs: its slice is looked at value by value."""

STEP_RECORDS = 32
"""So many are unpacked before their size is looked at, or fewer: what comes of one piece, two MiB at most (record_pieces.py)."""

SLICE_BYTES = 2 * 1_048_576
"""No more are unpacked at a time than make this full: a record may be all headers, which take thirty times as much as objects."""


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


class Window(Generic[RecordT]):
    """The records of one partition that wait to be written, in order."""

    def __init__(self, policy: WindowPolicy) -> None:
        self.policy = policy
        self.rows = 0
        """How many wait, at most."""
        self.bytes = 0
        """The memory that they hold while they are packed."""
        self.due_at: float | None = None
        self.oldest: RecordT | Unread[RecordT] | None = None
        """The record that has waited longest; an attribute, since the metrics thread looks at it too."""
        self.offsets_without_record = 0
        """Of all chunks that were taken whole, since the window was made."""
        self.offsets_compacted = 0
        """Likewise."""
        self._chunks: deque[Chunk[RecordT]] = deque()
        self._is_left_for_bytes = False

    def add(self, chunk: Chunk[RecordT], now: float) -> None:
        """Take a chunk in at monotonic second ``now``."""
        self._chunks.append(chunk)
        self.rows += chunk.rows
        self.bytes += chunk.bytes
        if self.due_at is None:
            self._opens(now)

    def due(self, now: float) -> Trigger | None:
        """Why the window must close at ``now``, or None."""
        if self.rows >= self.policy.rows:
            return Trigger.ROWS
        if self.bytes >= self.policy.bytes or self._is_left_for_bytes:
            return Trigger.BYTES
        if self.due_at is not None and now >= self.due_at:
            return Trigger.SECONDS
        return None

    def seconds_until_due(self, now: float) -> float | None:
        """How long the window may stay open without further records; None while it is empty."""
        return None if self.due_at is None else max(0.0, self.due_at - now)

    def slices(self, now: float, bytes_max: int, origins: list[Chunk[RecordT]]) -> Iterator[tuple[list[RecordT], int]]:
        """Close the window: its records, unpacked slice by slice, and the memory that each slice takes.

        Each chunk that they come from is added to ``origins``. The bounds are those of the policy, and ``bytes_max`` if it is less.
        What is over opens the next window at ``now``; what is over because of bytes is due at once, since how many they are is
        known only when they are unpacked. What can't be unpacked is over, too, and what takes long to go through.
        """
        rows, room = 0, min(self.policy.bytes, bytes_max)
        while rows < self.policy.rows:
            records, size = self._slice(min(SLICE_RECORDS, self.policy.rows - rows), room, origins, not rows)
            if not records:
                break
            rows, room = rows + len(records), room - size
            yield records, size
        self.due_at = self.oldest = None
        self._is_left_for_bytes = bool(self._chunks) and rows < self.policy.rows
        if self._chunks:
            self._opens(now)

    @property
    def unreadable(self) -> Exception | None:
        """Why the next record can't be unpacked, if so: what is behind it can't be either."""
        following = self._chunks[0].next if self._chunks else None
        return following.error if isinstance(following, Unreadable) else None

    @property
    def unread(self) -> Chunk[RecordT] | None:
        """The chunk whose next record takes long to go through, if it is the next of all: see :meth:`Chunk.read_next`."""
        chunk = self._chunks[0] if self._chunks else None
        return chunk if chunk is not None and isinstance(chunk.next, Unread) else None

    def has_read(self, chunk: Chunk[RecordT], rows: int, held: int) -> int:
        """That chunk had so many rows and held so many bytes before: by how many more bytes the window holds now."""
        if not self._chunks or self._chunks[0] is not chunk:
            return 0  # it was dropped meanwhile
        grown = chunk.bytes - held
        self.rows += chunk.rows - rows
        self.bytes += grown
        if chunk.next is None:
            self._pop()
        return grown

    def _pop(self) -> None:
        chunk = self._chunks.popleft()
        self.offsets_without_record += chunk.offsets_without_record
        self.offsets_compacted += chunk.offsets_compacted

    def _opens(self, now: float) -> None:
        self.due_at = now + self.policy.seconds
        first = self._chunks[0].next
        self.oldest = None if isinstance(first, Unreadable) else first

    def _slice(
        self,
        count: int,
        room: int,
        origins: list[Chunk[RecordT]],
        at_least_one: bool,  # noqa: FBT001 - of this class only
    ) -> tuple[list[RecordT], int]:
        """Up to ``count`` records that take no more than ``room`` bytes together, and how many bytes they take."""
        taken: list[RecordT] = []
        size = 0
        while self._chunks and len(taken) < count and size < SLICE_BYTES:
            chunk = self._chunks[0]
            fitting = max(0, room - size) // (chunk.next_bytes + RECORD_OVERHEAD_BYTES)
            if isinstance(chunk.next, (Unread, Unreadable)) or (not fitting and (taken or not at_least_one)):
                break
            if not origins or origins[-1] is not chunk:
                origins.append(chunk)
            rows, held, unpacked = chunk.rows, chunk.bytes, chunk.unpacked_bytes
            records = chunk.take(min(STEP_RECORDS, count - len(taken), max(1, fitting)))
            self.rows += chunk.rows - rows
            self.bytes += chunk.bytes - held
            if chunk.next is None:
                self._pop()
            size += max(memory_bytes(records), chunk.unpacked_bytes - unpacked)
            taken += records
        return taken, size

    def clear(self) -> None:
        """Drop everything."""
        self._chunks.clear()
        self.rows = self.bytes = 0
        self.due_at = self.oldest = None
        self._is_left_for_bytes = False
