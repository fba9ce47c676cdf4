"""Rows that Postgres refuses: single ones are dead letters, row after row for one reason stops the partition; none is skipped."""

import asyncio
from math import log2

import pytest
import virtual_time
from login_records import logins
from memory_store import message_of
from partition_scenes import Scene
from structlog.testing import capture_logs

from stream_app.claimed_writer import RECLAIM_SECONDS
from stream_app.partition_writer import State
from stream_app.postgres.table_check import TableCheck
from stream_app.refusals import RECHECK_ROWS, RECHECK_WHOLE_SECONDS, Refusal, RefusedRun, RowsRefused, RowsRefusedError
from stream_app.windows import WindowPolicy

NOT_NULL = Refusal("23502", table="user_logins", column="tenant")
TOO_LONG = Refusal("22001")


def scene(rows: int, window: int, *, refused_rows_max: int = 100) -> Scene:
    it = Scene(policy=WindowPolicy(rows=window, bytes=1_000_000, seconds=0.2), refused_rows_max=refused_rows_max)
    it.log.append(*logins(rows))
    it.store.refusal = NOT_NULL
    return it


def refuse(it: Scene, *offsets: int) -> None:
    it.store.refused_message_ids |= {message_of(it.log.records[offset])[1] for offset in offsets}


@pytest.mark.parametrize("rows", [10, 11, 64, 99, 100, 101, 1_000, 5_000])
def test_a_batch_of_which_every_row_is_refused_stops_the_partition_and_none_is_a_dead_letter(rows: int) -> None:
    async def play() -> None:
        it = scene(rows, rows)
        it.store.refuses_all = True
        async with it.opened() as writer:
            it.log.deliver(writer, rows)
            await it.until(lambda: writer.state is State.STOPPED)
            assert it.store.writes <= 2 * log2(rows) + 100
            assert (it.store.rows, it.store.dead_letters, it.position) == ({}, {}, 0)
            tried = min(rows, 100)
            assert writer.gauges().refused == RowsRefused(NOT_NULL, 0, tried - 1, tried)
            it.store.refuses_all = False
            await it.drain(writer)
            assert writer.gauges().refused is None
        assert (sorted(it.store.rows.values()), it.store.dead_letters) == (list(range(rows)), {})

    virtual_time.run(play())


def test_a_unique_index_that_refuses_every_row_costs_no_more() -> None:
    async def play() -> None:
        it = scene(1_000, 1_000)
        it.store.not_unique_message_ids = {message_of(record)[1] for record in it.log.records}
        async with it.opened() as writer:
            it.log.deliver(writer, 1_000)
            await it.until(lambda: writer.state is State.STOPPED)
            assert it.store.writes <= 2 * log2(1_000) + 100
            assert it.store.dead_letters == {}
            it.store.not_unique_message_ids.clear()
            await it.drain(writer)
        assert len(it.store.rows) == 1_000

    virtual_time.run(play())


def test_the_stopped_partition_names_what_refuses_and_where_and_says_it_once() -> None:
    async def play() -> None:
        it = scene(40, 20)
        refuse(it, *range(20, 40))
        with capture_logs() as lines:
            async with it.opened() as writer:
                it.log.deliver(writer, 40)
                await it.until(lambda: writer.state is State.STOPPED)
                await asyncio.sleep(10 * RECLAIM_SECONDS)
                assert writer.state in (State.STOPPED, State.CLAIMING, State.WRITING)
                sample = {"topic": "logins", "partition": "3", "sqlstate": "23502", "table": "user_logins", "column": "tenant",
                          "constraint": "", "trigger": "", "function": ""}  # fmt: skip
                it.metrics.serve_partitions(lambda: [writer.gauges()], lambda: 2e9)
                assert it.count("partition_rows_refused", **sample) >= 10
                problem = writer.problem or ""
        assert problem.startswith(
            "Postgres refuses row after row from offset 20 on, for one reason (SQLSTATE 23502, table user_logins, column tenant):"
        )
        (stopped,) = [line for line in lines if line["event"] == "partition_stopped"]
        assert stopped["problem"] == problem
        named = {name: stopped[name] for name in ("sqlstate", "table", "column", "first_offset", "last_offset", "rows")}
        assert named == {**NOT_NULL.named(), "first_offset": 20, "last_offset": 39, "rows": 20}
        assert sorted(it.store.rows.values()) == list(range(20))

    virtual_time.run(play())


def test_single_bad_rows_are_dead_letters_with_what_refused_them() -> None:
    async def play() -> None:
        it = scene(200, 50)
        bad = [0, 7, 8, 9, 49, 50, 51, 120, 199]
        refuse(it, *bad)
        with capture_logs() as lines:
            async with it.opened() as writer:
                it.log.deliver(writer, 200)
                await it.drain(writer)
        assert (sorted(it.store.dead_letters.values()), len(it.store.rows)) == (bad, 200 - len(bad))
        said = [line for line in lines if line["event"] == "row_refused"]
        assert (len(said), said[0]["column"], said[0]["rows"]) == (1, "tenant", 1)

    virtual_time.run(play())


def test_where_rows_come_one_by_one_a_hundred_stop_it_at_whatever_pace() -> None:
    async def play() -> None:
        it = scene(120, 1)
        it.store.refuses_all = True
        async with it.opened() as writer:
            for number in range(120):
                it.log.deliver(writer, 1)
                await it.until(lambda number=number: it.position > number or writer.state is State.STOPPED)  # type: ignore[misc]
                await asyncio.sleep(30)
                if writer.refused is not None:
                    break
            assert (len(it.store.dead_letters), it.position) == (99, 99)
            it.store.refuses_all = False
            await it.drain(writer)
        assert (len(it.store.dead_letters), sorted(it.store.rows.values())) == (99, list(range(99, 120)))

    virtual_time.run(play())


