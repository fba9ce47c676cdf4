"""Takes what aiokafka has fetched of a partition whole and packed: it is unpacked where its records are built into a batch.

aiokafka unpacks record by record in the consumer's thread, far ahead of whoever needs them: a dozen objects a record, which have
left the processor's cache when they are looked at. Here ``FetchResult.getall`` gives the fetch in one piece, and a generator of
its records. Of the 2.0 us that aiokafka takes to unpack a record, 1.3 are for a ``ConsumerRecord`` around the record that its C
code made, and for Python's calls on the way; that record has all that is read here, so it is taken as it is. A test holds what is
delivered to what aiokafka delivers: control records, aborted transactions and positions are its rules.

What a fetch holds is bounded by the broker's answer: 1 MiB packed, or one larger record batch. What is unpacked of it at a time is
bounded by ``record_pieces.py``, whatever a producer has packed. Checksums are looked at here, so
that a corrupt batch ends the worker as it does in aiokafka, before anything behind it is passed over.

Read against aiokafka 0.14.0 (``consumer/fetcher.py``: ``FetchResult``, ``PartitionRecords``, ``Fetcher.fetched_records`` and
``_proc_fetch_request``). Everything here but the unpacking runs on the consumer's thread and awaits nothing.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from stream_app.chunk import Unpack, Unread, Unreadable
from stream_app.dead_letters import KafkaRecord
from stream_app.transport.record_pieces import Pieces, pieces, plain_control_batch

_BEFORE_LENGTH_ENDS = 12
"""The length of a batch stands in the bytes from 8 on, and counts what is behind them."""


@dataclass(frozen=True, slots=True)
class PackedRecords:
    """What one fetch brought of one partition."""

    first: KafkaRecord | Unread[KafkaRecord] | Unreadable | None
    """None: there is no record, only offsets of what is none."""
    unpack: Unpack[KafkaRecord]
    next_offset: int
    """Where the next fetch begins."""
    packed_bytes: int
    empty_before: int
    """How many offsets before the first record are those of control records, and of what transactions took back."""
    empty_within: int
    """Likewise, of those behind it."""


class KeptMemoryRecords(MemoryRecords):  # type: ignore[misc] # a class of aiokafka's C code, or of its Python code
    """Aiokafka's reader of record batches, which also keeps the bytes that it reads."""

    def __init__(self, packed: bytes) -> None:
        super().__init__(packed)
        self.packed = packed


def fetch_whole(fetcher: Any) -> None:
    """Have aiokafka's ``fetcher``, which has fetched nothing yet, deliver a list of one :class:`PackedRecords` for each fetch."""
    aiokafka_fetcher.MemoryRecords = KeptMemoryRecords  # what its answers are read with
    fetcher._records = _FetchedWhole()  # noqa: SLF001 - see the module


class _FetchedWhole(OrderedDict[TopicPartition, Any]):
    """What a fetcher has fetched and not yet delivered: its :class:`FetchResult` objects deliver all that they have at once."""

    def __setitem__(self, partition: TopicPartition, result: Any) -> None:
        if type(result) is FetchResult:
            result.getall = partial(_take_whole, result)
        super().__setitem__(partition, result)


def _take_whole(result: Any, _: int | None = None) -> list[PackedRecords]:
    """In the place of ``FetchResult.getall``. Nothing once the partition was sought or taken away."""
    del result.getall  # it holds the result, which holds it: a megabyte until garbage is collected
    partition = result._topic_partition  # noqa: SLF001 - see the module
    if not result.check_assignment(partition):
        return []
    fetched = result._partition_records  # noqa: SLF001
    packed: bytes = fetched._records.packed  # noqa: SLF001
    batches = [batch for batch, _ in batches_of(packed)]
    if not all(batch.validate_crc() for batch in batches):
        raise CorruptRecordException(f"Invalid CRC - {partition}")
    start = fetched.next_fetch_offset
    aborted = list(fetched._aborted_transactions)  # noqa: SLF001
    unpack = partial(_unpack, partition, packed, aborted, fetched._isolation_level)  # noqa: SLF001
    first = _first(start, unpack(start))
    next_offset = max(start, batches[-1].next_offset)
    result._assignment.state_value(partition).consumed_to(next_offset)  # noqa: SLF001
    fetched._records_iterator = None  # noqa: SLF001 - likewise
    result._partition_records = None  # noqa: SLF001 - as getall() says that there is no more
    before = within = 0
    if any(batch.is_control_batch or batch.is_transactional for batch in batches):  # not what our bridge writes
        judged = _judged(partition, packed, aborted, fetched._isolation_level, start)  # noqa: SLF001 - likewise
        before, within = _empty(judged, start, next_offset if first is None else first.offset)
    return [PackedRecords(first, unpack, next_offset, len(packed), before, within)]


