"""When one partition writes what, and what a failure leaves. From where it reads: test_partition_position.py."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest
import virtual_time
from login_records import login, logins
from memory_store import MemoryStore
from partition_scenes import PARTITION, Scene
from structlog.testing import capture_logs

from stream_app.batch import Batch, BatchBuilder
from stream_app.chunk import Chunk, Piece, Unreadable
from stream_app.claimed_writer import RECLAIM_SECONDS
from stream_app.login_record import FIELDS, NIL_UUID
from stream_app.partition_writer import State
from stream_app.positions import Claim, Partition, Position, Written
from stream_app.windows import WindowPolicy


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

    virtual_time.run(scene())


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

    virtual_time.run(scene())


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
    virtual_time.run(scene())
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

    virtual_time.run(scene())


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

    virtual_time.run(scene())


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

    virtual_time.run(scene())


def test_what_was_left_off_is_counted_by_field_when_it_is_written() -> None:
    async def scene() -> None:
        it = Scene()
        odd = login(app_version="2.3.1042", ip="203.0.113.9:80", device_id=NIL_UUID)
        it.log.append(*logins(10), odd, login(ip="203.0.113.9:80"), login(ip="203.0.113.9:80", user_id=""))
        async with it.opened() as writer:
            await it.drain(writer)
        counted = {
            (field.name, reduction.value): it.count("values_reduced_total", field=field.name, reduction=reduction.value)
            for field in FIELDS
            for reduction in field.reductions
        }
        assert {what: count for what, count in counted.items() if count} == {
            ("app_version", "rounded"): 1,
            ("ip", "port"): 2,
            ("device_id", "no_value"): 1,
        }

    virtual_time.run(scene())


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

    virtual_time.run(scene())


def test_closing_writes_what_is_in_hand() -> None:
    async def scene() -> None:
        it = Scene(policy=WindowPolicy(rows=100, bytes=1_000_000, seconds=1_000))
        it.log.append(*logins(15))
        async with it.opened() as writer:
            it.log.deliver(writer, 15)
            await asyncio.sleep(1)
            assert it.position == 0
        assert it.position == 15

    virtual_time.run(scene())


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

    virtual_time.run(scene())


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

    virtual_time.run(scene())


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
                    yield Piece(iter(it.log.records[start:readable]), readable, 0)
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

    virtual_time.run(scene())


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

    virtual_time.run(scene())


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

    virtual_time.run(scene())


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

    virtual_time.run(scene())


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

    virtual_time.run(scene())
