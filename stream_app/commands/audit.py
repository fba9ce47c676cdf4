"""Why somebody does something, and the line about it: ``operator_actions``, which nobody but its owner can make forget.

Promise: an action and its line are one transaction. Who and when are the server's word.
"""

import json
from collections.abc import Mapping
from typing import Any

import click
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names its class like a module

REASON_CHARACTERS_MAX = 500


def check_reason(reason: str) -> str:
    """The text of ``--reason`` without space around it. Raises :class:`click.UsageError`."""
    reason = reason.strip()
    if not 0 < len(reason) <= REASON_CHARACTERS_MAX:
        raise click.UsageError(f"--reason: expected 1 to {REASON_CHARACTERS_MAX} characters that say why")
    if not reason.isprintable():
        raise click.UsageError("--reason: expected text of one line, without control characters")
    return reason


def record_action(
    cursor: Cursor, queries: Mapping[str, str], *, action: str, target: str, details: Mapping[str, Any], reason: str
) -> None:
    """Add a line, in the transaction that ``cursor`` is in. ``details`` holds names, offsets and counts, no value of a record."""
    cursor.execute(
        queries["add_operator_action"], {"action": action, "target": target, "details": json.dumps(details), "reason": reason}
    )
