"""The one seam where psycopg2's errors become ours. The SQLSTATE decides: PostgreSQL's documentation, appendix A.

What is said about an error is names only: a driver's message may quote a row (DETAIL, the refused value, a piece of the statement)
or a piece of the DSN, so it is passed on only for the codes below whose message holds nothing but names of database objects.
"""

import re
from typing import Final

import psycopg2

from pipeline.errors import FatalError, PipelineError, PoisonError, RetryableError
from pipeline.printable import printable
from stream_app.postgres.error_fields import function_of, refusal_of
from stream_app.postgres.session_refusal import SessionRefusedError
from stream_app.refusals import Refusal

ROW_REFUSED: Final = "row_refused"

MIGRATE: Final = "faust -A stream_app migrate"


class RowRefusedError(PoisonError):
    """Postgres refuses a row's content; ``field`` is the column, where Postgres names one."""

    def __init__(self, refusal: Refusal | None = None) -> None:
        self.refusal = refusal or Refusal()
        super().__init__(ROW_REFUSED, self.refusal.column)


class NotUniqueError(RowRefusedError):
    """A unique index refuses a row. Mostly its message is there, not looked for or not there yet: the next time it is found.

    Which index it was says nothing: the table's owner may have given it any name, or the message another key.
    """


class StatementBrokenError(RetryableError):
    """The connection broke while the statement was under way, or the server had no memory for it.

    Mostly the server was stopping or is short of memory. But it does the same each time to a statement that is too much for it.
    """


class StatementTimedOutError(StatementBrokenError):
    """It took longer than it may: the server is slow, or something it needs is locked, or it is too much. Or somebody ended it."""


class StatementLimitError(FatalError):
    """The statement exceeds a limit of the server's: the size of a string, of an array, of an index entry."""


class TlsRefusedError(RetryableError):
    """Postgres's certificate does not pass our check, or it offers none. Tried again: a person may renew it any moment."""


class RoleMissingError(FatalError):
    """A role of ours is not on the server: `migrate` has not run there."""


_RETRYABLE: Final = {
    "08": "the connection failed",
    "25006": "the database is read-only: a standby (does POSTGRES_DSN name the primary, or target_session_attrs=read-write?), or"
    " set so",
    "25P03": "the session was idle in a transaction for too long",
    "28": "the login was refused: check user and password of POSTGRES_DSN, POSTGRES_PASSWORD_FILE",
    "40": "the transaction was rolled back because of another one",
    "53": "the server is out of disk, memory or connections",
    "55": "something is locked or in use",
    "57": "the server is stopping, or ended the session",
    "57014": "the statement took longer than POSTGRES_STATEMENT_TIMEOUT_SECONDS, or somebody ended it",
    "58": "the server's disk or system failed",
    "XX": "internal error of the server",
}

RETRY_CLASSES: Final = (*sorted({code[:2] for code in _RETRYABLE}), "tls", "none")
"""What :func:`retry_class` says: classes of SQLSTATE, and two for errors without one."""

CONFLICTS: Final = ("40", "55")
"""Those of them that come from other transactions: the server itself is well."""

_MISSING: Final = ("3D000", "3F000", "42501", "42703", "42704", "42883", "42P01", "42P10")
"""Database, schema, right, column, type or role, function, table, unique index: their messages hold names and nothing else."""

_NAMED_WITHOUT_SCHEMA: Final = ("3F000", "42704", "42883", "42P01")
_FUNCTION: Final = re.compile(
    r"""[^\n"'(]*?PL/pgSQL[^\n"'(]*?((?:"[^"\n]+"|[\w$]+)(?:\.(?:"[^"\n]+"|[\w$]+))?)\([^\n']*\)|SQL function "([^"\n]+)" """
)
"""At the beginning of an error's context, the function's name, in whatever language PL/pgSQL speaks of itself. Nothing further on
is looked at, and no `SQL statement "…"`: a statement has values in it."""

