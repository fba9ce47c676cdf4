"""Takes a record batch apart: pieces that are unpacked one after the other, each no larger than PIECE_BYTES_MAX.

A piece is a record batch again, not packed, of which aiokafka's C code makes the records: so nothing is read here but the length of
each record, and that only in batches which unpack to more than one largest record. A record above RECORD_BYTES_MAX is no piece: it
is gone through and hashed, which takes seconds for a gigabyte, by whoever holds its :class:`stream_app.chunk.Unread`.

A batch that can't be unpacked within bounds (:class:`TooLargeToUnpackError`) becomes one :class:`LargeRecord` for each of its
records. Its header says which offsets they have, unless some were removed by compaction: then the partition stops.

Corrupt records are the errors that they are in aiokafka, at the same record.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Final

from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import decode_varint

from pipeline.contract import RECORD_BYTES_MAX
from pipeline.errors import FatalError
from stream_app.chunk import Piece, Unread
from stream_app.dead_letters import KafkaRecord
from stream_app.large_records import Excerpt, LargeRecord
from stream_app.transport.unpacking import WINDOW_BYTES_MAX, Read, TooLargeToUnpackError, reader

PIECE_BYTES_MAX: Final = 2 * 1_048_576
"""Of unpacked records that are held at a time: one of the largest and a part of the next."""

HELD_BYTES: Final = PIECE_BYTES_MAX + WINDOW_BYTES_MAX
"""Of a batch that is gone through, at most, for as long as there is more of it."""

OLD_BATCH_BYTES_MAX: Final = 16 * 1_048_576
"""Of a batch in one of the forms before Kafka 0.11, unpacked, which aiokafka does whole. No broker since 3.0 takes such from a
producer (it writes them anew), so this is what old logs hold."""

HEADERS_BYTES_MAX: Final = 65_536
HEADERS_MAX: Final = 1_000
"""Of what is kept of a record that is too large: far more than the bridge writes."""

REFUSED_RECORDS_MAX: Final = 1_000_000
"""Of a batch that can't be unpacked, each of which becomes a dead letter. A header that claims more is not believed."""

_STEP_BYTES: Final = 1_048_576
_NUMBER_BYTES_MAX: Final = 10
_FIRST_NUMBERS_BYTES_MAX: Final = 3 * _NUMBER_BYTES_MAX + 1
"""Of a record's length, attributes, time and offset."""

_HEADER: Final = struct.Struct(">q13xhiqq14xi")
"""Of it: first offset, attributes, last offset, first and last timestamp, count."""
_LENGTH: Final = slice(8, 12)
_ATTRIBUTES: Final = slice(21, 23)
_COUNT: Final = slice(57, 61)
_CODEC: Final = 0x07
_LOG_APPEND_TIME: Final = 0x08

Pieces = Iterator[Piece[KafkaRecord] | Unread[KafkaRecord]]


class _Header:
    """What stands before the records of a batch, in the form since Kafka 0.11."""

    __slots__ = ("attributes", "base_offset", "count", "first_timestamp", "last_offset_delta", "max_timestamp", "packed")

    def __init__(self, packed: memoryview) -> None:
        self.packed = packed
        """The header itself and the packed records."""
        self.base_offset: int
        self.attributes: int
        self.first_timestamp: int
        self.max_timestamp: int
        (
            self.base_offset, self.attributes, self.last_offset_delta, self.first_timestamp, self.max_timestamp, self.count
        ) = _HEADER.unpack_from(packed)  # fmt: skip

    @property
    def codec(self) -> int:
        return self.attributes & _CODEC

    def timestamp(self, delta: int) -> int:
        return self.max_timestamp if self.attributes & _LOG_APPEND_TIME else self.first_timestamp + delta

    def plain(self, records: bytes, count: int) -> Any:
        """A batch of some of the records, not packed, as aiokafka reads it. Its checksum is not that of its bytes."""
        header = bytearray(self.packed[: _HEADER.size])
        header[_LENGTH] = (_HEADER.size - _LENGTH.stop + len(records)).to_bytes(4, "big")
        header[_ATTRIBUTES] = (self.attributes & ~_CODEC).to_bytes(2, "big", signed=True)
        header[_COUNT] = count.to_bytes(4, "big")
        return DefaultRecordBatch(b"".join((header, records)))


