"""Brings a database to this version's tables, roles and rights: the plain SQL files of ``sql/migrations/``, each once, in order.

Promise: safe to run twice, from two machines at once, and to be killed at any moment. Each file is one transaction together with
its line in ``stream_migrations``, begun by locking that table against all that write it: it is applied and known as applied, or
neither. A file that was released is never edited; a change is a new file.

How it could break: a file that ends the transaction it runs in, or that needs to run outside of one (CREATE INDEX CONCURRENTLY); a
file that writes to ``user_logins`` or computes something for each of its rows, since its owner may be one who is not to be trusted.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg2
from psycopg2.errors import (
    DeadlockDetected,
    DuplicateObject,
    DuplicateSchema,
    DuplicateTable,
    InsufficientPrivilege,
    LockNotAvailable,
    RaiseException,
    UniqueViolation,
)
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class like a module

from pipeline.errors import FatalError, PipelineError, RetryableError
from pipeline.printable import printable
from stream_app.postgres.connection import WRITER, connect
from stream_app.postgres.errors import translate
from stream_app.postgres.inspection import GIVEN, LOOK_LOCK_SECONDS, RECORD, Inspection, Migration, State, known_migrations
from stream_app.postgres.queries import with_schema
from stream_app.postgres.session import PARAMETER_RIGHTS_SINCE
from stream_app.postgres.settings import PostgresSettings

_NAMES_ONLY = ("42501", "42701", "42704", "42710", "42723", "42P07", "42P16", "42809", "0A000")
"""SQLSTATEs of statements that define things; their messages hold names of things. No row is in sight."""

_MADE_BY_ANOTHER = (DuplicateSchema, DuplicateTable, DuplicateObject, UniqueViolation)
"""What two that make the same thing at once get to hear. DuplicateObject is a table's row type."""

_WRITERS_MODES = (
    "RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock",
)  # fmt: skip
_ALL_MODES = ("AccessShareLock", "RowShareLock", *_WRITERS_MODES)
_CHANGED = (GIVEN, "stream_positions", "dead_letters", "replay_key", "reveal_audit", "operator_actions", RECORD)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a migration waits for tables in use: briefly, and again, because a waiting ALTER TABLE makes all others wait too."""

    lock_seconds: float = 3
    pause_seconds: float = 5
    attempts: int = 12
    turn_seconds: float = 600
    """How long it waits for another machine's migration, which may be building an index."""


def state(settings: PostgresSettings) -> State:
    """Read what is pending. Changes nothing and needs no right to change anything."""
    with _connect(settings) as connection:
        return _look(connection, settings.postgres_schema)


def migrate(settings: PostgresSettings, say: Callable[[str], None], patience: Patience = Patience()) -> State:
    """Apply what is pending; ``say`` gets a line for each thing that was done here. Returns what is there then.

    Raises :class:`FatalError` (a right or role is missing, tables are in the way) and :class:`RetryableError` (tables are in use,
    connection lost); what was applied before stays, and the next run goes on from there.
    """
    with _connect(settings) as connection:
        run = _Run(connection, settings.postgres_schema, say, patience)
        for migration in _look(connection, settings.postgres_schema).pending:
            if run.apply_patiently(migration):
                say(f"applied {migration.name}")
        run.keep_rows_out_of_log()
        run.grant_sequences()
        return _look(connection, settings.postgres_schema)


@contextmanager
def _connect(settings: PostgresSettings) -> Iterator[Connection]:
    with connect(settings, role=None, application_name="stream_app migrate") as connection:
        connection.autocommit = False
        yield connection


def _look(connection: Connection, schema: str) -> State:
    with connection, connection.cursor() as cursor:
        inspection = Inspection(cursor, schema)
        _limit_lock_wait(inspection, LOOK_LOCK_SECONDS)
        return inspection.state(known_migrations())


def _limit_lock_wait(inspection: Inspection, seconds: float) -> None:
    inspection.ask("limit_lock_wait", {"milliseconds": str(round(seconds * 1_000))})


class _OvertakenError(Exception):
    """Another machine made the schema or the table of what was applied, at the same moment."""

    def __init__(self, cause: psycopg2.Error) -> None:
        super().__init__(cause.pgcode)
        self.cause = cause


def _in_words(migration: Migration, error: psycopg2.Error) -> PipelineError:
    if error.pgcode in _NAMES_ONLY:
        return FatalError(f"{migration.name}: {error.diag.message_primary} (SQLSTATE {error.pgcode}); nothing of it was applied")
    return translate(error)


