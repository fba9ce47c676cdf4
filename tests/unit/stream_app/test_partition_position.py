"""From where one partition is read: the stored position, and what log, topic and database do to it meanwhile."""

import asyncio

import pytest
import structlog
import virtual_time
from fake_log import FakeLog
from login_records import chunk, logins
from partition_scenes import PARTITION, Scene

from stream_app.open_transaction import LogEnd
from stream_app.partition_writer import POSITION_CHECK_SECONDS, State
from stream_app.positions import Position


def test_reading_starts_at_the_stored_position() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(10))
        it.store.positions[PARTITION] = Position(6, 3)
        async with it.opened() as writer:
            await it.drain(writer)
        assert sorted(it.store.offsets()) == [6, 7, 8, 9]

    virtual_time.run(scene())


def test_without_a_stored_position_reading_starts_where_the_log_does() -> None:
    async def scene() -> None:
        it = Scene(log=FakeLog(log_start=3))
        it.log.append(*logins(7))
        async with it.opened() as writer:
            await it.drain(writer)
        assert sorted(it.store.offsets()) == list(range(3, 10))

    virtual_time.run(scene())


def test_an_idle_partition_notices_a_failover_that_took_its_last_commits_back() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(20))
        async with it.opened() as writer:
            it.log.deliver(writer, 10)
            await it.until(lambda: it.position == 10)
            standby = it.store.snapshot()
            await it.drain(writer)
            it.store.failed_over(standby)
            await asyncio.sleep(POSITION_CHECK_SECONDS + 1)
            assert writer.lag.next_offset == 10
            await it.drain(writer)
        assert sorted(it.store.offsets()) == list(range(20))

    virtual_time.run(scene())


def test_rows_and_position_lost_together_come_back_from_kafka() -> None:
    async def scene() -> None:
        it = Scene()
        empty = it.store.snapshot()
        it.log.append(*logins(10))
        async with it.opened() as writer:
            await it.drain(writer)
            it.store.failed_over(empty)
            await it.until(lambda: it.position == 0)
            await it.drain(writer)
        assert sorted(it.store.offsets()) == list(range(10))

    virtual_time.run(scene())


def test_a_chunk_dropped_on_the_way_is_read_again() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(30))
        async with it.opened() as writer:
            it.log.deliver(writer, 5)
            it.log.fetch(5)  # nobody gets it
            it.log.deliver(writer, 5)
            await it.drain(writer)
        assert sorted(it.store.offsets()) == list(range(30))
        assert it.count("offsets_skipped_total") == it.count("records_lost_total") == 0
        assert it.count("claims_total") == 2

    virtual_time.run(scene())


def test_a_last_chunk_dropped_on_the_way_is_read_again_although_none_follows() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(30))
        async with it.opened() as writer:
            it.log.deliver(writer, 15)
            it.log.fetch(15)  # nobody gets it
            await it.drain(writer)
        assert sorted(it.store.offsets()) == list(range(30))
        assert it.count("claims_total") == 2

    virtual_time.run(scene())


def test_a_log_that_ends_in_control_records_is_not_read_again_and_again() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(5))
        async with it.opened() as writer:
            await it.drain(writer)
            for _ in range(120):
                await asyncio.sleep(1)
                writer.saw_log_end(LogEnd(6, 6))
        assert it.count("claims_total") == 2

    virtual_time.run(scene())


def test_behind_an_open_transaction_lag_grows_and_nothing_is_read_again() -> None:
    async def scene() -> None:
        it = Scene(log=FakeLog(open_from=5))
        it.log.append(*logins(6))
        async with it.opened() as writer:
            it.log.deliver(writer, 5)
            await it.until(lambda: it.position == 5)
            for _ in range(120):
                it.log.append(*logins(1))
                await asyncio.sleep(5)
                writer.saw_log_end(it.log.end)
            gauges = writer.gauges()
            assert gauges.log_end_offset == 126
            assert gauges.last_stable_offset == gauges.next_offset == 5
            assert gauges.oldest_unwritten_seconds == 2e9, "behind since it was first noticed"
            assert gauges.open_transaction_seconds == pytest.approx(119 * 5)
            assert it.count("claims_total") == 1, "nothing could have come"
            it.log.open_from = None
            await it.drain(writer)
            assert writer.gauges().open_transaction_seconds == 0
        assert sorted(it.store.offsets()) == list(range(126))
        assert it.count("claims_total") == 1

    virtual_time.run(scene())


