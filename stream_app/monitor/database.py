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
        place = {"consumer_group": self._settings.consumer_group, "topic": self._settings.kafka_topic}
        return dict(self._rows("monitor_positions", place))

    def table_facts(self) -> TableFacts:
        """Counts and sizes. Raises :class:`PipelineError`."""
        ((sessions, sessions_max),) = self._rows("monitor_sessions")
        return TableFacts(
            open_dead_letters=dict(self._rows("monitor_open_dead_letters")),
            reveals={field: Reveals(calls, tokens) for field, calls, tokens in self._rows("monitor_reveals")},
            table_bytes=dict(self._rows("monitor_table_bytes")),
            sessions=sessions,
            sessions_max=sessions_max,
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._connection = None
        self._opened.close()

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
