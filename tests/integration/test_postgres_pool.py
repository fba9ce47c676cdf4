import asyncio
import gc
import re
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from typing import Any

import aiopg
import psycopg2
import pytest
from psycopg2.extensions import AsIs
from structlog.testing import capture_logs

from pipeline.errors import FatalError, PipelineError, RetryableError
from pipeline.settings import load
from stream_app.postgres.async_connection import AsyncConnection
from stream_app.postgres.connection import WRITER
from stream_app.postgres.errors import RowRefusedError, retry_class
from stream_app.postgres.open_connections import MORE_CONNECTIONS_SECONDS
from stream_app.postgres.pool import ConnectionPool
from stream_app.postgres.settings import PostgresSettings

PID = "SELECT pg_backend_pid()"


@pytest.fixture
async def pool(migrated_database: str) -> AsyncIterator[ConnectionPool]:
    settings = load(PostgresSettings, postgres_dsn=migrated_database, postgres_statement_timeout_seconds=0.3)
    pool = ConnectionPool(settings, role=WRITER, application_name="test", size=2)
    yield pool
    await pool.close()
    assert pool.connections_open == 0


async def test_statements_one_after_the_other_share_a_connection(pool: ConnectionPool) -> None:
    assert await pool.fetch_one(PID, {}) == await pool.fetch_one(PID, {})
    assert pool.connections_open == 1


async def test_no_more_connections_than_its_size(pool: ConnectionPool) -> None:
    pids = await asyncio.gather(*(pool.fetch_one(PID + ", pg_sleep(0.05)", {}) for _ in range(6)))
    assert len({row[0] for row in pids if row}) == pool.connections_open == 2


async def test_a_statement_goes_out_at_its_tasks_first_turn(pool: ConnectionPool, migrated_database: str) -> None:
    """As large as a batch's. Whoever keeps the event loop after that (``PartitionWriter`` builds) keeps nobody waiting."""
    (pid,) = await pool.fetch_one(PID, {}) or ()
    with closing(psycopg2.connect(migrated_database)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        running = asyncio.create_task(pool.fetch_one("SELECT 'it arrived', %(text)s", {"text": "a" * 1_500_000}))
        await asyncio.sleep(0)
        seen, deadline = "", time.monotonic() + 10
        while "it arrived" not in seen and time.monotonic() < deadline:  # without the event loop
            cursor.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", (pid,))
            ((seen,),) = cursor.fetchall()
        await running
    assert "it arrived" in seen


class Text(str):
    """A parameter of which it can be asked whether it is still there."""

    __slots__ = ("__weakref__",)


async def texts_left_by(pool: ConnectionPool, statement: str, times: int = 3) -> int:
    """How many of the parameters of that many statements are still in memory, whatever became of them."""
    texts: list[weakref.ref[Text]] = []
    for _ in range(times):
        text = Text("a" * 100)
        texts.append(weakref.ref(text))
        with suppress(PipelineError):
            await pool.fetch_one(statement, {"text": AsIs(text)})
        del text
    await asyncio.sleep(0)  # what woke this task is held by the event loop until its next turn
    return sum(text() is not None for text in texts)


@pytest.mark.usefixtures("without_garbage_collection")
@pytest.mark.parametrize(
    "statement",
    ["SELECT '%(text)s'", "SELECT 1 / 0, '%(text)s'", "SELECT pg_sleep(5), '%(text)s'", "SELECT '%(text)s' FROM missing"],
)
async def test_a_statement_is_gone_when_it_ended(pool: ConnectionPool, statement: str) -> None:
    """It has the text of a whole batch, and is tried again for hours while something is wrong: what each try left would add up."""
    assert await texts_left_by(pool, statement) == 0
    assert not [each for each in gc.get_objects() if isinstance(each, aiopg.Cursor)]


@pytest.mark.usefixtures("without_garbage_collection")
async def test_a_statement_that_found_no_connection_is_gone(migrated_database: str) -> None:
    nobody_there = re.sub(r":\d+/", ":1/", migrated_database)
    settings = load(PostgresSettings, postgres_dsn=nobody_there)
    assert await texts_left_by(ConnectionPool(settings, role=WRITER, application_name="test", size=1), "SELECT '%(text)s'") == 0


async def test_it_has_the_writers_role(pool: ConnectionPool) -> None:
    assert await pool.fetch_one("SELECT current_user", {}) == (WRITER,)


async def test_a_statement_that_the_server_times_out_is_to_be_tried_again_and_is_no_cancellation(
    pool: ConnectionPool, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, str | None]] = []
    pool._on_statement = lambda result, _, error: told.append(
        (result, retry_class(error) if isinstance(error, RetryableError) else None)
    )
    with pytest.raises(RetryableError, match="57014"):
        await pool.fetch_one("SELECT pg_sleep(5)", {})
    assert await pool.fetch_one("SELECT 1", {}) == (1,)
    assert told == [("retryable", "57"), ("ok", None)]
    assert caplog.records == [], "the server's text is not logged"


