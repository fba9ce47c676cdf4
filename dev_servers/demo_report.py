"""What an analyst sees when the demo's messages are through."""

from dataclasses import dataclass
from textwrap import dedent
from typing import Any

import psycopg2
from rich.console import Console
from rich.table import Table

ANALYST = "stream_analyst"
TOKEN_CHARACTERS = 18
USER_CHARACTERS = 9
WIDE = 132
"""Columns of a terminal that shows all columns of a row."""

SOME_ROWS = """
    SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
    FROM user_logins ORDER BY sent_at, message_id LIMIT 5
"""

SOME_NARROW_ROWS = """
    SELECT user_id, masked_ip, masked_device_id
    FROM user_logins ORDER BY sent_at, message_id LIMIT 5
"""

SHARED_DEVICES = """
    SELECT masked_device_id, count(*) AS logins, array_agg(DISTINCT user_id) AS users
    FROM user_logins
    GROUP BY masked_device_id HAVING count(DISTINCT user_id) > 1
    ORDER BY count(DISTINCT user_id) DESC, logins DESC, masked_device_id
"""

SHARED_IPS = """
    SELECT count(*) FROM (
        SELECT FROM user_logins WHERE masked_ip IS NOT NULL GROUP BY masked_ip HAVING count(DISTINCT user_id) > 1
    ) AS shared
"""

# Postgres notes each transaction's commit time (track_commit_timestamp); a row's xmin is the transaction that wrote it.
TIMES = """
    WITH written AS (SELECT sent_at, pg_xact_commit_timestamp(xmin) AS committed_at FROM user_logins)
    SELECT count(*),
           extract(epoch FROM max(committed_at) - min(sent_at))::float8,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM committed_at - sent_at)),
           percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM committed_at - sent_at))
    FROM written
"""

GROUPS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Times:
    """From the queue's clock to Postgres's."""

    rows: int
    seconds: float
    """From the first message sent to the last row committed."""
    median_seconds: float
    """From a message sent to its row committed."""
    p99_seconds: float


class Report:
    """Reads as the role of analysts: what is shown is what they may see."""

    def __init__(self, dsn: str, console: Console) -> None:
        self._console = console
        self._wide = console.width >= WIDE
        self._connection = psycopg2.connect(dsn, options=f"-c role={ANALYST}")
        self._connection.autocommit = True

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def show_rows(self) -> None:
        """A few rows, masked."""
        statement = SOME_ROWS if self._wide else SOME_NARROW_ROWS
        self._show_query("Some rows, as an analyst sees them", statement)
        names, rows = self._ask(statement)
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in names:
            table.add_column(name, no_wrap=True)
        for row in rows:
            table.add_row(*(_cell(name, value) for name, value in zip(names, row, strict=True)))
        self._console.print(table)

    def show_shared_devices(self) -> None:
        """Who shares a device: equal tokens are equal devices, though nobody sees which."""
        self._show_query("Who shares a device? Equal values have equal tokens", SHARED_DEVICES)
        _, groups = self._ask(SHARED_DEVICES)
        for token, logins, users in groups[:GROUPS_SHOWN]:
            shown = ", ".join(users if self._wide else [_shortened(user, USER_CHARACTERS) for user in users])
            self._console.print(f"  {_shortened(token)}  {logins} logins of {len(users)} users: {shown}")
        (shared_ips,) = self._ask(SHARED_IPS)[1][0]
        self._console.print(f"  {len(groups):,} devices and {shared_ips:,} IP addresses are shared by several users")

    def times(self) -> Times | None:
        """How long it took; ``None`` without a row."""
        row = self._ask(TIMES)[1][0]
        return Times(*row) if row[0] else None

    def _ask(self, statement: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return [column.name for column in cursor.description or ()], cursor.fetchall()

    def _show_query(self, title: str, statement: str) -> None:
        self._console.print(f"\n[bold]{title}[/bold]")
        self._console.print(dedent(statement).strip(), style="cyan", markup=False)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return _shortened(str(value)) if name.startswith("masked_") else str(value)


def _shortened(text: str, characters: int = TOKEN_CHARACTERS) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
