"""Over aiokafka's own fetch results, with record batches packed as brokers send them."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from faust.types import TP
from login_records import LOGIN, headers, login, record

from stream_app.transport.fetched_records import POLL_BYTES_MAX, Taken, take_fetched
from stream_app.windows import memory_bytes

LZ4 = 3
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


def packed(bodies: list[bytes], first_offset: int = 0) -> bytes:
    """One record batch, as a producer packs it and a broker numbers it."""
    batch = DefaultRecordBatchBuilder(
        magic=2, compression_type=LZ4, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=1 << 30
    )
    for place, body in enumerate(bodies):
        batch.append(place, 1_000 + place, b"key", body, list(headers(first_offset + place)))
    data = batch.build()
    data[:8] = first_offset.to_bytes(8, "big")  # not under the checksum
    return bytes(data)


def fetched(tp: TopicPartition, data: bytes, start: int = 0) -> Any:
    """Aiokafka's own fetch result of such batches."""
    records = PartitionRecords(tp, MemoryRecords(data), [], start, None, None, True, 0)  # noqa: FBT003 - aiokafka's signature
    return FetchResult(tp, assignment=Assignment(start), partition_records=records, backoff=0)


def fetcher(*fetches: bytes) -> Any:
    """What a fetcher holds: a fetch for each partition from 0 on."""
    held = {
        TopicPartition("logins", number): fetched(TopicPartition("logins", number), data) for number, data in enumerate(fetches)
    }
    return SimpleNamespace(_records=held, _wait_consume_future=None, _notify=lambda _: None)


def taken_from(it: Any, records_max: int) -> dict[TopicPartition, list[Any]]:
    taken = Taken()
    take_fetched(it, [TP("logins", number) for number in range(8)], taken, records_max)
    found = {place: list(records) for place, (records, _) in taken.found.items()}
    assert {place: size for place, (_, size) in taken.found.items()} == {place: memory_bytes(r) for place, r in found.items()}
    assert (taken.rows, taken.bytes) == (sum(map(len, found.values())), sum(map(memory_bytes, found.values())))
    return found


def test_a_record_is_what_aiokafka_would_have_delivered() -> None:
    it = fetcher(packed([login(), login(user_id="other")], 7))
    (first, second) = taken_from(it, 10)[FIRST]
    expected = record(login(), 7, timestamp=1_000)
    for name in ("offset", "timestamp", "key", "value"):
        assert getattr(first, name) == getattr(expected, name)
    assert tuple(first.headers) == expected.headers
    assert (second.offset, LOGIN["user_id"].encode() in second.value) == (8, False)


@pytest.mark.parametrize("size", [100_000, 1_048_576])
def test_one_fetch_of_large_records_is_bounded_in_bytes(size: int) -> None:
    it = fetcher(b"".join(packed([b"x" * size] * 23, first) for first in range(0, 230, 23)))
    first = taken_from(it, 5_000)[FIRST]
    assert memory_bytes(first) < POLL_BYTES_MAX + 32 * (size + 2_000)
    offsets = [r.offset for r in first]
    while it._records:
        offsets += [r.offset for r in taken_from(it, 5_000).get(FIRST, ())]
    assert offsets == list(range(230))


def test_small_records_fill_a_fetch_by_number_over_all_partitions() -> None:
    it = fetcher(*[packed([login()] * 2_000)] * 3)
    assert [len(records) for records in taken_from(it, 5_000).values()] == [2_000, 2_000, 1_000]
    last = TopicPartition("logins", 2)
    assert list(it._records) == [last]
    assert it._records[last]._assignment.position == 1_000, "where the next take begins"
    assert [r.offset for r in taken_from(it, 5_000)[last]] == list(range(1_000, 2_000))
    assert not it._records


def test_what_is_before_the_position_is_passed_over() -> None:
    it = fetcher(b"")
    it._records[FIRST] = fetched(FIRST, packed([login()] * 10), start=4)
    assert [r.offset for r in taken_from(it, 5_000)[FIRST]] == list(range(4, 10))


def test_a_partition_that_was_sought_or_paused_meanwhile_gives_nothing() -> None:
    for change in ({"position": 3}, {"paused": True}, {"active": False}):
        it = fetcher(packed([login()] * 10))
        vars(it._records[FIRST]._assignment).update(change)
        assert taken_from(it, 5_000) == {}
        assert not it._records, "it is fetched anew"


def test_a_partition_that_waits_is_left_alone() -> None:
    it = fetcher(packed([login()]))
    taken = Taken()
    take_fetched(it, [TP("logins", 5)], taken, 5_000)
    assert (taken.found, list(it._records)) == ({}, [FIRST])
