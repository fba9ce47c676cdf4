"""Opens a connection of aiopg's without its six traps, each seen with aiopg 1.4.0 and psycopg2 2.9.13.

- libpq looks host names up inside ``connect``: while a name server is away the event loop stands still, and Kafka takes the
  worker for dead. Here the loop looks them up, in a thread, and libpq gets addresses.
- ``aiopg.connect`` watches the socket that libpq had first. When libpq goes on with another one (the next host, or again without
  TLS after a refused login), nobody watches that, and a refused password looks like a server that doesn't answer. Here the
  socket is asked for anew each time, until the connection stands.
- libpq's ``connect_timeout`` does nothing in asynchronous mode, so a dead host hides the next one. Here each address has its time.
- Errors before the session stands have no SQLSTATE, and are no text at all where the server's language has another encoding than
  UTF-8. Here they have it (:mod:`stream_app.postgres.session_refusal`).
- ``Connection._poll`` turns a statement that the server cancelled into ``CancelledError``, as if the task had been cancelled, and
  gives the server's whole text to the loop's handler, which logs it. Here it is an error like any other.
- A cursor and its ``Transaction`` hold each other, and psycopg2's cursor with its statement: megabytes, until garbage is collected.
  Here a cursor has none, since a statement is a transaction.
"""

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import aiopg
import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE

from pipeline.errors import FatalError, PipelineError, RetryableError
from stream_app.postgres.connection import ConnectionParameters, connection_parameters
from stream_app.postgres.errors import translate
from stream_app.postgres.session import open_session
from stream_app.postgres.session_refusal import poll, tell_codes, tell_no_codes
from stream_app.postgres.settings import PostgresSettings


async def connect_async(settings: PostgresSettings, *, role: str, application_name: str) -> "AsyncConnection":
    """A connection that has taken ``role``, and looks for names in ``pg_catalog`` alone.

    Hosts of the DSN are tried in their order, and each one's addresses.

    Raises :class:`RetryableError` and :class:`FatalError` (those of the last address), and :class:`pipeline.errors.SettingsError`.
    """
    parameters = connection_parameters(settings, role=role, application_name=application_name)
    seconds = settings.postgres_connect_timeout_seconds
    problem: PipelineError = RetryableError("the host of POSTGRES_DSN has no address")
    for place in await _places(parameters, seconds):
        try:
            connection = await _connect({**parameters, **place}, seconds)
        except TimeoutError:
            problem = RetryableError(f"Postgres doesn't answer within {seconds} s: are host and port of POSTGRES_DSN right?")
        except psycopg2.Error as error:
            problem = translate(error)
            problem.__cause__ = error
        else:
            return await _opened(connection, settings, role)
    try:
        raise problem
    finally:
        del problem  # it holds this frame, which holds it


async def _places(parameters: ConnectionParameters, seconds: float) -> list[dict[str, str]]:
    """Host, address and port of each place that the DSN means; ``[{}]`` where libpq knows better: a socket file, or no host."""
    hosts = parameters.get("host", "").split(",")
    if "hostaddr" in parameters or hosts == [""]:
        return [{}]
    ports = parameters.get("port", "5432").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        return [{}]  # libpq says what is wrong with it
    places: list[dict[str, str]] = []
    for host, port in zip(hosts, ports, strict=True):
        if host.startswith(("/", "@")):
            places.append({"host": host, "port": port})
            continue
        try:
            async with asyncio.timeout(seconds):
                found = await asyncio.get_running_loop().getaddrinfo(host or "localhost", None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # TimeoutError is an OSError; UnicodeError: no host name at all
            continue
        places += [{"host": host, "hostaddr": str(address[0]), "port": port} for *_, address in found]
    return places


class AsyncConnection(aiopg.Connection):
    """aiopg's, watched rightly.

    Stands on what begins with an underscore here, and on ``Cursor._transaction``, as they are in aiopg 1.4.0.
    """

    settings_that_log_rows: tuple[str, ...] = ()
    """Settings of the server by which rows get into its log, as ``name=value``."""

    async def establish(self, seconds: float) -> None:
        """Do the poll loop of psycopg2's asynchronous connect, then hand the socket over to aiopg."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._fileno or 0)
        self._fileno = None
        tell_codes(self.raw)
        try:
            async with asyncio.timeout(seconds):
                while (wanted := poll(self.raw)) != POLL_OK:
                    await _socket_ready(loop, self.raw.fileno(), wanted)
            descriptor = self.raw.fileno()
            self._fileno = descriptor
            loop.add_reader(descriptor, self._ready, self._weakref)
            await self  # at once: aiopg polls it once more and is content
        except BaseException:
            self._waiter = None
            await self.close()
            raise
        tell_no_codes(self.raw)

    async def _cursor(self, *arguments: Any, **options: Any) -> aiopg.Cursor:
        cursor = await super()._cursor(*arguments, **options)
        # Typed as never None, since aiopg always makes one; only its begin() asks for it, which nobody calls here.
        cursor._transaction = None  # type: ignore[assignment] # noqa: SLF001 - it holds the cursor, and so the statement
        return cursor

    async def _poll(self, waiter: asyncio.Future[None], timeout: float) -> None:  # noqa: ASYNC109 - aiopg's signature
        self._ready(self._weakref)
        try:
            # Not wait_for(): before Python 3.12 it answers, and forgets the cancellation, when both come at once.
            async with asyncio.timeout(timeout):
                await waiter
        except (asyncio.CancelledError, TimeoutError):
            await asyncio.shield(self.close())
            raise
        finally:
            self._waiter = None


async def _connect(parameters: Mapping[str, Any], seconds: float) -> AsyncConnection:
    # Each of the three would ask the server about a type that is not used.
    connection = AsyncConnection(None, seconds, enable_json=False, enable_hstore=False, enable_uuid=False, **parameters)
    await connection.establish(seconds)
    return connection


async def _socket_ready(loop: asyncio.AbstractEventLoop, descriptor: int, wanted: int) -> None:
    ready: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not ready.done():
            ready.set_result(None)

    if wanted == POLL_READ:
        loop.add_reader(descriptor, settle)
    elif wanted == POLL_WRITE:
        loop.add_writer(descriptor, settle)
    else:
        raise psycopg2.OperationalError("connection failed")
    try:
        await ready
    finally:
        if wanted == POLL_READ:
            loop.remove_reader(descriptor)
        else:
            loop.remove_writer(descriptor)


async def _opened(connection: AsyncConnection, settings: PostgresSettings, role: str) -> AsyncConnection:
    steps = open_session(role, settings.postgres_schema, connection.raw.server_version)
    try:
        async with connection.cursor() as cursor:
            statement = next(steps)
            while True:
                await cursor.execute(statement)
                try:
                    statement = steps.send(await cursor.fetchall())
                except StopIteration as end:
                    connection.settings_that_log_rows = end.value
                    return connection
    except psycopg2.Error as error:
        await connection.close()
        raise translate(error) from error
    except TimeoutError as error:
        await connection.close()
        raise RetryableError("Postgres doesn't answer") from error
    except (FatalError, asyncio.CancelledError):  # cancelled: the pool is closed while it opens one
        await connection.close()
        raise
