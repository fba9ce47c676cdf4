"""The one place that knows how a connection to Postgres is made: its parameters, its role, its password.

A process logs in as the user of POSTGRES_DSN and takes the role of its job from the first moment on (``-c role=…``): what it may do
is what that role may do, also when the user owns the tables. A user who is no member of the role is refused.

And it looks for names in ``pg_catalog`` alone (``-c search_path=…``): whoever may make functions or operators in the tables' schema
could make one whose argument types fit a call of ours better than Postgres's own do, and it would run with our rights. What is ours
is named with its schema.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class like a module

from pipeline.errors import SettingsError
from pipeline.secret_files import check_secret_file, read_secret_file
from stream_app.postgres import dsn
from stream_app.postgres.errors import tells_why, translate
from stream_app.postgres.session import SEARCH_PATH, open_session
from stream_app.postgres.session_refusal import ask_again
from stream_app.postgres.settings import PostgresSettings

WRITER: Final = "stream_writer"
"""The worker: adds rows and dead letters, moves positions; reads no row's content, changes and deletes nothing."""

OPERATOR: Final = "stream_operator"
"""The on-call engineer: dead letters and positions."""

ANALYST: Final = "stream_analyst"
"""Whoever reads ``user_logins``."""

PRIVACY_OFFICER: Final = "stream_privacy_officer"
"""Whoever may reveal a masked value, and leaves a line in ``reveal_audit`` for it."""

MONITOR: Final = "stream_monitor"
"""The monitor: positions and counts."""

_KEEPALIVE_PROBES = 3


class ConnectionParameters(dict[str, str]):
    """libpq's parameters by name. Shown without their values: one of them may be a password."""

    def __repr__(self) -> str:
        return f"<connection parameters: {', '.join(sorted(self))}>"

    __str__ = __repr__


def connection_parameters(settings: PostgresSettings, *, role: str | None, application_name: str) -> ConnectionParameters:
    """What ``psycopg2.connect`` and ``aiopg.connect`` take. Call it for each new connection: it reads the password's file.

    ``role`` is taken from the connection's start; None stays the login user (migrations). Raises :class:`SettingsError`.
    """
    if settings.postgres_dsn is None:
        raise SettingsError("POSTGRES_DSN: not set; expected postgresql://user@host/database or host=… dbname=… user=…")
    given = dsn.parse(settings.postgres_dsn.get_secret_value())
    silence = settings.postgres_silence_seconds
    parameters = ConnectionParameters(
        connect_timeout=str(settings.postgres_connect_timeout_seconds),
        keepalives_idle=str(max(1, silence // 3)),
        keepalives_interval=str(max(1, silence * 2 // (3 * _KEEPALIVE_PROBES))),
        keepalives_count=str(_KEEPALIVE_PROBES),
        tcp_user_timeout=str(silence * 1_000),
    )
    parameters.update(given)
    parameters["application_name"] = application_name
    parameters["client_encoding"] = "UTF8"
    parameters["options"] = _options(settings, role, given.get("options", ""))
    for name, value in (
        ("sslmode", settings.postgres_sslmode),
        ("sslrootcert", settings.postgres_sslrootcert),
        ("sslcert", settings.postgres_sslcert),
        ("sslkey", settings.postgres_sslkey),
    ):
        if value is not None:
            parameters[name] = str(value)
    if settings.postgres_sslkey is not None:
        check_secret_file(settings.postgres_sslkey, "POSTGRES_SSLKEY")  # libpq says it in its own words, and later
    if settings.postgres_password_file is not None:
        parameters["password"] = read_secret_file(settings.postgres_password_file, "POSTGRES_PASSWORD_FILE").get_secret_value()
    return parameters


def _options(settings: PostgresSettings, role: str | None, given: str) -> str:
    """Server settings of the session. Ours come last: the last one counts."""
    ours = ["-c TimeZone=UTC", "-c default_transaction_isolation=read\\ committed"]  # what the fence and the migrations rest on
    if role is not None:
        # jit: a batch's statement looks expensive and takes milliseconds; compiling it would take longer than running it.
        ours += [f"-c statement_timeout={round(settings.postgres_statement_timeout_seconds * 1_000)}", "-c jit=off"]
        if role == WRITER:
            ours += ["-c enable_seqscan=off"]  # a small table looks cheap to read whole, and would be for each row of a batch
        ours += [f"-c role={role}"]
    else:
        ours += [
            "-c statement_timeout=0",
            "-c row_security=off",
        ]  # a policy that would be run is an error: it is somebody's function
    ours += [f"-c search_path={SEARCH_PATH}"]
    return " ".join([given, *ours]).strip()


@contextmanager
def connect(settings: PostgresSettings, *, role: str | None, application_name: str) -> Iterator[Connection]:
    """A connection for a command, each statement its own transaction until ``autocommit`` is set False; closed at the end.

    It is the session that was asked for: role and search path are looked at. Raises our own errors, also for what the driver raises
    inside the ``with``.
    """
    parameters: Any = connection_parameters(settings, role=role, application_name=application_name)
    try:
        connection = psycopg2.connect(**parameters)
    except (psycopg2.Error, UnicodeDecodeError) as error:  # the second: the server's words, in an encoding of its own
        told = error if tells_why(error) else ask_again(error, parameters, settings.postgres_connect_timeout_seconds)
        raise translate(told) from told
    try:
        connection.autocommit = True
        _open_session(connection, settings, role)
        yield connection
    except psycopg2.Error as error:
        raise translate(error) from error
    finally:
        connection.close()


def _open_session(connection: Connection, settings: PostgresSettings, role: str | None) -> None:
    steps = open_session(role, settings.postgres_schema, connection.server_version)
    with connection.cursor() as cursor:
        statement = next(steps)
        while True:
            cursor.execute(statement)
            try:
                statement = steps.send(cursor.fetchall())
            except StopIteration:
                return
