import asyncio
import gc
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import virtual_time
from fake_log import FakeLog
from login_records import chunk, login
from memory_store import MemoryStore
from partition_scenes import PARTITION, Scene
from structlog.testing import capture_logs

from stream_app.batch import Batch, BatchBuilder
from stream_app.chunk import Chunk, Unreadable
from stream_app.claimed_writer import RECLAIM_SECONDS
from stream_app.partition_writer import POSITION_CHECK_SECONDS, State
from stream_app.positions import Claim, Partition, Position, Written
from stream_app.windows import WindowPolicy


def logins(count: int) -> list[bytes]:
    return [login()] * count


def play(scene: Coroutine[Any, Any, None]) -> None:
    virtual_time.run(scene)


def test_windows_close_by_rows_and_the_rest_by_time() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(25))
        async with it.opened() as writer:
            it.log.deliver(writer, 25)
            await it.until(lambda: it.position == 25)
        assert it.metrics.registry.get_sample_value("stream_batches_total", {"trigger": "rows"}) == 2
        assert it.metrics.registry.get_sample_value("stream_batches_total", {"trigger": "seconds"}) == 1
        assert it.count("rows_written_total") == 25

    play(scene())


def test_reading_starts_at_the_stored_position() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(10))
        it.store.positions[PARTITION] = Position(6, 3)
        async with it.opened() as writer:
            await it.drain(writer)
        assert sorted(it.store.offsets()) == [6, 7, 8, 9]

    play(scene())


def test_without_a_stored_position_reading_starts_where_the_log_does() -> None:
    async def scene() -> None:
        it = Scene(log=FakeLog(log_start=3))
        it.log.append(*logins(7))
        async with it.opened() as writer:
            await it.drain(writer)
        assert sorted(it.store.offsets()) == list(range(3, 10))

    play(scene())


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

    play(scene())


def test_batches_are_written_one_after_the_other() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(100))
        async with it.opened() as writer:
            it.store.statement_seconds = 0.5
            await it.drain(writer, chunk=20)
        assert sorted(it.store.offsets()) == list(range(100))
        assert (it.count("claims_total"), it.metrics.registry.get_sample_value("stream_batches_total", {"trigger": "rows"})) == (
            1,
            10,
        )

    play(scene())


