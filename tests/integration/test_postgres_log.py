"""What a server's log holds after it refused rows of ours: the error, and not a word of the rows.

On a server of its own, with the settings that Postgres comes with: what a role may set belongs to the whole server.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg2
import pytest
from click.testing import Result
from login_records import batch_of, login, records
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names its class like a module
from structlog.testing import capture_logs

from dev_servers.postgres import LOG_AS_SHIPPED, Postgres
from pipeline.errors import PipelineError
from pipeline.settings import load
from stream_app.positions import Partition
from stream_app.postgres.batch_writer import BatchWriter
from stream_app.postgres.connection import PRIVACY_OFFICER, WRITER, connect
from stream_app.postgres.migrations import migrate
from stream_app.postgres.pool import ConnectionPool
from stream_app.postgres.settings import PostgresSettings

Command = Callable[..., Result]
PARTITION = Partition("logins", 0)
USER_ID = "a-user-not-to-be-seen"
BATCH = batch_of(records([login(user_id=USER_ID), login(user_id="refused")], 0), 0, 2)
TOKEN = BATCH.columns["masked_ip"][0]
CONSTRAINT = "public.user_logins has the constraint no_refused: a login that breaks it is refused\n"
"""What `migrate` says of what these tests put on the table."""

GRANT = (
    "GRANT SET ON PARAMETER log_min_error_statement, log_error_verbosity"
    " TO stream_writer, stream_operator, stream_privacy_officer, stream_monitor"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("log") / "postgres", settings=LOG_AS_SHIPPED) as running:
        yield running


@pytest.fixture
def database(server: Postgres) -> Iterator[str]:
    """Migrated by a superuser, with a table that refuses one user; the login ``worker`` is a member of the writer's role."""
    dsn = server.create_database()
    migrate(load(PostgresSettings, postgres_dsn=dsn), lambda _: None)
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE user_logins ADD CONSTRAINT no_refused CHECK (user_id <> 'refused')")
        cursor.execute("CREATE ROLE worker LOGIN PASSWORD 'made-up' IN ROLE stream_writer, stream_privacy_officer")
    yield dsn
    with closing(psycopg2.connect(server.dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("DROP ROLE worker")
    server.drop_database(dsn)


@pytest.fixture
def superuser(database: str) -> Iterator[Cursor]:
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        yield cursor


@pytest.fixture
def worker(server: Postgres, database: str) -> PostgresSettings:
    return load(PostgresSettings, postgres_dsn=server.dsn_of(database.rpartition("/")[2], "worker", "made-up"))


def logged_while(server: Postgres, act: Callable[[], object]) -> str:
    """What the server's log got."""
    before = server.log_file.stat().st_size
    act()
    with server.log_file.open() as file:
        file.seek(before)
        return file.read()


def write(settings: PostgresSettings) -> tuple[str, ...]:
    """Write the batch, which is refused; what the process logged about the server's log."""

    async def claimed() -> None:
        pool = ConnectionPool(settings, role=WRITER, application_name="test", size=2)
        writer = BatchWriter(pool, consumer_group="group", owner="test", create_date_time_zone="UTC")
        claim, _ = await writer.claim(PARTITION, 0, "id")
        for _ in range(2):
            with pytest.raises(PipelineError):
                await writer.write(claim, BATCH)
        await pool.close()

    with capture_logs() as events:
        asyncio.run(claimed())
    return tuple(setting for event in events if event["event"] == "postgres_logs_rows" for setting in event["settings"])


def test_of_a_refused_row_the_log_has_the_error_alone(server: Postgres, worker: PostgresSettings) -> None:
    told: list[tuple[str, ...]] = []
    logged = logged_while(server, lambda: told.append(write(worker)))
    assert told == [()]
    assert logged.count('ERROR:  new row for relation "user_logins" violates check constraint "no_refused"') == 2
    assert [word for word in (USER_ID, TOKEN, "STATEMENT", "DETAIL", "CONTEXT", "write_batch") if word and word in logged] == []


def test_neither_has_it_the_reason_of_a_reveal_that_is_refused(
    server: Postgres, worker: PostgresSettings, superuser: Cursor
) -> None:
    superuser.execute("ALTER TABLE reveal_audit ADD CHECK (field <> 'ip')")

    def reveal() -> None:
        with (
            pytest.raises(PipelineError),
            connect(worker, role=PRIVACY_OFFICER, application_name="test") as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("INSERT INTO public.reveal_audit (reason, field, tokens) VALUES (%s, 'ip', 1)", (USER_ID,))

    logged = logged_while(server, reveal)
    assert "violates check constraint" in logged
    assert USER_ID not in logged


def test_a_role_that_may_not_keep_rows_out_of_the_log_does_not_try_and_it_is_told(
    server: Postgres, worker: PostgresSettings, superuser: Cursor, database: str, command: Command
) -> None:
    """Once a process by the worker, and with the statement by migrate, as on a server whose superuser did not migrate."""
    superuser.execute(GRANT.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))
    told: list[tuple[str, ...]] = []
    logged = logged_while(server, lambda: told.append(write(worker)))
    assert USER_ID in logged, "else the other tests would show nothing"
    assert "permission denied" not in logged
    assert told == [("log_min_error_statement=error", "log_error_verbosity=default")]
    check = command("migrate", "--check", POSTGRES_DSN=database)
    assert check.exit_code == 0
    assert check.stderr == (
        "Postgres's log gets user ids and masked values of each statement that it refuses"
        f" (log_min_error_statement=error, log_error_verbosity=default); as a superuser: {GRANT}\n{CONSTRAINT}"
    )
    superuser.execute(check.stderr.partition("as a superuser: ")[2].removesuffix(CONSTRAINT))
    assert command("migrate", "--check").stderr == CONSTRAINT
    told.clear()
    assert USER_ID not in logged_while(server, lambda: told.append(write(worker)))
    assert told == [()]


def test_a_migration_by_a_superuser_gives_the_right(superuser: Cursor, database: str, command: Command) -> None:
    superuser.execute(GRANT.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))
    result = command("migrate", POSTGRES_DSN=database)
    assert result.stdout.splitlines() == [
        "in the schema public",
        "granted: sessions of this stream may keep rows out of the server's log",
        "the database is up to date",
    ]
    assert command("migrate").stdout.count("granted") == 0


def test_settings_of_the_login_do_as_well(
    server: Postgres, worker: PostgresSettings, superuser: Cursor, database: str, command: Command
) -> None:
    """The only way before Postgres 15."""
    superuser.execute(GRANT.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))
    superuser.execute(
        "ALTER ROLE worker SET log_min_error_statement = 'panic'; ALTER ROLE worker SET log_error_verbosity = 'terse'"
    )
    told: list[tuple[str, ...]] = []
    assert USER_ID not in logged_while(server, lambda: told.append(write(worker)))
    assert told == [()]
    assert command("migrate", "--check", POSTGRES_DSN=database).stderr == CONSTRAINT


