"""What a new session is asked before it is used, and what it is told to keep out of the server's log.

A pooler between here and Postgres may drop the parameter ``options``, and with it the role and the search path: then the login
user's rights would count, and functions of others could be found. And the server's log holds each statement that it refuses with
its values (psycopg2 puts them into the text), and the row that it refuses: user ids and tokens. Only a superuser may change that,
or from Postgres 15 on a role that one has granted it to; ``migrate`` does so where it can.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final

from pipeline.errors import FatalError
from stream_app.postgres.queries import load_queries

SEARCH_PATH: Final = "pg_catalog,pg_temp"
"""Where names without a schema are looked for. ``pg_temp`` last: unnamed, it would be the first place for tables and types."""

ERROR_SETTINGS: Final[Mapping[str, str]] = {"log_min_error_statement": "panic", "log_error_verbosity": "terse"}
"""With these the server's log says of a refused statement what was wrong, without its text and without the row."""

STATEMENT_SETTINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "log_statement": ("none", "ddl"),
    "log_min_duration_statement": ("-1",),
    "log_min_duration_sample": ("-1",),
    "log_transaction_sample_rate": ("0",),
}
"""Those that put statements into the log that succeed, with the values at which they don't. Whoever turned one on had a reason:
they are left alone, and told of."""

PARAMETER_RIGHTS_SINCE: Final = 150_000

_QUERIES: Final = load_queries("session.sql", "")  # nothing of ours is named there

Rows = Sequence[tuple[Any, ...]]


def open_session(role: str | None, schema: str, server_version: int) -> Generator[str, Rows, tuple[str, ...]]:
    """The statements to run on a new connection, one after the other; each is answered with its rows.

    Returns the server settings by which rows of ours get into its log, as ``name=value``. Raises :class:`FatalError` if the session
    is not the one that was asked for, or the tables are in another schema; ``role`` None (migrations) looks for them by itself.
    """
    ((user, path, is_superuser, *values),) = yield _QUERIES["what_it_is"]
    if role is not None and user != role:
        raise FatalError(f"the connection did not take the role {role}{_DROPPED}")
    if path.replace(" ", "") != SEARCH_PATH:
        raise FatalError(f"the connection did not take the search path {SEARCH_PATH}{_DROPPED}")
    if role is not None:
        check_schema(schema, [name for (name,) in (yield _QUERIES["schemas_of_tables"])])
    found = dict(zip((*ERROR_SETTINGS, *STATEMENT_SETTINGS), values, strict=True))
    if any(found[name] != value for name, value in ERROR_SETTINGS.items()):
        if server_version >= PARAMETER_RIGHTS_SINCE:
            (now,) = yield _QUERIES["say_no_rows_in_errors"]
            found |= zip(ERROR_SETTINGS, now, strict=True)
        elif is_superuser == "on":
            (now,) = yield _QUERIES["say_no_rows_in_errors_as_superuser"]
            found |= zip(ERROR_SETTINGS, now, strict=True)
    return settings_that_log_rows(found)


_DROPPED: Final = ": does a pooler between drop the parameter `options`?"


def check_schema(schema: str, found: Sequence[str]) -> None:
    """Raise :class:`FatalError` when tables of ours are in this database, and not where POSTGRES_SCHEMA says.

    To go on would begin anew, with tables that hold nothing.
    """
    if found and schema not in found:
        raise FatalError(
            f"POSTGRES_SCHEMA is {schema}, and the tables are in the schema {found[0]}: set POSTGRES_SCHEMA={found[0]}"
            " (a database has room for one stream: its roles would have rights in both)"
        )


def settings_that_log_rows(found: Mapping[str, str]) -> tuple[str, ...]:
    """Those of the server's settings by which rows get into its log, as ``name=value``."""
    good = {**{name: (value,) for name, value in ERROR_SETTINGS.items()}, **STATEMENT_SETTINGS}
    return tuple(f"{name}={found[name]}" for name, values in good.items() if name in found and found[name] not in values)
