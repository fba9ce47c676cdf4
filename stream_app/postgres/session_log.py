"""What sessions with Postgres turned out to be: ``prefer`` takes what it gets, and a server has its own ideas of its log."""

import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class like a module

log = structlog.get_logger(__name__)


class SessionLog:
    """One line for the first connection, and one for each that is another kind than the one before."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._facts: tuple[str, int] | None = None
        self._settings_that_log_rows: tuple[str, ...] = ()

    def opened(self, connection: Connection, settings_that_log_rows: tuple[str, ...] = ()) -> None:
        """Tell of it if there is something to tell; see :mod:`stream_app.postgres.session` for the settings, as ``name=value``."""
        tls = str(connection.info.ssl_attribute("protocol")) if connection.info.ssl_in_use else "none"
        facts = tls, connection.info.server_version
        if facts != self._facts:
            self._facts = facts
            log.info("postgres_session", tls=tls, role=self._role, server_version=connection.info.server_version)
        if settings_that_log_rows != self._settings_that_log_rows:
            self._settings_that_log_rows = settings_that_log_rows
            if settings_that_log_rows:
                log.warning(
                    "postgres_logs_rows",
                    settings=list(settings_that_log_rows),
                    remedy="`faust -A stream_app migrate --check` says what a superuser has to run",
                )
