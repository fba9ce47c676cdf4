"""What a worker asks of Postgres before it joins its group: whether it could write there, without writing.

Each statement that it will run is planned, and none is run: Postgres then refuses what it would refuse, a missing table, column,
index or right, in its own words, and nothing of this has to be kept equal to what the statements say.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.errors import FatalError, PipelineError, RetryableError
from stream_app.batch import Batch
from stream_app.postgres.batch_writer import BatchWriter
from stream_app.postgres.errors import MIGRATE, RoleMissingError, retry_class
from stream_app.postgres.inspection import known_migrations
from stream_app.postgres.pool import ConnectionPool
from stream_app.postgres.queries import load_queries
from stream_app.postgres.session_refusal import SessionRefusedError

MISMATCH_SETTING: Final = "KEYSET_MISMATCH"

DEAD_LETTER: Final = "dead letter"
"""In the place of a field: what is sealed."""

_FOR_A_PERSON: Final = ("28", "tls")
"""Classes that are tried again while a worker runs, since a person may mend them any moment: at a start they end it."""

_NO_TABLES: Final = ("42P01", "3F000")
_CHANGED: Final = ("3F000", "42501", "42703", "42704", "42883", "42P01")
_NO_INDEX: Final = "42P10"
_INDEXES: Final[Mapping[str, str]] = {
    "claim_partition": "stream_positions (consumer_group, topic, partition)",
    "newest_sent_at": "user_logins (sent_at, message_id)",
    "write_batch": "dead_letters (sent_at, message_id)",
}
"""The unique index that each statement goes by, in the order in which they are planned: the last goes by the one before, too."""


class TablesPendingError(RetryableError):
    """`migrate` has not run yet, or not this version's: it may any moment."""


class DatabaseReadOnlyError(RetryableError):
    """A standby, or a database that is set to be read-only: a failover or a person may end that."""


class WriterPreflight:
    """The checks, to be made in the order of the methods."""

    def __init__(self, pool: ConnectionPool, writer: BatchWriter) -> None:
        self._pool = pool
        self._writer = writer
        self._queries = load_queries("preflight.sql", pool.schema)
        self._database = ""

    async def session(self) -> None:
        """Connect and take the role; see that it is possible to write."""
        self._database, is_standby, is_read_only = await self._ask("session")
        if is_standby:
            raise DatabaseReadOnlyError(
                "Postgres at POSTGRES_DSN is a standby or in recovery: it takes no writes. Name the primary there, or all hosts and"
                " target_session_attrs=read-write; or it becomes the primary"
            )
        if is_read_only:
            raise DatabaseReadOnlyError(
                f"the database {self._database} takes no writes: default_transaction_read_only is on, for it or POSTGRES_DSN's user"
            )

    async def tables(self) -> None:
        """See that `migrate` of this version has run."""
        schema = self._pool.schema
        try:
            (applied,) = await self._ask("applied_migrations")
        except FatalError as error:
            if _code(error) not in _NO_TABLES:
                raise
            raise TablesPendingError(
                f"the database {self._database} has no tables of this stream in the schema {schema}: run `{MIGRATE}`, or correct"
                " POSTGRES_DSN or POSTGRES_SCHEMA"
            ) from error
        pending = [migration.name for migration in known_migrations() if migration.name not in (applied or ())]
        if pending:
            raise TablesPendingError(
                f"in the database {self._database}, schema {schema}, `{MIGRATE}` of this version has not run: it has"
                f" {', '.join(pending)} to apply"
            )

    async def statements(self, empty: Batch) -> None:
        """Have each statement planned, by which Postgres looks at tables, columns, indexes, functions and rights."""
        for name, (statement, parameters) in self._writer.statements(empty).items():
            try:
                await self._fetch(f"EXPLAIN {statement}", parameters)
            except FatalError as error:
                if _code(error) == _NO_INDEX:
                    raise FatalError(self._no_index(_INDEXES[name])) from error
                raise

    async def keys(self, keys_of: Callable[[str], tuple[str, frozenset[int]]], *, accept: bool) -> str | None:
        """See that some of what was written last was written with a key of ours, field by field; else what is wrong, if accepted.

        ``keys_of`` says of a field which setting decides how it is masked or sealed, and with which keys' ids.
        """
        fields, key_ids = await self._ask("keys_in_use")
        found: dict[str, set[int]] = {}
        for field, key_id in zip(fields or (), key_ids or (), strict=True):
            found.setdefault(field, set()).add(key_id)
        for field, theirs in sorted(found.items()):
            setting, ours = keys_of(field)
            if theirs & ours:
                continue
            problem = (
                f"{setting}: what was written last in the database {self._database} has {field}"
                f" {'sealed' if field == DEAD_LETTER else 'masked'} with key {_in_words(theirs)}, and here it is"
                f" {_in_words(ours) or 'none'}: give this worker what the others have"
            )
            if accept:
                return problem
            raise FatalError(f"{problem}; or, if it is to change from here on, set {MISMATCH_SETTING}=accept")
        return None

    def _no_index(self, wanted: str) -> str:
        table, _, columns = wanted.partition(" ")
        schema = self._pool.schema
        return (
            f"{schema}.{table} has no valid unique index on {columns} (SQLSTATE {_NO_INDEX}), and without it nothing may"
            f" be written: as its owner CREATE UNIQUE INDEX CONCURRENTLY ON {schema}.{wanted}"
        )

    async def _ask(self, query: str) -> tuple[Any, ...]:
        return await self._fetch(self._queries[query], {})

    async def _fetch(self, statement: str, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
        try:
            row = await self._pool.fetch_one(statement, parameters)
        except RoleMissingError as error:
            raise TablesPendingError(str(error)) from error
        except RetryableError as error:
            if retry_class(error) in _FOR_A_PERSON:
                raise FatalError(str(error)) from error
            raise
        except FatalError as error:
            if _code(error) in _CHANGED:
                raise FatalError(
                    f"{str(error).partition('; ')[0]}: `{MIGRATE}` made it and has nothing to do, so it was changed since;"
                    " as its owner put it back as it stands in stream_app/postgres/sql/schema.sql"
                ) from error.__cause__
            raise
        if row is None:
            raise RuntimeError("a question of the preflight has no answer")
        return row


def _code(error: PipelineError) -> str | None:
    """Of a statement: what refuses a session is no question's answer."""
    cause = error.__cause__
    return None if isinstance(cause, SessionRefusedError) else getattr(cause, "pgcode", None)


def _in_words(key_ids: set[int] | frozenset[int]) -> str:
    return ", ".join(map(str, sorted(key_ids)))