_ROW_REFUSED: Final = ("22", "23", "44")
_RAISED: Final = ("P0", "09", "21", "38")
"""What a function raises over a row by itself, or with RAISE; so is any code in a class that Postgres leaves to others."""
_CLASSES_OF_OTHERS: Final = re.compile(r"(?!53|54|55|57|58)[5-9]|[I-Z]")
"""Classes that begin so are left to implementations; Postgres has these five, besides XX and P0."""
_STATEMENT: Final = {
    "22023": "it knows no such value of a parameter: is CREATE_DATE_TIME_ZONE one of its time zones?",
    "2200H": "a sequence that fills a column is at its end: give it a higher MAXVALUE, or the column a larger type",
}
"""Codes of the classes above that say nothing of a row, when no function of the owner's raises them."""
_OF_SERVER: Final = {
    "0A": "it does not support what the tables ask for",
    "F0": "its configuration file is wrong: its log says where",
    "HV": "a foreign server, or the wrapper that leads there, fails: its log says why",
}
_NOT_UNIQUE: Final = "23505"
_LIMIT: Final = "54000"
_BROKEN: Final = ("53200", "XX000")
"""Out of memory; and an internal error, which is what a request for more memory than Postgres ever takes at once is to it."""
_TIMED_OUT: Final = "57014"
_NO_PARTITION: Final = ("ExecFindPartition", "ExecPartitionCheckEmitError")
"""The server's functions that say so: the code is that of a CHECK constraint, and the message may be that of a trigger."""

_NO_SUCH_OPTION: Final = "it takes no such setting from us: are the `options` of POSTGRES_DSN right?"
_NOT_SUPPLIED: Final = "no password supplied"
_NO_SUCH_VALUE: Final = "POSTGRES_DSN: libpq takes no such value of {0}"

# Before a session stands, an error has a server's code (session_refusal.py) or libpq's text alone. libpq's words are English,
# whatever the server speaks: a process of Python's has no language for messages unless it asks for one. They may quote a DSN that
# was split in the wrong place, so only these are recognised.
_CONNECTING: Final[tuple[tuple[re.Pattern[str], type[PipelineError], str], ...]] = (
    (re.compile(r'value ".*" for connection option "(\w+)"'), FatalError, _NO_SUCH_VALUE),
    (re.compile(r'^(?:.*: )?invalid (\w+) (?:value|number): "'), FatalError, _NO_SUCH_VALUE),
    (
        re.compile(r"root certificate file .* does not exist"),
        TlsRefusedError,
        "there is no CA certificate to check Postgres's own with: set POSTGRES_SSLROOTCERT",
    ),
    (
        re.compile(r"certificate verify failed"),
        TlsRefusedError,
        "Postgres's certificate does not chain to a CA in POSTGRES_SSLROOTCERT, or has expired",
    ),
    (
        re.compile(r"server certificate for .* does not match host name"),
        TlsRefusedError,
        "Postgres's certificate is for another host name than POSTGRES_DSN has",
    ),
    (re.compile(r"server does not support SSL"), TlsRefusedError, "Postgres offers no TLS, and POSTGRES_SSLMODE requires it"),
    (re.compile(_NOT_SUPPLIED), RetryableError, "Postgres asks for a password: set POSTGRES_PASSWORD_FILE"),
    (
        re.compile(r"(session is (?:not )?read-only|server is (?:not )?in hot standby mode)"),
        RetryableError,
        "no host of POSTGRES_DSN is what its target_session_attrs asks for (libpq: {0})",
    ),
    (re.compile(r"could not translate host name"), RetryableError, "the host of POSTGRES_DSN has no address"),
    (re.compile(r"Connection refused"), RetryableError, "nobody listens at host and port of POSTGRES_DSN"),
    (re.compile(r"timeout expired|timed out"), RetryableError, "Postgres doesn't answer: are host and port of POSTGRES_DSN right?"),
    (re.compile(r"server closed the connection|(?:connection|cursor) already closed"), RetryableError, "the connection was closed"),
)

