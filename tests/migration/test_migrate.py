"""`migrate` on every state that a database may be in."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date
from importlib.resources import files
from pathlib import Path
from threading import Timer
from typing import Any

import psycopg2
import pytest
from migration.catalog import describe
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names its class like a module
from pydantic import SecretStr

from dev_servers.postgres import Postgres
from pipeline.errors import FatalError, RetryableError
from stream_app.postgres import migrations
from stream_app.postgres.inspection import Inspection
from stream_app.postgres.migrations import Migration, Patience, known_migrations, migrate, state
from stream_app.postgres.queries import with_schema
from stream_app.postgres.settings import PostgresSettings

NAMES = [migration.name for migration in known_migrations()]
ROLES = {"stream_writer", "stream_operator", "stream_analyst", "stream_privacy_officer", "stream_monitor"}
HURRIED = Patience(lock_seconds=0.1, pause_seconds=0.1, attempts=3, turn_seconds=0.5)
SEVEN_COLUMNS = """
CREATE TABLE user_logins (
    user_id varchar(128), device_type varchar(32), masked_ip varchar(256), masked_device_id varchar(256), locale varchar(32),
    app_version integer, create_date date
)
"""
OLD_ROW = ("u1", "android", "old-ip-token", "old-device-token", "DE", 230, date(2023, 1, 2))
OLD_INSERT = "INSERT INTO user_logins VALUES (%s, %s, %s, %s, %s, %s, %s)"


@pytest.fixture
def settings(fresh_database: str) -> PostgresSettings:
    return PostgresSettings(postgres_dsn=SecretStr(fresh_database))


@pytest.fixture
def cursor(fresh_database: str) -> Iterator[Cursor]:
    """In autocommit, as the superuser."""
    with closing(psycopg2.connect(fresh_database)) as connection:
        connection.autocommit = True
        with connection.cursor() as open_cursor:
            yield open_cursor


@pytest.fixture
def another_database(postgres: Postgres) -> Iterator[str]:
    dsn = postgres.create_database()
    yield dsn
    postgres.drop_database(dsn)


@pytest.fixture
def login(postgres: Postgres, fresh_database: str, cursor: Cursor) -> Iterator[PostgresSettings]:
    """A user who owns the database and has no other right."""
    name = f"login_{os.urandom(4).hex()}"
    cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'made-up'")
    cursor.execute(f"ALTER DATABASE {fresh_database.rpartition('/')[2]} OWNER TO {name}")
    yield PostgresSettings(postgres_dsn=SecretStr(postgres.dsn_of(fresh_database.rpartition("/")[2], name, "made-up")))
    cursor.execute(f"ALTER DATABASE {fresh_database.rpartition('/')[2]} OWNER TO postgres")
    cursor.execute(f"DROP OWNED BY {name}")
    cursor.execute(f"DROP ROLE {name}")


def with_column(definition: str) -> str:
    return SEVEN_COLUMNS.replace("create_date date", f"create_date date, {definition}")


def run(settings: PostgresSettings, patience: Patience = HURRIED) -> list[str]:
    """What it says, but for what happens once on a server."""
    said: list[str] = []
    migrate(settings, said.append, patience)
    return [line for line in said if not line.startswith("granted: ")]


def all_rows(cursor: Cursor, statement: str) -> list[tuple[object, ...]]:
    cursor.execute(statement)
    return cursor.fetchall()


def test_empty_database_gets_each_migration_once(settings: PostgresSettings, cursor: Cursor) -> None:
    assert [migration.name for migration in state(settings).pending] == NAMES
    assert run(settings) == [f"applied {name}" for name in NAMES]
    assert state(settings) == migrations.State(pending=(), unknown=(), warnings=())
    assert all_rows(cursor, "SELECT name FROM stream_migrations ORDER BY applied_at") == [(name,) for name in NAMES]
    assert {name for (name,) in all_rows(cursor, "SELECT rolname FROM pg_roles WHERE rolname ~ '^stream_'")} == ROLES


def test_second_run_changes_nothing(settings: PostgresSettings, cursor: Cursor) -> None:
    run(settings)
    before = describe(cursor), all_rows(cursor, "SELECT * FROM stream_migrations")
    assert run(settings) == []
    assert (describe(cursor), all_rows(cursor, "SELECT * FROM stream_migrations")) == before


def test_seven_column_table_keeps_its_rows_and_takes_new_ones(settings: PostgresSettings, cursor: Cursor) -> None:
    """What is not known of an old row stays null, equal old rows stay both, and a loader of the old kind still works."""
    cursor.execute(SEVEN_COLUMNS)
    cursor.execute(OLD_INSERT, OLD_ROW)
    cursor.execute(OLD_INSERT, OLD_ROW)
    run(settings)
    assert all_rows(cursor, "SELECT * FROM user_logins") == [(*OLD_ROW, None, None)] * 2
    cursor.execute(OLD_INSERT, OLD_ROW)
    new = "INSERT INTO user_logins (user_id, sent_at, message_id) VALUES ('u2', now(), gen_random_uuid())"
    cursor.execute(new)
    cursor.execute(
        "INSERT INTO user_logins SELECT * FROM user_logins WHERE user_id = 'u2' ON CONFLICT (sent_at, message_id) DO NOTHING"
    )
    assert all_rows(cursor, "SELECT user_id, count(*) FROM user_logins GROUP BY 1 ORDER BY 1") == [("u1", 3), ("u2", 1)]


def test_old_rows_are_not_rewritten(settings: PostgresSettings, cursor: Cursor) -> None:
    """The table's file stays the same one: on a long table the upgrade costs a catalog entry and one index."""
    cursor.execute(SEVEN_COLUMNS)
    cursor.execute(OLD_INSERT, OLD_ROW)
    before = all_rows(cursor, "SELECT pg_relation_filenode('user_logins')")
    run(settings)
    assert all_rows(cursor, "SELECT pg_relation_filenode('user_logins')") == before


