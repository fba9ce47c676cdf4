import structlog
from login_records import PLACE, build, builder, login
from memory_store import MemoryStore
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


async def test_large_dead_letters_are_written_by_several_statements() -> None:
    """One after the other, each as safe as a whole batch: here the answer to the second one is lost."""
    store, written = MemoryStore(), list[Batch]()
    claim, position = await store.claim(PLACE, 0, None)
    store.faults.extend(["none", "after"])
    writer = ClaimedWriter(
        claim,
        position,
        store=store,
        builder=builder(),
        metrics=WorkerMetrics(),
        log=structlog.get_logger(),
        sleep=at_once,
        on_written=written.append,
    )

    await writer.write(build([b"x" * SEALED_BYTES_MAX, login(), b"y" * SEALED_BYTES_MAX, b"z" * SEALED_BYTES_MAX, login()]))

    assert [part.next_offset for part in written] == [2, 3, 5]
    assert writer.next_offset == store.positions[PLACE].next_offset == 5
    assert (sorted(store.rows.values()), sorted(store.dead_letters.values())) == ([1, 4], [0, 2, 3])
