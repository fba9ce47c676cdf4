"""What a real server's refusals become: the class that says what to do, and no word of what was refused."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class like a module
from psycopg2.extensions import make_dsn
from pydantic import SecretStr

from dev_servers.ports import free_port
from dev_servers.postgres import Postgres
from pipeline.errors import FatalError, PipelineError, RetryableError
from stream_app.postgres.connection import OPERATOR, WRITER, connect
from stream_app.postgres.errors import RowRefusedError, StatementLimitError, retry_class
from stream_app.postgres.pool import ConnectionPool
from stream_app.postgres.preflight import DatabaseReadOnlyError, WriterPreflight
from stream_app.postgres.settings import PostgresSettings

VALUE = "203.0.113.7"
ADD_LETTER = (
    "INSERT INTO public.dead_letters (consumer_group, topic, partition, record_offset, message_id, sent_at, reason, sealed)"
    " VALUES ('g', %s, 0, %s, %s, now(), 'r', '')"
)
MESSAGE_ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def settings(migrated_database: str) -> PostgresSettings:
    return PostgresSettings(postgres_dsn=SecretStr(migrated_database))


@pytest.fixture
def superuser(migrated_database: str) -> Iterator[Connection]:
    with closing(psycopg2.connect(migrated_database)) as connection:
        connection.autocommit = True
        yield connection


def outcome(
    settings: PostgresSettings, statement: str, parameters: tuple[Any, ...] | None = None, role: str | None = WRITER
) -> PipelineError:
    with (
        pytest.raises(PipelineError) as caught,
        connect(settings, role=role, application_name="test") as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(statement, parameters)
    assert VALUE not in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_row_refusals_name_the_column_where_postgres_does(settings: PostgresSettings) -> None:
    login = "INSERT INTO public.user_logins (user_id, app_version, create_date) VALUES (%s, %s, %s)"
    refused = [
        (outcome(settings, login, (VALUE * 30, 1, None)), None),  # 22001: too long
        (outcome(settings, login, ("u", 2**31, None)), None),  # 22003: out of range
        (outcome(settings, login, ("u", 1, f"31.31.{VALUE}")), None),  # 22007: no date
        (outcome(settings, ADD_LETTER, (None, 1, MESSAGE_ID)), "topic"),  # 23502: not null
        (outcome(settings, ADD_LETTER, ("t", 1, VALUE)), None),  # 22P02: no UUID
    ]
    for error, column in refused:
        assert isinstance(error, RowRefusedError)
        assert error.field == column


def test_a_limit_of_the_server_is_told_apart(settings: PostgresSettings) -> None:
    """The statement is too much for it, nothing is known of a row: so it is halved."""
    too_long = outcome(settings, "SELECT length(repeat(%s, 1073741824))", (VALUE,))  # 54000: requested length too large
    assert type(too_long) is StatementLimitError
    assert "54000" in str(too_long)


def test_what_is_missing_is_named(settings: PostgresSettings, superuser: Connection) -> None:
    assert str(outcome(settings, "SELECT masked_ip FROM public.user_logins")).startswith(
        "permission denied for table user_logins (SQLSTATE 42501)"
    )
    superuser.cursor().execute("ALTER TABLE public.stream_positions DROP COLUMN owner")
    assert str(outcome(settings, "UPDATE public.stream_positions SET owner = %s", (VALUE,))).startswith(
        'column "owner" of relation "stream_positions" does not exist (SQLSTATE 42703)'
    )
    superuser.cursor().execute("DROP TABLE public.user_logins")
    error = outcome(settings, "INSERT INTO public.user_logins (user_id) VALUES (%s)", (VALUE,))
    assert isinstance(error, FatalError)
    assert str(error).startswith('relation "public.user_logins" does not exist (SQLSTATE 42P01); `faust -A stream_app migrate`')


def test_statement_that_is_wrong_is_not_quoted(settings: PostgresSettings) -> None:
    error = outcome(settings, f'SELECT "{VALUE}')
    assert isinstance(error, FatalError)
    assert "42601" in str(error)


def test_what_passes_by_itself_is_tried_again(settings: PostgresSettings, superuser: Connection) -> None:
    """Statement timeout, a lock that is not had, a read-only server, a session that the server ended."""
    hurried = settings.model_copy(update={"postgres_statement_timeout_seconds": 0.1})
    outcomes = [outcome(hurried, "SELECT pg_sleep(60)")]
    with superuser.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE public.user_logins IN ACCESS EXCLUSIVE MODE")
        outcomes.append(outcome(hurried, "INSERT INTO public.user_logins (user_id) VALUES ('u')"))
        outcomes.append(outcome(settings, "BEGIN; LOCK TABLE public.user_logins IN ROW EXCLUSIVE MODE NOWAIT"))
        cursor.execute("ROLLBACK")
    outcomes.append(outcome(settings, "SET TRANSACTION READ ONLY; INSERT INTO public.user_logins (user_id) VALUES ('u')"))
    outcomes.append(outcome(settings, "SELECT pg_terminate_backend(pg_backend_pid())", role=None))
    for error, says in zip(outcomes, ("57014", "57014", "55P03", "25006", "connection was closed"), strict=True):
        assert isinstance(error, RetryableError)
        assert says in str(error)


def test_deadlock_is_tried_again(settings: PostgresSettings, superuser: Connection, migrated_database: str) -> None:
    superuser.cursor().execute("INSERT INTO public.stream_positions VALUES ('g', 't', 0, 0, 0, 'o'), ('g', 't', 1, 0, 0, 'o')")
    lock = "UPDATE public.stream_positions SET epoch = 1 WHERE partition = %s"
    with closing(psycopg2.connect(migrated_database)) as other, ThreadPoolExecutor(1) as thread:
        other.cursor().execute("SET deadlock_timeout = '1h'")  # so ours is the one that is ended
        other.cursor().execute(lock, (0,))
        crossing: list[Future[None]] = []

        def cross() -> None:
            with connect(settings, role=WRITER, application_name="t") as ours:
                ours.autocommit = False
                ours.cursor().execute(lock, (1,))
                crossing.append(thread.submit(other.cursor().execute, lock, (1,)))
                ours.cursor().execute(lock, (0,))

        with pytest.raises(RetryableError, match="40P01"):
            cross()
        crossing[0].result()


def test_connections_that_can_not_be_made(postgres: Postgres, migrated_database: str, superuser: Connection) -> None:
    def reason(dsn: str, role: str | None = WRITER) -> PipelineError:
        settings = PostgresSettings(postgres_dsn=SecretStr(dsn))
        with pytest.raises(PipelineError) as caught, connect(settings, role=role, application_name="t"):
            pass
        assert "made-up" not in str(caught.value)
        return caught.value

    database = migrated_database.rpartition("/")[2]
    cases: list[tuple[PipelineError, type[PipelineError], str]] = [
        (
            reason(postgres.dsn_of(database, password="made-up")),
            RetryableError,
            'password authentication failed for user "postgres"',
        ),
        (reason(postgres.dsn_of("nowhere")), FatalError, 'database "nowhere" does not exist'),
        (reason(migrated_database, role="stream_nobody"), FatalError, 'role "stream_nobody" does not exist'),
        (reason(f"postgresql://u:made-up@127.0.0.1:{free_port()}/d"), RetryableError, "nobody listens"),
        (
            reason(make_dsn(migrated_database, options="-c TimeZone=Nowhere")),
            FatalError,
            "are the `options` of POSTGRES_DSN right?",
        ),
        (reason("postgresql://u:made-up@nowhere.invalid/d"), RetryableError, "has no address"),
        (reason(f"{migrated_database}?sslmode=require"), RetryableError, "offers no TLS"),
    ]
    superuser.cursor().execute(f"ALTER DATABASE {database} CONNECTION LIMIT 0; CREATE ROLE one_more LOGIN PASSWORD 'made-up'")
    cases.append(
        (
            reason(postgres.dsn_of(database, "one_more", "made-up"), role=None),
            RetryableError,
            "no connection left for us (SQLSTATE 53300)",
        )
    )
    superuser.cursor().execute(f"ALTER DATABASE {database} CONNECTION LIMIT -1; REVOKE CONNECT ON DATABASE {database} FROM public")
    cases.append(
        (reason(postgres.dsn_of(database, "one_more", "made-up"), role=None), RetryableError, "GRANT CONNECT (SQLSTATE 42501)")
    )
    assert isinstance(cases[-1][0], RetryableError)
    assert retry_class(cases[-1][0]) == "28"
    superuser.cursor().execute("DROP ROLE one_more")
    for error, kind, says in cases:
        assert isinstance(error, kind)
        assert says in str(error)


def test_server_that_stopped_is_waited_for(servers_directory: Path) -> None:
    """Each way to stop leaves RetryableError: in the middle of a session, while it is down, and then all is well again."""
    with Postgres(servers_directory / "postgres-stopped") as server:
        settings = PostgresSettings(postgres_dsn=SecretStr(server.dsn))

        def ask(stop_mode: str | None = None) -> None:
            with connect(settings, role=None, application_name="t") as connection:
                if stop_mode is not None:
                    server.stop(mode=stop_mode)
                connection.cursor().execute("SELECT 1")

        for mode in ("fast", "immediate"):
            with pytest.raises(RetryableError):
                ask(mode)
            with pytest.raises(RetryableError):
                ask()
            server.start()
            ask()


def test_errors_inside_come_out_translated_and_the_connection_is_closed(settings: PostgresSettings) -> None:
    with pytest.raises(RowRefusedError), connect(settings, role=OPERATOR, application_name="t") as connection:
        connection.cursor().execute("SELECT 1 / 0")
    assert connection.closed


def test_a_standby_is_told_from_a_server_that_is_away(servers_directory: Path) -> None:
    """It takes sessions and no writes."""
    with Postgres(servers_directory / "postgres-standby") as server:
        with closing(psycopg2.connect(server.dsn)) as connection, connection:
            connection.cursor().execute(f"CREATE ROLE {WRITER}")
        server.stop()
        (server.directory / "data" / "standby.signal").touch()
        server.start()

        def refused(**parameters: str) -> RetryableError:
            settings = PostgresSettings(postgres_dsn=SecretStr(make_dsn(server.dsn, **parameters)))
            with pytest.raises(RetryableError) as caught, connect(settings, role=None, application_name="t") as connection:
                connection.cursor().execute("CREATE TABLE t ()")
            return caught.value

        writes = refused()
        assert "a standby (does POSTGRES_DSN name the primary, or target_session_attrs=read-write?)" in str(writes)
        assert retry_class(writes) == "25"
        pool = ConnectionPool(PostgresSettings(postgres_dsn=SecretStr(server.dsn)), role=WRITER, application_name="t", size=1)

        async def look() -> None:
            try:
                await WriterPreflight(pool, cast("Any", None)).session()  # the writer is for later steps
            finally:
                await pool.close()

        with pytest.raises(DatabaseReadOnlyError, match=r"is a standby or in recovery.*target_session_attrs=read-write"):
            asyncio.run(look())
        unfit = "no host of POSTGRES_DSN is what its target_session_attrs asks for (libpq: session is read-only)"
        assert str(refused(target_session_attrs="read-write")) == unfit
