"""POSTGRES_DSN, as libpq reads it; what other drivers take is told by its own line. No error quotes it: it may hold a password."""

import re
from collections.abc import Mapping
from typing import Final

import psycopg2
from psycopg2.extensions import parse_dsn

FORM: Final = "expected postgresql://user@host/database or host=… dbname=… user=…, special characters percent-encoded or quoted"

_UNREADABLE: Final = "libpq can't read it"
_PORT_MAX: Final = 65_535
_PARAMETERS_OF_OTHERS: Final = {
    "schema": "Prisma's",
    "currentSchema": "JDBC's",
    "ssl": "JDBC's; libpq has sslmode",
    "pgbouncer": "Prisma's",
    "connection_limit": "Prisma's; there is POSTGRES_CONNECTIONS_MAX",
    "pool_timeout": "Prisma's",
    "prepareThreshold": "JDBC's",
}
_UNKNOWN_PARAMETER: Final = re.compile(r'invalid (?:URI query parameter:|connection option) "(\w+)"')
_NOT_LIBPQS: Final = (
    (re.compile(r"\s|.*\s$|['\"]", re.DOTALL), "it begins or ends with a space or a quotation mark"),
    (re.compile(r"jdbc:", re.IGNORECASE), "it is a JDBC URL: leave out jdbc: and write the user before the host"),
    (
        re.compile(r"postgres(ql)?\+\w+://"),
        "it names a driver, as SQLAlchemy's URLs do: leave out the + and what follows before ://",
    ),
    (re.compile(r"(?!postgres(ql)?://)[A-Za-z][\w+.-]*:/"), "it is a URL, and does not begin with postgresql://"),
)


def parse(dsn: str) -> Mapping[str, str]:
    """Its parameters by name. Raises ValueError with what was expected."""
    for form, problem in _NOT_LIBPQS:
        if form.match(dsn):
            raise ValueError(f"{_UNREADABLE}: {problem}; {FORM}")
    try:
        given = {name: str(value) for name, value in parse_dsn(dsn).items()}
    except psycopg2.ProgrammingError as error:  # its message quotes the DSN, and with it maybe the password: it is not chained
        unknown = _UNKNOWN_PARAMETER.search(str(error))
        whose = None if unknown is None else _PARAMETERS_OF_OTHERS.get(unknown[1])  # another name may be a piece of a password
        problem = "" if unknown is None or whose is None else f": leave out {unknown[1]}=, which is {whose}"
        raise ValueError(f"{_UNREADABLE}{problem}; {FORM}") from None
    if not all(port == "" or _is_port(port) for port in given.get("port", "").split(",")):
        raise ValueError(f"libpq takes no such value of port; {FORM}")
    return given


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(_PORT_MAX)) and 1 <= int(text) <= _PORT_MAX
