"""A chunk: the records of one fetch of one partition, as Kafka packed them until they are taken.

What waits so takes a tenth of the memory that unpacked records do, and a record that is unpacked, decoded and masked in one go is
still in the processor's cache for each of these steps.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

RECORD_OVERHEAD_BYTES = 512
"""What a record takes beside its key and value in a batch: 180 as its row's texts, measured, and 330 once more in a statement."""

CHUNK_OVERHEAD_BYTES = 4_096
"""What a chunk takes beside its packed records and the body of the one that is unpacked ahead. Measured with one record: 3,300."""


class SizedRecord(Protocol):
    """What a chunk asks of a record."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def key(self) -> bytes | None:
        """What it was partitioned by."""

    @property
    def value(self) -> bytes | None:
        """The body."""


RecordT = TypeVar("RecordT", bound=SizedRecord)


def memory_bytes(records: Sequence[SizedRecord]) -> int:
    """What a batch of these records holds in memory, near enough to bound it."""
    return sum([len(record.value or b"") + len(record.key or b"") for record in records]) + len(records) * RECORD_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Unreadable:
    """In the place of a record: from this offset on a chunk can't be unpacked."""

    offset: int
    error: Exception
    key: None = None
    value: None = None


class Chunk(Generic[RecordT]):
    """The ``sequence``-th chunk (from 0) since the ``seek_number``-th seek. One record is unpacked ahead; there is one at least."""

    __slots__ = (
        "_others", "_packed_bytes", "_reread", "_reread_offset", "_taken", "_unpack",
        "first_offset", "next", "next_offset", "seek_number", "sequence",
    )  # fmt: skip

    def __init__(
        self,
        first: RecordT | Unreadable,
        unpack: Callable[[int], Iterator[RecordT]],
        *,
        next_offset: int,
        packed_bytes: int,
        seek_number: int,
        sequence: int,
    ) -> None:
        """``unpack`` unpacks from an offset on; the next fetch is from ``next_offset``."""
        self.next: RecordT | Unreadable | None = first
        """The record that is taken next; None when there are no more."""
        self.first_offset = first.offset
        self.next_offset = next_offset
        self.seek_number = seek_number
        self.sequence = sequence
        self._unpack = unpack
        self._others: Iterator[RecordT] | None = None  # begun when it is taken from: it holds a record batch unpacked
        self._packed_bytes = packed_bytes
        self._taken = 0
        self._reread: Iterator[RecordT] = iter(())
        self._reread_offset = next_offset

    @property
    def rows(self) -> int:
        """How many records are left, at most: some offsets may have none (control records, compaction)."""
        return 0 if self.next is None else self.next_offset - self.next.offset

    @property
    def bytes(self) -> int:
        """How much memory what is left holds, near enough to bound it."""
        if self.next is None:
            return 0
        unpacked = len(self.next.value or b"") + len(self.next.key or b"")
        return CHUNK_OVERHEAD_BYTES + unpacked + self._packed_bytes * self.rows // (self.next_offset - self.first_offset)

    def take(self, count: int) -> list[RecordT]:
        """Unpack and hand over the next records, ``count`` of them if there are so many that can be unpacked."""
        first = self.next
        if first is None or isinstance(first, Unreadable):
            return []
        if self._others is None:
            self._others = self._unpack(first.offset + 1)
        taken = [first]
        try:
            taken.extend(islice(self._others, count - 1))  # what comes before an error stays
            self.next = next(self._others, None)
        except Exception as error:  # noqa: BLE001 - of a codec, of aiokafka: told when all before it is taken
            self.next = Unreadable(taken[-1].offset + 1, error)
        self._taken += len(taken)
        return taken

    @property
    def offsets_without_record(self) -> int:
        """How many of its offsets held no record; known when all records are taken."""
        return self.next_offset - self.first_offset - self._taken

    def original(self, offset: int) -> RecordT:
        """A record that it holds, unpacked once more. To ask in ascending order is cheap: the chunk is gone through once."""
        if offset < self._reread_offset:
            self._reread = self._unpack(self.first_offset)
        self._reread_offset = offset + 1
        return next(record for record in self._reread if record.offset == offset)
