"""The connections that a pool has open: each is lent to one statement at a time, and there are as many as the server gives.

Promise: as long as one connection is open, whoever asks gets one when its turn comes, even if the server is full or refuses the
password for new ones; what is given back goes to whoever has waited longest; never are more than ``size`` open or being opened.
It holds because connections are opened beside those who wait, not by them: one that could not be opened costs nobody a turn while
there are others, and one that is opened too late for whoever asked is lent to the next.

How it could break: a connection that is lost with whoever was cancelled while it was handed over.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import cast

import aiopg
import structlog

log = structlog.get_logger(__name__)

MORE_CONNECTIONS_SECONDS = 30.0
"""After the server refused one more connection, another is tried for after this long."""


class OpenConnections:
    """The one that was given back last is lent first, so that few are open while few suffice. For one event loop."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[aiopg.Connection]],
        size: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._size = size
        self._monotonic = monotonic
        self._idle: list[aiopg.Connection] = []
        self._waiting: deque[asyncio.Future[aiopg.Connection]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._wanted = size
        self._more_at: float | None = None
        self._is_limited = False
        self.open = 0
        """How many are open, lent ones included."""

    @property
    def wanted(self) -> int:
        """How many are opened at most: fewer than ``size`` while the server gives no more."""
        return self._wanted

    async def borrow(self) -> aiopg.Connection:
        """A connection, which :meth:`give_back` takes back. Raises what ``connect`` raises while none is open."""
        if self._idle:
            return self._idle.pop()
        turn: asyncio.Future[aiopg.Connection] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._open_more()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # handed over just before
                self._lend(turn.result())
            raise
        finally:
            del turn  # it holds the error, which holds this frame and the statement

    async def give_back(self, connection: aiopg.Connection, *, usable: bool) -> None:
        """Lend it to the next; one that is not ``usable``, or is closed, makes room for another."""
        if usable and not connection.closed:
            self._lend(connection)
            return
        self.open -= 1
        self._open_more()
        await connection.close()

    async def close(self) -> None:
        """Close those that are not lent, and open no more for who waits."""
        opening = tuple(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        idle, self._idle = self._idle, []
        self.open -= len(idle)
        for connection in idle:
            await connection.close()

    def _lend(self, connection: aiopg.Connection) -> None:
        turn = self._next_turn()
        if turn is None:
            self._idle.append(connection)
        else:
            turn.set_result(connection)

    def _next_turn(self) -> "asyncio.Future[aiopg.Connection] | None":
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else it was cancelled
                return turn
        return None

    def _open_more(self) -> None:
        """Open one for each that waits, as far as there is room."""
        if self._more_at is not None and self._monotonic() >= self._more_at:
            self._wanted, self._more_at = min(self._wanted + 1, self._size), None
        waiting = sum(not turn.done() for turn in self._waiting)
        while len(self._opening) < min(waiting, self._wanted - self.open):
            self._opening.add(asyncio.create_task(self._open()))

    async def _open(self) -> None:
        try:
            connection = await self._connect()
        except Exception as error:  # noqa: BLE001 - raised where a statement waits for the connection
            self._has_ended()
            self._could_not_open(error)
        except asyncio.CancelledError:
            self._has_ended()
            raise
        else:
            self._has_ended()
            self._opened(connection)

    def _has_ended(self) -> None:
        self._opening.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def _could_not_open(self, error: Exception) -> None:
        if self.open:
            if not self._is_limited:
                self._is_limited = True
                log.warning("database_connections_limited", connections=self.open, wanted=self._size, problem=str(error))
            self._wanted, self._more_at = self.open, self._monotonic() + MORE_CONNECTIONS_SECONDS
            return
        turn = self._next_turn()
        if turn is not None:
            turn.set_exception(error)
        self._open_more()

    def _opened(self, connection: aiopg.Connection) -> None:
        self.open += 1
        if self._is_limited:
            self._more_at = self._monotonic()  # the server gives more again: on to the next
            if self.open == self._size:
                self._is_limited, self._more_at = False, None
                log.info("database_connections_complete", connections=self.open)
        self._lend(connection)