def test_upgraded_table_new_table_and_schema_file_end_equal(
    settings: PostgresSettings, cursor: Cursor, postgres: Postgres, another_database: str
) -> None:
    cursor.execute(SEVEN_COLUMNS)
    run(settings)
    upgraded = describe(cursor)
    run(PostgresSettings(postgres_dsn=SecretStr(another_database)))
    with closing(psycopg2.connect(another_database)) as connection:
        assert describe(connection.cursor()) == upgraded
    script = with_schema((files("stream_app.postgres") / "sql" / "schema.sql").read_text(), "public")
    role_lines = {line for line in script.splitlines() if line.startswith("CREATE ROLE")}
    assert role_lines == {f"CREATE ROLE {role} NOLOGIN;" for role in ROLES}
    by_hand = postgres.create_database()
    with closing(psycopg2.connect(by_hand)) as connection, connection.cursor() as hand:
        hand.execute("\n".join(line for line in script.splitlines() if line not in role_lines))  # they are the server's, and there
        assert describe(hand) == upgraded
    postgres.drop_database(by_hand)


def test_no_table_of_ours_is_overlooked(settings: PostgresSettings, cursor: Cursor) -> None:
    """Where owners, functions and holders of locks are looked for."""
    migrate(settings, lambda _: None)
    cursor.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'")
    made = {name for (name,) in cursor.fetchall()}
    owners = "ALTER TABLE {} OWNER TO stream_analyst"
    for name in made:
        cursor.execute(owners.format(name))
    warnings = "\n".join(state(settings).warnings)
    assert {name for name in made if f"public.{name} belongs to stream_analyst" not in warnings} == set()
    assert set(migrations._CHANGED) == made


def test_roles_can_not_log_in_and_own_nothing(settings: PostgresSettings, cursor: Cursor) -> None:
    run(settings)
    assert all_rows(
        cursor,
        "SELECT DISTINCT rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls FROM pg_roles WHERE rolname ~ '^stream_'",
    ) == [(False, False, False, False, False)]
    assert (
        all_rows(cursor, "SELECT relname FROM pg_class JOIN pg_roles ON pg_roles.oid = relowner WHERE rolname ~ '^stream_'") == []
    )


def test_two_machines_at_once_apply_each_migration_once(settings: PostgresSettings) -> None:
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda _: run(settings, Patience()), range(4)))
    assert sorted(line for lines in said for line in lines) == [f"applied {name}" for name in NAMES]
    assert state(settings).pending == ()


