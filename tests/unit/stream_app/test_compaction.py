"""What compaction took is counted each time, and said once a minute; where chunks get their numbers from."""

from collections.abc import Iterator

import structlog
from aiokafka.structs import TopicPartition
from login_records import login, record

from stream_app.chunk import Piece
from stream_app.compaction import CompactedRecords
from stream_app.dead_letters import KafkaRecord
from stream_app.metrics import WorkerMetrics
from stream_app.positions import Partition
from stream_app.transport.consumer_thread import BatchConsumerThread
from stream_app.transport.fetched_records import PackedRecords

PLACE = TopicPartition("logins", 0)


def test_it_is_said_once_a_minute_with_all_that_came_since() -> None:
    metrics, now = WorkerMetrics(), 100.0
    it = CompactedRecords(Partition("logins", 3), metrics, lambda: now)
    with structlog.testing.capture_logs() as lines:
        for second in (100.0, 101.0, 159.0, 160.0):
            now = second
            it.count(2, 10, 20)
        it.count(0, 20, 20)
    assert [(line["records"], line["topic"], line["partition"]) for line in lines] == [(2, "logins", 3), (6, "logins", 3)]
    assert metrics.registry.get_sample_value("stream_records_compacted_total") == 8


class _Sought:
    """aiokafka's consumer, which is told where to read on."""

    def seek(self, _: TopicPartition, __: int) -> None: ...

    def resume(self, _: TopicPartition) -> None: ...


def unpack(start: int) -> Iterator[Piece[KafkaRecord]]:
    return iter([Piece(iter([record(login(), start)]), 1, 1)])


def packed(first: int | None, before: int, within: int = 0) -> PackedRecords:
    return PackedRecords(None if first is None else record(login(), first), unpack, (first or 0) + 1, 10, before, within)


async def test_a_fetch_without_a_record_is_told_with_the_next_one_unless_it_is_sought_between() -> None:
    thread = BatchConsumerThread.__new__(BatchConsumerThread)
    thread._consumer = _Sought()
    thread._seek_numbers, thread._next_sequences, thread._empty = {}, {}, {}
    assert thread._numbered(PLACE, packed(None, 4)) is None
    assert thread._numbered(PLACE, packed(None, 2)) is None
    chunk = thread._numbered(PLACE, packed(9, 1, 3))
    assert chunk is not None
    assert (chunk.sequence, chunk.empty_before, chunk.empty_within) == (0, 7, 3)
    following = thread._numbered(PLACE, packed(20, 0))
    assert following is not None
    assert (following.sequence, following.empty_before) == (1, 0)
    assert thread._numbered(PLACE, packed(None, 4)) is None
    await thread.seek_numbered(PLACE, 5)
    again = thread._numbered(PLACE, packed(9, 1))
    assert again is not None
    assert (again.sequence, again.empty_before) == (0, 1)
