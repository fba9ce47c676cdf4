"""One look at the tables that the worker writes: what stops the stream, and what may, with the statement that mends it.

The owner of ``user_logins`` may change it at any time, and most of what he may do is seen in the catalog before a row is refused. A
worker looks at its start and at each claim, ``migrate`` and ``migrate --check`` at their end: by the same query, in the same words.
All of it is names of the schema: no row is read.

What follows from the catalog for every row is an *error*: no batch is sent. What some rows may meet is a *warning*. A table that is
kept in partitions, or has children, may have constraints of theirs that are not seen here.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from pipeline.errors import FatalError, SettingsError
from pipeline.printable import printable
from stream_app.postgres.queries import load_queries

QUERY: Final = "look_at_table"
TIME_ZONE_REFUSED: Final = "22023"
"""What Postgres says of a time zone that it doesn't know."""

LOGINS: Final = "user_logins"
_MIGRATE: Final = "`faust -A stream_app migrate`"
_TEXT, _INTEGER = "character varying", "integer"

_WRITTEN: Final[Mapping[str, Mapping[str, str]]] = {
    LOGINS: {
        "user_id": "character varying(128)",
        "device_type": "character varying(32)",
        "masked_ip": "character varying(256)",
        "masked_device_id": "character varying(256)",
        "locale": "character varying(32)",
        "app_version": _INTEGER,
        "create_date": "date",
        "sent_at": "timestamp with time zone",
        "message_id": "uuid",
    },
    "stream_positions": {
        "consumer_group": "text",
        "topic": "text",
        "partition": _INTEGER,
        "next_offset": "bigint",
        "epoch": "bigint",
        "owner": "text",
        "updated_at": "timestamp with time zone",
        "topic_id": "text",
    },
    "dead_letters": {
        "consumer_group": "text",
        "topic": "text",
        "partition": _INTEGER,
        "record_offset": "bigint",
        "message_id": "uuid",
        "sent_at": "timestamp with time zone",
        "reason": "text",
        "field": "text",
        "refusal": "text",
        "sealed": "bytea",
    },
}
"""The columns that the worker gives a value, and what it gives."""

_MAY_BE_NULL: Final = {
    LOGINS: ("masked_device_id", "locale"),
    "stream_positions": ("topic_id",),
    "dead_letters": ("field", "refusal"),
}

_UNIQUE: Final = {
    LOGINS: ("sent_at", "message_id"),
    "stream_positions": ("consumer_group", "topic", "partition"),
    "dead_letters": ("sent_at", "message_id"),
}
"""What the statements' ON CONFLICT needs a unique index on."""


class _Table(msgspec.Struct, frozen=True):
    name: str
    kind: str
    row_security: bool
    may_insert: bool | None


class _Column(msgspec.Struct, frozen=True):
    table: str
    name: str
    type: str
    required: bool
    filled: bool
    """It has a default, or an identity."""
    given: bool
    """Postgres alone fills it, and refuses any value."""
    takes: list[str] | None
    """Types that are cast to its own by themselves."""
    base: str
    text: bool
    locked_sequences: list[str] | None
    """Of its default: those that the writer's role may not use."""


class _Index(msgspec.Struct, frozen=True):
    table: str
    name: str
    whole: bool
    """Of plain columns, and of all rows."""
    columns: list[str] | None


class _Trigger(msgspec.Struct, frozen=True):
    table: str
    name: str
    function: str
    fills: bool
    """Before each row that is inserted: it may give a column its value."""


class _Constraint(msgspec.Struct, frozen=True):
    table: str
    name: str
    references: str | None


class _Facts(msgspec.Struct, frozen=True):
    tables: list[_Table] | None
    columns: list[_Column] | None
    unique_indexes: list[_Index] | None
    triggers: list[_Trigger] | None
    checks: list[_Constraint] | None
    foreign_keys: list[_Constraint] | None
    exclusions: list[_Constraint] | None
    elsewhere: list[str] | None


class TableError(FatalError):
    """The tables don't take what the worker writes."""


