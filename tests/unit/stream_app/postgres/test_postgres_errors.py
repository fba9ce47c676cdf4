"""What a driver's error means to the caller, and that it repeats nothing of what the driver quotes."""

import psycopg2
import pytest
from psycopg2 import errors as sqlstate

from pipeline.errors import FatalError, PipelineError, PoisonError, RetryableError
from stream_app.postgres.errors import (
    ROW_REFUSED,
    NotUniqueError,
    RoleMissingError,
    RowRefusedError,
    StatementBrokenError,
    StatementLimitError,
    StatementTimedOutError,
    retry_class,
    translate,
    translate_statement,
)
from stream_app.reasons import Reason

VALUE = "203.0.113.7"


def made_error(code: str) -> psycopg2.Error:
    """As the driver raises it, its text quoting a value."""
    try:
        kind = sqlstate.lookup(code)
    except KeyError:
        kind = psycopg2.OperationalError
    error: psycopg2.Error = kind(f"quotes {VALUE}\nDETAIL: {VALUE}")
    error.__setstate__({"pgcode": code, "pgerror": f"quotes {VALUE}"})  # type: ignore[no-untyped-call] # its stub leaves the types out
    return error


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("08006", RetryableError),
        ("25006", RetryableError),  # read-only: a standby
        ("25P03", RetryableError),
        ("28000", RetryableError),
        ("28P01", RetryableError),  # a changed password is mended without a restart
        ("40001", RetryableError),
        ("40P01", RetryableError),
        ("53100", RetryableError),
        ("53300", RetryableError),
        ("55P03", RetryableError),
        ("57014", StatementTimedOutError),
        ("57P01", RetryableError),
        ("58030", RetryableError),
        ("53200", StatementBrokenError),
        ("XX000", StatementBrokenError),
        ("22001", RowRefusedError),
        ("22P05", RowRefusedError),
        ("23502", RowRefusedError),
        ("23505", NotUniqueError),
        ("23514", RowRefusedError),
        ("44000", RowRefusedError),
        ("3D000", FatalError),
        ("3F000", FatalError),
        ("42P01", FatalError),
        ("42501", FatalError),
        ("42601", FatalError),
        ("25P02", FatalError),
        ("0A000", FatalError),
        ("P0001", FatalError),
        ("54000", StatementLimitError),
        ("54001", FatalError),
        ("99999", FatalError),
    ],
)
def test_sqlstate_decides(code: str, expected: type[PipelineError]) -> None:
    translated = translate(made_error(code))
    assert type(translated) is expected
    assert VALUE not in str(translated)
    if not issubclass(expected, RowRefusedError):
        assert code in str(translated)


FAILED = 'connection to server at "h" (10.0.0.1), port 1 failed: '


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        (
            f'FATAL:  password authentication failed for user "u"\n{VALUE}',
            RetryableError,
            'password authentication failed for user "u"',
        ),
        ('FATAL:  database "d" does not exist\n', FatalError, 'database "d" does not exist: create it'),
        ('FATAL:  role "stream_writer" does not exist\n', RoleMissingError, "run `faust -A stream_app migrate`"),
        ('FATAL:  role "somebody" does not exist\n', RetryableError, 'role "somebody" does not exist'),
        ('FATAL:  permission denied to set role "stream_writer"\n', FatalError, "is no member of it"),
        ("FATAL:  sorry, too many clients already\n", RetryableError, "too many clients"),
        (f'could not translate host name "{VALUE}@h" to address: Name or service not known\n', RetryableError, "has no address"),
        (f"Connection refused\n\tIs the server running on {VALUE}?\n", RetryableError, "nobody listens"),
        (f'invalid integer value "{VALUE}" for connection option "port"\n', FatalError, "libpq takes no such value of port"),
        (f'invalid sslmode value: "{VALUE}"\n', FatalError, "libpq takes no such value of sslmode"),
        ("timeout expired\n", RetryableError, "doesn't answer"),
        ("server closed the connection unexpectedly\n", RetryableError, "connection was closed"),
        (f"something new about {VALUE}\n", RetryableError, "connection to Postgres failed"),
    ],
)
def test_connection_without_sqlstate_is_told_by_what_the_server_says(text: str, kind: type[PipelineError], says: str) -> None:
    translated = translate(psycopg2.OperationalError(FAILED + text))
    assert type(translated) is kind
    assert says in str(translated)
    assert VALUE not in str(translated)
    assert "\n" not in str(translated)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('FATAL:  password authentication failed for user "u"\n', "28"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.2", user "u", database "d", no encryption\n', "28"),
        ('FATAL:  role "u" does not exist\n', "28"),
        ('FATAL:  role "u" is not permitted to log in\n', "28"),
        ("fe_sendauth: no password supplied\n", "28"),
        ("FATAL:  sorry, too many clients already\n", "53"),
        ('FATAL:  too many connections for role "u"\n', "53"),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute\n", "53"),
        ("FATAL:  the database system is shutting down\n", "57"),
        ("Connection refused\n", "none"),
        ("server closed the connection unexpectedly\n", "none"),
    ],
)
def test_a_refused_session_is_counted_under_the_class_that_its_text_stands_for(text: str, expected: str) -> None:
    """Else the alert about a refused login, which asks for class 28, is silent: psycopg2 tells no code before a session stands."""
    error = psycopg2.OperationalError(FAILED + text)
    translated = translate(error)
    translated.__cause__ = error
    assert isinstance(translated, RetryableError)
    assert retry_class(translated) == expected


@pytest.mark.parametrize("kind", [psycopg2.InterfaceError, psycopg2.DatabaseError])
def test_broken_connection_is_tried_again(kind: type[psycopg2.Error]) -> None:
    assert type(translate(kind("connection already closed"))) is RetryableError


@pytest.mark.parametrize("kind", [psycopg2.ProgrammingError, psycopg2.NotSupportedError])
def test_call_that_psycopg2_refuses_stops(kind: type[psycopg2.Error]) -> None:
    translated = translate(kind(f"can't adapt {VALUE}"))
    assert type(translated) is FatalError
    assert VALUE not in str(translated)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("A string literal cannot contain NUL (0x00) characters."),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    ],
)
def test_text_that_postgres_can_not_hold_is_a_refused_row(error: ValueError) -> None:
    translated = translate(error)
    assert isinstance(translated, PoisonError)
    assert (translated.reason, translated.field) == (Reason.ROW_REFUSED, None)


def test_other_value_errors_are_no_rows_fault() -> None:
    translated = translate(ValueError(VALUE))
    assert type(translated) is FatalError
    assert VALUE not in str(translated)


def test_reason_is_the_dead_letters_own() -> None:
    assert Reason.ROW_REFUSED.value == ROW_REFUSED


def test_a_connection_that_breaks_under_a_statement_is_told_apart() -> None:
    """What it does to a statement that is too much for the server, it may do again and again."""
    lost = psycopg2.OperationalError("server closed the connection unexpectedly")
    assert type(translate(lost)) is RetryableError
    assert type(translate_statement(lost)) is StatementBrokenError
    assert str(translate_statement(lost)) == str(translate(lost))
    for code, expected in (("57P01", RetryableError), ("53200", StatementBrokenError), ("23514", RowRefusedError)):
        assert type(translate_statement(made_error(code))) is expected