def test_the_row_type_of_a_table_that_another_makes_at_this_moment_is_no_failure(
    settings: PostgresSettings, cursor: Cursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one commits between two looks that CREATE TABLE takes by itself; here it stands in the way of the first."""
    ask = Inspection.ask

    def overtaken_once(self: Inspection, query: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        if query != "make_record":
            return ask(self, query, parameters)
        monkeypatch.undo()
        cursor.execute("CREATE TYPE stream_migrations AS ENUM ()")
        try:
            return ask(self, query, parameters)
        finally:
            cursor.execute("DROP TYPE stream_migrations")

    monkeypatch.setattr(Inspection, "ask", overtaken_once)
    assert run(settings) == [f"applied {name}" for name in NAMES]


def test_a_type_in_the_place_of_the_record_is_named(settings: PostgresSettings, cursor: Cursor) -> None:
    cursor.execute("CREATE TYPE stream_migrations AS ENUM ()")
    with pytest.raises(FatalError, match=r'^0001_user_logins: type "stream_migrations" already exists \(SQLSTATE 42710\)'):
        run(settings)


def test_what_failed_leaves_nothing_and_what_was_done_stays(
    settings: PostgresSettings, cursor: Cursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = known_migrations()
    half = Migration("9000_half", 'CREATE TABLE :"schema".half (a integer); SELECT 1 FROM stream_nothing')
    monkeypatch.setattr(migrations, "known_migrations", lambda: (*known, half))
    with pytest.raises(FatalError, match=r'relation "stream_nothing" does not exist'):
        run(settings)
    assert all_rows(cursor, "SELECT to_regclass('half'), to_regclass('dead_letters')") == [(None, "dead_letters")]
    assert [migration.name for migration in state(settings).pending] == ["9000_half"]
    monkeypatch.setattr(
        migrations, "known_migrations", lambda: (*known, Migration("9000_half", 'CREATE TABLE :"schema".half (a integer)'))
    )
    assert run(settings) == ["applied 9000_half"]


def test_killed_in_the_middle_it_goes_on_from_there(settings: PostgresSettings, cursor: Cursor, fresh_database: str) -> None:
    """A killed process's locks are gone within seconds, and no line of its stands in the way."""
    program = """
import os, sys
from pydantic import SecretStr
from stream_app.postgres import migrations
from stream_app.postgres.inspection import Inspection
from stream_app.postgres.queries import with_schema
from stream_app.postgres.settings import PostgresSettings
known = migrations.known_migrations()
slow = migrations.Migration(known[2].name, known[2].statements + "; SELECT pg_sleep(300)")
migrations.known_migrations = lambda: (*known[:2], slow)
migrations.migrate(PostgresSettings(postgres_dsn=SecretStr(os.environ["POSTGRES_DSN"])), lambda line: print(line, flush=True))
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "POSTGRES_DSN": fresh_database},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline().strip() for _ in range(2)] == [f"applied {name}" for name in NAMES[:2]]
            deadline = time.monotonic() + 20
            while not all_rows(
                cursor, "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
            ):
                assert time.monotonic() < deadline
        finally:
            process.kill()
    assert run(settings, Patience(turn_seconds=20)) == [f"applied {name}" for name in NAMES[2:]]


def test_table_in_use_is_waited_for_briefly_and_again(settings: PostgresSettings, cursor: Cursor, fresh_database: str) -> None:
    """So long as a reader holds the table, each try gives way after lock_seconds; when it lets go, the next try succeeds."""
    cursor.execute(SEVEN_COLUMNS)
    with closing(psycopg2.connect(fresh_database, application_name="a reader")) as reader:
        reader.cursor().execute("SELECT FROM user_logins")
        with pytest.raises(RetryableError, match="0001_user_logins: a table it changes is in use"):
            run(settings)
        assert [migration.name for migration in state(settings).pending] == NAMES
        letting_go = Timer(0.5, reader.rollback)
        letting_go.start()
        said = run(settings, Patience(lock_seconds=0.1, pause_seconds=0.1, attempts=100))
        letting_go.join()
    assert re.fullmatch(
        r"waiting to apply 0001_user_logins: a table it changes is in use by process \d+ \(login postgres, application a reader\)",
        said[0],
    )
    assert [line for line in said if line.startswith("applied")] == [f"applied {name}" for name in NAMES]


def test_another_migrate_that_takes_too_long_is_named(
    settings: PostgresSettings, fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(settings)
    monkeypatch.setattr(migrations, "known_migrations", lambda: (*known_migrations(), Migration("9000_next", "SELECT 1")))
    with closing(psycopg2.connect(fresh_database, application_name="the other")) as other:
        other.cursor().execute("LOCK TABLE stream_migrations IN SHARE ROW EXCLUSIVE MODE")
        with pytest.raises(
            RetryableError,
            match=r"^public.stream_migrations is still locked after 0.5 s by process \d+ \(login postgres, application the other\)"
            r": is another migrate at work\?",
        ):
            run(settings)
        other.rollback()
    assert run(settings) == ["applied 9000_next"]


def test_nobody_who_may_only_read_holds_a_migration_up(
    settings: PostgresSettings, login: PostgresSettings, cursor: Cursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With any lock that it can take; an advisory lock, as it once was, can be had by all."""
    run(settings)
    cursor.execute("SELECT usename FROM pg_user WHERE usename ~ '^login_'")
    ((name,),) = cursor.fetchall()
    database = settings.postgres_dsn.get_secret_value().rpartition("/")[2] if settings.postgres_dsn else ""
    cursor.execute(f"ALTER DATABASE {database} OWNER TO postgres; GRANT {', '.join(ROLES)} TO {name}")
    monkeypatch.setattr(migrations, "known_migrations", lambda: (*known_migrations(), Migration("9000_next", "SELECT 1")))
    assert login.postgres_dsn is not None
    with closing(psycopg2.connect(login.postgres_dsn.get_secret_value())) as reader:
        held = reader.cursor()
        held.execute("SELECT pg_advisory_lock(n) FROM generate_series(1, 100) AS n; SELECT pg_advisory_lock(%s)", (0x73747265616D,))
        for mode in ("ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE",
                     "EXCLUSIVE", "ACCESS EXCLUSIVE"):  # fmt: skip
            held.execute("SAVEPOINT before")
            try:
                held.execute(f"LOCK TABLE stream_migrations IN {mode} MODE NOWAIT")
            except psycopg2.errors.InsufficientPrivilege:
                held.execute("ROLLBACK TO before")
        assert run(settings) == ["applied 9000_next"]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (SEVEN_COLUMNS.replace("app_version integer", "app_version text"), "app_version should be integer and is text"),
        (SEVEN_COLUMNS.replace("masked_ip varchar(256),", ""), r"masked_ip should be character varying\(256\) and is missing"),
        (SEVEN_COLUMNS.replace("locale varchar(32)", "locale varchar(32) NOT NULL"), "locale is NOT NULL"),
        (with_column("country text NOT NULL"), "country is NOT NULL"),
        (with_column("sent_at timestamp"), r"sent_at should be timestamp with time zone, .* and is timestamp without"),
        (with_column("sent_at timestamptz(2)"), r"sent_at should be .* with milliseconds, and is timestamp\(2\) with time zone"),
        (with_column("message_id text"), "message_id should be uuid and is text"),
    ],
)
def test_table_that_does_not_fit_is_left_alone(settings: PostgresSettings, cursor: Cursor, table: str, problem: str) -> None:
    cursor.execute(table)
    before = describe(cursor)
    with pytest.raises(FatalError, match=f"0001_user_logins: the table user_logins that is here does not fit: {problem}"):
        run(settings)
    assert describe(cursor) == before


