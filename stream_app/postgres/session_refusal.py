"""What a server says when it refuses a session, with its SQLSTATE, which means the same in every language.

psycopg2 gives no code before a session stands, only libpq's text. libpq knows the code, and puts it into that text when it is told
to be verbose before the answer comes. That takes an asynchronous connection, and two functions of libpq that psycopg2 does not
wrap: they are called on its own libpq, through the address that it gives out for that (``pgconn_ptr``). The text is read from
there, too: a server speaks its own encoding until the session stands, and psycopg2 raises UnicodeDecodeError for what is no UTF-8.

Read against psycopg2 2.9.13 (``connection_type.c``) and libpq 17 (``pqBuildErrorMessage3``): the label `LOCATION:` is libpq's own.
"""

import ctypes
import re
import select
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any, Final

import psycopg2
import psycopg2._psycopg
from psycopg2.extensions import POLL_OK, POLL_READ
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class like a module

_libpq = ctypes.PyDLL(psycopg2._psycopg.__file__)  # noqa: SLF001 - a name is looked for in what it is linked with, too
_error_message = _libpq.PQerrorMessage
_error_message.argtypes, _error_message.restype = [ctypes.c_void_p], ctypes.c_char_p
_set_error_verbosity = _libpq.PQsetErrorVerbosity
_set_error_verbosity.argtypes, _set_error_verbosity.restype = [ctypes.c_void_p, ctypes.c_int], ctypes.c_int

_DEFAULT: Final = 1
_VERBOSE: Final = 2

# Severity, code, the server's words, and which of its functions said so. All encodings of a server have ASCII as it is.
_REFUSAL: Final = re.compile(rb"^(?:connection to server .* failed: )?[^\n:]*:  ([0-9A-Z]{5}): ([^\n]*)", re.MULTILINE)
_LOCATION: Final = re.compile(rb"^LOCATION:  (\w+), ", re.MULTILINE)


class SessionRefusedError(psycopg2.OperationalError):
    """psycopg2's error, with what it does not tell."""

    pgcode: str | None = None
    """None where the server told none."""

    def __init__(self, code: str | None, said: bytes, function: str) -> None:
        """``said``: the server's words, names of users, roles, databases and addresses among them; ``function``: one of its own."""
        super().__init__(f"the session is refused (SQLSTATE {code})")
        self.pgcode = code
        self.said = said
        self.function = function


def tell_codes(connection: Connection) -> None:
    """Have libpq put codes into its errors until the session stands. To be called before the connection's first ``poll``."""
    _set_error_verbosity(connection.pgconn_ptr, _VERBOSE)


def tell_no_codes(connection: Connection) -> None:
    """The session stands, from here on psycopg2 knows the codes."""
    _set_error_verbosity(connection.pgconn_ptr, _DEFAULT)


def poll(connection: Connection) -> int:
    """As the connection's own, with a :class:`SessionRefusedError` where a server refuses."""
    try:
        return connection.poll()
    except (psycopg2.Error, UnicodeDecodeError) as error:
        raise _as_told(error, connection) from None


def _as_told(error: psycopg2.Error | UnicodeDecodeError, connection: Connection) -> psycopg2.Error:
    refusal = parse_refusal(_error_message(connection.pgconn_ptr) or b"")
    return _of_psycopg2(error) if refusal is None else refusal


def _of_psycopg2(error: psycopg2.Error | UnicodeDecodeError) -> psycopg2.Error:
    """Words that can't be decoded are a server's: libpq's own are English, and a server is not always asked for a code."""
    return error if isinstance(error, psycopg2.Error) else SessionRefusedError(None, b"", "")


def parse_refusal(text: bytes) -> SessionRefusedError | None:
    """The last refusal in a verbose error of libpq's, which tells of each place that it tried; None if no server refused it so."""
    found = list(_REFUSAL.finditer(text))
    if not found:
        return None
    location = _LOCATION.search(text, found[-1].end())
    return SessionRefusedError(found[-1][1].decode(), found[-1][2], "" if location is None else location[1].decode())


def ask_again(error: psycopg2.Error | UnicodeDecodeError, parameters: Mapping[str, Any], seconds: float) -> psycopg2.Error:
    """Connect once more, as :func:`psycopg2.connect` has just failed with ``error``, for the code behind it.

    Where none is found within ``seconds``, or the server takes us now, it is the error as it was. Blocks.
    """
    with suppress(psycopg2.Error), closing(psycopg2.connect(async_=True, **parameters)) as connection:
        tell_codes(connection)
        try:
            _poll_until(connection, time.monotonic() + seconds)
        except SessionRefusedError as refused:
            return refused.with_traceback(None)  # else it holds this frame, which holds the password
    return _of_psycopg2(error)


def _poll_until(connection: Connection, deadline: float) -> None:
    while (wanted := poll(connection)) != POLL_OK and (left := deadline - time.monotonic()) > 0:
        ready = select.poll()  # select() takes no descriptor above 1,023
        ready.register(connection.fileno(), select.POLLIN if wanted == POLL_READ else select.POLLOUT)
        ready.poll(left * 1_000)
