"""`faust -A stream_app migrate`, as its user sees it."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg2
from click.testing import Result

from dev_servers.ports import free_port
from dev_servers.postgres import Postgres
from stream_app.postgres.migrations import known_migrations

NAMES = [migration.name for migration in known_migrations()]
IN_SCHEMA = "in the schema public"
Command = Callable[..., Result]


def without_grant(lines: list[str]) -> list[str]:
    """Without what happens once on a server."""
    return [line for line in lines if not line.startswith("granted: ")]


def test_each_applied_migration_is_a_line(command: Command, fresh_database: str) -> None:
    check = command("migrate", "--check", POSTGRES_DSN=fresh_database)
    assert (check.exit_code, check.stdout.splitlines()) == (
        1,
        [IN_SCHEMA, *(f"pending {name}" for name in NAMES)],
    )
    first = command("migrate")
    assert (first.exit_code, without_grant(first.stdout.splitlines())) == (
        0,
        [IN_SCHEMA, *(f"applied {name}" for name in NAMES), "the database is up to date"],
    )
    for again in (command("migrate"), command("migrate", "--check")):
        assert (again.exit_code, again.stdout.splitlines()) == (0, [IN_SCHEMA, "the database is up to date"])


def test_a_schema_that_is_open_to_all_is_told_as_it_was_before_postgres_15(command: Command, fresh_database: str) -> None:
    owner = 'REVOKE CREATE ON SCHEMA "public" FROM PUBLIC'
    with closing(psycopg2.connect(fresh_database)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        opened = command("migrate", POSTGRES_DSN=fresh_database)
        assert (opened.exit_code, opened.stdout.splitlines()[-1]) == (0, "the database is up to date")
        assert len(opened.stderr.splitlines()) == 1
        assert opened.stderr.endswith(f'as its owner: GRANT CREATE ON SCHEMA "public" TO the login that migrates, then {owner}\n')
        assert command("migrate", "--check").stderr == opened.stderr
        cursor.execute(owner)
    assert command("migrate", "--check").stderr == ""


def test_two_processes_at_once(fresh_database: str) -> None:
    """The real command line, from two machines as it were."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "faust", "-A", "stream_app", "migrate"],
            env={**os.environ, "POSTGRES_DSN": fresh_database},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert [error for _, error in outputs] == ["", ""]
    lines = [line for output, _ in outputs for line in output.splitlines()]
    assert sorted(without_grant(lines)) == sorted(
        [*(f"applied {name}" for name in NAMES), *[IN_SCHEMA, "the database is up to date"] * 2]
    )


def test_errors_are_one_line_without_the_password(command: Command, postgres: Postgres) -> None:
    for dsn, says in (
        (postgres.dsn_of("postgres", password="made-up"), 'password authentication failed for user "postgres"'),
        (postgres.dsn_of("nowhere"), 'create it or correct POSTGRES_DSN; it says: database "nowhere" does not exist'),
        (f"postgresql://u:made-up@127.0.0.1:{free_port()}/d", "nobody listens at host and port of POSTGRES_DSN"),
        ("postgresql://u:made-up@h:made-up/d", "POSTGRES_DSN: libpq takes no such value of port"),
        ("host=h sslmode=made-up", "POSTGRES_DSN: libpq takes no such value of sslmode"),
        ("host=h made-up", "POSTGRES_DSN: libpq can't read it"),
    ):
        for arguments in (("migrate",), ("migrate", "--check")):
            result = command(*arguments, POSTGRES_DSN=dsn)
            assert result.exit_code == 1
            assert says in result.stderr
            assert result.stderr.startswith("Error: ")
            assert len(result.stderr.splitlines()) == 1
            assert "made-up" not in result.output


def test_missing_dsn_is_named(command: Command) -> None:
    result = command("migrate", POSTGRES_DSN="")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: POSTGRES_DSN: not set")


def test_what_stops_the_stream_is_an_error_and_what_may_a_warning(command: Command, fresh_database: str) -> None:
    """Each with the statement that mends it; a worker says the same."""
    command("migrate", POSTGRES_DSN=fresh_database)
    with closing(psycopg2.connect(fresh_database)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("ALTER TABLE user_logins ADD tenant text NOT NULL, ALTER locale TYPE varchar(2)")
        for found in (command("migrate", "--check"), command("migrate")):
            warning, error = found.stderr.splitlines()
            assert (found.exit_code, found.stdout.splitlines()) == (1, [IN_SCHEMA])
            assert warning.endswith("ALTER TABLE public.user_logins ALTER COLUMN locale TYPE character varying(32)")
            assert error.startswith("Error: no row can be written: the column tenant of public.user_logins is NOT NULL")
            assert error.endswith("ALTER TABLE public.user_logins ALTER COLUMN tenant DROP NOT NULL, or SET DEFAULT one")
        cursor.execute("ALTER TABLE user_logins ALTER COLUMN tenant DROP NOT NULL, ALTER locale TYPE varchar(32)")
    mended = command("migrate", "--check")
    assert (mended.exit_code, mended.stderr) == (0, "")


def test_the_sequence_of_a_table_that_was_there_is_granted(command: Command, fresh_database: str) -> None:
    """Else the worker, which alone meets it, is told "permission denied for sequence" at its first row."""
    with closing(psycopg2.connect(fresh_database)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("""
            CREATE TABLE user_logins (
                id bigserial PRIMARY KEY, user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
                masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date
            )
        """)
        said = "granted: stream_writer may use the sequence public.user_logins_id_seq"
        assert said in command("migrate", POSTGRES_DSN=fresh_database).stdout.splitlines()
        cursor.execute("SET ROLE stream_writer; INSERT INTO user_logins (user_id) VALUES ('u'); RESET ROLE")
        cursor.execute("REVOKE ALL ON SEQUENCE user_logins_id_seq FROM stream_writer")
        checked = command("migrate", "--check")
        assert checked.exit_code == 1
        assert checked.stderr.endswith("GRANT USAGE ON SEQUENCE public.user_logins_id_seq TO stream_writer\n")
        assert said in command("migrate").stdout.splitlines()
        assert command("migrate", "--check").exit_code == 0
