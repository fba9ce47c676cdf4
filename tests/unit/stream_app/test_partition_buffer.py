"""What a partition holds of the memory and the turns that all partitions of a worker share."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import virtual_time
from login_records import builder, chunk, login, logins, record
from packed_bombs import MEBIBYTE, ZSTD, bomb, chunk_of
from partition_scenes import PARTITION, Scene

from stream_app.batch import BatchBuilder
from stream_app.chunk import RECORD_OVERHEAD_BYTES, Chunk, Piece, Unread, memory_bytes
from stream_app.dead_letters import KafkaRecord
from stream_app.large_records import LargeRecord
from stream_app.metrics import WorkerMetrics
from stream_app.partition_buffer import PartitionBuffer
from stream_app.partition_ports import Budget
from stream_app.partition_writer import PartitionWriter
from stream_app.positions import Position
from stream_app.transport.record_pieces import HELD_BYTES
from stream_app.windows import WindowPolicy


def buffer(budget: Budget) -> PartitionBuffer:
    """It holds ten records that wait."""
    policy = WindowPolicy(rows=10, bytes=1_000_000, seconds=0.2)
    it = PartitionBuffer(PARTITION, builder=builder(), policy=policy, budget=budget, metrics=WorkerMetrics())
    it.add(chunk([record(login(), offset) for offset in range(10)]))
    return it


async def test_a_batch_gives_its_memory_and_its_turn_back_once() -> None:
    budget = Budget(1_000_000, batches_max=2)
    it = buffer(budget)
    built = await it.build(0)
    assert built is not None
    assert (budget.bytes_used, budget.turns._value, it.records) == (built.bytes, 1, 10)
    it.let_go(built)
    it.let_go(built)
    it.let_go_of_all()
    assert (budget.bytes_used, budget.turns._value, it.records) == (0, 2, 0)


async def test_what_is_held_to_unpack_on_counts_also_where_a_record_too_large_comes_next() -> None:
    """Up to 10 MiB a partition, for as long as it rests there: as long as Postgres is away."""
    budget = Budget(100 * MEBIBYTE, batches_max=2)
    policy = WindowPolicy(rows=1_000, bytes=MEBIBYTE, seconds=0.2)
    it = PartitionBuffer(PARTITION, builder=builder(), policy=policy, budget=budget, metrics=WorkerMetrics())
    it.add(chunk_of(bomb(ZSTD, [login(), 3 * MEBIBYTE, login(), 3 * MEBIBYTE])))
    at_first, next_offset = budget.bytes_used, 0
    for _ in range(2):
        built = await it.build(next_offset)
        assert built is not None
        assert budget.bytes_used == it.bytes >= HELD_BYTES, "the second record is in the way"
        it.let_go(built)
        assert budget.bytes_used == it.bytes >= HELD_BYTES
        next_offset = built.batch.next_offset
    built = await it.build(next_offset)
    assert built is not None
    assert built.batch.next_offset == 4
    assert budget.bytes_used == it.bytes < at_first + HELD_BYTES
    it.let_go(built)
    assert (budget.bytes_used, it.bytes) == (0, 0)


async def test_what_was_dropped_while_it_waited_for_a_turn_takes_none() -> None:
    budget = Budget(1_000_000, batches_max=1)
    it = buffer(budget)
    async with budget.turns:
        building = asyncio.create_task(it.build(0))
        await asyncio.sleep(0)
        it.clear()
    assert await building is None
    assert (budget.bytes_used, budget.turns._value) == (0, 1)


async def test_a_batch_that_could_not_be_built_takes_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: Any) -> None:
        raise RuntimeError("a defect of ours")

    budget = Budget(1_000_000, batches_max=1)
    it = buffer(budget)
    monkeypatch.setattr(BatchBuilder, "add", defect)
    with pytest.raises(RuntimeError):
        await it.build(0)
    it.clear()
    assert (budget.bytes_used, budget.turns._value) == (0, 1)


async def test_who_is_cancelled_while_it_waits_for_a_turn_takes_none() -> None:
    budget = Budget(1_000_000, batches_max=1)
    it = buffer(budget)
    async with budget.turns:
        building = asyncio.create_task(it.build(0))
        await asyncio.sleep(0)
        building.cancel()
        await asyncio.gather(building, return_exceptions=True)
    assert budget.turns._value == 1
    assert await it.build(0) is not None


def test_a_batch_takes_its_partitions_share_of_the_memory_and_a_second_one_waits_for_room() -> None:
    async def scene() -> None:
        it = Scene(policy=WindowPolicy(rows=100, bytes=1_000_000, seconds=0.2), budget=Budget(60_000, batches_max=5))
        it.budget.partitions = 4
        it.log.append(*logins(60))
        async with it.opened() as writer:
            it.store.statement_seconds = 1.0
            it.budget.bytes_used += 55_000  # of other partitions
            it.log.deliver(writer, 60)
            await asyncio.sleep(0.5)
            (batch,) = writer._buffer._built
            assert 5_000 <= memory_bytes(it.log.records[: batch.batch.records]) <= 6_000, "a fifth of one half, and no second batch"
            it.budget.bytes_used -= 55_000
            await it.drain(writer)
        assert it.count("rows_written_total") == 60
        assert it.budget.bytes_used == 0

    virtual_time.run(scene())


@asynccontextmanager
async def neighbours(number: int, budget: Budget) -> AsyncIterator[list[tuple[Scene, PartitionWriter]]]:
    """Partitions of one worker, each over a log and tables of its own; a statement takes a second."""
    scenes = [Scene(budget=budget) for _ in range(number)]
    budget.partitions = number
    async with AsyncExitStack() as stack:
        opened = []
        for it in scenes:
            it.neighbours = scenes
            opened.append((it, await stack.enter_async_context(it.opened())))
            it.store.statement_seconds = 1.0
        yield opened


@pytest.mark.parametrize("partitions", [2, 5, 9])
@pytest.mark.parametrize("fault", ["before", "fenced"])
def test_when_the_writes_of_all_partitions_fail_at_once_each_goes_on_afterwards(partitions: int, fault: str) -> None:
    """A batch that failed must not keep its turn while its partition waits for another."""

    async def scene() -> None:
        budget = Budget(10_000_000, batches_max=2)
        async with neighbours(partitions, budget) as opened:
            for it, writer in opened:
                it.log.append(*logins(100))
                it.log.deliver(writer, 40)
            await asyncio.sleep(0.5)
            for it, _ in opened:
                if fault == "fenced":
                    it.store.positions[PARTITION] = Position(0, 7)
                else:
                    it.store.faults.extend(["before"] * 3)
            for it, writer in opened:
                await it.drain(writer)
        for it, _ in opened:
            assert sorted(it.store.offsets()) == list(range(100))
        assert (budget.bytes_used, budget.turns._value) == (0, 2)

    virtual_time.run(scene())


def test_no_more_batches_are_in_memory_than_there_are_turns_and_who_waits_gets_a_larger_one() -> None:
    async def scene() -> None:
        async with neighbours(8, Budget(10_000_000, batches_max=3)) as opened:
            for it, writer in opened:
                it.log.append(*logins(20))
                it.log.deliver(writer, 2)
            await asyncio.sleep(0.5)
            assert sum(bool(writer._buffer._built) for _, writer in opened) == 3
            for it, writer in opened:
                it.log.deliver(writer, 2)
            assert sorted(writer._buffer.waiting_records for _, writer in opened) == [2] * 3 + [4] * 5
            await opened[-1][0].until(lambda: all(it.position == 4 and not writer._buffer._built for it, writer in opened))
            assert sorted(it.count("batch_rows_count") for it, _ in opened) == [1] * 5 + [2] * 3

    virtual_time.run(scene())


def test_an_absent_database_is_waited_for_with_bounded_memory() -> None:
    async def scene() -> None:
        it = Scene(
            policy=WindowPolicy(rows=100, bytes=1_000_000, seconds=0.2), budget=Budget(50 * RECORD_OVERHEAD_BYTES, batches_max=5)
        )
        it.log.append(*logins(1_000))
        async with it.opened() as writer:
            it.store.faults.extend(["before"] * 60)
            for _ in range(3_000):
                it.log.deliver(writer, 10)
                await asyncio.sleep(0.1)
                assert it.budget.bytes_used <= it.budget.bytes_max + 20 * RECORD_OVERHEAD_BYTES
            await it.drain(writer)
        assert sorted(it.store.offsets()) == list(range(1_000))
        assert it.budget.bytes_used == 0

    virtual_time.run(scene())


def test_partitions_that_share_memory_wait_together() -> None:
    async def scene() -> None:
        budget = Budget(6_000, batches_max=5)  # 30 packed records are more
        policy = WindowPolicy(rows=1_000, bytes=10_000_000, seconds=50)
        one, two = Scene(budget=budget, policy=policy), Scene(budget=budget, policy=policy)
        one.neighbours = two.neighbours = [one, two]
        one.log.append(*logins(100))
        two.log.append(*logins(100))
        async with one.opened() as first, two.opened() as second:
            one.log.deliver(first, 30)
            assert (one.log.paused, two.log.paused) == (True, True)
            await one.until(lambda: one.position == 30)
            assert (one.log.paused, two.log.paused) == (False, False)
            await one.drain(first)
            await two.drain(second)
        assert budget.bytes_used == 0

    virtual_time.run(scene())


def with_a_large_one(read: Callable[[Callable[[], None]], Iterable[KafkaRecord]]) -> Chunk[KafkaRecord]:
    """Two logins, a record that takes long to go through, two more."""
    found = [record(login(), offset) for offset in range(5)]

    def unpack(start: int) -> Iterator[Piece[KafkaRecord] | Unread[KafkaRecord]]:
        yield Piece(iter(found[start:2]), 2, 0)
        yield Unread(2, 1_000, read)
        yield Piece(iter(found[3:]), 2, 0)

    return Chunk(found[0], unpack, next_offset=5, packed_bytes=100, seek_number=0, sequence=0)


async def test_what_takes_long_to_go_through_is_gone_through_beside_the_event_loop_and_without_a_turn() -> None:
    budget, turns, loop_thread = Budget(1_000_000, batches_max=1), list[int](), threading.get_ident()

    def read(_: Callable[[], None]) -> list[KafkaRecord]:
        assert threading.get_ident() != loop_thread
        turns.append(budget.turns._value)
        return [LargeRecord(offset=2, timestamp=1_000)]

    it = PartitionBuffer(
        PARTITION,
        builder=builder(),
        policy=WindowPolicy(rows=10, bytes=1_000_000, seconds=0.2),
        budget=budget,
        metrics=WorkerMetrics(),
    )
    it.add(with_a_large_one(read))
    first = await it.build(0)
    assert first is not None
    assert (first.batch.next_offset, turns) == (2, []), "what is before it does not wait for it"
    it.let_go(first)
    second = await it.build(2)
    assert second is not None
    assert ([letter.offset for letter in second.batch.dead_letters], second.batch.row_offsets, turns) == ([2], [3, 4], [1])
    it.let_go(second)
    assert (budget.bytes_used, it.bytes) == (0, 0)


async def test_nobody_waits_for_what_takes_long_when_it_is_dropped_or_cancelled() -> None:
    budget, began, ended = Budget(1_000_000, batches_max=1), threading.Event(), threading.Event()

    def read(check: Callable[[], None]) -> list[KafkaRecord]:
        began.set()
        try:
            while True:
                check()
        finally:
            ended.set()

    it = PartitionBuffer(
        PARTITION,
        builder=builder(),
        policy=WindowPolicy(rows=10, bytes=1_000_000, seconds=0.2),
        budget=budget,
        metrics=WorkerMetrics(),
    )
    it.add(with_a_large_one(read))
    first = await it.build(0)
    assert first is not None
    it.let_go(first)
    building = asyncio.create_task(it.build(2))
    assert await asyncio.to_thread(began.wait, 10)
    it.clear()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert await asyncio.to_thread(ended.wait, 10)
    assert (budget.bytes_used, budget.turns._value) == (0, 1)
