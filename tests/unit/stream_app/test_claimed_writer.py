import gc
import time
from dataclasses import replace

import pytest
import structlog
from login_records import LOGIN, PLACE, batch_of, build, builder, login, records
from memory_store import MemoryStore, message_of
from structlog.testing import capture_logs

from pipeline.errors import FatalError, PipelineError, RetryableError
from stream_app.batch import SEALED_BYTES_MAX, Batch
from stream_app.claimed_writer import BROKEN_ALONE_MAX, BROKEN_MAX, ClaimedWriter, retrying
from stream_app.metrics import WorkerMetrics
from stream_app.positions import Claim, Position, Written
from stream_app.postgres.errors import NotUniqueError, StatementBrokenError, StatementLimitError, StatementTimedOutError
from stream_app.refusals import RefusedRun
from stream_app.refused_rows import RefusedRows


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
        refused_run=RefusedRun(100, time.monotonic),
        refused_rows=RefusedRows(time.monotonic),
        metrics=metrics or WorkerMetrics(),
        log=structlog.get_logger(),
        sleep=at_once,
        on_written=written.append,
    )


@pytest.mark.usefixtures("without_garbage_collection")
async def test_a_write_leaves_nothing_in_cycles() -> None:
    """It would add up until garbage is collected: 25 MB in four minutes at full speed."""
    writer = await claimed(MemoryStore(), [])
    batch = build([login()])
    gc.collect()

    await writer.write(batch)

    assert gc.collect() == 0


async def test_each_try_that_fails_is_waited_for_and_told() -> None:
    """The first one, too, which tenacity does not make."""
    store, pauses = MemoryStore(), list[float]()
    writer = await claimed(store, [])

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    writer._sleep = pause
    store.faults.extend(["before", "after"])

    with capture_logs() as lines:
        await writer.write(build([login()]))

    assert [line["event"] for line in lines] == ["retrying"]
    assert len(pauses) == 2
    assert len(store.rows) == 1


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


@pytest.mark.parametrize(("there_at", "refused_at"), [(2, 5), (5, 2)])
async def test_a_surprise_and_a_refused_row_in_one_batch(there_at: int, refused_at: int) -> None:
    """Whichever comes first: the message that is there is passed over, the refused row is a dead letter, all others are rows."""
    store, metrics, all_of_them = MemoryStore(), WorkerMetrics(), records([login()] * 8)
    writer = await claimed(store, [], metrics)
    store.rows[message_of(all_of_them[there_at])] = 99
    store.refused_message_ids = {message_of(all_of_them[refused_at])[1]}

    await writer.write(batch_of(all_of_them, 0, 8))

    assert sorted(store.rows.values()) == sorted({*range(8), 99} - {there_at, refused_at})
    assert list(store.dead_letters.values()) == [refused_at]
    assert store.positions[PLACE].next_offset == 8
    assert metrics.registry.get_sample_value("stream_duplicates_skipped_total") == 1


async def test_what_another_unique_index_refuses_is_a_refused_row() -> None:
    """The table's owner may have one of their own: no looking again finds a row for that message."""
    store, all_of_them = MemoryStore(), records([login()] * 8)
    writer = await claimed(store, [])
    store.not_unique_message_ids = {message_of(all_of_them[3])[1]}

    with capture_logs() as lines:
        await writer.write(batch_of(all_of_them, 0, 8))

    assert sorted(store.rows.values()) == [0, 1, 2, 4, 5, 6, 7]
    assert list(store.dead_letters.values()) == [3]
    assert [line["event"] for line in lines] == ["looks_for_each_message", "row_refused"]


async def test_a_message_that_is_being_written_elsewhere_is_no_refused_row() -> None:
    """Also where each is looked for already, and where the batch can't be halved any more."""

    class WrittenElsewhere(MemoryStore):
        async def write(self, claim: Claim, batch: Batch, newest_ms: int | None = None) -> Written:
            if batch.row_offsets and not self.rows:
                self.rows[message_of(records([login()])[0])] = 99  # it came between the look and the insert
                raise NotUniqueError
            return await super().write(claim, batch, newest_ms)

    store = WrittenElsewhere()
    writer = await claimed(store, [])
    writer._newest_ms = None

    await writer.write(build([login()]))

    assert (list(store.rows.values()), store.dead_letters, store.positions[PLACE].next_offset) == ([99], {}, 1)


async def test_a_message_that_comes_again_with_other_content_is_counted_and_named_and_its_row_stays() -> None:
    store, metrics = MemoryStore(), WorkerMetrics()
    writer = await claimed(store, [], metrics)
    bodies = [login(), login(), login(), login(user_id="another"), login(user_id="another"), login()]
    found = records(bodies)
    for again, first in ((3, 0), (4, 2), (5, 1)):  # the first two with other content, and in one batch with what came first
        found[again] = replace(found[again], headers=found[first].headers)
    with capture_logs() as lines:
        await writer.write(batch_of(found[:4], 0, 4))
        await writer.write(batch_of(found[4:], 4, 6))
    assert [(line["event"], line["messages"], line["message_ids"]) for line in lines] == [
        ("duplicates_differ", 1, [message_of(found[0])[1]]),
        ("duplicates_differ", 1, [message_of(found[2])[1]]),
    ]
    assert metrics.registry.get_sample_value("stream_duplicates_differing_total") == 2
    assert metrics.registry.get_sample_value("stream_duplicates_skipped_total") == 3
    assert store.contents[message_of(found[0])][0] == store.contents[message_of(found[2])][0] == LOGIN["user_id"]


