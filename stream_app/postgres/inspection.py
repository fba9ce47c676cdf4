"""What ``migrate`` sees of a database, and what it tells its operator of: rights that are too wide, rows in the server's log.

Promise: to look changes nothing, and runs nothing that somebody else may have put there. A table of our name may be anything (a
view would run its functions for whoever reads it), so it is held by a lock, seen to be a plain table, and only then read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from io import StringIO
from typing import Any

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names its class like a module

from pipeline.errors import FatalError
from pipeline.printable import printable
from stream_app.postgres.connection import MONITOR, OPERATOR, PRIVACY_OFFICER, WRITER
from stream_app.postgres.queries import load_queries
from stream_app.postgres.session import (
    ERROR_SETTINGS,
    PARAMETER_RIGHTS_SINCE,
    STATEMENT_SETTINGS,
    check_schema,
    settings_that_log_rows,
)
from stream_app.postgres.table_check import TableCheck, check_tables, load_query

RECORD = "stream_migrations"
GIVEN = "user_logins"
"""The only table that may have been here before us, and may have an owner of its own."""

LOOK_LOCK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its name without the ending, and its statements."""

    name: str
    statements: str


@dataclass(frozen=True, slots=True)
class State:
    """What a database has of the migrations: ``pending`` ones, and ``unknown`` ones that a newer version applied."""

    pending: tuple[Migration, ...]
    unknown: tuple[str, ...]
    warnings: tuple[str, ...]
    """One line each, with the statements that mend it."""
    errors: tuple[str, ...] = ()
    """Likewise: with these no row can be written."""


def known_migrations() -> tuple[Migration, ...]:
    """The files of this version, in their order."""
    directory = files("stream_app.postgres") / "sql" / "migrations"
    paths = sorted((path for path in directory.iterdir() if path.name.endswith(".sql")), key=lambda path: path.name)
    return tuple(Migration(path.name.removesuffix(".sql"), path.read_text()) for path in paths)


