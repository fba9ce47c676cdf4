"""A few connections, each used by one statement at a time, and made anew when something is wrong with one.

aiopg's own pool is not used: it keeps the parameters it was made with, and here the password is read again for each connection, so
that a rotated one works without a restart. Connections are in autocommit, as aiopg's always are: a statement is a transaction.

Written against aiopg 1.4.0, which closes a connection whose statement timed out on our side and does not wait for the server. That
may still carry it out, so a RetryableError from here leaves the outcome unknown.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import aiopg
import psycopg2

from pipeline.errors import PipelineError, RetryableError
from stream_app.postgres.async_connection import connect_async
from stream_app.postgres.errors import translate, translate_statement
from stream_app.postgres.settings import PostgresSettings

StatementResult = Literal["ok", "retryable", "refused"]
"""``refused``: a row, or the whole statement for want of a right or a table."""

_ANSWER_GRACE_SECONDS = 5.0
"""The server ends a statement by itself at its statement timeout; only one that no longer answers runs into ours."""


class ConnectionPool:
    """At most ``size`` connections with one role; each is opened when it is first needed."""

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
        self._slots: asyncio.LifoQueue[aiopg.Connection | None] = (
            asyncio.LifoQueue()
        )  # last in, first out: few connections while few suffice
        for _ in range(size):
            self._slots.put_nowait(None)
        self.connections_open = 0

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
        connection = await self._slots.get()
        usable = False
        translated: PipelineError | None = None
        try:
            if connection is None:
                connection = await self._connect()
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
                if connection is not None and (not usable or connection.closed):
                    broken, connection = connection, None
                    await self._close(broken)
            finally:
                self._slots.put_nowait(connection)
                translated = None  # it holds this frame, which holds it and the parameters

    async def close(self) -> None:
        """Close the connections that are at rest; one in use is closed by whoever uses it when its statement is cancelled."""
        at_rest = [self._slots.get_nowait() for _ in range(self._slots.qsize())]
        for connection in at_rest:
            if connection is not None:
                await self._close(connection)
            self._slots.put_nowait(None)

    async def _connect(self) -> aiopg.Connection:
        connection = await connect_async(self._settings, role=self._role, application_name=self._application_name)
        self.connections_open += 1
        return connection

    async def _close(self, connection: aiopg.Connection) -> None:
        self.connections_open -= 1
        await connection.close()