async def test_a_cancelled_task_is_cancelled_and_gives_its_place_back(migrated_database: str) -> None:
    settings = load(PostgresSettings, postgres_dsn=migrated_database, postgres_statement_timeout_seconds=30)
    pool = ConnectionPool(settings, role=WRITER, application_name="test", size=2)
    for _ in range(5):
        task = asyncio.create_task(pool.fetch_one("SELECT pg_sleep(5)", {}))  # far longer than a busy machine oversleeps
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await pool.fetch_one("SELECT 1", {}) == (1,)
    assert pool.connections_open == 1
    await pool.close()


async def test_a_cancellation_that_comes_together_with_the_answer_is_not_forgotten(
    pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the opening's statements or the last one: each time that the server has just answered, the task is cancelled."""
    answers, cancel_at = 0, 0
    tasks: list[asyncio.Task[object]] = []
    ready = aiopg.Connection._ready

    def ready_and_cancelled(weak: Any) -> None:
        nonlocal answers
        connection = weak()
        before = connection is not None and connection._waiter is not None and connection._waiter.done()
        ready(weak)
        if connection is not None and connection._waiter is not None and connection._waiter.done() and not before:
            answers += 1
            if answers == cancel_at:
                tasks[-1].cancel()

    monkeypatch.setattr(AsyncConnection, "_ready", staticmethod(ready_and_cancelled))
    assert await pool.fetch_one("SELECT 1", {}) == (1,)
    await pool.close()
    assert answers >= 3
    for place in range(1, answers + 1):
        answers, cancel_at = 0, place
        tasks.append(asyncio.create_task(pool.fetch_one("SELECT 1", {})))
        with pytest.raises(asyncio.CancelledError):
            await tasks[-1]
        await pool.close()
        assert pool.connections_open == 0


async def test_a_task_cancelled_while_it_waits_for_a_place_takes_none_with_it(pool: ConnectionPool) -> None:
    busy = [asyncio.create_task(pool.fetch_one("SELECT pg_sleep(0.2)", {})) for _ in range(2)]
    await asyncio.sleep(0.05)
    waiting = [asyncio.create_task(pool.fetch_one("SELECT 1", {})) for _ in range(4)]
    await asyncio.sleep(0.05)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.gather(*busy)
    pids = await asyncio.gather(*(pool.fetch_one(PID + ", pg_sleep(0.1)", {}) for _ in range(2)))
    assert len({row[0] for row in pids if row}) == 2, "a place is lost: two statements did not run side by side"


async def test_a_full_server_starves_nobody(migrated_database: str) -> None:
    """One connection is all that the login may have: whoever asks takes its turn on it, and the log says so once."""
    with closing(psycopg2.connect(migrated_database)) as superuser, superuser.cursor() as cursor, capture_logs() as logged:
        superuser.autocommit = True
        cursor.execute("CREATE ROLE limited LOGIN CONNECTION LIMIT 1 PASSWORD 'x'; GRANT stream_writer TO limited")
        try:
            settings = load(PostgresSettings, postgres_dsn=re.sub(r"//[^@]*@", "//limited:x@", migrated_database))
            pool = ConnectionPool(settings, role=WRITER, application_name="test", size=4)
            await pool.fetch_one(PID, {})
            for _ in range(3):
                pids = await asyncio.gather(*(pool.fetch_one(PID + ", pg_sleep(0.02)", {}) for _ in range(10)))
                assert len({row[0] for row in pids if row}) == 1
            assert (pool.connections_open, pool.connections_wanted) == (1, 1)
            cursor.execute("ALTER ROLE limited CONNECTION LIMIT -1")
            later = time.monotonic() + MORE_CONNECTIONS_SECONDS
            pool._connections._monotonic = lambda: later
            for _ in range(4):
                await asyncio.gather(*(pool.fetch_one(PID + ", pg_sleep(0.02)", {}) for _ in range(10)))
            assert (pool.connections_open, pool.connections_wanted) == (4, 4)
            await pool.close()
        finally:
            cursor.execute("DROP OWNED BY limited; DROP ROLE limited")
    told = [line for line in logged if line["event"].startswith("database_connections")]
    assert [line["event"] for line in told] == ["database_connections_limited", "database_connections_complete"]
    assert "too many connections for role" in told[0]["problem"]


async def test_a_broken_connection_is_made_anew(pool: ConnectionPool, migrated_database: str) -> None:
    row = await pool.fetch_one(PID, {})
    with closing(psycopg2.connect(migrated_database)) as other, other.cursor() as cursor:
        other.autocommit = True
        cursor.execute("SELECT pg_terminate_backend(%s)", row)
    with pytest.raises(RetryableError):
        await pool.fetch_one(PID, {})
    assert await pool.fetch_one(PID, {}) not in (None, row)
    assert pool.connections_open == 1


async def test_a_refused_statement_does_not_cost_the_connection(pool: ConnectionPool) -> None:
    before = await pool.fetch_one(PID, {})
    with pytest.raises(FatalError):
        await pool.fetch_one("SELECT * FROM nowhere", {})
    with pytest.raises(RowRefusedError):
        await pool.fetch_one("SELECT %(text)s::integer", {"text": "x"})
    with pytest.raises(RowRefusedError):
        await pool.fetch_one("SELECT %(text)s", {"text": "a\0b"})
    assert await pool.fetch_one(PID, {}) == before