@dataclass(frozen=True, slots=True)
class TableCheck:
    """What was found: one line each, with the statement that mends it."""

    errors: tuple[str, ...] = ()
    """No row, or no position, can be written."""
    warnings: tuple[str, ...] = ()
    """Some rows may be refused."""
    triggers: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By function, as an error's context names it: the table and the trigger."""
    locked_sequences: tuple[str, ...] = ()
    """Those whose right the writer's role lacks, as they stand in a statement."""

    def refuse(self) -> None:
        """Raise :class:`TableError`, in one line, if there are errors."""
        if self.errors:
            raise TableError("; ".join(self.errors))


def load_query(schema: str) -> str:
    """The question; it has one parameter, ``time_zone``."""
    return load_queries("table_check.sql", schema)[QUERY]


def time_zone_refused(name: str) -> SettingsError:
    """For an answer with :data:`TIME_ZONE_REFUSED`."""
    return SettingsError(
        f"CREATE_DATE_TIME_ZONE: Postgres knows no time zone {printable(name)}: take one that its view pg_timezone_names has,"
        " such as UTC or Europe/Berlin"
    )


def check_tables(answer: str, schema: str) -> TableCheck:
    """What the first column of the answer says. Pure."""
    facts = msgspec.json.decode(answer, type=_Facts)
    check = _Check(facts, schema)
    return TableCheck(
        errors=tuple(map(printable, check.errors())),
        warnings=tuple(map(printable, check.warnings())),
        triggers={trigger.function: (trigger.table, printable(trigger.name)) for trigger in facts.triggers or ()},
        locked_sequences=tuple(sequence for column in facts.columns or () for sequence in column.locked_sequences or ()),
    )


