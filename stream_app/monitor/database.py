"""What the monitor asks Postgres, with a role that sees counts and positions and no record's content."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_app.monitor.settings import MonitorSettings
from stream_app.postgres.connection import MONITOR, connect
from stream_app.postgres.queries import load_queries
from stream_app.postgres.session_log import SessionLog

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class like a module


@dataclass(frozen=True, slots=True)
class Reveals:
    """How often the command was called for a field, and for how many tokens."""

    calls: int
    tokens: int


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What changes slowly."""

    open_dead_letters: dict[str, int]
    oldest_dead_letter_seconds: dict[str, float]
    """Of the open ones, by reason."""
    records_skipped: int
    """Over which operators have moved this group's positions in this topic forward, ever."""
    reveals: dict[str, Reveals]
    table_bytes: dict[str, int]
    sessions: int
    sessions_max: int


class Database:
    """One connection, made when it is needed and again after an error."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._queries = load_queries("monitor.sql", settings.postgres_schema)
        self._opened = ExitStack()
        self._connection: Connection | None = None
        self._sessions = SessionLog(MONITOR)

    def positions(self) -> dict[int, int]:
        """The next offset by partition; partitions that were never claimed are missing. Raises :class:`PipelineError`."""
        return dict(self._rows("monitor_positions", self._place()))

    def table_facts(self) -> TableFacts:
        """Counts and sizes. Raises :class:`PipelineError`."""
        ((sessions, sessions_max),) = self._rows("monitor_sessions")
        ((records_skipped,),) = self._rows("monitor_records_skipped", self._place())
        dead_letters = self._rows("monitor_open_dead_letters")
        return TableFacts(
            open_dead_letters={reason: count for reason, count, _ in dead_letters},
            oldest_dead_letter_seconds={reason: float(seconds) for reason, _, seconds in dead_letters},
            records_skipped=int(records_skipped),
            reveals={field: Reveals(calls, tokens) for field, calls, tokens in self._rows("monitor_reveals")},
            table_bytes=dict(self._rows("monitor_table_bytes")),
            sessions=sessions,
            sessions_max=sessions_max,
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._connection = None
        self._opened.close()

    def _place(self) -> dict[str, str]:
        return {"consumer_group": self._settings.consumer_group, "topic": self._settings.kafka_topic}

    def _rows(self, query: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        connection, self._connection = self._connection, None
        with self._opened.pop_all() as opened:  # an error leaves through `connect`, which closes the connection and makes it ours
            if connection is None:
                connection = opened.enter_context(connect(self._settings, role=MONITOR, application_name="login-stream monitor"))
                self._sessions.opened(connection)
            with connection.cursor() as cursor:
                cursor.execute(self._queries[query], parameters)
                rows = cursor.fetchall()
            self._connection, self._opened = connection, opened.pop_all()
        return rows
