"""Over aiokafka's own fetch results, with record batches packed as brokers send them."""

import gc
import tracemalloc
import weakref
from collections.abc import Iterator, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any, Literal

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from login_records import LOGIN, login, record
from record_batches import aborted, packed, with_a_strange_header

from stream_app.chunk import Piece, Unread, Unreadable
from stream_app.dead_letters import KafkaRecord
from stream_app.transport.fetched_records import KeptMemoryRecords, PackedRecords, fetch_whole

FIRST = TopicPartition("logins", 0)


class Assignment:
    """aiokafka's state of a partition: where the next record is expected."""

    active = True
    paused = False

    def __init__(self, position: int) -> None:
        self.position = position

    def state_value(self, _: TopicPartition) -> "Assignment":
        return self

    def consumed_to(self, position: int) -> None:
        self.position = position


async def fetched(
    data: bytes,
    start: int = 0,
    changes: Mapping[str, object] = MappingProxyType({}),
    isolation_level: int = READ_COMMITTED,
) -> tuple[list[PackedRecords], Any]:
    """What aiokafka's own fetcher delivers of such batches, and where it reads on."""
    assignment = Assignment(start)
    subscriptions = SimpleNamespace(reassignment_in_progress=False, is_assigned=lambda _: True)
    fetcher = SimpleNamespace(_subscriptions=subscriptions, _wait_consume_future=None, _notify=lambda _: None)
    fetch_whole(fetcher)
    records = PartitionRecords(FIRST, KeptMemoryRecords(data), [(7, 0)], start, None, None, True, isolation_level)  # noqa: FBT003
    fetcher._records[FIRST] = FetchResult(FIRST, assignment=assignment, partition_records=records, backoff=0)
    vars(assignment).update(changes)
    found = await Fetcher.fetched_records(fetcher, [FIRST])
    assert not fetcher._records, "the next fetch may go out"
    return found.get(FIRST, []), assignment


def unpacked(it: PackedRecords, start: int) -> Iterator[KafkaRecord]:
    """The records from an offset on, also those that take long to go through."""
    for piece in it.unpack(start):
        yield from piece.records if isinstance(piece, Piece) else piece.read()


def taken(it: PackedRecords) -> list[KafkaRecord]:
    assert it.first is not None
    assert not isinstance(it.first, (Unread, Unreadable))
    return [it.first, *unpacked(it, it.first.offset + 1)]


async def test_a_record_is_what_aiokafka_would_have_delivered() -> None:
    (it,), assignment = await fetched(packed([login(), login(user_id="other")], 7), 7)
    first, second = taken(it)
    expected = record(login(), 7, timestamp=1_000)
    for name in ("offset", "timestamp", "key", "value"):
        assert getattr(first, name) == getattr(expected, name)
    assert tuple(first.headers) == expected.headers
    assert (second.offset, LOGIN["user_id"].encode() in (second.value or b"")) == (8, False)
    assert (it.next_offset, assignment.position) == (9, 9)


async def test_a_fetch_comes_whole_and_can_be_unpacked_again() -> None:
    data = b"".join(packed([login()] * 500, first) for first in range(0, 2_000, 500))
    (it,), assignment = await fetched(data)
    for start in (0, 1, 499, 500, 501, 1_999, 2_000):
        assert [r.offset for r in unpacked(it, start)] == list(range(start, 2_000))
    assert [r.offset for r in taken(it)] == list(range(2_000))
    assert (it.packed_bytes, it.next_offset, assignment.position) == (len(data), 2_000, 2_000)


async def test_what_is_before_the_position_is_passed_over() -> None:
    (it,), _ = await fetched(packed([login()] * 10), 4)
    assert [r.offset for r in taken(it)] == [r.offset for r in unpacked(it, 4)] == list(range(4, 10))


async def test_what_a_transaction_took_back_is_passed_over_with_its_offsets() -> None:
    data = packed([login()] * 3) + packed([login()] * 2, 3, producer=7) + packed([login()], 5)
    (it,), _ = await fetched(data)
    assert [r.offset for r in taken(it)] == [r.offset for r in unpacked(it, 0)] == [0, 1, 2, 5]
    (it,), assignment = await fetched(packed([login()]) + packed([login()] * 2, 1, producer=7))
    assert [r.offset for r in taken(it)] == [0]
    assert (it.next_offset, assignment.position) == (3, 3)


