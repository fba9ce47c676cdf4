"""Connections of a server that gives more and fewer of them, takes its time, breaks some, and goes away; in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import virtual_time
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import RetryableError
from stream_app.postgres.open_connections import MORE_CONNECTIONS_SECONDS, OpenConnections


@dataclass(eq=False)
class FakeConnection:
    server: "FakeServer"
    number: int
    closed: bool = False
    is_lent: bool = False

    async def close(self) -> None:
        """Closed at once, as aiopg does it: whoever waits for it may be cancelled."""
        self.closed = True
        self.server.open.discard(self)
        await asyncio.sleep(0)


@dataclass
class FakeServer:
    """``room``: how many connections it gives; ``seconds``: how long it takes to give or to refuse one."""

    room: int
    seconds: float = 0.0
    open: set[FakeConnection] = field(default_factory=set)
    given: int = 0
    most_open: int = 0
    refused: int = 0

    async def connect(self) -> FakeConnection:
        await asyncio.sleep(self.seconds)
        if len(self.open) >= self.room:
            self.refused += 1
            raise RetryableError("too many connections")
        self.given += 1
        connection = FakeConnection(self, self.given)
        self.open.add(connection)
        self.most_open = max(self.most_open, len(self.open))
        return connection


def connections_of(server: FakeServer, size: int) -> OpenConnections:
    connect = cast("Callable[[], Awaitable[Any]]", server.connect)
    return OpenConnections(connect, size, lambda: asyncio.get_running_loop().time())


async def run_statement(connections: OpenConnections, seconds: float, *, usable: bool = True) -> int:
    """Borrow, work, give back; the number of the connection."""
    connection = cast("FakeConnection", await connections.borrow())
    assert not connection.is_lent, "two statements on one connection"
    connection.is_lent = True
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        usable = False
        raise
    finally:
        connection.is_lent = False
        await connections.give_back(cast("Any", connection), usable=usable)
    return connection.number


SECONDS = st.sampled_from([0.0, 0.01, 1.0, 10.0, 40.0])
STEP = st.one_of(
    st.tuples(st.just("statement"), SECONDS),
    st.tuples(st.just("broken statement"), SECONDS),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("room"), st.integers(0, 5)),
    st.tuples(st.just("slow"), SECONDS),
    st.tuples(st.just("wait"), SECONDS),
)


@example(
    3,
    [
        ("statement", 0.0), ("statement", 0.0), ("room", 1), ("wait", 40.0), ("statement", 0.01), ("broken statement", 0.0),
        ("statement", 0.0), ("room", 2),
    ],
)  # fmt: skip
@example(1, [("statement", 0.01), ("room", 2), ("wait", 0.01), ("statement", 0.0), ("cancel", 0), ("wait", 0.0), ("cancel", 0)])
@given(st.integers(1, 4), st.lists(STEP, max_size=40))
def test_no_connection_and_no_turn_is_lost_whatever_happens(size: int, steps: list[tuple[str, float]]) -> None:
    """At the end the server gives all again: as many statements run side by side as there should, each on its own connection."""

    async def scene() -> None:
        server = FakeServer(room=size)
        connections = connections_of(server, size)
        statements: list[asyncio.Task[int]] = []
        for step, value in steps:
            match step:
                case "statement" | "broken statement":
                    statements.append(asyncio.create_task(run_statement(connections, value, usable=step == "statement")))
                case "cancel" if statements:
                    statements[int(value) % len(statements)].cancel()
                case "room":
                    server.room = int(value)
                case "slow":
                    server.seconds = value
                case "wait":
                    await asyncio.sleep(value)
        outcomes = await asyncio.gather(*statements, return_exceptions=True)
        assert all(isinstance(outcome, int | RetryableError | asyncio.CancelledError) for outcome in outcomes)
        assert server.most_open <= size
        assert connections.wanted <= size

        server.room, server.seconds = size, 0.0
        for _ in range(size + 1):  # each look for more gives one more
            await asyncio.sleep(MORE_CONNECTIONS_SECONDS)
            numbers = await asyncio.gather(*(run_statement(connections, 1.0) for _ in range(size)))
        assert len(set(numbers)) == connections.open == connections.wanted == size
        await connections.close()
        assert connections.open == len(server.open) == 0

    virtual_time.run(scene())


@given(st.integers(2, 4), st.integers(1, 3), st.integers(1, 12), st.sampled_from([0.0, 1.0, 25.0]))
def test_while_one_connection_is_open_no_statement_fails_for_want_of_another(
    size: int, room: int, statements: int, seconds: float
) -> None:
    """Also when the server takes its time to refuse: whoever waits is served by what is open."""

    async def scene() -> None:
        server = FakeServer(room=room)
        connections = connections_of(server, size)
        await run_statement(connections, 0.0)
        server.seconds = seconds
        began = asyncio.get_running_loop().time()
        numbers = await asyncio.gather(*(run_statement(connections, 1.0) for _ in range(statements)))
        assert len(set(numbers)) <= room
        assert asyncio.get_running_loop().time() - began <= statements, "no slower than one after the other"
        await connections.close()

    virtual_time.run(scene())


def test_a_full_server_is_asked_for_more_only_now_and_then() -> None:
    async def scene() -> int:
        server = FakeServer(room=1)
        connections = connections_of(server, 4)
        while asyncio.get_running_loop().time() < 10 * MORE_CONNECTIONS_SECONDS:
            await asyncio.gather(*(run_statement(connections, 0.1) for _ in range(4)), return_exceptions=True)
        await connections.close()
        return server.refused

    assert 9 <= virtual_time.run(scene()) <= 15


def test_statements_take_their_turns_in_order() -> None:
    async def scene() -> list[int]:
        connections = connections_of(FakeServer(room=1), 2)
        done: list[int] = []

        async def numbered(number: int) -> None:
            await run_statement(connections, 1.0)
            done.append(number)

        await run_statement(connections, 0.0)
        await asyncio.gather(*(numbered(number) for number in range(6)))
        await connections.close()
        return done

    assert virtual_time.run(scene()) == list(range(6))


def test_what_is_borrowed_just_when_the_borrower_is_cancelled_goes_to_the_next() -> None:
    async def scene() -> None:
        connections = connections_of(FakeServer(room=1), 1)
        connection = await connections.borrow()
        first = asyncio.create_task(connections.borrow())
        second = asyncio.create_task(connections.borrow())
        await asyncio.sleep(0)
        await connections.give_back(connection, usable=True)  # handed to the first, which has not run yet
        first.cancel()
        assert await second is connection
        assert first.cancelled()

    virtual_time.run(scene())
