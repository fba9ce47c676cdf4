"""What a session with Postgres turned out to be: ``prefer`` takes what it gets, and the setting alone doesn't tell."""

import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class like a module

log = structlog.get_logger(__name__)


class SessionLog:
    """One line for the first connection, and one for each that is another kind than the one before."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._before: tuple[str, int] | None = None

    def opened(self, connection: Connection) -> None:
        """Tell of it if there is something to tell."""
        tls = str(connection.info.ssl_attribute("protocol")) if connection.info.ssl_in_use else "none"
        facts = tls, connection.info.server_version
        if facts != self._before:
            self._before = facts
            log.info("postgres_session", tls=tls, role=self._role, server_version=connection.info.server_version)
