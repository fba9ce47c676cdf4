"""Runs statements, each on a connection of its own for its time; one with which something is wrong is replaced.

aiopg's own pool is not used: it keeps the parameters it was made with, and here the password is read again for each connection, so
that a rotated one works without a restart. Connections are in autocommit, as aiopg's always are: a statement is a transaction.

Written against aiopg 1.4.0, which closes a connection whose statement timed out on our side and does not wait for the server. That
may still carry it out, so a RetryableError from here leaves the outcome unknown.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import aiopg
import psycopg2

from pipeline.errors import PipelineError, RetryableError
from stream_app.postgres.async_connection import connect_async
from stream_app.postgres.errors import translate, translate_statement
from stream_app.postgres.open_connections import OpenConnections
from stream_app.postgres.session_log import SessionLog
from stream_app.postgres.settings import PostgresSettings

StatementResult = Literal["ok", "retryable", "refused"]
"""``refused``: a row, or the whole statement for want of a right or a table."""

_ANSWER_GRACE_SECONDS = 5.0
"""The server ends a statement by itself at its statement timeout; only one that no longer answers runs into ours."""


class ConnectionPool:
    """Statements of one role, ``size`` at a time at most."""

    def __init__(
        self,
        settings: PostgresSettings,
        *,
        role: str,
        application_name: str,
        size: int,
        on_statement: Callable[[StatementResult, float, PipelineError | None], None] = lambda _, __, ___: None,
    ) -> None:
        """``on_statement`` is told of each statement that its task did not cancel: result, seconds, the error if there was one."""
        self._settings = settings
        self._role = role
        self._application_name = application_name
        self._on_statement = on_statement
        self._answer_seconds = settings.postgres_statement_timeout_seconds + _ANSWER_GRACE_SECONDS
        self._connections = OpenConnections(self._connect, size)
        self._sessions = SessionLog(role)

    @property
    def schema(self) -> str:
        """The schema of the tables (POSTGRES_SCHEMA)."""
        return self._settings.postgres_schema

    @property
    def connections_open(self) -> int:
        """How many are open."""
        return self._connections.open

    @property
    def connections_wanted(self) -> int:
        """How many are opened at most: fewer than ``size`` while the server gives no more."""
        return self._connections.wanted

    async def fetch_one(self, statement: str, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Run one statement and return its first row.

        Raises :class:`RetryableError` (the outcome is unknown), :class:`stream_app.postgres.errors.RowRefusedError` or
        :class:`FatalError` (nothing was done).
        """
        started = time.monotonic()
        try:
            row = await self._fetch_one(statement, parameters)
        except PipelineError as error:
            self._on_statement("retryable" if isinstance(error, RetryableError) else "refused", time.monotonic() - started, error)
            raise
        self._on_statement("ok", time.monotonic() - started, None)
        return row

    async def _fetch_one(self, statement: str, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        connection: aiopg.Connection | None = None
        usable = False
        translated: PipelineError | None = None
        try:
            connection = await self._connections.borrow()
            async with connection.cursor(timeout=self._answer_seconds) as cursor:
                await cursor.execute(statement, parameters)
                row: tuple[Any, ...] | None = await cursor.fetchone()
            usable = True
        except TimeoutError as error:
            raise RetryableError(f"Postgres gave no answer within {self._answer_seconds:g} s") from error
        except (psycopg2.Error, ValueError) as error:
            translated = translate(error) if connection is None else translate_statement(error)
            usable = connection is not None and not isinstance(translated, RetryableError)
            # Without its frames, which hold the future that holds it, and the statement.
            raise translated from error.with_traceback(None)
        else:
            return row
        finally:
            try:
                if connection is not None:
                    await self._connections.give_back(connection, usable=usable)
            finally:
                translated = None  # it holds this frame, which holds it and the parameters

    async def close(self) -> None:
        """Close the connections that are at rest; one in use is closed by whoever uses it when its statement is cancelled."""
        await self._connections.close()

    async def _connect(self) -> aiopg.Connection:
        connection = await connect_async(self._settings, role=self._role, application_name=self._application_name)
        self._sessions.opened(connection.raw, connection.settings_that_log_rows)
        return connection
