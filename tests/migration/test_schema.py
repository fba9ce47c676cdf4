"""The schema of the tables: POSTGRES_SCHEMA, which `migrate` makes closed, and one that others have the tables in."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.resources import files

import psycopg2
import pytest
from login_records import batch_of, login, records
from migration.catalog import describe
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names its class like a module

from dev_servers.postgres import Postgres, program
from pipeline.errors import FatalError
from pipeline.settings import load
from stream_app.monitor.database import Database
from stream_app.monitor.settings import MonitorSettings
from stream_app.positions import Partition, Written
from stream_app.postgres.batch_writer import BatchWriter
from stream_app.postgres.connection import ANALYST, MONITOR, OPERATOR, PRIVACY_OFFICER, WRITER, connect
from stream_app.postgres.migrations import known_migrations, migrate, state
from stream_app.postgres.pool import ConnectionPool
from stream_app.postgres.queries import load_queries
from stream_app.postgres.settings import PostgresSettings

NAME = "Login-strêam$1"
ROLES = (ANALYST, MONITOR, OPERATOR, PRIVACY_OFFICER, WRITER)
PARTITION = Partition("logins", 0)


@pytest.fixture
def cursor(fresh_database: str) -> Iterator[Cursor]:
    """In autocommit, as the superuser."""
    with closing(psycopg2.connect(fresh_database)) as connection:
        connection.autocommit = True
        with connection.cursor() as open_cursor:
            yield open_cursor


def settings(dsn: str, schema: str = NAME) -> PostgresSettings:
    return load(PostgresSettings, postgres_dsn=dsn, postgres_schema=schema)


def use(given: PostgresSettings, act: Callable[[BatchWriter], object]) -> None:
    """Do something with a worker's writer."""

    async def used() -> None:
        pool = ConnectionPool(given, role=WRITER, application_name="test", size=1)
        try:
            await act(BatchWriter(pool, consumer_group="stream_app", owner="test", create_date_time_zone="UTC"))  # type: ignore[misc]
        finally:
            await pool.close()

    asyncio.run(used())


async def write(writer: BatchWriter) -> None:
    claim, _ = await writer.claim(PARTITION, 0, "id")
    written = await writer.write(claim, batch_of(records([login(), b"not json"], 0), 0, 2))
    assert written == Written(moved=True, rows=1, dead_letter_offsets=frozenset({1}))


def test_a_schema_that_is_missing_is_made_and_holds_the_same_as_public_would(
    fresh_database: str, cursor: Cursor, postgres: Postgres
) -> None:
    migrate(settings(fresh_database), lambda _: None)
    assert describe(cursor)["relations"] == []
    cursor.execute("SET search_path = pg_catalog")
    made = describe(cursor, NAME)
    in_public = postgres.create_database()
    migrate(settings(in_public, "public"), lambda _: None)
    with closing(psycopg2.connect(in_public, options="-c search_path=pg_catalog")) as connection:
        expected = describe(connection.cursor())
    postgres.drop_database(in_public)
    del made["schema rights"], expected["schema rights"]
    here = {
        part: [tuple(cell.replace(f'"{NAME}"', "public") if isinstance(cell, str) else cell for cell in row) for row in rows]
        for part, rows in made.items()
    }
    assert here == expected


@pytest.mark.parametrize("default", ["", "ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC"])
def test_a_schema_that_migrate_makes_is_closed(fresh_database: str, cursor: Cursor, default: str) -> None:
    if default:
        cursor.execute(default)
    migrate(settings(fresh_database), lambda _: None)
    cursor.execute(
        "SELECT coalesce(rolname, 'everybody'), privilege_type FROM pg_namespace"
        " CROSS JOIN aclexplode(nspacl) AS given LEFT JOIN pg_roles ON pg_roles.oid = grantee"
        " WHERE nspname = %s AND grantee <> nspowner ORDER BY 1",
        (NAME,),
    )
    assert cursor.fetchall() == [(role, "USAGE") for role in sorted(ROLES)]
    assert state(settings(fresh_database)).warnings == ()


def test_worker_commands_and_monitor_work_there(fresh_database: str) -> None:
    migrate(settings(fresh_database), lambda _: None)
    use(settings(fresh_database), write)
    queries = load_queries("commands.sql", NAME)
    with (
        connect(settings(fresh_database), role=OPERATOR, application_name="test") as connection,
        connection.cursor() as operator,
    ):
        operator.execute(queries["count_dead_letters"], {"reason": None})
        assert operator.fetchall() == [("not_json", 1)]
        operator.execute(
            queries["reset_position"],
            {
                "consumer_group": "stream_app",
                "topic": "logins",
                "partition": 0,
                "next_offset": 1,
                "found_next_offset": 2,
                "details": "{}",
                "reason": "r",
            },
        )
        assert operator.fetchall() == [(1, 2)]
    database = Database(load(MonitorSettings, postgres_dsn=fresh_database, postgres_schema=NAME))
    assert database.positions() == {0: 1}
    assert set(database.table_facts().table_bytes) == {"user_logins", "dead_letters", "stream_positions"}
    database.close()