def test_a_position_behind_which_a_transaction_is_open_is_not_past_the_logs_end() -> None:
    async def scene() -> None:
        it = Scene(log=FakeLog(open_from=3))
        it.log.append(*logins(8))
        it.store.positions[PARTITION] = Position(6, 3)
        async with it.opened() as writer:
            assert writer.gauges().log_end_offset == 8
            it.log.open_from = None
            await it.drain(writer)
        assert sorted(it.store.offsets()) == [6, 7]

    virtual_time.run(scene())


def test_a_chunk_fetched_before_the_seek_counts_for_nothing() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(10))
        async with it.opened() as writer:
            writer.receive(chunk(it.log.records[5:]))
            await it.drain(writer)
        assert sorted(it.store.offsets()) == list(range(10))
        assert it.count("claims_total") == 1

    virtual_time.run(scene())


@pytest.mark.parametrize("chunk", [5, 10], ids=["between chunks", "within one"])
@pytest.mark.parametrize("control", [frozenset(), frozenset({6}), frozenset({5, 6, 7})], ids=len)
def test_a_gap_is_counted_and_passed_and_as_compacted_where_no_control_record_is(control: frozenset[int], chunk: int) -> None:
    async def scene() -> None:
        it = Scene(log=FakeLog(control=control))
        it.log.append(*logins(5))
        it.log.append(*logins(5), offset=8)
        with structlog.testing.capture_logs() as lines:
            async with it.opened() as writer:
                await it.drain(writer, chunk=chunk)
        assert sorted(it.store.offsets()) == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]
        assert (it.count("offsets_skipped_total"), it.count("records_lost_total")) == (3, 0)
        missing = 3 - len(control)
        assert it.count("records_compacted_total") == missing
        said = [line["records"] for line in lines if line["event"] == "records_lost_by_compaction"]
        assert said == [missing] * bool(missing)

    virtual_time.run(scene())


def test_what_retention_took_is_not_told_as_compacted() -> None:
    async def scene() -> None:
        it = Scene(log=FakeLog(control=frozenset({6})))
        it.log.append(*logins(20))
        async with it.opened() as writer:
            it.log.deliver(writer, 5)
            it.log.log_start = 9
            await it.drain(writer)
        assert (it.count("records_lost_total"), it.count("records_compacted_total")) == (4, 0)

    virtual_time.run(scene())


def test_retention_that_overtakes_a_stopped_worker_is_counted_as_loss() -> None:
    async def scene() -> None:
        it = Scene(log=FakeLog(log_start=4))
        it.log.append(*logins(3))
        it.store.positions[PARTITION] = Position(1, 1)
        async with it.opened() as writer:
            await it.drain(writer)
        assert sorted(it.store.offsets()) == [4, 5, 6]
        assert it.count("records_lost_total") == 3

    virtual_time.run(scene())


def test_a_loss_is_counted_once_however_often_the_partition_is_claimed() -> None:
    """Also while no record comes whose write would move the position past it."""

    async def scene() -> None:
        it = Scene(log=FakeLog(log_start=4))
        it.store.positions[PARTITION] = Position(1, 1)
        for _ in range(3):
            async with it.opened() as writer:
                assert (writer.lag.next_offset, writer.lag.log_end_offset) == (4, 4)
        assert it.store.positions[PARTITION] == Position(4, 4)
        assert it.count("records_lost_total") == 3

    virtual_time.run(scene())