def pieces(packed: memoryview, batch: Any, start: int) -> Iterable[Piece[KafkaRecord] | Unread[KafkaRecord]]:
    """The records of a batch from offset ``start`` on. ``batch``: aiokafka's reader of it, which has unpacked nothing yet."""
    if not isinstance(batch, DefaultRecordBatch):
        return (_old(packed, batch, start),)
    if not batch.compression_type and len(packed) <= RECORD_BYTES_MAX:
        return (Piece(_since(start, batch, batch.base_offset), int.from_bytes(packed[_COUNT], "big"), len(packed)),)
    header = _Header(packed)
    try:
        read = reader(header.codec, bytes(packed[_HEADER.size :]))
        unpacked = read(PIECE_BYTES_MAX)
    except TooLargeToUnpackError as error:
        return (_refused(header, 0, start, error),)
    if len(unpacked) > RECORD_BYTES_MAX:
        return _Walk(header, _Source(read, unpacked)).pieces(start)
    plain = header.plain(unpacked, header.count)  # there is no more of it, and no record is too large
    return (Piece(_since(start, plain, header.base_offset), header.count, len(unpacked)),)


def plain_control_batch(packed: memoryview, batch: Any) -> Any:
    """The same, not packed: a control batch holds one small record, or it is corrupt."""
    header = _Header(packed)
    records = reader(header.codec, bytes(packed[_HEADER.size :]))(_STEP_BYTES)
    if len(records) == _STEP_BYTES:
        raise CorruptRecordException(f"a control batch of more than {_STEP_BYTES} bytes")
    return header.plain(records, header.count) if header.codec else batch


def _since(start: int, records: Iterable[KafkaRecord], first_offset: int | None) -> Iterator[KafkaRecord]:
    """A batch is sent whole, although the position is in it; the forms before 0.11 don't tell their first offset."""
    if first_offset is not None and first_offset >= start:
        return chain(records)  # without a call of ours for each; aiokafka's own gives its iterator only once
    return (record for record in records if record.offset >= start)


def _old(packed: memoryview, batch: Any, start: int) -> Piece[KafkaRecord]:
    """A message set of the forms before Kafka 0.11: aiokafka unpacks it whole, once it is known to be small enough."""
    magic, attributes = packed[16], packed[17]
    size = len(packed)
    if attributes & _CODEC and not (magic == 0 and attributes & _CODEC == 3):  # noqa: PLR2004 - lz4, which aiokafka refuses there
        at = 26 if magic else 18
        for _ in ("key", "value"):
            length, at = int.from_bytes(packed[at : at + 4], "big", signed=True), at + 4
            begin, at = at, at + max(0, length)
        read, size = reader(attributes & _CODEC, bytes(packed[begin:at])), 0
        while part := read(_STEP_BYTES):
            size += len(part)
            if size > OLD_BATCH_BYTES_MAX:
                raise FatalError(
                    f"the records before offset {batch.next_offset}, in a form older than Kafka 0.11, unpack to more than"
                    f" {OLD_BATCH_BYTES_MAX:,} bytes: have them written anew by a producer of today, or let retention remove them"
                )
    return Piece((_held(record) for record in _since(start, batch, None)), 1, size)