class Inspection:
    """Looks at one database through one cursor; the caller's transaction is where it looks."""

    def __init__(self, cursor: Cursor, schema: str) -> None:
        self._cursor = cursor
        self._schema = schema
        self._queries = load_queries("migrate.sql", schema)

    def ask(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of one of the queries in ``sql/migrate.sql``; none for one that has none."""
        self._cursor.execute(self._queries[query], parameters)
        return self._cursor.fetchall() if self._cursor.description is not None else []

    def run(self, statements: str) -> None:
        """Run a migration's."""
        self._cursor.execute(statements)

    def is_superuser(self) -> bool:
        """Whether this login is one."""
        return self._cursor.connection.get_parameter_status("is_superuser") == "on"

    def state(self, known: Sequence[Migration]) -> State:
        """What there is. Raises :class:`FatalError` when it is not for us to read, or elsewhere."""
        applied = self.applied()
        if not applied:
            self._cursor.execute(load_queries("session.sql", self._schema)["schemas_of_tables"])
            check_schema(self._schema, [name for (name,) in self._cursor.fetchall()])
        pending = tuple(migration for migration in known if migration.name not in applied)
        tables = TableCheck() if pending else self.tables()
        return State(
            pending=pending,
            unknown=tuple(sorted(applied - {migration.name for migration in known})),
            warnings=(*self._open_schema(), *self._owners(), *self._functions(), *self._log(), *tables.warnings),
            errors=tables.errors,
        )

    def tables(self) -> TableCheck:
        """What a worker will find."""
        self._cursor.execute(load_query(self._schema), {"time_zone": "UTC"})
        ((answer, _),) = self._cursor.fetchall()
        return check_tables(answer, self._schema)

    def has_record(self) -> bool:
        """Whether something of that name is here."""
        return any(name == RECORD for name, *_ in self.ask("look_at_tables"))

    def applied(self) -> frozenset[str]:
        """The names of the migrations that were applied."""
        if not self.has_record():
            return frozenset()
        self.ask("hold_record")
        for name, kind, *_ in self.ask("look_at_tables"):
            if name == RECORD and kind != "r":
                raise FatalError(f"{self._place(RECORD)} is no table: somebody else made it; as its owner: DROP it")
        names = StringIO()
        self._cursor.copy_expert(self._queries["read_record"], names)
        return frozenset(names.getvalue().splitlines())

    def refuse_others_record(self) -> None:
        """Raise :class:`FatalError` if the table of what was applied belongs to somebody else.

        To write to it would run what its owner has put there (a trigger, a default), with the rights of this login.
        """
        for name, _, owner, trusted in self.ask("look_at_tables"):
            if name == RECORD and not trusted:
                raise FatalError(
                    f"{self._place(RECORD)} belongs to {printable(owner)}, who is neither this login nor a superuser nor the owner"
                    " of the database, and could have this login run triggers: migrate as that login, or, if none of yours made"
                    " the table, DROP it"
                )

    def holders(self, modes: Sequence[str], *tables: str) -> str:
        """Who holds such a lock on these tables, for an error's text; empty if nobody does any more."""
        found = self.ask("look_for_holders", {"tables": list(tables), "modes": list(modes)})
        return ", ".join(
            f"process {pid} (login {printable(login or 'unknown')}, application {printable(application or 'unnamed')})"
            for pid, login, application in found
        )

    def _place(self, table: str) -> str:
        return f"{self._schema}.{table}"

    def _open_schema(self) -> list[str]:
        if self.ask("look_at_schema") != [(True,)]:
            return []
        right = f'CREATE ON SCHEMA "{self._schema}"'
        warning = (
            f"every login may make functions and tables in the schema {self._schema}: sessions of this stream look for none there,"
            f" others may; as its owner: GRANT {right} TO the login that migrates, then REVOKE {right} FROM PUBLIC"
        )
        return [warning]

    def _owners(self) -> list[str]:
        """For a superuser alone: whoever else migrates owns the tables, or is refused."""
        if not self.is_superuser():
            return []
        return [
            f"{self._place(name)} belongs to {printable(owner)}, who is neither a superuser nor the owner of the database: what"
            f" {printable(owner)} puts on it (triggers, constraints) runs with the rights of whoever writes rows"
            for name, _, owner, trusted in self.ask("look_at_tables")
            if not trusted
        ]

    def _functions(self) -> list[str]:
        return [
            f"a write to the tables runs {printable(function)}, which doesn't say where it looks for names: in sessions of this"
            f" stream it finds none but in pg_catalog; as its owner: ALTER FUNCTION {printable(function)}"
            f' SET search_path = pg_catalog, "{self._schema}", pg_temp'
            for (function,) in self.ask("look_for_functions")
        ]

    def _log(self) -> list[str]:
        """What puts rows into the server's log, and whoever can mend it.

        What other logins begin with can't be seen, only what was set for them; the worker says what its own sessions have.
        """
        if not self.role_exists():
            return []
        found = dict(self.ask("look_at_log_settings", {"names": [*ERROR_SETTINGS, *STATEMENT_SETTINGS]}))
        logins = dict(self.ask("look_at_logins"))

        def left(good: Mapping[str, str]) -> list[str]:
            """Those settings that have another value, for some login that takes the writer's role."""
            talking = [each for each in settings_that_log_rows(found) if each.partition("=")[0] in good]
            names = [each.partition("=")[0] for each in talking]
            kept = bool(logins) and all(f"{name}={good[name]}" in given for given in logins.values() for name in names)
            return [] if kept else talking

        def for_logins(good: Mapping[str, str]) -> str:
            names = [printable(login) for login in logins] or ["<the worker's login>"]
            return "; ".join(f"ALTER ROLE {login} SET {name} = '{value}'" for login in names for name, value in good.items())

        warnings = []
        if (errors := left(ERROR_SETTINGS)) and not self.may_keep_rows_out_of_log():
            remedy = for_logins(ERROR_SETTINGS)
            if self._cursor.connection.server_version >= PARAMETER_RIGHTS_SINCE:
                remedy = f"GRANT SET ON PARAMETER {', '.join(ERROR_SETTINGS)} TO {WRITER}, {OPERATOR}, {PRIVACY_OFFICER}, {MONITOR}"
            warnings.append(
                "Postgres's log gets user ids and masked values of each statement that it refuses"
                f" ({', '.join(errors)}); as a superuser: {remedy}"
            )
        quiet = {name: values[0] for name, values in STATEMENT_SETTINGS.items()}
        if statements := left(quiet):
            remedy = for_logins({name: quiet[name] for name in (each.partition("=")[0] for each in statements)})
            warnings.append(
                "Postgres's log gets user ids and masked values of statements that succeed"
                f" ({', '.join(statements)}); as a superuser: {remedy}"
            )
        return warnings

    def role_exists(self) -> bool:
        """Whether the writer's role is there."""
        return self.ask("role_exists") == [(True,)]

    def may_keep_rows_out_of_log(self) -> bool:
        """Whether the writer's role has the right to say nothing of rows in the server's log."""
        if self._cursor.connection.server_version < PARAMETER_RIGHTS_SINCE:
            return False
        return self.ask("may_keep_rows_out_of_log", {"names": list(ERROR_SETTINGS)}) == [(True,)]