def test_a_batch_is_on_its_way_before_the_next_one_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building keeps the event loop: begun first, it would make Postgres wait for the worker, and the worker then for Postgres."""
    done: list[tuple[str, int]] = []
    begin, write = BatchBuilder.begin, MemoryStore.write

    def noted_begin(builder: BatchBuilder, place: Partition, first_offset: int) -> Batch:
        done.append(("build", first_offset))
        return begin(builder, place, first_offset)

    async def noted_write(store: MemoryStore, claim: Claim, batch: Batch, newest_ms: int | None = None) -> Written:
        done.append(("write", batch.first_offset))
        written = await write(store, claim, batch, newest_ms)
        done.append(("written", batch.first_offset))
        return written

    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(30))
        async with it.opened() as writer:
            it.store.statement_seconds = 0.5
            it.log.deliver(writer, 30)
            await it.drain(writer)

    monkeypatch.setattr(BatchBuilder, "begin", noted_begin)
    monkeypatch.setattr(MemoryStore, "write", noted_write)
    play(scene())
    assert done == [
        ("build", 0), ("write", 0), ("build", 10), ("written", 0),
        ("write", 10), ("build", 20), ("written", 10),
        ("write", 20), ("written", 20),
    ]  # fmt: skip


def test_a_written_batch_is_not_kept() -> None:
    def batches() -> int:
        gc.collect()
        return sum(isinstance(each, Batch) for each in gc.get_objects())

    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(20))
        before = batches()
        async with it.opened() as writer:
            await it.drain(writer)
            await asyncio.sleep(0)
            assert batches() == before, "a worker with many partitions would hold the last one of each"

    play(scene())


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

    play(scene())


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

    play(scene())


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

    play(scene())


def test_a_log_that_ends_in_control_records_is_not_read_again_and_again() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(5))
        async with it.opened() as writer:
            await it.drain(writer)
            for _ in range(120):
                await asyncio.sleep(1)
                writer.saw_log_end(6)
        assert it.count("claims_total") == 2

    play(scene())


def test_a_chunk_fetched_before_the_seek_counts_for_nothing() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(10))
        async with it.opened() as writer:
            writer.receive(chunk(it.log.records[5:]))
            await it.drain(writer)
        assert sorted(it.store.offsets()) == list(range(10))
        assert it.count("claims_total") == 1

    play(scene())


def test_a_gap_in_the_log_is_counted_and_passed() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(5))
        it.log.append(*logins(5), offset=8)
        async with it.opened() as writer:
            await it.drain(writer, chunk=5)
        assert sorted(it.store.offsets()) == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]
        assert (it.count("offsets_skipped_total"), it.count("records_lost_total")) == (3, 0)

    play(scene())


def test_retention_that_overtakes_a_stopped_worker_is_counted_as_loss() -> None:
    async def scene() -> None:
        it = Scene(log=FakeLog(log_start=4))
        it.log.append(*logins(3))
        it.store.positions[PARTITION] = Position(1, 1)
        async with it.opened() as writer:
            await it.drain(writer)
        assert sorted(it.store.offsets()) == [4, 5, 6]
        assert it.count("records_lost_total") == 3

    play(scene())


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

    play(scene())


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

    play(scene())


def test_a_position_past_the_logs_end_stops_the_partition_and_names_the_command() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(5))
        it.store.positions[PARTITION] = Position(50, 1)
        writer = it.open()
        await it.until(lambda: writer.state is State.STOPPED)
        assert "faust -A stream_app positions reset --topic logins --partition 3 --to 0" in (writer.problem or "")
        it.store.positions[PARTITION] = Position(0, 9)  # as that command does
        await it.until(lambda: writer.writes)
        await it.drain(writer)
        await writer.close(1)
        assert sorted(it.store.offsets()) == list(range(5))

    play(scene())


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

    play(scene())


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
        assert problem.endswith("faust -A stream_app positions reset --topic logins --partition 3 --to 0")
        it.store.positions[PARTITION], it.store.topic_ids[PARTITION] = Position(0, 9), None  # as that command does
        await it.drain(writer)
        await writer.close(1)
        assert sorted(it.store.offsets()) == list(range(30))

    play(scene())


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

    play(scene())


@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_lost_answer_is_not_guessed(fault: Any) -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(10))
        async with it.opened() as writer:
            it.store.faults.extend([fault, "before", "before", "none"])
            await it.drain(writer)
        assert sorted(it.store.offsets()) == list(range(10))
        assert it.count("rows_written_total") == 10

    play(scene())


def test_offsets_without_a_record_within_a_chunk_are_counted() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(5))
        it.log.append(*logins(5), offset=8)
        async with it.opened() as writer:
            await it.drain(writer, chunk=10)
        assert sorted(it.store.offsets()) == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]
        assert (it.count("offsets_skipped_total"), it.count("records_lost_total")) == (3, 0)

    play(scene())


def test_a_fenced_writer_drops_what_it_holds_and_claims_again_only_after_a_while() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(10))
        async with it.opened() as writer:
            it.log.deliver(writer, 10)
            it.store.positions[PARTITION] = Position(0, 7)
            await it.until(lambda: writer.state is State.FENCED, seconds=5)
            assert (list(it.store.offsets()), it.budget.bytes_used, it.log.paused) == ([], 0, True)
            await asyncio.sleep(RECLAIM_SECONDS - 1)
            assert writer.state is State.FENCED
            await it.drain(writer)
        assert sorted(it.store.offsets()) == list(range(10))
        assert it.count("writes_fenced_total") == 1

    play(scene())


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

    play(scene())


def test_a_refused_row_becomes_a_dead_letter_and_its_neighbours_rows() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(10))
        refused = dict(it.log.records[4].headers)["message-id"].decode()
        it.store.refused_message_ids = {refused}
        async with it.opened() as writer:
            await it.drain(writer, chunk=10)
        assert sorted(it.store.rows.values()) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
        assert list(it.store.dead_letters.values()) == [4]
        assert it.metrics.registry.get_sample_value("stream_dead_letters_total", {"reason": "row_refused"}) == 1

    play(scene())


def test_closing_writes_what_is_in_hand() -> None:
    async def scene() -> None:
        it = Scene(policy=WindowPolicy(rows=100, bytes=1_000_000, seconds=1_000))
        it.log.append(*logins(15))
        async with it.opened() as writer:
            it.log.deliver(writer, 15)
            await asyncio.sleep(1)
            assert it.position == 0
        assert it.position == 15

    play(scene())


def test_closing_takes_no_longer_than_its_bound() -> None:
    async def scene() -> None:
        it = Scene(store=MemoryStore())
        it.log.append(*logins(15))
        writer = it.open()
        await it.until(lambda: writer.writes)
        it.store.statement_seconds = 1_000
        it.log.deliver(writer, 15)
        started = asyncio.get_running_loop().time()
        await writer.close(5)
        assert asyncio.get_running_loop().time() - started == pytest.approx(5, abs=0.1)
        assert writer.state is State.CLOSED
        assert it.budget.bytes_used == 0

    play(scene())


@pytest.mark.parametrize("slices", [0, 1])
def test_an_unexpected_error_stops_the_partition_and_skips_nothing(monkeypatch: pytest.MonkeyPatch, slices: int) -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(10))
        add, left = BatchBuilder.add, slices

        def add_some(*args: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise ZeroDivisionError
            add(*args)

        async with it.opened() as writer:
            with monkeypatch.context() as broken:
                broken.setattr("stream_app.windows.SLICE_RECORDS", 4)
                broken.setattr(BatchBuilder, "add", add_some)
                it.log.deliver(writer, 10)
                await it.until(lambda: writer.state is State.STOPPED)
                assert "ZeroDivisionError" in (writer.problem or "")
                assert it.budget.bytes_used == 0
            await it.drain(writer)
        assert sorted(it.store.offsets()) == list(range(10))

    play(scene())


@pytest.mark.parametrize("readable", [0, 4, 23])
def test_what_cannot_be_unpacked_stops_the_partition_when_all_before_it_is_written(readable: int) -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(40))
        with capture_logs() as logs:
            async with it.opened() as writer:
                whole = it.log.fetch(30)
                assert whole is not None

                def unpack(start: int) -> Iterator[Any]:
                    yield from it.log.records[start:readable]
                    raise ValueError("no record begins here")

                it_breaks: Chunk[Any] = Chunk(
                    it.log.records[0] if readable else Unreadable(0, ValueError("no record begins here")),
                    unpack,
                    next_offset=whole.next_offset,
                    packed_bytes=100,
                    seek_number=whole.seek_number,
                    sequence=whole.sequence,
                )
                writer.receive(it_breaks)
                it.log.deliver(writer, 10)  # it follows, and must not be written before
                await it.until(lambda: writer.state is State.STOPPED)
                assert "ValueError" in (writer.problem or "")
                assert (sorted(it.store.offsets()), it.position) == (list(range(readable)), readable)
                assert (it.budget.bytes_used, it.budget.turns._value) == (0, it.budget.batches_max)
                await it.drain(writer)
        assert sorted(it.store.offsets()) == list(range(40))
        (failed,) = [line for line in logs if line["event"] == "partition_failed"]
        assert failed["next_offset"] == readable

    play(scene())


def test_closing_ends_although_a_cancel_was_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        it = Scene()
        writer = it.open()
        await it.until(lambda: writer.writes)
        swallowed = 0

        async def deaf(*_: Any) -> None:
            nonlocal swallowed
            while True:
                try:
                    await asyncio.sleep(10_000)
                except asyncio.CancelledError:
                    swallowed += 1
                    if swallowed > 2:
                        raise

        monkeypatch.setattr(writer, "_next_trigger", deaf)  # what awaits a cancel in the writer's own task
        writer._read_again("the test")
        await asyncio.sleep(5)
        async with asyncio.timeout(60):
            await writer.close(5)
        assert (swallowed, writer.state) == (3, State.CLOSED)

    play(scene())


def test_a_message_that_was_written_before_the_claim_is_a_duplicate_and_no_surprise() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(*logins(5))
        async with it.opened() as writer:
            await it.drain(writer)
        it.log.append_again(2)
        async with it.opened() as writer:
            await it.drain(writer)
        assert (len(it.store.rows), it.count("duplicates_skipped_total"), it.store.surprises) == (5, 1, 0)

    play(scene())


def test_a_dead_letter_that_was_there_counts_as_a_duplicate() -> None:
    async def scene() -> None:
        it = Scene()
        it.log.append(b"poison", b"poison", b"poison")
        for there in it.log.records[:2]:
            headers = dict(there.headers)
            it.store.dead_letters[headers["sent-at"].decode(), headers["message-id"].decode()] = 99
        async with it.opened() as writer:
            await it.drain(writer)
        letters = it.metrics.registry.get_sample_value("stream_dead_letters_total", {"reason": "not_json"})
        assert (letters, it.count("duplicates_skipped_total")) == (1, 2)

    play(scene())


def test_the_oldest_record_that_waits_tells_the_lag() -> None:
    async def scene() -> None:
        it = Scene(policy=WindowPolicy(rows=100, bytes=1_000_000, seconds=50))
        it.log.append(*logins(5))
        async with it.opened() as writer:
            it.log.deliver(writer, 5)
            sent_at_ms = int(dict(it.log.records[0].headers)["sent-at"])
            assert writer.gauges().oldest_unwritten_seconds == sent_at_ms / 1000
            await it.drain(writer)
            assert writer.gauges().oldest_unwritten_seconds is None

    play(scene())