def test_a_schema_that_may_not_be_made_is_told(fresh_database: str, cursor: Cursor, postgres: Postgres) -> None:
    cursor.execute("CREATE ROLE without_rights LOGIN PASSWORD 'made-up'")
    database = fresh_database.rpartition("/")[2]
    with pytest.raises(FatalError, match=rf"^0001_user_logins: permission denied for database {database} \(SQLSTATE 42501\)"):
        migrate(settings(postgres.dsn_of(database, "without_rights", "made-up")), lambda _: None)
    cursor.execute("DROP ROLE without_rights")


def test_tables_in_another_schema_stop_everything(fresh_database: str, cursor: Cursor) -> None:
    """An older install, whose login had a search path of its own: to go on would begin anew, in tables that hold nothing."""
    migrate(settings(fresh_database, "older"), lambda _: None)
    here = settings(fresh_database, "public")
    says = r"^POSTGRES_SCHEMA is public, and the tables are in the schema older: set POSTGRES_SCHEMA=older "
    with pytest.raises(FatalError, match=says):
        migrate(here, lambda _: None)
    with pytest.raises(FatalError, match=says):
        state(here)
    with pytest.raises(FatalError, match=says):
        use(here, write)
    with pytest.raises(FatalError, match=says), connect(here, role=OPERATOR, application_name="test"):
        pass
    assert describe(cursor)["relations"] == []


def test_what_others_call_stream_migrations_elsewhere_stops_nothing_once_the_tables_are_here(
    fresh_database: str, cursor: Cursor
) -> None:
    migrate(settings(fresh_database, "public"), lambda _: None)
    cursor.execute("CREATE SCHEMA other; CREATE TABLE other.stream_migrations (name text)")
    assert state(settings(fresh_database, "public")).pending == ()
    use(settings(fresh_database, "public"), write)


def test_a_function_of_a_trigger_that_rests_on_the_search_path_is_told_and_named(fresh_database: str, cursor: Cursor) -> None:
    """The owner's, on a table in partitions: what it names without a schema is not found, until it has the statement told."""
    given = settings(fresh_database, "public")
    cursor.execute("""
        CREATE TABLE seen (user_id text);
        CREATE TABLE user_logins (
            user_id varchar(128), device_type varchar(32), masked_ip varchar(256), masked_device_id varchar(256),
            locale varchar(32), app_version integer, create_date date, sent_at timestamptz, message_id uuid
        ) PARTITION BY RANGE (sent_at);
        CREATE TABLE user_logins_all PARTITION OF user_logins DEFAULT;
        CREATE FUNCTION "See it"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN INSERT INTO seen VALUES (NEW.user_id); RETURN NEW; END $$;
        CREATE FUNCTION bound() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$ BEGIN RETURN NEW; END $$;
        CREATE TRIGGER see_it BEFORE INSERT ON user_logins_all FOR EACH ROW EXECUTE FUNCTION "See it"();
        CREATE TRIGGER bound BEFORE INSERT ON user_logins_all FOR EACH ROW EXECUTE FUNCTION bound();
    """)
    (warning,) = migrate(given, lambda _: None).warnings
    assert warning.startswith('a write to the tables runs public."See it"(), which doesn\'t say where it looks for names')
    with pytest.raises(
        FatalError, match=r'^relation "seen" does not exist \(SQLSTATE 42P01\), says the function .* runs: sessions'
    ):
        use(given, write)
    cursor.execute(warning.partition("as its owner: ")[2])
    use(given, write)
    cursor.execute("SELECT count(*) FROM seen")
    assert cursor.fetchone() == (1,)
    assert state(given).warnings == ()


def test_psql_runs_the_files_as_they_stand(postgres: Postgres) -> None:
    """With the schema as its variable. Roles are the server's, and there."""
    described = []
    directory = files("stream_app.postgres") / "sql"
    by_migrate = postgres.create_database()
    migrate(settings(by_migrate, "public"), lambda _: None)
    record = load_queries("migrate.sql", "public")["make_record"]
    roles = {f"CREATE ROLE {role} NOLOGIN;" for role in ROLES}
    schema = "\n".join(line for line in (directory / "schema.sql").read_text().splitlines() if line not in roles)
    migrations = "\n".join([f"{record};", *(migration.statements for migration in known_migrations())])
    for script in (schema, migrations):
        dsn = postgres.create_database()
        subprocess.run(
            [program("psql"), "--no-psqlrc", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-v", "schema=public", "-d", dsn],
            input=script,
            text=True,
            check=True,
            env={"PGOPTIONS": "-c search_path=pg_catalog,pg_temp"},
        )
        with closing(psycopg2.connect(dsn)) as connection:
            described.append(describe(connection.cursor()))
        postgres.drop_database(dsn)
    with closing(psycopg2.connect(by_migrate)) as connection:
        assert described == [describe(connection.cursor())] * 2
    postgres.drop_database(by_migrate)