@pytest.mark.parametrize("definition", ["sent_at timestamptz", "sent_at timestamptz(3)", "message_id uuid"])
def test_table_that_has_the_new_columns_is_taken(settings: PostgresSettings, cursor: Cursor, definition: str) -> None:
    cursor.execute(with_column(definition))
    assert run(settings) == [f"applied {name}" for name in NAMES]


def test_table_with_columns_of_its_own_that_fill_themselves_is_taken(settings: PostgresSettings, cursor: Cursor) -> None:
    cursor.execute(SEVEN_COLUMNS.replace("user_id varchar(128)", "user_id varchar(128) NOT NULL, id bigserial PRIMARY KEY"))
    run(settings)
    cursor.execute("INSERT INTO user_logins (user_id, sent_at, message_id) VALUES ('u', now(), gen_random_uuid())")


def test_owner_of_the_database_needs_no_other_right_once_the_roles_are_there(
    login: PostgresSettings, postgres: Postgres, another_database: str
) -> None:
    run(PostgresSettings(postgres_dsn=SecretStr(another_database)))
    assert run(login) == [f"applied {name}" for name in NAMES]
    assert postgres.port  # the roles came by way of another database of this server


def test_missing_right_is_named(login: PostgresSettings, cursor: Cursor, fresh_database: str) -> None:
    cursor.execute(f"ALTER DATABASE {fresh_database.rpartition('/')[2]} OWNER TO postgres")
    with pytest.raises(FatalError, match=r"^0001_user_logins: permission denied for schema public .*; nothing of it was applied$"):
        run(login)
    cursor.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    cursor.execute(SEVEN_COLUMNS)
    with pytest.raises(FatalError, match=r"^0001_user_logins: must be owner of table user_logins"):
        run(login)


def test_check_needs_no_right_to_change(
    login: PostgresSettings, settings: PostgresSettings, cursor: Cursor, fresh_database: str
) -> None:
    cursor.execute(f"ALTER DATABASE {fresh_database.rpartition('/')[2]} OWNER TO postgres")
    assert [migration.name for migration in state(login).pending] == NAMES
    run(settings)
    with pytest.raises(FatalError, match="permission denied for table stream_migrations"):
        state(login)
    cursor.execute("SELECT usename FROM pg_user WHERE usename ~ '^login_'")
    cursor.execute("GRANT stream_writer TO {}".format(*cursor.fetchone() or ()))
    assert state(login).pending == ()


def test_what_a_newer_version_applied_is_known_as_such(settings: PostgresSettings, cursor: Cursor) -> None:
    run(settings)
    cursor.execute("INSERT INTO stream_migrations (name) VALUES ('9999_tomorrow')")
    assert state(settings).unknown == ("9999_tomorrow",)
    assert run(settings) == []


def test_files_are_numbered_without_gap() -> None:
    assert [int(name.partition("_")[0]) for name in NAMES] == list(range(1, len(NAMES) + 1))