_REFUSING: Final = {
    "08": "it, or a pooler before it, does not take our way to connect",
    "22": _NO_SUCH_OPTION,
    "28": _RETRYABLE["28"],
    "42": _NO_SUCH_OPTION,
    "53": _RETRYABLE["53"],
    "53300": "it has no connection left for us",
    "57": "it is stopping",
    "57P03": "it takes no sessions now: it is starting, stopping or in recovery, or a standby that answers no queries",
}
"""What a code means of a session that is refused."""
_ROLE: Final = re.compile(rb"stream_[a-z_]+")
_ROLE_REFUSED: Final = {
    "22023": (RoleMissingError, f"run `{MIGRATE}`"),
    "42501": (FatalError, "POSTGRES_DSN's user is no member of it; its owner or a superuser can GRANT it"),
}
"""Of a role of ours, which each session takes at its start; its name stands in the server's words in any language."""
_MAY_NOT_CONNECT: Final = ("42501", "CheckMyDatabase")
_NO_DATABASE: Final = "3D000"

_CALL_REFUSED: Final = (psycopg2.ProgrammingError, psycopg2.DataError, psycopg2.IntegrityError, psycopg2.NotSupportedError)


def translate(error: psycopg2.Error | ValueError) -> PipelineError:
    """Our error for psycopg2's; the caller raises it ``from`` the original."""
    if not isinstance(error, psycopg2.Error):
        return _translate_value_error(error)
    code: str | None = error.pgcode
    if code is None or isinstance(error, SessionRefusedError):
        return _translate_before_session(error)
    if code in _MISSING:
        return _translate_missing(error)
    function = function_of(error)
    if _concerns_row(code, function, inside=bool(error.diag.context)):
        return _translate_refusal(error)
    meaning = _RETRYABLE.get(code) or _RETRYABLE.get(code[:2])
    if meaning is not None:
        retryable = StatementTimedOutError if code == _TIMED_OUT else StatementBrokenError if code in _BROKEN else RetryableError
        return retryable(f"Postgres: {meaning} (SQLSTATE {code})")
    where = "" if function is None else f" in the function {function}, which a write to the tables runs"
    return (StatementLimitError if code == _LIMIT else FatalError)(
        f"Postgres refuses the statement{where} (SQLSTATE {code}, {type(error).__name__}); {_remedy(code, function)}"
    )


def _concerns_row(code: str, function: str | None, *, inside: bool) -> bool:
    """Whether another row may fare better. ``function``: which raised it; ``inside``: it came up in one, named or not."""
    if code[:2] in _ROW_REFUSED:
        return code not in _STATEMENT or inside
    return function is not None and (code[:2] in _RAISED or _CLASSES_OF_OTHERS.match(code) is not None)


def _remedy(code: str, function: str | None) -> str:
    if code == _LIMIT:
        return "its log says which limit"
    if code in _STATEMENT:
        return _STATEMENT[code]
    if code[:2] in _OF_SERVER:
        return _OF_SERVER[code[:2]]
    return f"is the schema current? `{MIGRATE}`" if function is None else "mend the function, or drop the trigger that runs it"


def translate_statement(error: psycopg2.Error | ValueError) -> PipelineError:
    """The same for an error of a statement, whose session stood when it was sent."""
    translated = translate(error)
    if isinstance(error, psycopg2.Error) and error.pgcode is None and isinstance(translated, RetryableError):
        return StatementBrokenError(str(translated))
    return translated


def retry_class(error: RetryableError) -> str:
    """The class of an error that is to be tried again, one of :data:`RETRY_CLASSES`."""
    cause = error.__cause__
    if isinstance(error, TlsRefusedError):
        return "tls"
    code = getattr(cause, "pgcode", None)
    if code is None and isinstance(cause, psycopg2.Error) and _NOT_SUPPLIED in str(cause):
        code = "28"
    if isinstance(cause, SessionRefusedError) and (code, cause.function) == _MAY_NOT_CONNECT:
        code = "28"
    return code[:2] if code is not None and code[:2] in RETRY_CLASSES else "none"


