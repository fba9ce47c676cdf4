"""Brings a database to this version's tables, roles and rights: the plain SQL files of ``sql/migrations/``, each once, in order.

Promise: safe to run twice, from two machines at once, and to be killed at any moment. Each file is one transaction together with
its line in ``stream_migrations``, begun by taking an advisory lock: it is applied and known as applied, or neither. A file that
was released is never edited; a change is a new file.

How it could break: a file that ends the transaction it runs in, or that needs to run outside of one (CREATE INDEX CONCURRENTLY).
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.resources import files

import psycopg2
from psycopg2.errors import DeadlockDetected, LockNotAvailable, RaiseException
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class like a module
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from pipeline.errors import FatalError, RetryableError
from stream_app.postgres.connection import connect
from stream_app.postgres.errors import translate
from stream_app.postgres.queries import with_schema
from stream_app.postgres.settings import PostgresSettings

ADVISORY_LOCK = 0x73_74_72_65_61_6D
"""One migration at a time in a database. The number is the word "stream"."""

_NAMES_ONLY = ("42501", "42701", "42704", "42710", "42723", "42P07", "42P16", "42809", "0A000")
"""SQLSTATEs of statements that define things; their messages hold names of things. No row is in sight."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its name without the ending, and its statements."""

    name: str
    statements: str


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a migration waits for tables in use: briefly, and again, because a waiting ALTER TABLE makes all others wait too."""

    lock_seconds: float = 3
    pause_seconds: float = 5
    attempts: int = 12
    turn_seconds: float = 600
    """How long it waits for another machine's migration, which may be building an index."""


@dataclass(frozen=True, slots=True)
class State:
    """What a database has of the migrations: ``pending`` ones, and ``unknown`` ones that a newer version applied."""

    pending: tuple[Migration, ...]
    unknown: tuple[str, ...]
    open_schema: str | None
    """The schema of the tables, when every login may make functions and tables in it; quoted where it must be.

    One may then make what others' statements find instead of what they mean. So it was in each database before Postgres 15, and is
    after its upgrade.
    """


def known_migrations() -> tuple[Migration, ...]:
    """The files of this version, in their order."""
    directory = files("stream_app.postgres") / "sql" / "migrations"
    paths = sorted((path for path in directory.iterdir() if path.name.endswith(".sql")), key=lambda path: path.name)
    return tuple(Migration(path.name.removesuffix(".sql"), path.read_text()) for path in paths)


def state(settings: PostgresSettings) -> State:
    """Read what is pending. Changes nothing and needs no right to change anything."""
    with _connect(settings) as connection, connection.cursor() as cursor:
        return _look(cursor, settings.postgres_schema)


def migrate(settings: PostgresSettings, say: Callable[[str], None], patience: Patience = Patience()) -> State:
    """Apply what is pending; ``say`` gets a line for each migration that was applied here. Returns what was found.

    Raises :class:`FatalError` (a right or role is missing, tables are in the way) and :class:`RetryableError` (tables are in use,
    connection lost); what was applied before stays, and the next run goes on from there.
    """
    with _connect(settings) as connection:
        connection.autocommit = False
        with connection, connection.cursor() as cursor:
            found = _look(cursor, settings.postgres_schema)
        for migration in found.pending:
            if _apply_patiently(connection, settings.postgres_schema, migration, say, patience):
                say(f"applied {migration.name}")
    return found


def _connect(settings: PostgresSettings) -> AbstractContextManager[Connection]:
    return connect(settings, role=None, application_name="stream_app migrate")


def _look(cursor: Cursor, schema: str) -> State:
    known, applied = known_migrations(), _applied(cursor, schema)
    cursor.execute(with_schema("SELECT quote_ident(:'schema') WHERE has_schema_privilege('public', :'schema', 'CREATE')", schema))
    return State(
        pending=tuple(migration for migration in known if migration.name not in applied),
        unknown=tuple(sorted(applied - {migration.name for migration in known})),
        open_schema=next((schema for (schema,) in cursor.fetchall()), None),
    )


def _applied(cursor: Cursor, schema: str) -> frozenset[str]:
    cursor.execute(with_schema("SELECT to_regclass(quote_ident(:'schema') || '.stream_migrations') IS NOT NULL", schema))
    if cursor.fetchone() != (True,):
        return frozenset()
    cursor.execute(with_schema('SELECT name FROM :"schema".stream_migrations', schema))
    return frozenset(name for (name,) in cursor.fetchall())


def _apply_patiently(
    connection: Connection, schema: str, migration: Migration, say: Callable[[str], None], patience: Patience
) -> bool:
    for attempt in range(1, patience.attempts + 1):
        try:
            return _apply(connection, schema, migration, patience)
        except (LockNotAvailable, DeadlockDetected) as error:
            if attempt == patience.attempts:
                raise RetryableError(f"{migration.name}: a table it changes is in use; run it again in a quieter minute") from error
            say(f"waiting to apply {migration.name}: a table it changes is in use")
            time.sleep(patience.pause_seconds)
        except RaiseException as error:  # raised by the file itself
            raise FatalError(f"{migration.name}: {error.diag.message_primary}") from error
        except psycopg2.Error as error:
            if error.pgcode in _NAMES_ONLY:
                raise FatalError(
                    f"{migration.name}: {error.diag.message_primary} (SQLSTATE {error.pgcode}); nothing of it was applied"
                ) from error
            raise translate(error) from error
    raise AssertionError("attempts is at least 1")


def _apply(connection: Connection, schema: str, migration: Migration, patience: Patience) -> bool:
    """Apply one file in one transaction; False when another machine did so first."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SET LOCAL client_connection_check_interval = '2s'")  # killed in the middle, it lets go of its locks soon
        _limit_lock_wait(cursor, patience.turn_seconds)
        try:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
        except LockNotAvailable as error:
            raise RetryableError(f"another migrate is still at work after {patience.turn_seconds:g} s; run it again") from error
        _limit_lock_wait(cursor, patience.lock_seconds)
        cursor.execute(
            with_schema(_RECORD_TABLE, schema)
        )  # before the look: it makes this session hear of a table that was made while it waited
        if migration.name in _applied(cursor, schema):
            return False
        cursor.execute(with_schema(migration.statements, schema))
        cursor.execute(with_schema('INSERT INTO :"schema".stream_migrations (name) VALUES (%s)', schema), (migration.name,))
    return True


def _limit_lock_wait(cursor: Cursor, seconds: float) -> None:
    cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{round(seconds * 1_000)}ms",))


_RECORD_TABLE = """
CREATE TABLE IF NOT EXISTS :"schema".stream_migrations (
    name       text        PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now(),
    applied_by text        NOT NULL DEFAULT session_user
)
"""
