"""What is taken from the fields of Postgres's errors: names of the schema, and of functions.

Only what the server itself has put there: a function may put anything, a row's value too, into the fields of an error that it
raises.
"""

import re
from typing import Final

import psycopg2

from pipeline.printable import printable
from stream_app.refusals import Refusal

_RAISING: Final = re.compile(
    r"""[^\n"'(]*?PL/pgSQL[^\n"'(]*?((?:"[^"\n]+"|[\w$]+)(?:\.(?:"[^"\n]+"|[\w$]+))?\([^\n']*?\))"""
    r"""|SQL function "([^"\n]+)" |PL/\w+ function "([^"\n]+)\""""
)
"""At the beginning of an error's context, the function that raised it: of PL/pgSQL with its arguments, as ``regprocedure`` writes
it, in whatever language PL/pgSQL speaks of itself. Nothing further on is looked at: a statement has values in it."""

_CONSTRAINT_CHECKS: Final = (
    "ExecConstraints",
    "ReportNotNullViolationError",
    "_bt_check_unique",
    "ri_ReportViolation",
    "check_exclusion_or_unique_constraint",
)
"""The server's functions that look at constraints: the names that they give are the schema's."""


def function_of(error: psycopg2.Error) -> str | None:
    """The function that raised it, with its schema, as the beginning of the error's context names it. None: no function did."""
    named = _RAISING.match(error.diag.context or "")
    return None if named is None else printable(named[1] or named[2] or named[3])


def refusal_of(error: psycopg2.Error) -> Refusal:
    """What Postgres names. A function may put anything into the fields of its error: of those only its own name is taken."""
    if not error.diag.context or error.diag.source_function in _CONSTRAINT_CHECKS:
        names = (error.diag.table_name, error.diag.column_name, error.diag.constraint_name)
        table, column, constraint = (None if name is None else printable(name) for name in names)
        return Refusal(error.pgcode, table, column, constraint, function_of(error))
    return Refusal(error.pgcode, function=function_of(error))
