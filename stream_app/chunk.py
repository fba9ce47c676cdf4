"""A chunk: the records of one fetch of one partition, as Kafka packed them until they are taken.

What waits so takes a tenth of the memory that unpacked records do, and a record that is unpacked, decoded and masked in one go is
still in the processor's cache for each of these steps.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Generic, Protocol, TypeVar

RECORD_OVERHEAD_BYTES = 512
"""What a record takes beside its key and value in a batch: 180 as its row's texts, measured, and 330 once more in a statement."""

CHUNK_OVERHEAD_BYTES = 4_096
"""What a chunk takes beside its packed records and the body of the one that is unpacked ahead. Measured with one record: 3,300."""


TAKEN_BYTES = 262_144
"""When so much is unpacked at a time, no further piece is begun: what a record holds is known only when it is unpacked."""

HEADER_OVERHEAD_BYTES = 128
"""What a header takes beside its name and value: a tuple and two objects. A megabyte may hold half a million of them."""


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

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Names and values."""


RecordT = TypeVar("RecordT", bound=SizedRecord)


def memory_bytes(records: Sequence[SizedRecord]) -> int:
    """What a batch of these records holds in memory, near enough to bound it."""
    return sum([len(record.value or b"") + len(record.key or b"") for record in records]) + len(records) * RECORD_OVERHEAD_BYTES


def waiting_bytes(record: SizedRecord) -> int:
    """What one unpacked record holds, its headers too, which nobody else counts one by one."""
    size = len(record.value or b"") + len(record.key or b"")
    return size + sum([HEADER_OVERHEAD_BYTES + len(name) + len(value or b"") for name, value in record.headers])


@dataclass(frozen=True, slots=True)
class Unreadable:
    """In the place of a record: from this offset on a chunk can't be unpacked."""

    offset: int
    error: Exception
    key: None = None
    value: None = None
    headers: Sequence[tuple[str, bytes | None]] = ()


@dataclass(slots=True)
class Piece(Generic[RecordT]):
    """Records that are unpacked together."""

    records: Iterator[RecordT]
    count: int
    """How many they are, about."""
    bytes: int
    """Of all of them, unpacked."""
    held_bytes: int = 0
    """What is held beside them, to unpack on, until the next piece is asked for; 0 where they are all."""


class AbandonedError(Exception):
    """Nobody waits any more for what was begun."""


class Unread(Generic[RecordT]):
    """In the place of a record: what takes long to go through, a second for some hundred MiB, so it is done on a thread of its own.

    There is no key, value or header yet.
    """

    key: None = None
    value: None = None
    headers: Sequence[tuple[str, bytes | None]] = ()

    def __init__(
        self, offset: int, timestamp: int, read: "Callable[[Callable[[], None]], Iterable[RecordT]] | None", held_bytes: int = 0
    ) -> None:
        """``read`` returns the records that come of it, and calls what it is given now and then. None: it must be found again."""
        self.offset = offset
        self.timestamp = timestamp
        self.held_bytes = held_bytes
        """What is held to read it and to unpack on, as of a piece."""
        self._read = read
        self._is_abandoned = False

    @property
    def at_rest(self) -> "Unread[RecordT]":
        """The same, without what it holds to be read."""
        return Unread(self.offset, self.timestamp, None)

    @property
    def is_at_rest(self) -> bool:
        """Whether it must be found again to be read."""
        return self._read is None

    def read(self) -> Iterator[RecordT]:
        """Go through it; the records that come of it. Raises what a codec or aiokafka raises, and :class:`AbandonedError`."""
        if self._read is None:
            raise ValueError("it is at rest")
        return iter(self._read(self._check))

    def abandon(self) -> None:
        """Let whoever reads it stop soon."""
        self._is_abandoned = True

    def _check(self) -> None:
        if self._is_abandoned:
            raise AbandonedError


Unpack = Callable[[int], Iterator[Piece[RecordT] | Unread[RecordT]]]
"""Unpacks from an offset on, piece by piece, on any thread. May raise what a codec or aiokafka raises."""