@pytest.mark.parametrize("isolation_level", [READ_UNCOMMITTED, READ_COMMITTED])
@pytest.mark.parametrize("start", range(13))
async def test_it_delivers_what_aiokafka_delivers(start: int, isolation_level: int) -> None:
    """Two producers in transactions, one of which is taken back, then writes one that stays; others between, and a gap."""
    batches = {
        2: packed([login()] * 2),
        4: packed([login()] * 2, 2, producer=7),
        5: packed([login()], 4, producer=8),
        6: aborted(7, 5),
        8: packed([login()] * 2, 6, producer=7),
        13: packed([login()] * 3, 10),
    }
    data = b"".join(
        batch for end, batch in batches.items() if end > start
    )  # a broker begins with the batch that holds the position
    theirs = PartitionRecords(FIRST, MemoryRecords(data), [(7, 0)], start, None, None, True, isolation_level)  # noqa: FBT003
    expected = [record.offset for record in theirs]
    found, assignment = await fetched(data, start, isolation_level=isolation_level)
    assert [r.offset for it in found for r in taken(it)] == expected
    assert [r.offset for it in found for r in unpacked(it, start)] == expected
    assert assignment.position == theirs.next_fetch_offset == 13
    assert (2 in expected) == (start <= 2 and isolation_level == READ_UNCOMMITTED)


@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("magic", [0, 1])
async def test_batches_in_the_forms_before_kafka_0_11_are_delivered(magic: Literal[0, 1], compression: int) -> None:
    batch = LegacyRecordBatchBuilder(magic=magic, compression_type=compression, batch_size=1 << 20)
    for place in range(5):
        batch.append(place, timestamp=1_000, key=b"key", value=login())
    data = batch.build()
    if compression:
        data[:8] = (4).to_bytes(8, "big")  # as a broker does: the last one's offset, not under the checksum
    found, assignment = await fetched(bytes(data), 2)
    assert [r.offset for it in found for r in taken(it)][-3:] == [2, 3, 4]
    assert assignment.position == 5


async def test_a_fetch_without_a_record_is_passed_over() -> None:
    found, assignment = await fetched(packed([login()] * 2, producer=7))
    assert [(it.first, it.empty_before, it.empty_within) for it in found] == [(None, 2, 0)]
    assert assignment.position == 2


@pytest.mark.parametrize(
    ("start", "expected"),
    [(0, (0, 3)), (1, (0, 3)), (2, (3, 0)), (3, (2, 0)), (5, (0, 0)), (6, (0, 0))],
)
async def test_offsets_of_control_and_of_what_was_taken_back_are_told_from_those_that_are_missing(
    start: int, expected: tuple[int, int]
) -> None:
    """Records 0 and 1; 2 and 3 taken back by 4; 5 to 9 are missing; 10."""
    batches = {2: packed([login()] * 2), 4: packed([login()] * 2, 2, producer=7), 5: aborted(7, 4), 11: packed([login()], 10)}
    (it,), _ = await fetched(b"".join(batch for end, batch in batches.items() if end > start), start)
    assert (it.empty_before, it.empty_within) == expected


async def test_a_partition_that_was_sought_or_paused_meanwhile_gives_nothing() -> None:
    changes: list[dict[str, object]] = [{"position": 3}, {"paused": True}, {"active": False}]
    for change in changes:
        found, _ = await fetched(packed([login()] * 10), 0, change)
        assert found == []


async def test_a_corrupt_batch_is_an_error_before_anything_is_passed_over() -> None:
    data = bytearray(packed([login()] * 3) + packed([login()] * 3, 3))
    data[-1] ^= 1
    with pytest.raises(CorruptRecordException):
        await fetched(bytes(data))


@pytest.mark.parametrize("before", [0, 3])
async def test_what_cannot_be_unpacked_is_an_error_of_whoever_unpacks_it(before: int) -> None:
    data = (packed([login()] * before) if before else b"") + with_a_strange_header(before) + packed([login()], before + 1)
    (it,), assignment = await fetched(data)
    assert assignment.position == before + 2
    if before:
        records = unpacked(it, 0)
        assert [next(records).offset for _ in range(before)] == [0, 1, 2]
        with pytest.raises(UnicodeDecodeError):
            next(records)
    else:
        assert isinstance(it.first, Unreadable)
        assert (it.first.offset, type(it.first.error)) == (0, UnicodeDecodeError)


async def test_nothing_is_kept_unpacked_but_one_record() -> None:
    """What waits is counted packed: a generator at rest would hold a whole record batch unpacked."""
    data = packed([b"x" * 1_000_000] * 20)
    assert len(data) < 200_000
    tracemalloc.start()
    try:
        (it,), _ = await fetched(data)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 1_300_000
        assert it.first is not None
        assert it.first.offset == 0
    finally:
        tracemalloc.stop()


async def test_a_fetch_that_is_through_leaves_nothing_to_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        (it,), _ = await fetched(packed([login()] * 10))
        pieces = it.unpack(1)
        piece = next(pieces)
        assert isinstance(piece, Piece)
        assert next(piece.records).offset == 1
        kept = weakref.ref(pieces.gi_frame.f_locals["judged"].gi_frame.f_locals["rules"])  # type: ignore[attr-defined] # the generator of aiokafka
        assert (len(list(piece.records)), list(pieces)) == (8, [])
        del it, pieces, piece
        assert kept() is None
        assert not [each for each in gc.get_objects() if isinstance(each, FetchResult | KeptMemoryRecords)]
    finally:
        gc.enable()