def test_retention_that_overtakes_a_running_worker_is_counted_as_loss() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(20))
        async with it.opened() as writer:
            it.log.deliver(writer, 5)
            it.log.log_start = 9
            await it.drain(writer)
        assert sorted(it.store.offsets()) == [*range(5), *range(9, 20)]
        assert it.count("records_lost_total") == 4

    virtual_time.run(scene())


def test_a_position_past_the_logs_end_stops_the_partition_and_names_the_command() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(5))
        it.store.positions[PARTITION] = Position(50, 1)
        writer = it.open()
        await it.until(lambda: writer.state is State.STOPPED)
        assert "faust -A stream_app positions reset --topic logins --partition 3 --to 0 --reason WHY" in (writer.problem or "")
        it.store.positions[PARTITION] = Position(0, 9)  # as that command does
        await it.until(lambda: writer.writes)
        await it.drain(writer)
        await writer.close(1)
        assert sorted(it.store.offsets()) == list(range(5))

    virtual_time.run(scene())


def test_a_topic_made_anew_while_running_stops_the_partition() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(20))
        async with it.opened() as writer:
            await it.drain(writer)
            it.log.records.clear()
            it.log.append(*logins(3))
            it.log._next_offset = 0  # aiokafka goes to the earliest offset when its own is out of range
            it.log.deliver(writer, 3)
            await it.until(lambda: writer.state is State.STOPPED)
        assert sorted(it.store.offsets()) == list(range(20))

    virtual_time.run(scene())


def test_a_topic_made_anew_that_has_grown_past_the_position_stops_the_partition() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(5))
        async with it.opened() as writer:
            await it.drain(writer)
        it.log = FakeLog(id="the second")
        it.log.append(*logins(30))
        writer = it.open()
        await it.until(lambda: writer.state is State.STOPPED)
        problem = writer.problem or ""
        assert "belongs to the topic the first; the second is there" in problem
        assert problem.endswith("faust -A stream_app positions reset --topic logins --partition 3 --to 0 --reason WHY")
        it.store.positions[PARTITION], it.store.topic_ids[PARTITION] = Position(0, 9), None  # as that command does
        await it.drain(writer)
        await writer.close(1)
        assert sorted(it.store.offsets()) == list(range(30))

    virtual_time.run(scene())


def test_a_topic_made_anew_while_running_is_noticed_by_its_id() -> None:
    """What came of it until then is read again from its beginning: it is there once."""

    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(5))
        async with it.opened() as writer:
            await it.drain(writer)
            writer.saw_topic(None)
            writer.saw_topic("the first")
            assert writer.writes
            it.log.id = "the second"
            it.log.records.clear()
            it.log.append(*logins(30))
            await it.drain(writer)  # in the seconds before anybody has asked
            writer.saw_topic("the second")
            await it.until(lambda: writer.state is State.STOPPED)
            writer.saw_topic("the second")
            it.store.positions[PARTITION], it.store.topic_ids[PARTITION] = Position(0, 9), None
            await it.until(lambda: writer.writes)
            await it.drain(writer)
            writer.saw_topic("the second")
            assert writer.writes
        assert sorted(it.store.offsets()) == list(range(30))

    virtual_time.run(scene())


def test_offsets_without_a_record_within_a_chunk_are_counted() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(5))
        it.log.append(*logins(5), offset=8)
        async with it.opened() as writer:
            await it.drain(writer, chunk=10)
        assert sorted(it.store.offsets()) == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]
        assert (it.count("offsets_skipped_total"), it.count("records_lost_total")) == (3, 0)

    virtual_time.run(scene())


def test_after_a_failover_the_missing_rows_come_from_kafka_again() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(40))
        async with it.opened() as writer:
            it.log.deliver(writer, 10)
            await it.until(lambda: it.position == 10)
            standby = it.store.snapshot()
            it.log.deliver(writer, 10)
            await it.until(lambda: it.position == 20)
            it.store.failed_over(standby)
            it.log.deliver(writer, 10)
            await it.drain(writer)
        assert sorted(it.store.offsets()) == list(range(40))

    virtual_time.run(scene())