@dataclass(frozen=True, slots=True)
class _WithoutTimestamp:
    """A record of a form that may have none: aiokafka says None then, and everything here counts on a number."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = -1
    headers: Sequence[tuple[str, bytes | None]] = ()


def _held(record: KafkaRecord) -> KafkaRecord:
    size = len(record.key or b"") + len(record.value or b"")
    timestamp: int | None = record.timestamp
    if size <= RECORD_BYTES_MAX:
        return record if timestamp is not None else _WithoutTimestamp(record.offset, record.key, record.value)
    return LargeRecord(
        offset=record.offset,
        timestamp=-1 if timestamp is None else timestamp,
        size=size,
        key_excerpt=None if record.key is None else Excerpt.of([record.key]),
        value_excerpt=None if record.value is None else Excerpt.of([record.value]),
    )


def _refused(header: _Header, gone: int, start: int, error: TooLargeToUnpackError) -> Piece[KafkaRecord]:
    """A record for each that the batch has beside the ``gone`` first."""
    if header.count != header.last_offset_delta + 1 or not 0 < header.count <= REFUSED_RECORDS_MAX:
        raise FatalError(
            f"the records from offset {header.base_offset} on can't be unpacked ({error}), and their offsets are not known:"
            f" {header.count} records up to offset {header.base_offset + header.last_offset_delta}"
        ) from error
    excerpt = Excerpt.of([header.packed], 0)
    whole = Excerpt(excerpt.size, excerpt.sha256, bytes(header.packed[:RECORD_BYTES_MAX]))
    records = (
        LargeRecord(
            offset=header.base_offset + delta,
            timestamp=header.timestamp(0),
            batch_excerpt=excerpt if delta > gone else whole,
        )
        for delta in range(gone, header.count)
        if header.base_offset + delta >= start
    )
    return Piece(records, header.count - gone, len(header.packed))


class _Source:
    """Unpacked bytes, of which no more than a piece is held."""

    def __init__(self, read: Read, buffer: bytes) -> None:
        self._read = read
        self.buffer = buffer
        self.at = 0
        """In the buffer: what is before it has been taken."""
        self._before_buffer = 0

    @property
    def taken(self) -> int:
        """How many bytes have been taken."""
        return self._before_buffer + self.at

    def fill(self) -> bool:
        """Read on behind what is not taken yet; False: there is no more."""
        left = self.buffer[self.at :]
        more = self._read(PIECE_BYTES_MAX - len(left))
        self._before_buffer += self.at
        self.buffer, self.at = left + more, 0
        return bool(more)

    def need(self, size: int) -> None:
        """Have so many bytes in the buffer, or what is left if that is less."""
        while len(self.buffer) - self.at < size and self.fill():
            pass

    def varint(self) -> int:
        """Take a number."""
        self.need(_NUMBER_BYTES_MAX)
        value, self.at = _number(self.buffer, self.at)
        return value

    def some(self, size: int) -> bytes:
        """Take so many, no more than a piece."""
        return b"".join(self.parts(size))

    def parts(self, size: int, check: Callable[[], None] = lambda: None) -> Iterator[bytes]:
        """Take so many, in parts; ``check`` is called before each."""
        while size:
            check()
            if self.at == len(self.buffer):
                self._before_buffer += self.at
                self.buffer, self.at = self._read(min(size, _STEP_BYTES)), 0
            part = self.buffer[self.at : self.at + size]
            if not part:
                raise CorruptRecordException(f"the records end {size} bytes before a record does")
            self.at += len(part)
            size -= len(part)
            yield part

    def pass_over(self, size: int, check: Callable[[], None] = lambda: None) -> None:
        """Take so many and keep none."""
        for _ in self.parts(size, check):
            pass

    def is_at_end(self) -> bool:
        """Whether all has been taken."""
        return self.at == len(self.buffer) and not self.fill()


class _Walk:
    """Goes through the records of one batch, once."""

    def __init__(self, header: _Header, source: _Source) -> None:
        self._header = header
        self._source = source
        self._gone = 0
        """How many records have been gone through."""
        self._is_refused = False

    def pieces(self, start: int) -> Pieces:
        """See :func:`pieces`."""
        header, source = self._header, self._source
        try:
            if header.base_offset < start and self._next()[1] < start:  # compaction may have removed what was before
                yield Unread(start, header.timestamp(0), partial(self._go_to, start), HELD_BYTES)
            while self._gone < header.count:
                count, end, large_bytes = self._small_records()
                if count:
                    yield self._piece(count, end)
                elif large_bytes:
                    yield self._large(start)
                elif not source.fill():
                    raise CorruptRecordException(f"the batch at offset {header.base_offset} ends after {self._gone} records")
        except TooLargeToUnpackError as error:
            yield _refused(header, self._gone, start, error)
            return
        if not self._is_refused and not source.is_at_end():
            raise CorruptRecordException(f"the batch at offset {header.base_offset} has bytes behind its last record")

    def _small_records(self) -> tuple[int, int, int]:
        """How many records stand whole in the buffer and where they end; the size of one that is too large, if it is next."""
        buffer, end = self._source.buffer, self._source.at
        sure = len(buffer) - _NUMBER_BYTES_MAX  # aiokafka's C code doesn't look where the buffer ends
        left = self._header.count - self._gone
        for count in range(left):
            if end <= sure:
                length, begin = decode_varint(buffer, end)
            else:
                try:
                    length, begin = _number(buffer, end)
                except CorruptRecordException:  # cut off
                    return count, end, 0
            if length < 0:
                raise CorruptRecordException(f"a record of {length} bytes")
            if length > RECORD_BYTES_MAX:
                return count, end, length
            if begin + length > len(buffer):
                return count, end, 0
            end = begin + length
        return left, end, 0

    def _piece(self, count: int, end: int) -> Piece[KafkaRecord]:
        source = self._source
        records, source.at = source.buffer[source.at : end], end
        self._gone += count
        return Piece(chain(self._header.plain(records, count)), count, len(records), HELD_BYTES)

    def _next(self) -> tuple[int, int, int]:
        """Of the record that comes next, which stays: what it takes with its length, its offset, its timestamp."""
        source = self._source
        source.need(_FIRST_NUMBERS_BYTES_MAX)
        length, begin = _number(source.buffer, source.at)
        if length < 0:
            raise CorruptRecordException(f"a record of {length} bytes")
        time_delta, at = _number(source.buffer, begin + 1)  # behind the attributes, of which there are none
        offset_delta, _ = _number(source.buffer, at)
        return begin - source.at + length, self._header.base_offset + offset_delta, self._header.timestamp(time_delta)

    def _large(self, start: int) -> Unread[KafkaRecord]:
        size, offset, timestamp = self._next()

        def read(check: Callable[[], None]) -> Iterable[KafkaRecord]:
            try:
                record = self._read_large(size, offset, timestamp, check)
            except TooLargeToUnpackError as error:
                return self._refuse(start, error)
            self._gone += 1
            return [record]

        return Unread(offset, timestamp, read, HELD_BYTES)

    def _read_large(self, size: int, offset: int, timestamp: int, check: Callable[[], None]) -> LargeRecord:
        source = self._source
        end = source.taken + size
        length = source.varint()
        source.some(1)
        source.varint(), source.varint()  # time and offset

        def left(size: int) -> int:
            if size > end - source.taken:
                raise CorruptRecordException(f"{size} bytes in a record that has {end - source.taken} left")
            return size

        def excerpt() -> Excerpt | None:
            size = left(source.varint())
            return None if size < 0 else Excerpt.of(source.parts(size, check))

        key, value = excerpt(), excerpt()
        count = source.varint()
        if count < 0:
            raise CorruptRecordException(f"a record with {count} headers")
        headers: list[tuple[str, bytes | None]] = []
        room = HEADERS_BYTES_MAX
        while len(headers) < min(count, HEADERS_MAX):
            name_size = left(source.varint())
            if name_size < 0:
                raise CorruptRecordException(f"a header's name of {name_size} bytes")
            room -= name_size
            if room < 0:
                break
            name = source.some(name_size).decode(errors="replace")
            value_size = left(source.varint())
            room -= max(0, value_size)
            if room < 0:
                break
            headers.append((name, None if value_size < 0 else source.some(value_size)))
        if len(headers) == count and source.taken != end:
            raise CorruptRecordException(f"a record has {end - source.taken} bytes behind its last header")
        source.pass_over(left(end - source.taken), check)
        return LargeRecord(
            offset=offset,
            timestamp=timestamp,
            size=length,
            key_excerpt=key,
            value_excerpt=value,
            headers=headers,
            headers_left_out=count - len(headers),
        )

    def _go_to(self, start: int, check: Callable[[], None]) -> Iterable[KafkaRecord]:
        """Pass what is before an offset."""
        try:
            while self._gone < self._header.count:
                check()
                size, offset, _ = self._next()
                if offset >= start:
                    break
                self._source.pass_over(size, check)
                self._gone += 1
        except TooLargeToUnpackError as error:
            return self._refuse(start, error)
        return []

    def _refuse(self, start: int, error: TooLargeToUnpackError) -> Iterable[KafkaRecord]:
        refused = _refused(self._header, self._gone, start, error)
        self._gone = self._header.count
        self._is_refused = True
        return refused.records


def _number(buffer: bytes, at: int) -> tuple[int, int]:
    """A number of Kafka's (a zigzag varint), and where it ends. Raises :class:`CorruptRecordException` if it is cut off."""
    value = 0
    for shift in range(0, 7 * _NUMBER_BYTES_MAX, 7):
        if at >= len(buffer):
            raise CorruptRecordException("a number is cut off")
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return (value >> 1) ^ -(value & 1), at
    raise CorruptRecordException("a number is too long")
