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
    tells_why,
    translate,
    translate_statement,
)
from stream_app.postgres.session_refusal import SessionRefusedError
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
        (f'could not translate host name "{VALUE}@h" to address: Name or service not known\n', RetryableError, "has no address"),
        (f"Connection refused\n\tIs the server running on {VALUE}?\n", RetryableError, "nobody listens"),
        (f'invalid integer value "{VALUE}" for connection option "port"\n', FatalError, "libpq takes no such value of port"),
        (f'invalid sslmode value: "{VALUE}"\n', FatalError, "libpq takes no such value of sslmode"),
        ("timeout expired\n", RetryableError, "doesn't answer"),
        ("session is read-only\n", RetryableError, "target_session_attrs"),
        ("server closed the connection unexpectedly\n", RetryableError, "connection was closed"),
        (f"Connection refused\n{FAILED}timeout expired\n", RetryableError, "doesn't answer"),  # the last place counts
        (f"something new about {VALUE}\n", RetryableError, "connection to Postgres failed"),
    ],
)
def test_connection_that_no_server_refused_is_told_by_what_libpq_says(text: str, kind: type[PipelineError], says: str) -> None:
    error = psycopg2.OperationalError(FAILED + text)
    translated = translate(error)
    assert type(translated) is kind
    assert says in str(translated)
    assert VALUE not in str(translated)
    assert "\n" not in str(translated)
    assert tells_why(error) is (says != "connection to Postgres failed")


@pytest.mark.parametrize(
    ("code", "said", "kind", "says", "expected"),
    [
        ("28P01", 'password authentication failed for user "u"', RetryableError, "POSTGRES_PASSWORD_FILE", "28"),
        ("28000", "no pg_hba.conf entry for host", RetryableError, "no pg_hba.conf entry", "28"),
        ("3D000", 'database "d" does not exist', FatalError, "create it or correct POSTGRES_DSN", None),
        ("22023", 'role "stream_writer" does not exist', RoleMissingError, "run `faust -A stream_app migrate`", None),
        ("42501", 'permission denied to set role "stream_writer"', FatalError, "is no member of it", None),
        ("22023", 'invalid value for parameter "TimeZone": "x"', FatalError, "`options` of POSTGRES_DSN", None),
        ("53300", "sorry, too many clients already", RetryableError, "no connection left", "53"),
        ("57P03", "the database system is starting up", RetryableError, "starting, stopping or in recovery", "57"),
        ("57P01", "terminating connection", RetryableError, "it is stopping", "57"),
        ("08P01", "unsupported startup parameter", RetryableError, "a pooler", "08"),
        ("XX000", "could not fork", RetryableError, "its log says why", "XX"),
        ("0A000", "unsupported frontend protocol", RetryableError, "its log says why", "none"),
        (None, "", RetryableError, "tells no code", "none"),
    ],
)
def test_a_refused_session_is_told_by_its_code(
    code: str | None, said: str, kind: type[PipelineError], says: str, expected: str | None
) -> None:
    """Its class, too: else the alert about a refused login, which asks for class 28, is silent."""
    error = SessionRefusedError(code, said.encode(), "")
    translated = translate(error)
    translated.__cause__ = error
    assert type(translated) is kind
    assert says in str(translated)
    assert code is None or f"(SQLSTATE {code})" in str(translated)
    if isinstance(translated, RetryableError):
        assert retry_class(translated) == expected


def test_a_login_that_may_not_connect_to_the_database_is_a_refused_login() -> None:
    error = SessionRefusedError("42501", b'permission denied for database "stream_writer"', "CheckMyDatabase")
    translated = translate(error)
    translated.__cause__ = error
    assert isinstance(translated, RetryableError)
    assert "GRANT CONNECT" in str(translated)
    assert retry_class(translated) == "28"


def test_a_password_that_is_not_there_is_a_refused_login() -> None:
    error = psycopg2.OperationalError(f"{FAILED}fe_sendauth: no password supplied\n")
    translated = translate(error)
    translated.__cause__ = error
    assert isinstance(translated, RetryableError)
    assert "set POSTGRES_PASSWORD_FILE" in str(translated)
    assert retry_class(translated) == "28"


@pytest.mark.parametrize("said", ["Passwort für »u«".encode("latin-1"), b""])
def test_words_that_can_not_be_read_are_not_quoted(said: bytes) -> None:
    assert str(translate(SessionRefusedError("28P01", said, ""))).endswith(
        "(SQLSTATE 28P01); its words can't be read here, see its log"
    )


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