def test_without_a_bound_every_refused_row_is_a_dead_letter() -> None:
    async def play() -> None:
        it = scene(1_000, 500, refused_rows_max=0)
        it.store.refuses_all = True
        async with it.opened() as writer:
            it.log.deliver(writer, 1_000)
            await it.drain(writer)
        assert (it.store.rows, sorted(it.store.dead_letters.values())) == ({}, list(range(1_000)))
        assert it.count("dead_letters_total", reason="row_refused") == 1_000

    virtual_time.run(play())


def test_a_bound_beyond_what_is_held_back_makes_dead_letters_of_the_first() -> None:
    async def play() -> None:
        it = scene(500, 500, refused_rows_max=250)
        it.store.refuses_all = True
        async with it.opened() as writer:
            it.log.deliver(writer, 500)
            await it.until(lambda: writer.state is State.STOPPED)
            assert sorted(it.store.dead_letters.values()) == list(range(200))
            assert it.position == 200

    virtual_time.run(play())


def test_a_partition_that_stays_stopped_asks_little() -> None:
    """A server's log of a night should not be of one partition."""

    async def play() -> None:
        it = scene(1_000, 1_000)
        it.store.refuses_all = True
        async with it.opened() as writer:
            it.log.deliver(writer, 1_000)
            await it.until(lambda: writer.state is State.STOPPED)
            first = it.store.writes
            await asyncio.sleep(RECLAIM_SECONDS / 2)
            for _ in range(10):
                before = it.store.writes
                await asyncio.sleep(RECLAIM_SECONDS / 2)
                await it.until(lambda: writer.writes or writer.state is State.STOPPED)
                it.log.deliver(writer, 1_000)
                await it.until(lambda: writer.state is State.STOPPED)
                assert it.store.writes - before <= log2(1_000) + RECHECK_ROWS + 2
            assert it.store.writes > first
            await asyncio.sleep(RECHECK_WHOLE_SECONDS)
            it.log.deliver(writer, 1_000)
            await it.until(lambda: writer.state is State.STOPPED)
        assert (it.store.rows, it.store.dead_letters) == ({}, {})

    virtual_time.run(play())


def test_what_the_catalog_says_stops_it_before_a_row_is_sent() -> None:
    async def play() -> None:
        it = scene(20, 20)
        it.store.table_check = TableCheck(errors=("the column tenant is NOT NULL: DROP NOT NULL",))
        writer = it.open()
        await it.until(lambda: writer.state is State.STOPPED)
        assert (writer.problem, it.store.positions, it.store.writes) == (it.store.table_check.errors[0], {}, 0)
        it.store.table_check = TableCheck()
        await it.until(lambda: writer.writes)
        await it.drain(writer)
        await writer.close(60)
        assert len(it.store.rows) == 20

    virtual_time.run(play())


def test_a_message_that_has_a_row_by_now_becomes_no_dead_letter() -> None:
    """Refused by an index while another partition was writing it."""

    async def play() -> None:
        it = scene(8, 8)
        twice = it.log.records[3]
        it.store.rows[message_of(twice)] = 99
        it.store.refused_message_ids = {message_of(it.log.records[5])[1]}
        async with it.opened() as writer:
            it.log.deliver(writer, 8)
            await it.drain(writer)
        assert sorted(it.store.rows.values()) == [0, 1, 2, 4, 6, 7, 99]
        assert list(it.store.dead_letters.values()) == [5]

    virtual_time.run(play())


# --- the policy alone


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def refused_until_stopped(run: RefusedRun, refusal: Refusal, first: int = 0) -> int:
    """How many rows it took."""
    for number in range(1_000):
        try:
            run.refused(refusal, first + number)
        except RowsRefusedError:
            return number + 1
    raise AssertionError("it never stopped")


def test_a_reason_counts_by_itself() -> None:
    run = RefusedRun(100, Clock())
    for number in range(99):
        run.refused(NOT_NULL, number)
    run.became_dead_letters()
    run.refused(TOO_LONG, 99)
    assert refused_until_stopped(run, NOT_NULL, 100) == 100


def test_a_row_that_is_taken_ends_the_run() -> None:
    run = RefusedRun(100, Clock())
    for number in range(99):
        run.refused(NOT_NULL, number)
    run.became_dead_letters()
    run.row_written()
    assert refused_until_stopped(run, NOT_NULL, 100) == 100


def test_what_was_held_back_and_not_written_does_not_count_twice() -> None:
    run = RefusedRun(100, Clock())
    for number in range(60):
        run.refused(NOT_NULL, number)
    run.begin()
    assert refused_until_stopped(run, NOT_NULL) == 100


def test_tried_again_at_the_same_place_few_suffice_until_all_are_tried_again() -> None:
    clock = Clock()
    run = RefusedRun(100, clock)
    assert refused_until_stopped(run, NOT_NULL) == 100
    run.begin()
    assert refused_until_stopped(run, NOT_NULL) == RECHECK_ROWS
    run.begin()
    assert refused_until_stopped(run, TOO_LONG) == 100, "another reason"
    run.begin()
    assert refused_until_stopped(run, TOO_LONG, 1) == 100, "another place"
    run.begin()
    clock.now = RECHECK_WHOLE_SECONDS
    assert refused_until_stopped(run, TOO_LONG, 1) == 100


def test_a_whole_batch_of_few_rows_does_not_stop_it() -> None:
    run = RefusedRun(100, Clock())
    for number in range(9):
        run.refused(NOT_NULL, number)
    run.ends_batch(9)
    run.became_dead_letters()
    run.refused(TOO_LONG, 9)
    run.ends_batch(10)
