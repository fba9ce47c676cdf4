"""What an owner may do to the table, and what becomes of logins that it then refuses; one writer and a real server."""

from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import psycopg2
import pytest
import structlog
from login_records import LOGIN, PLACE, batch_of, builder, login, records
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names its class like a module

from pipeline.errors import FatalError
from pipeline.settings import load
from stream_app.claimed_writer import ClaimedWriter
from stream_app.metrics import WorkerMetrics
from stream_app.postgres.batch_writer import BatchWriter
from stream_app.postgres.connection import WRITER
from stream_app.postgres.pool import ConnectionPool
from stream_app.postgres.settings import PostgresSettings
from stream_app.refusals import Refusal, RefusedRun, RowsRefusedError
from stream_app.refused_rows import RefusedRows

FUNCTION = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$;
CREATE TRIGGER looks {when} INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()
"""


def raises(statement: str, *, when: str = "BEFORE", table: str = "user_logins") -> str:
    return FUNCTION.format(body=statement, when=when, table=table)


@pytest.fixture
async def store(migrated_database: str) -> AsyncIterator[BatchWriter]:
    pool = ConnectionPool(
        load(PostgresSettings, postgres_dsn=migrated_database), role=WRITER, application_name="the writer", size=1
    )
    yield BatchWriter(pool, consumer_group="group", owner="test", create_date_time_zone="UTC")
    await pool.close()


@pytest.fixture
def owner(migrated_database: str) -> Iterator[Cursor]:
    with closing(psycopg2.connect(migrated_database)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("CREATE TABLE users (id varchar(128) PRIMARY KEY)")
        yield cursor


async def writer_of(store: BatchWriter) -> ClaimedWriter:
    async def at_once(_: float) -> None:
        return

    await store.check_tables()
    claim, position = await store.claim(PLACE, 0, "id")
    return ClaimedWriter(
        claim,
        position,
        await store.newest_sent_at_ms(),
        store=store,
        builder=builder(),
        refused_run=RefusedRun(100, lambda: 0.0),
        refused_rows=RefusedRows(lambda: 0.0),
        metrics=WorkerMetrics(),
        log=structlog.get_logger(),
        sleep=at_once,
        on_written=lambda _: None,
    )


def counts(owner: Cursor) -> tuple[int, int, int]:
    """Rows, dead letters, and the position."""
    owner.execute("""
        SELECT (SELECT count(*) FROM user_logins), (SELECT count(*) FROM dead_letters), max(next_offset) FROM stream_positions
    """)
    ((rows, letters, position),) = owner.fetchall()
    return rows, letters, position


BAD = "IF NEW.locale = 'XX' THEN {} END IF;"
ONE_ROW = [
    ("ALTER TABLE user_logins ALTER locale SET NOT NULL", None, "locale", "SQLSTATE 23502, table user_logins, column locale"),
    (
        "ALTER TABLE user_logins ADD CONSTRAINT known CHECK (locale <> 'XX')",
        "XX",
        None,
        "SQLSTATE 23514, table user_logins, constraint known",
    ),
    ("ALTER TABLE user_logins ALTER locale TYPE varchar(1) USING left(locale, 1)", "XX", None, "SQLSTATE 22001"),
    (
        "INSERT INTO users VALUES ('R'); ALTER TABLE user_logins ADD CONSTRAINT of_users FOREIGN KEY (locale) REFERENCES users",
        "XX",
        None,
        "SQLSTATE 23503, table user_logins, constraint of_users",
    ),
    (
        "INSERT INTO user_logins (locale) VALUES ('XX'); CREATE UNIQUE INDEX single ON user_logins ((nullif(locale, 'R')))",
        "XX",
        None,
        "SQLSTATE 23505, table user_logins, constraint single",
    ),
    (
        raises(BAD.format("RAISE EXCEPTION 'no % here', NEW.user_id USING COLUMN = NEW.user_id, TABLE = NEW.user_id;")),
        "XX",
        None,
        "SQLSTATE P0001, table user_logins, trigger looks, function public.refuse()",
    ),
    (
        raises(BAD.format("RAISE EXCEPTION 'no' USING ERRCODE = 'U0001';"), when="AFTER"),
        "XX",
        None,
        "SQLSTATE U0001, table user_logins, trigger looks, function public.refuse()",
    ),
    (
        raises(BAD.format("PERFORM now() AT TIME ZONE NEW.locale;")),
        "XX",
        None,
        "SQLSTATE 22023",  # Postgres names the expression first, with its values: what follows is not looked at
    ),
    (
        raises(BAD.format("ASSERT false, NEW.user_id;")),
        "XX",
        None,
        "SQLSTATE P0004, table user_logins, trigger looks, function public.refuse()",
    ),
]


@pytest.mark.parametrize(("change", "locale", "field", "refusal"), ONE_ROW)
async def test_one_refused_row_of_many_is_one_dead_letter_that_says_why(  # noqa: PLR0917 - pytest passes them by name
    store: BatchWriter, owner: Cursor, change: str, locale: str | None, field: str | None, refusal: str
) -> None:
    owner.execute(change)
    owner.execute("DELETE FROM user_logins WHERE locale IS NULL")
    before, _, _ = counts(owner)
    writer = await writer_of(store)
    bodies = [login(locale="R")] * 200
    bodies[77] = login(locale=locale)
    await writer.write(batch_of(records(bodies), 0, 200))
    assert counts(owner) == (before + 199, 1, 200)
    owner.execute("SELECT record_offset, reason, field, refusal FROM dead_letters")
    assert owner.fetchall() == [(77, "row_refused", field, refusal)]
    assert LOGIN["user_id"] not in refusal


EVERY_ROW = [
    ("ALTER TABLE user_logins ADD tenant text NOT NULL", "SQLSTATE 23502, table user_logins, column tenant"),
    ("ALTER TABLE user_logins ADD CONSTRAINT never CHECK (locale = 'no')", "SQLSTATE 23514, table user_logins, constraint never"),
    ("ALTER TABLE user_logins ALTER app_version TYPE smallint", "SQLSTATE 22003"),
    (
        "ALTER TABLE user_logins ADD CONSTRAINT of_users FOREIGN KEY (user_id) REFERENCES users",
        "SQLSTATE 23503, table user_logins, constraint of_users",
    ),
    (
        "ALTER TABLE user_logins ADD CONSTRAINT of_users FOREIGN KEY (user_id) REFERENCES users DEFERRABLE INITIALLY DEFERRED",
        "SQLSTATE 23503, table user_logins, constraint of_users",
    ),
    (
        "CREATE UNIQUE INDEX single ON user_logins (user_id); INSERT INTO user_logins (user_id) VALUES ('{user_id}')",
        "SQLSTATE 23505, table user_logins, constraint single",
    ),
    (raises("RAISE EXCEPTION 'no';"), "SQLSTATE P0001, table user_logins, trigger looks, function public.refuse()"),
]


@pytest.mark.parametrize(("change", "refusal"), EVERY_ROW)
async def test_a_batch_of_which_every_row_is_refused_stops_and_leaves_nothing(
    store: BatchWriter, owner: Cursor, change: str, refusal: str
) -> None:
    owner.execute(change.format(user_id=LOGIN["user_id"]) if "{user_id}" in change else change)
    writer = await writer_of(store)
    before = counts(owner)
    with pytest.raises(RowsRefusedError, match="from offset 0 on") as caught:
        await writer.write(batch_of(records([login()] * 120), 0, 120))
    assert (str(caught.value.found.refusal), caught.value.found.rows) == (refusal, 100)
    assert counts(owner) == before


WHATEVER_THE_ROW = [
    (
        "ALTER TABLE user_logins ADD id smallint GENERATED ALWAYS AS IDENTITY (MAXVALUE 3)",
        "a sequence that fills a column is at its end",
    ),
    (raises("RAISE EXCEPTION 'no';", table="dead_letters"), "trigger looks, function public.refuse()"),
    ("ALTER TABLE dead_letters ADD team text NOT NULL", "SQLSTATE 23502, table dead_letters, column team"),
    (
        raises("RAISE EXCEPTION 'no' USING ERRCODE = 'HV00N';"),
        "in the function public.refuse(), which a write to the tables runs (SQLSTATE HV00N",
    ),
    (raises("RAISE EXCEPTION 'no' USING ERRCODE = 'F0000';"), "its configuration file is wrong"),
    (raises("RAISE EXCEPTION 'no' USING ERRCODE = '0A000';"), "in the function public.refuse(), which"),
]


@pytest.mark.parametrize(("change", "says"), WHATEVER_THE_ROW)
async def test_what_is_no_rows_fault_stops_without_a_dead_letter(store: BatchWriter, owner: Cursor, change: str, says: str) -> None:
    owner.execute(change)
    writer = await writer_of(store)
    with pytest.raises(FatalError) as caught:
        await writer.write(batch_of(records([login(), b"not json", login(), login(), login()]), 0, 5))
    assert says in str(caught.value)
    assert "migrate" not in str(caught.value)
    assert counts(owner) == (0, 0, 0)


async def test_a_limit_in_a_triggers_function_names_it(store: BatchWriter, owner: Cursor) -> None:
    """All before the record is written."""
    owner.execute(raises(BAD.format("RAISE EXCEPTION 'no' USING ERRCODE = '54000';")))
    writer = await writer_of(store)
    with pytest.raises(FatalError, match=r"before offset 3, alone .* in the function public\.refuse\(\), .*SQLSTATE 54000"):
        await writer.write(batch_of(records([login(), login(), login(locale="XX"), login()]), 0, 4))
    assert counts(owner) == (2, 0, 2)


async def test_a_position_that_is_refused_is_no_refused_row(store: BatchWriter, owner: Cursor) -> None:
    owner.execute("ALTER TABLE stream_positions ADD team text NOT NULL")
    with pytest.raises(FatalError, match="SQLSTATE 23502, table stream_positions, column team"):
        await store.claim(PLACE, 0, "id")


async def test_a_refused_message_that_has_a_row_becomes_no_dead_letter(store: BatchWriter, owner: Cursor) -> None:
    writer = await writer_of(store)
    one = batch_of(records([login()]), 0, 1)
    await writer.write(one)
    letter = builder().refuse_row(batch_of(records([login()]), 1, 2), Refusal("23505"))
    assert (await store.write(writer.claim, letter)).dead_letter_offsets == frozenset()
    assert counts(owner) == (1, 0, 2)