class _Run:
    """One connection's way through the files."""

    def __init__(self, connection: Connection, schema: str, say: Callable[[str], None], patience: Patience) -> None:
        self._connection = connection
        self._schema = schema
        self._say = say
        self._patience = patience

    def apply_patiently(self, migration: Migration) -> bool:
        """Apply one file; False when another machine did so first."""
        for attempt in range(1, self._patience.attempts + 1):
            try:
                return self._apply(migration)
            except _OvertakenError as error:
                if attempt == self._patience.attempts:
                    if isinstance(error.cause, DuplicateObject):  # a type of that name stands there, and no table
                        raise _in_words(migration, error.cause) from error
                    raise RetryableError(f"{migration.name}: another migrate is at work; run it again") from error
            except (LockNotAvailable, DeadlockDetected) as error:
                in_use = f"a table it changes is in use{self._held_by(_ALL_MODES, *_CHANGED)}"
                if attempt == self._patience.attempts:
                    raise RetryableError(f"{migration.name}: {in_use}; run it again in a quieter minute") from error
                self._say(f"waiting to apply {migration.name}: {in_use}")
                time.sleep(self._patience.pause_seconds)
            except RaiseException as error:  # raised by the file itself
                raise FatalError(f"{migration.name}: {error.diag.message_primary}") from error
            except psycopg2.Error as error:
                raise _in_words(migration, error) from error
        raise AssertionError("attempts is at least 1")

    def keep_rows_out_of_log(self) -> None:
        """Where a superuser migrates, and Postgres knows such a right: grant it, in all databases of the server at once."""
        if self._connection.server_version < PARAMETER_RIGHTS_SINCE:
            return
        for _ in range(self._patience.attempts):
            try:
                with self._inspection() as inspection:
                    if not (inspection.is_superuser() and inspection.role_exists()) or inspection.may_keep_rows_out_of_log():
                        return
                    inspection.ask("keep_rows_out_of_log")
            except (psycopg2.errors.InternalError_, UniqueViolation):  # another database's migrate grants it at this moment
                time.sleep(self._patience.pause_seconds / 100)
            else:
                self._say("granted: sessions of this stream may keep rows out of the server's log")
                return

    def grant_sequences(self) -> None:
        """Let the writer's role use those that fill columns of the owner's, such as a bigserial, where that may be granted."""
        with self._inspection() as inspection:
            sequences = inspection.tables().locked_sequences
        for sequence in sequences:
            try:
                with self._inspection() as inspection:
                    inspection.run(f"GRANT USAGE ON SEQUENCE {sequence} TO {WRITER}")
            except InsufficientPrivilege:
                continue
            self._say(f"granted: {WRITER} may use the sequence {printable(sequence)}")

    def _apply(self, migration: Migration) -> bool:
        """Apply one file in one transaction; False when another machine did so first."""
        turn_taken = False
        try:
            with self._inspection() as inspection:
                inspection.refuse_others_record()  # before the wait: it may be another's lock that would be waited for
                inspection.ask("notice_closed_connection")
                _limit_lock_wait(inspection, self._patience.turn_seconds)
                self._make_record(inspection)
                inspection.ask("take_turn")
                turn_taken = True
                inspection.refuse_others_record()
                _limit_lock_wait(inspection, self._patience.lock_seconds)
                if migration.name in inspection.applied():
                    return False
                inspection.run(with_schema(migration.statements, self._schema))
                inspection.ask("write_record", {"name": migration.name})
        except _MADE_BY_ANOTHER as error:
            if turn_taken:
                raise
            raise _OvertakenError(error) from error
        except LockNotAvailable as error:
            if turn_taken:
                raise
            raise RetryableError(
                f"{self._schema}.{RECORD} is still locked after {self._patience.turn_seconds:g} s"
                f"{self._held_by(_WRITERS_MODES, RECORD)}: is another migrate at work? Run it again"
            ) from error
        return True

    def _make_record(self, inspection: Inspection) -> None:
        """The schema and the table of what was applied, where they are missing.

        One that another machine has made and not committed yet is waited for as a lock is, and then is there:
        :class:`_OvertakenError`. What fails after this takes both back.
        """
        if inspection.has_record():
            return
        if not inspection.ask("look_at_schema"):
            inspection.ask("make_schema")
        inspection.ask("make_record")

    def _held_by(self, modes: tuple[str, ...], *tables: str) -> str:
        with self._inspection() as inspection:
            holders = inspection.holders(modes, *tables)
        return f" by {holders}" if holders else ""

    @contextmanager
    def _inspection(self) -> Iterator[Inspection]:
        """A transaction: committed at its end, rolled back after an error."""
        with self._connection, self._connection.cursor() as cursor:
            yield Inspection(cursor, self._schema)


__all__ = ["Migration", "Patience", "State", "known_migrations", "migrate", "state"]
