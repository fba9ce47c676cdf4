from dataclasses import replace

import structlog
from login_records import PLACE, batch_of, build, builder, login, records
from memory_store import MemoryStore, message_of
from structlog.testing import capture_logs

from pipeline.errors import RetryableError
from stream_app.batch import SEALED_BYTES_MAX, Batch
from stream_app.claimed_writer import ClaimedWriter, retrying
from stream_app.metrics import WorkerMetrics


async def at_once(_: float) -> None:
    return


async def test_while_it_tries_again_each_problem_is_logged_once() -> None:
    """That a connection was closed says little; why there is no other one says what to do."""
    problems = ["the connection was closed", "the password is wrong", "the connection was closed", "the password is wrong"]

    with capture_logs() as lines:
        async for attempt in retrying("write", structlog.get_logger(), at_once):
            with attempt:
                if problems:
                    raise RetryableError(problems.pop(0))
    assert [(line["event"], line["problem"]) for line in lines] == [
        ("retrying", "the connection was closed"),
        ("retrying", "the password is wrong"),
    ]


async def claimed(store: MemoryStore, written: list[Batch], metrics: WorkerMetrics | None = None) -> ClaimedWriter:
    claim, position = await store.claim(PLACE, 0, None)
    return ClaimedWriter(
        claim,
        position,
        await store.newest_sent_at_ms(),
        store=store,
        builder=builder(),
        metrics=metrics or WorkerMetrics(),
        log=structlog.get_logger(),
        sleep=at_once,
        on_written=written.append,
    )


async def test_large_dead_letters_are_written_by_several_statements() -> None:
    """One after the other, each as safe as a whole batch: here the answer to the second one is lost."""
    store, written = MemoryStore(), list[Batch]()
    writer = await claimed(store, written)
    store.faults.extend(["none", "after"])

    await writer.write(build([b"x" * SEALED_BYTES_MAX, login(), b"y" * SEALED_BYTES_MAX, b"z" * SEALED_BYTES_MAX, login()]))

    assert [part.next_offset for part in written] == [2, 3, 5]
    assert writer.next_offset == store.positions[PLACE].next_offset == 5
    assert (sorted(store.rows.values()), sorted(store.dead_letters.values())) == ([1, 4], [0, 2, 3])


async def test_a_message_that_came_through_another_partition_is_a_surprise_once() -> None:
    """After it, each message is looked for: it will not have been the only one."""
    store, metrics, there = MemoryStore(), WorkerMetrics(), records([login()] * 9)
    writer = await claimed(store, [], metrics)
    store.rows |= {message_of(there[number]): 99 for number in (2, 5)}

    for first_offset in (0, 3, 6):
        part = there[first_offset : first_offset + 3]
        await writer.write(batch_of(part, first_offset, first_offset + 3))

    assert (store.surprises, len(store.rows), store.positions[PLACE].next_offset) == (1, 9, 9)
    assert metrics.registry.get_sample_value("stream_duplicates_skipped_total") == 2


async def test_what_was_written_under_the_claim_or_before_it_is_no_surprise() -> None:
    store, there = MemoryStore(), records([login()] * 3)
    before = await claimed(store, [])
    await before.write(batch_of(there, 0, 3))
    await before.write(batch_of([replace(each, offset=3 + each.offset) for each in there], 3, 6))
    after = await claimed(store, [])
    await after.write(batch_of([replace(each, offset=6 + each.offset) for each in there], 6, 9))
    assert (store.surprises, len(store.rows), store.positions[PLACE].next_offset) == (0, 3, 9)