def _translate_value_error(error: ValueError) -> PipelineError:
    """psycopg2 raises these before anything is sent: a NUL, or a lone surrogate, in a parameter."""
    if isinstance(error, UnicodeEncodeError) or "NUL" in str(error):
        return RowRefusedError()
    return FatalError(f"a parameter can't be sent to Postgres ({type(error).__name__})")


def _translate_missing(error: psycopg2.Error) -> PipelineError:
    """Of a thing that is not there, or may not be used; its name is in the message."""
    missing = f"{error.diag.message_primary} (SQLSTATE {error.pgcode})"
    function = _FUNCTION.match(error.diag.context or "") if error.pgcode in _NAMED_WITHOUT_SCHEMA else None
    if function is None:
        return FatalError(f"{missing}; `{MIGRATE}` makes tables, roles and rights")
    return FatalError(
        f"{missing}, says the function {function[1] or function[2]}, which a write to the tables runs: sessions of this stream look"
        f" for names in pg_catalog alone; it needs `ALTER FUNCTION … SET search_path`, and `{MIGRATE} --check` has the statement"
    )


def _translate_refusal(error: psycopg2.Error) -> PipelineError:
    """Of a row, by its content; but for one for which the table has no partition."""
    if error.diag.source_function in _NO_PARTITION:
        table = printable(error.diag.table_name or "")
        return FatalError(f"no partition of {table} takes a row (SQLSTATE {error.pgcode}): make the one that is missing")
    return (NotUniqueError if error.pgcode == _NOT_UNIQUE else RowRefusedError)(refusal_of(error))


def _translate_refused_session(error: SessionRefusedError) -> PipelineError:
    """Postgres, or a pooler before it, answered and would not have us."""
    code = error.pgcode
    words = _words(error)
    if code is None:
        return RetryableError(f"Postgres refuses the connection and tells no code{words}")
    role = _ROLE.search(error.said)
    if (code, error.function) == _MAY_NOT_CONNECT:
        meaning = "POSTGRES_DSN's user may not connect to this database; its owner can GRANT CONNECT"
    elif code in _ROLE_REFUSED and role is not None:
        kind, remedy = _ROLE_REFUSED[code]
        return kind(f"Postgres refuses the role {role[0].decode()} (SQLSTATE {code}): {remedy}{words}")
    elif code == _NO_DATABASE:
        return FatalError(f"Postgres has no such database (SQLSTATE {code}): create it or correct POSTGRES_DSN{words}")
    else:
        meaning = _REFUSING.get(code) or _REFUSING.get(code[:2]) or "its log says why"
    refused = f"Postgres refuses the connection: {meaning} (SQLSTATE {code}){words}"
    return FatalError(refused) if meaning == _NO_SUCH_OPTION else RetryableError(refused)


def _words(error: SessionRefusedError) -> str:
    """The server's own, which name users, roles, databases and addresses, and nothing of a record or a secret."""
    try:
        said = error.said.decode()
    except UnicodeDecodeError:
        said = ""
    return f"; it says: {said}" if said else "; its words can't be read here, see its log"


def tells_why(error: psycopg2.Error | ValueError) -> bool:
    """Whether libpq found by itself why there is no connection, or psycopg2 a code; else a server may have refused it."""
    return isinstance(error, psycopg2.Error) and (error.pgcode is not None or _found_by_libpq(error) is not None)


def _found_by_libpq(error: psycopg2.Error) -> PipelineError | None:
    """Of the last place that it tried."""
    text = str(error).rpartition("connection to server ")[2]
    for pattern, kind, sentence in _CONNECTING:
        match = pattern.search(text)
        if match is not None:
            return kind(sentence.format(*match.groups()))
    return None


def _translate_before_session(error: psycopg2.Error) -> PipelineError:
    """The connection could not be made or broke, or psycopg2 itself refuses the call."""
    if isinstance(error, SessionRefusedError):
        return _translate_refused_session(error)
    if isinstance(error, _CALL_REFUSED):
        return FatalError(f"psycopg2 refuses the call ({type(error).__name__})")
    return _found_by_libpq(error) or RetryableError(f"the connection to Postgres failed ({type(error).__name__})")