def test_a_log_of_statements_that_succeed_is_told_of(
    server: Postgres, worker: PostgresSettings, superuser: Cursor, database: str, command: Command
) -> None:
    """It is not ours to turn off: whoever turned it on had a reason."""
    superuser.execute(f"ALTER DATABASE {database.rpartition('/')[2]} SET log_statement = 'all'")
    told: list[tuple[str, ...]] = []
    assert USER_ID in logged_while(server, lambda: told.append(write(worker)))
    assert told == [("log_statement=all",)]
    check = command("migrate", "--check", POSTGRES_DSN=database)
    assert check.stderr == (
        "Postgres's log gets user ids and masked values of statements that succeed (log_statement=all);"
        f" as a superuser: ALTER ROLE worker SET log_statement = 'none'\n{CONSTRAINT}"
    )
    superuser.execute(check.stderr.partition("as a superuser: ")[2].removesuffix(CONSTRAINT))
    assert command("migrate", "--check").stderr == CONSTRAINT
    told.clear()
    assert USER_ID not in logged_while(server, lambda: told.append(write(worker)))
    assert told == [()]


def test_a_session_that_somebody_ends_in_the_middle_leaves_no_statement(
    server: Postgres, worker: PostgresSettings, superuser: Cursor
) -> None:
    """FATAL is more than ERROR: `log_min_error_statement = fatal` would show it."""

    def end_it() -> None:
        with connect(worker, role=WRITER, application_name="test") as connection, ThreadPoolExecutor(1) as thread:
            running = thread.submit(connection.cursor().execute, "SELECT pg_sleep(60), %s", (USER_ID,))
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
            while not running.done():
                superuser.execute(ended, (connection.info.backend_pid,))
            assert isinstance(running.exception(), psycopg2.OperationalError)

    logged = logged_while(server, end_it)
    assert "terminating connection due to administrator command" in logged
    assert USER_ID not in logged