class _Check:
    def __init__(self, facts: _Facts, schema: str) -> None:
        self._schema = schema
        self._tables = {table.name: table for table in facts.tables or ()}
        self._columns = facts.columns or []
        self._indexes = facts.unique_indexes or []
        self._triggers = facts.triggers or []
        self._facts = facts

    def errors(self) -> Iterator[str]:
        for table, written in _WRITTEN.items():
            found = self._tables.get(table)
            if found is None:
                yield f"the table {self._place(table)} is missing; {_MIGRATE} makes it"
                continue
            if found.kind not in ("r", "p"):
                yield f"{self._place(table)} is no table: rename what has its name, and run {_MIGRATE}"
                continue
            columns = {column.name: column for column in self._columns if column.table == table}
            for name, type_ in written.items():
                if name not in columns:
                    yield f"{self._place(table)} has no column {name}: ALTER TABLE {self._place(table)} ADD COLUMN {name} {type_}"
            for column in columns.values():
                yield from self._column_errors(column, written.get(column.name))
            if not any(self._is_wanted(index) for index in self._indexes if index.table == table):
                wanted = ", ".join(_UNIQUE[table])
                yield (
                    f"{self._place(table)} has no unique index on ({wanted}), by which a message that comes again is found:"
                    f" CREATE UNIQUE INDEX ON {self._place(table)} ({wanted})"
                )
            if found.may_insert is False:
                yield f"stream_writer may not write {self._place(table)}: GRANT INSERT ON {self._place(table)} TO stream_writer"

    def _column_errors(self, column: _Column, written: str | None) -> Iterator[str]:
        where, alter = self._of(column), self._alter(column)
        if written is None:
            for sequence in column.locked_sequences or ():
                yield f"{where} is filled from a sequence: GRANT USAGE ON SEQUENCE {sequence} TO stream_writer"
            if self._is_wanting(column) and not self._fills(column.table):
                yield (
                    f"{where} is NOT NULL, has no default, and the stream has no value for it: {alter} DROP NOT NULL, or SET"
                    " DEFAULT one"
                )
        elif column.given:
            yield f"{where} is filled by Postgres alone, and the stream writes it: {alter} DROP EXPRESSION, or DROP IDENTITY"
        elif not _is_taken(column, written):
            cast = f"{alter} TYPE {written} USING {_quoted(column.name)}::{written}"
            yield f"{where} should be {written} and is {column.type}: {cast}"

    def warnings(self) -> Iterator[str]:
        for column in self._columns:
            yield from self._column_warnings(column, _WRITTEN[column.table].get(column.name))
        for table in self._tables.values():
            if table.row_security:
                yield f"{self._place(table.name)} has row security: it must let stream_writer write each row, and see each again"
        yield from self._conditions()
        for schema in self._facts.elsewhere or ():
            yield (
                f"a table {LOGINS} is in the schema {_quoted(schema)}, too: the stream writes the one in {_quoted(self._schema)}"
                " (POSTGRES_SCHEMA), whatever the search path of who reads it finds"
            )

    def _column_warnings(self, column: _Column, written: str | None) -> Iterator[str]:
        where, alter = self._of(column), self._alter(column)
        if written is None:
            if self._is_wanting(column) and self._fills(column.table):
                yield f"{where} is NOT NULL and has no default: a row for which no trigger fills it is refused"
            return
        if column.required and column.name in _MAY_BE_NULL[column.table]:
            yield f"{where} is NOT NULL, and some records have no value for it: {alter} DROP NOT NULL"
        if _is_narrower(column.type, written):
            yield f"{where} is {column.type}, and what does not fit is refused: {alter} TYPE {written}"

    def _conditions(self) -> Iterator[str]:
        """What the owner has put on a table, and refuses a row that breaks it."""
        logins = f"{self._place(LOGINS)} has the"
        for index in self._indexes:
            if index.table == LOGINS and not self._is_harmless(index):
                yield f"{logins} unique index {_quoted(index.name)}: a login that is not unique by it is refused"
        for trigger in self._triggers:
            yield (
                f"{self._place(trigger.table)} has the trigger {_quoted(trigger.name)}: a row for which its function"
                f" {trigger.function} raises an error is refused"
            )
        for constraint in (*(self._facts.checks or ()), *(self._facts.exclusions or ())):
            yield f"{logins} constraint {_quoted(constraint.name)}: a login that breaks it is refused"
        for constraint in self._facts.foreign_keys or ():
            yield (
                f"{logins} foreign key {_quoted(constraint.name)}: a login that comes before its row in {constraint.references}"
                " is refused, and not tried again"
            )

    @staticmethod
    def _is_wanting(column: _Column) -> bool:
        return column.required and not column.filled and not column.given

    def _is_wanted(self, index: _Index) -> bool:
        return index.whole and set(index.columns or ()) == set(_UNIQUE[index.table])

    def _is_harmless(self, index: _Index) -> bool:
        """Two messages never meet in it: it has what makes one a message, or a column that Postgres fills."""
        columns = set(index.columns or ())
        return columns >= set(_UNIQUE[LOGINS]) or any(
            column.filled and column.table == LOGINS and column.name in columns and column.name not in _WRITTEN[LOGINS]
            for column in self._columns
        )

    def _fills(self, table: str) -> bool:
        return any(trigger.fills for trigger in self._triggers if trigger.table == table)

    def _place(self, table: str) -> str:
        return f"{_quoted(self._schema)}.{table}"

    def _of(self, column: _Column) -> str:
        return f"the column {_quoted(column.name)} of {self._place(column.table)}"

    def _alter(self, column: _Column) -> str:
        return f"ALTER TABLE {self._place(column.table)} ALTER COLUMN {_quoted(column.name)}"


_PLAIN_NAME: Final = re.compile(r"[a-z_][a-z0-9_$]*")
_LENGTH: Final = re.compile(r"(?:character varying|character|timestamp)\((\d+)\)")
_MILLISECONDS: Final = 3


def _quoted(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def _is_taken(column: _Column, written: str) -> bool:
    """Whether Postgres puts a value of the written type into the column by itself."""
    given = written.partition("(")[0]
    if given in (_TEXT, "text"):
        return column.text or "text" in (column.takes or ())
    return given in (column.base, *(column.takes or ()))


def _is_narrower(type_: str, written: str) -> bool:
    if written == _INTEGER:
        return type_ == "smallint"
    if written == "bigint":
        return type_ in ("smallint", "integer")
    length = _LENGTH.match(type_)
    if length is None:
        return False
    if written.startswith("timestamp"):
        return int(length[1]) < _MILLISECONDS
    wanted = _LENGTH.match(written)
    return wanted is None or int(length[1]) < int(wanted[1])


__all__ = ["TIME_ZONE_REFUSED", "TableCheck", "TableError", "check_tables", "load_query", "time_zone_refused"]