async def test_of_many_that_differ_few_are_named() -> None:
    writer = await claimed(MemoryStore(), [])
    await writer.write(batch_of(records([login()] * 20), 0, 20))
    again = batch_of(records([login(locale="XX")] * 20), 20, 40)
    with capture_logs() as lines:
        await writer.write(again)
    assert (lines[0]["messages"], len(lines[0]["message_ids"])) == (20, 10)


class TakesLittle(MemoryStore):
    """A Postgres at which the connection breaks, or that has no memory, when a statement has more records than it takes."""

    def __init__(self, records_max: int, error: PipelineError) -> None:
        super().__init__()
        self.records_max = records_max
        self.error = error
        self.statements: list[int] = []

    async def write(self, claim: Claim, batch: Batch, newest_ms: int | None = None) -> Written:
        self.statements.append(batch.records)
        if batch.records > self.records_max:
            raise self.error
        return await super().write(claim, batch, newest_ms)


TOO_MUCH = [StatementBrokenError("the connection was closed"), StatementLimitError("a limit")]
TIMED_OUT = StatementTimedOutError("it took too long")


@pytest.mark.parametrize("error", [*TOO_MUCH, TIMED_OUT], ids=["broken", "limit", "timed-out"])
async def test_what_is_too_much_for_one_statement_is_halved_and_never_sent_for_ever(error: PipelineError) -> None:
    store, metrics = TakesLittle(2, error), WorkerMetrics()
    writer = await claimed(store, [], metrics)

    await writer.write(build([login(), b"x", login(), b"y", login(), login(), b"z"]))

    assert (sorted(store.rows.values()), sorted(store.dead_letters.values())) == ([0, 2, 4, 5], [1, 3, 6])
    assert store.positions[PLACE].next_offset == writer.next_offset == 7
    assert all(store.statements.count(records) <= BROKEN_MAX * 2 for records in (7, 4, 3))
    assert metrics.registry.get_sample_value("stream_batch_splits_total") == 3


@pytest.mark.parametrize("error", [*TOO_MUCH, TIMED_OUT], ids=["broken", "limit", "timed-out"])
async def test_dead_letters_held_back_that_are_too_much_for_one_statement_are_halved(error: PipelineError) -> None:
    class TakesFewLetters(MemoryStore):
        async def write(self, claim: Claim, batch: Batch, newest_ms: int | None = None) -> Written:
            if len(batch.dead_letters) > 1 and not batch.row_offsets:
                raise error
            return await super().write(claim, batch, newest_ms)

    store = TakesFewLetters(refuses_all=True)
    writer = await claimed(store, [])
    await writer.write(build([login()] * 4))
    assert (store.rows, sorted(store.dead_letters.values()), store.positions[PLACE].next_offset) == ({}, [0, 1, 2, 3], 4)


@pytest.mark.parametrize("error", TOO_MUCH, ids=["broken", "limit"])
@pytest.mark.parametrize("body", [login(), b"x"], ids=["row", "dead-letter"])
async def test_one_record_that_is_too_much_stops_the_partition_and_is_no_dead_letter(error: PipelineError, body: bytes) -> None:
    store = TakesLittle(0, error)
    writer = await claimed(store, [])

    with pytest.raises(FatalError, match=f"before offset 1, alone in its statement, .*{error}"):
        await writer.write(build([body]))

    assert (store.rows, store.dead_letters, store.positions[PLACE].next_offset) == ({}, {}, 0)
    assert len(store.statements) <= BROKEN_ALONE_MAX


async def test_one_record_for_which_there_is_no_time_is_sent_until_there_is() -> None:
    """A table that is locked, or a server that is slow, says nothing about a record: that it stops nothing, and needs nobody."""
    store, metrics = TakesLittle(0, TIMED_OUT), WorkerMetrics()
    writer = await claimed(store, [], metrics)
    pauses = 0

    async def pause(_: float) -> None:
        nonlocal pauses
        pauses += 1
        if pauses == 10 * BROKEN_ALONE_MAX:
            store.records_max = 1  # the lock is gone

    writer._sleep = pause
    await writer.write(build([login(), login()]))

    assert store.positions[PLACE].next_offset == 2
    assert metrics.registry.get_sample_value("stream_batch_splits_total") == 1


async def test_a_server_that_does_not_answer_is_no_reason_to_halve() -> None:
    """Nor is one that answers other questions and breaks a statement once."""
    store, metrics = TakesLittle(0, StatementBrokenError("the connection was closed")), WorkerMetrics()
    writer = await claimed(store, [], metrics)
    tries = 0

    async def away(_: object) -> Position | None:
        nonlocal tries
        tries += 1
        if tries < 20:
            raise RetryableError("nobody listens")
        store.records_max = 1_000  # it is back
        return store.positions[PLACE]

    store.position = away  # type: ignore[method-assign,assignment]
    await writer.write(build([login()] * 4))

    assert store.statements == [4, 4]
    assert metrics.registry.get_sample_value("stream_batch_splits_total") == 0


async def test_a_broken_statement_that_was_carried_out_is_not_sent_again() -> None:
    class AnswersLost(MemoryStore):
        async def write(self, claim: Claim, batch: Batch, newest_ms: int | None = None) -> Written:
            await super().write(claim, batch, newest_ms)
            raise StatementBrokenError("the connection was closed")

    store, written = AnswersLost(), list[Batch]()
    writer = await claimed(store, written)
    await writer.write(build([login()] * 4))
    assert (len(store.rows), [part.next_offset for part in written]) == (4, [4])