def first_of(
    partition: TopicPartition, packed: bytes, aborted: Sequence[tuple[int, int]], isolation_level: int, start: int
) -> tuple[KafkaRecord | Unread[KafkaRecord] | Unreadable | None, int]:
    """The first record from ``start`` on, or what stands in its place, and where the next fetch begins. Looks at no checksum."""
    first = _first(start, _unpack(partition, packed, aborted, isolation_level, start))
    return first, max([start, *(batch.next_offset for batch, _ in batches_of(packed))])


def _first(start: int, pieces: Pieces) -> KafkaRecord | Unread[KafkaRecord] | Unreadable | None:
    """The first record, or what stands in its place; None: there is none. No more than one piece is unpacked at a time."""
    try:
        for piece in pieces:
            if isinstance(piece, Unread):
                return piece.at_rest  # what it holds is made again where it is read
            for record in piece.records:
                return record
    except Exception as error:  # noqa: BLE001 - told where batches are built, it stops the partition; here it would end the worker
        return Unreadable(start, error)
    return None


def batches_of(packed: bytes) -> Iterator[tuple[Any, tuple[int, int]]]:
    """Each batch, and where its bytes are."""
    reader, begin = MemoryRecords(packed), 0
    while reader.has_next():
        end = begin + _BEFORE_LENGTH_ENDS + int.from_bytes(packed[begin + 8 : begin + _BEFORE_LENGTH_ENDS], "big")
        yield reader.next_batch(), (begin, end)
        begin = end


def _unpack(
    partition: TopicPartition, packed: bytes, aborted: Sequence[tuple[int, int]], isolation_level: int, start: int
) -> Pieces:
    """The records from offset ``start`` on: what ``PartitionRecords._unpack_records`` yields, batch by batch, piece by piece.

    Whose records count is asked of ``PartitionRecords`` for each batch; records come from its C code without a Python call each.
    """
    view = memoryview(packed)
    judged = _judged(partition, packed, aborted, isolation_level, start)
    for batch, (begin, end), holds_records in judged:
        if holds_records and batch.next_offset > start:
            yield from pieces(view[begin:end], batch, start)


def _judged(
    partition: TopicPartition, packed: bytes, aborted: Sequence[tuple[int, int]], isolation_level: int, start: int
) -> Iterator[tuple[Any, tuple[int, int], bool]]:
    """Each batch, where its bytes are, and whether it holds records: not those of control, nor what a transaction took back."""
    rules = PartitionRecords(partition, None, aborted, start, None, None, False, isolation_level)  # noqa: FBT003
    rules._records_iterator = None  # noqa: SLF001 - it holds the object, which holds it
    view = memoryview(packed)
    for batch, (begin, end) in batches_of(packed):
        is_taken_back = False
        if isolation_level == READ_COMMITTED and batch.producer_id is not None:
            rules._consume_aborted_up_to(batch.base_offset)  # noqa: SLF001
            if batch.is_control_batch and rules._contains_abort_marker(plain_control_batch(view[begin:end], batch)):  # noqa: SLF001
                rules._aborted_producers.discard(batch.producer_id)  # noqa: SLF001
            is_taken_back = batch.is_transactional and batch.producer_id in rules._aborted_producers  # noqa: SLF001 - likewise
        yield batch, (begin, end), not (is_taken_back or batch.is_control_batch)


def _empty(judged: Iterator[tuple[Any, tuple[int, int], bool]], start: int, first_offset: int) -> tuple[int, int]:
    """How many offsets from ``start`` on are those of batches without records: before the first record, and behind it."""
    before = within = 0
    for batch, _, holds_records in judged:
        if not holds_records:
            offsets = max(0, batch.next_offset - max(start, batch.base_offset))
            if batch.base_offset < first_offset:
                before += offsets
            else:
                within += offsets
    return before, within