class Chunk(Generic[RecordT]):
    """The ``sequence``-th chunk (from 0) since the ``seek_number``-th seek. One record is unpacked ahead; there is one at least."""

    __slots__ = (
        "_held_bytes", "_is_abandoned", "_next_bytes", "_packed_bytes", "_piece", "_pieces", "_record_bytes", "_reread",
        "_reread_offset", "_taken", "_unpack", "empty_before", "empty_within", "first_offset", "has_unread", "next", "next_offset",
        "seek_number", "sequence", "unpacked_bytes",
    )  # fmt: skip

    def __init__(
        self,
        first: RecordT | Unread[RecordT] | Unreadable,
        unpack: Unpack[RecordT],
        *,
        next_offset: int,
        packed_bytes: int,
        seek_number: int,
        sequence: int,
        empty_before: int = 0,
        empty_within: int = 0,
    ) -> None:
        """``unpack`` unpacks from an offset on; the next fetch is from ``next_offset``.

        ``empty_before``: how many offsets since the chunk before are known to hold no record (control records, what transactions
        took back). ``empty_within``: how many of its own.
        """
        self.next: RecordT | Unread[RecordT] | Unreadable | None = first
        """The record that is taken next; None when there are no more."""
        self._next_bytes: int | None = None
        self.first_offset = first.offset
        self.next_offset = next_offset
        self.seek_number = seek_number
        self.sequence = sequence
        self.empty_before = empty_before
        self.empty_within = empty_within
        self.has_unread = isinstance(first, Unread)
        """Whether something in it takes long to go through, as far as is known."""
        self.unpacked_bytes = 0
        """Of what was taken, as Kafka counts it, headers too: the average of its piece for each record."""
        self._unpack = unpack
        # Begun when it is taken from: it holds a piece unpacked.
        self._pieces: Iterator[Piece[RecordT] | Unread[RecordT]] | None = None
        self._piece: Iterator[RecordT] = iter(())
        self._record_bytes = self.next_bytes
        self._held_bytes = 0
        self._is_abandoned = False
        self._packed_bytes = packed_bytes
        self._taken = 0
        self._reread: Iterator[RecordT] = iter(())
        self._reread_offset = next_offset

    @property
    def next_bytes(self) -> int:
        """What the next record holds."""
        if self._next_bytes is None:
            self._next_bytes = 0 if self.next is None else waiting_bytes(self.next)
        return self._next_bytes

    @property
    def rows(self) -> int:
        """How many records are left, at most: some offsets may have none (control records, compaction)."""
        return 0 if self.next is None else self.next_offset - self.next.offset

    @property
    def bytes(self) -> int:
        """How much memory what is left holds, near enough to bound it."""
        if self.next is None:
            return 0
        packed = self._packed_bytes * self.rows // (self.next_offset - self.first_offset)
        return CHUNK_OVERHEAD_BYTES + self.next_bytes + packed + self._held_bytes

    def take(self, count: int) -> list[RecordT]:
        """Unpack and hand over the next records: one at least if one can be unpacked, and ``count`` at most.

        A piece that makes TAKEN_BYTES full, or more, is the last one that they are of.
        """
        taken: list[RecordT] = []
        unpacked = 0
        while len(taken) < count and unpacked < TAKEN_BYTES:
            following = self.next
            if following is None or isinstance(following, (Unread, Unreadable)):
                break
            before = len(taken)
            taken.append(following)
            try:
                if self._pieces is None:  # from this record on: a position behind it might take long to be gone to
                    self._pieces = self._unpack(following.offset)
                    self._advance(self._pieces)
                taken.extend(islice(self._piece, count - len(taken)))  # what comes before an error stays
                unpacked += (len(taken) - before) * self._record_bytes
                self._advance(self._pieces)
            except Exception as error:  # noqa: BLE001 - of a codec, of aiokafka: told when all before it is taken
                self._cannot_go_on(taken[-1].offset + 1, error)
        self.unpacked_bytes += unpacked
        self._taken += len(taken)
        return taken

    def read_next(self) -> None:
        """Go through what takes long, on a thread of its own; then there is another :attr:`next`."""
        unread = self.next
        if not isinstance(unread, Unread):
            return
        try:
            if self._pieces is None or unread.is_at_rest:
                self._pieces = self._unpack(unread.offset)
                self._advance(self._pieces)
                unread = self.next
            if self._is_abandoned:
                raise AbandonedError  # noqa: TRY301 - told apart below
            if isinstance(unread, Unread):
                self._piece, self._record_bytes = unread.read(), 0
                self._advance(self._pieces)
        except AbandonedError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            self._cannot_go_on(self.first_offset if unread is None else unread.offset, error)

    def abandon(self) -> None:
        """Let whoever goes through what takes long stop soon. Nobody takes from the chunk any more."""
        self._is_abandoned = True
        if isinstance(self.next, Unread):
            self.next.abandon()

    def _advance(self, pieces: Iterator[Piece[RecordT] | Unread[RecordT]]) -> None:
        """Have the next record, of the next piece if this one is through."""
        following: RecordT | Unread[RecordT] | None
        while (following := next(self._piece, None)) is None:
            self._piece, self._held_bytes = iter(()), 0  # else it would be held beside the next one
            piece = next(pieces, None)
            if piece is None:
                break
            if isinstance(piece, Unread):
                following, self.has_unread, self._held_bytes = piece, True, piece.held_bytes
                break
            self._piece, self._held_bytes = piece.records, piece.held_bytes
            self._record_bytes = piece.bytes // max(1, piece.count)
        self.next, self._next_bytes = following, None

    def _cannot_go_on(self, offset: int, error: Exception) -> None:
        self._piece, self._pieces = iter(()), None  # which hold what they unpack from
        self.next, self._next_bytes, self._held_bytes = Unreadable(offset, error), 0, 0

    @property
    def offsets_without_record(self) -> int:
        """How many of its offsets held no record; known when all records are taken."""
        return self.next_offset - self.first_offset - self._taken

    @property
    def offsets_compacted(self) -> int:
        """How many of these are in no batch without records: compaction took what was there. Known likewise."""
        return max(0, self.offsets_without_record - self.empty_within)

    def original(self, offset: int) -> RecordT:
        """A record that it holds, unpacked once more. To ask in ascending order is cheap: the chunk is gone through once.

        Where it :attr:`has_unread`, that takes long: it is to be asked on a thread of its own.
        """
        if offset < self._reread_offset:
            self._reread = chain.from_iterable(map(_records_of, self._unpack(self.first_offset)))
        self._reread_offset = offset + 1
        return next(record for record in self._reread if record.offset == offset)


def _records_of(piece: Piece[RecordT] | Unread[RecordT]) -> Iterator[RecordT]:
    return piece.records if isinstance(piece, Piece) else piece.read()
