"""What the catalog says of the tables before a row is refused: each thing that an owner may change, on a real server."""

from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import psycopg2
import pytest
from login_records import PLACE, batch_of, login, records
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names its class like a module

from pipeline.errors import FatalError, PipelineError, SettingsError
from pipeline.settings import load
from stream_app.postgres.batch_writer import BatchWriter
from stream_app.postgres.connection import WRITER
from stream_app.postgres.pool import ConnectionPool
from stream_app.postgres.settings import PostgresSettings
from stream_app.postgres.table_check import TableCheck


@pytest.fixture
async def pool(migrated_database: str) -> AsyncIterator[ConnectionPool]:
    opened = ConnectionPool(
        load(PostgresSettings, postgres_dsn=migrated_database), role=WRITER, application_name="the writer", size=1
    )
    yield opened
    await opened.close()


@pytest.fixture
def writer(pool: ConnectionPool) -> BatchWriter:
    return BatchWriter(pool, consumer_group="group", owner="test", create_date_time_zone="UTC")


@pytest.fixture
def owner(migrated_database: str) -> Iterator[Cursor]:
    with closing(psycopg2.connect(migrated_database)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
            CREATE TABLE users (id varchar(128) PRIMARY KEY);
        """)
        yield cursor


async def test_tables_as_migrate_leaves_them_are_right(writer: BatchWriter) -> None:
    assert await writer.check_tables() == TableCheck()


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "Etc/GMT+3", "EST5EDT"])
async def test_time_zones_that_postgres_knows(pool: ConnectionPool, name: str) -> None:
    writer = BatchWriter(pool, consumer_group="group", owner="test", create_date_time_zone=name)
    assert await writer.check_tables() == TableCheck()


@pytest.mark.parametrize("name", ["localtime", "right/UTC", "Nowhere/At-all", "'; DROP TABLE user_logins; --"])
async def test_a_time_zone_that_postgres_does_not_know_names_the_setting(pool: ConnectionPool, name: str) -> None:
    writer = BatchWriter(pool, consumer_group="group", owner="test", create_date_time_zone=name)
    with pytest.raises(SettingsError) as caught:
        await writer.check_tables()
    assert str(caught.value).startswith(f"CREATE_DATE_TIME_ZONE: Postgres knows no time zone {name}: ")


async def claim_and_write(writer: BatchWriter) -> None:
    claim, _ = await writer.claim(PLACE, 0, "id")
    await writer.write(claim, batch_of(records([login(), b"not json"]), 0, 2))


ERRORS = [
    (
        "ALTER TABLE user_logins ADD tenant text; ALTER TABLE user_logins ALTER tenant SET NOT NULL",
        (
            "the column tenant of public.user_logins is NOT NULL, has no default, and the stream has no value for it:"
            " ALTER TABLE public.user_logins ALTER COLUMN tenant DROP NOT NULL, or SET DEFAULT one"
        ),
    ),
    (
        'CREATE DOMAIN given AS text NOT NULL; ALTER TABLE user_logins ADD "Of Who" given',
        'the column "Of Who" of public.user_logins is NOT NULL, has no default',
    ),
    (
        "ALTER TABLE dead_letters ADD team text NOT NULL",
        "the column team of public.dead_letters is NOT NULL, has no default",
    ),
    (
        "ALTER TABLE stream_positions ADD team text NOT NULL",
        "the column team of public.stream_positions is NOT NULL, has no default",
    ),
    (
        "ALTER TABLE user_logins ADD id bigserial",
        (
            "the column id of public.user_logins is filled from a sequence:"
            " GRANT USAGE ON SEQUENCE public.user_logins_id_seq TO stream_writer"
        ),
    ),
    (
        "ALTER TABLE user_logins DROP locale",
        "public.user_logins has no column locale: ALTER TABLE public.user_logins ADD COLUMN locale character varying(32)",
    ),
    (
        "DROP INDEX user_logins_sent_at_message_id",
        (
            "public.user_logins has no unique index on (sent_at, message_id), by which a message that comes again is found:"
            " CREATE UNIQUE INDEX ON public.user_logins (sent_at, message_id)"
        ),
    ),
    (
        "DROP INDEX user_logins_sent_at_message_id; CREATE UNIQUE INDEX ON user_logins (sent_at, message_id) WHERE locale IS NULL",
        "public.user_logins has no unique index on (sent_at, message_id)",
    ),
    (
        "ALTER TABLE user_logins DROP create_date, ADD create_date date GENERATED ALWAYS AS (date '2026-01-01') STORED",
        (
            "the column create_date of public.user_logins is filled by Postgres alone, and the stream writes it:"
            " ALTER TABLE public.user_logins ALTER COLUMN create_date DROP EXPRESSION, or DROP IDENTITY"
        ),
    ),
    (
        "ALTER TABLE user_logins ALTER locale TYPE json USING NULL",
        (
            "the column locale of public.user_logins should be character varying(32) and is json:"
            " ALTER TABLE public.user_logins ALTER COLUMN locale TYPE character varying(32) USING locale::character varying(32)"
        ),
    ),
    ("ALTER TABLE user_logins RENAME TO former", "the table public.user_logins is missing; `faust -A stream_app migrate` makes it"),
    (
        "ALTER TABLE user_logins RENAME TO former; CREATE VIEW user_logins AS SELECT * FROM former",
        "public.user_logins is no table: rename what has its name",
    ),
    (
        "REVOKE INSERT ON dead_letters FROM stream_writer",
        "stream_writer may not write public.dead_letters: GRANT INSERT ON public.dead_letters TO stream_writer",
    ),
]


@pytest.mark.parametrize(("change", "says"), ERRORS)
async def test_what_stops_every_row_is_an_error_and_really_stops_it(
    writer: BatchWriter, owner: Cursor, change: str, says: str
) -> None:
    owner.execute(change)
    check = await writer.check_tables()
    assert len(check.errors) == 1
    assert check.errors[0].startswith(says)
    with pytest.raises(FatalError, match="^" + check.errors[0].split(" ")[0]):
        check.refuse()
    with pytest.raises(PipelineError):
        await claim_and_write(writer)


WARNINGS = [
    (
        "ALTER TABLE user_logins ALTER locale TYPE varchar(2)",
        (
            "the column locale of public.user_logins is character varying(2), and what does not fit is refused:"
            " ALTER TABLE public.user_logins ALTER COLUMN locale TYPE character varying(32)"
        ),
    ),
    (
        "ALTER TABLE user_logins ALTER app_version TYPE smallint",
        (
            "the column app_version of public.user_logins is smallint, and what does not fit is refused:"
            " ALTER TABLE public.user_logins ALTER COLUMN app_version TYPE integer"
        ),
    ),
    (
        "ALTER TABLE user_logins ALTER sent_at TYPE timestamptz(0)",
        "the column sent_at of public.user_logins is timestamp(0) with time zone, and what does not fit is refused:",
    ),
    (
        "ALTER TABLE user_logins ALTER locale SET NOT NULL",
        (
            "the column locale of public.user_logins is NOT NULL, and some records have no value for it:"
            " ALTER TABLE public.user_logins ALTER COLUMN locale DROP NOT NULL"
        ),
    ),
    (
        "ALTER TABLE user_logins ADD UNIQUE (user_id)",
        "public.user_logins has the unique index user_logins_user_id_key: a login that is not unique by it is refused",
    ),
    (
        "ALTER TABLE user_logins ADD CONSTRAINT known CHECK (locale <> 'XX')",
        "public.user_logins has the constraint known: a login that breaks it is refused",
    ),
    (
        "ALTER TABLE user_logins ADD CONSTRAINT of_users FOREIGN KEY (user_id) REFERENCES users",
        "public.user_logins has the foreign key of_users: a login that comes before its row in public.users is refused",
    ),
    (
        "CREATE TRIGGER looks BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION refuse()",
        "public.user_logins has the trigger looks: a row for which its function public.refuse() raises an error is refused",
    ),
    (
        "CREATE TRIGGER looks BEFORE UPDATE ON stream_positions FOR EACH STATEMENT EXECUTE FUNCTION refuse()",
        "public.stream_positions has the trigger looks",
    ),
    ("ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY", "public.user_logins has row security: "),
    (
        "CREATE SCHEMA loader; CREATE TABLE loader.user_logins (user_id text)",
        "a table user_logins is in the schema loader, too: the stream writes the one in public (POSTGRES_SCHEMA)",
    ),
]


@pytest.mark.parametrize(("change", "says"), WARNINGS)
async def test_what_may_refuse_a_row_is_a_warning(writer: BatchWriter, owner: Cursor, change: str, says: str) -> None:
    owner.execute(change)
    check = await writer.check_tables()
    assert (check.errors, len(check.warnings)) == ((), 1)
    assert check.warnings[0].startswith(says)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE user_logins ADD tenant text NOT NULL DEFAULT 'one'",
        "ALTER TABLE user_logins ADD id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "ALTER TABLE user_logins ADD day date GENERATED ALWAYS AS (create_date + 1) STORED",
        "ALTER TABLE user_logins ALTER locale TYPE text, ALTER user_id TYPE varchar, ALTER app_version TYPE bigint",
        "ALTER TABLE user_logins ALTER user_id SET NOT NULL, ALTER message_id SET NOT NULL",
        "CREATE TRIGGER looks BEFORE UPDATE ON user_logins FOR EACH ROW EXECUTE FUNCTION refuse()",
        (
            "CREATE TRIGGER looks BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION refuse();"
            " ALTER TABLE user_logins DISABLE TRIGGER looks"
        ),
        "ALTER TABLE user_logins ADD PRIMARY KEY (sent_at, message_id)",
    ],
)
async def test_what_harms_nothing_is_not_told(writer: BatchWriter, owner: Cursor, change: str) -> None:
    owner.execute(change)
    assert await writer.check_tables() == TableCheck()
    claim, _ = await writer.claim(PLACE, 0, "id")
    assert (await writer.write(claim, batch_of(records([login()]), 0, 1))).rows == 1


async def test_a_column_that_a_trigger_may_fill_is_a_warning(writer: BatchWriter, owner: Cursor) -> None:
    owner.execute("""
        ALTER TABLE user_logins ADD tenant text NOT NULL;
        CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.tenant := 'one'; RETURN NEW; END $$;
        CREATE TRIGGER fills BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION fill();
    """)
    check = await writer.check_tables()
    assert check.errors == ()
    assert check.warnings[0] == (
        "the column tenant of public.user_logins is NOT NULL and has no default: a row for which no trigger fills it is refused"
    )
    assert check.triggers == {"public.fill()": ("user_logins", "fills")}
    claim, _ = await writer.claim(PLACE, 0, "id")
    assert (await writer.write(claim, batch_of(records([login()]), 0, 1))).rows == 1
