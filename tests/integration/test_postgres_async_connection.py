"""The worker's way to connect: several hosts, dead ones, slow names; each of these stopped aiopg alone, or the event loop."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn
from pydantic import SecretStr

from dev_servers.ports import free_port
from dev_servers.postgres import Postgres
from pipeline.errors import FatalError, RetryableError
from stream_app.postgres.async_connection import connect_async
from stream_app.postgres.settings import PostgresSettings

ROLE = "stream_async_test"


@pytest.fixture(scope="module", autouse=True)
def role(postgres: Postgres) -> Iterator[None]:
    with closing(psycopg2.connect(postgres.dsn)) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"CREATE ROLE {ROLE}")
        yield
        connection.cursor().execute(f"DROP ROLE {ROLE}")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def settings_for(postgres: Postgres, **changed: str) -> PostgresSettings:
    dsn = make_dsn(**{**parse_dsn(postgres.dsn), **changed})
    return PostgresSettings(postgres_dsn=SecretStr(dsn), postgres_connect_timeout_seconds=2)


async def ask(settings: PostgresSettings, question: str) -> Any:
    connection = await connect_async(settings, role=ROLE, application_name="test")
    async with connection.cursor() as cursor:
        await cursor.execute(question)
        (answer,) = await cursor.fetchone()
    await connection.close()
    return answer


async def test_connection_has_the_role_and_works(postgres: Postgres) -> None:
    settings = settings_for(postgres)
    assert await ask(settings, "SELECT current_user::text") == ROLE
    assert await ask(settings, "SELECT sum(n) FROM generate_series(1, 100000) n") == 5_000_050_000
    assert await ask(settings, "SELECT length(string_agg(repeat('x', 1000), '')) FROM generate_series(1, 5000)") == 5_000_000


async def test_host_where_nobody_listens_gives_way_to_the_next(postgres: Postgres) -> None:
    settings = settings_for(postgres, host="127.0.0.1,127.0.0.1", port=f"{free_port()},{postgres.port}")
    assert await ask(settings, "SELECT inet_server_port()") == postgres.port


async def test_host_that_never_answers_gives_way_to_the_next(postgres: Postgres, silent_port: int) -> None:
    settings = settings_for(postgres, host="127.0.0.1,127.0.0.1", port=f"{silent_port},{postgres.port}")
    began = time.monotonic()
    assert await ask(settings, "SELECT inet_server_port()") == postgres.port
    assert 2 <= time.monotonic() - began < 10


async def test_name_without_an_address_gives_way_to_the_next(postgres: Postgres) -> None:
    assert await ask(settings_for(postgres, host="nowhere.invalid,127.0.0.1"), "SELECT 1") == 1


async def test_server_that_is_not_the_one_looked_for_gives_way_to_the_next(postgres: Postgres) -> None:
    """As after a failover: the first host is a standby now, or here: a server that takes no writes by default."""
    with closing(psycopg2.connect(postgres.dsn)) as connection:
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE read_only_by_default")
        connection.cursor().execute("ALTER DATABASE read_only_by_default SET default_transaction_read_only = on")
        settings = settings_for(postgres, dbname="read_only_by_default", target_session_attrs="read-write")
        with pytest.raises(RetryableError):
            await ask(settings, "SELECT 1")
        assert await ask(settings_for(postgres, target_session_attrs="read-write"), "SELECT 1") == 1
        connection.cursor().execute("DROP DATABASE read_only_by_default")


async def test_all_addresses_of_a_name_are_tried(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` is often ::1 first, where nobody listens."""
    real = socket.getaddrinfo

    def both(host: str, *others: Any, **more: Any) -> list[Any]:
        if host != "two-addresses.example":
            return real(host, *others, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    assert await ask(settings_for(postgres, host="two-addresses.example"), "SELECT 1") == 1


async def test_event_loop_goes_on_while_a_name_is_looked_up(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that is away must not look like a dead worker to Kafka; and it is not waited for longer than set."""

    def slow(*_: Any, **__: Any) -> list[Any]:
        time.sleep(3)
        raise socket.gaierror(socket.EAI_AGAIN, "made up")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    asking = asyncio.create_task(ask(settings_for(postgres, host="slow.example"), "SELECT 1"))
    longest, last = 0.0, time.monotonic()
    while not asking.done():
        await asyncio.sleep(0.01)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert longest < 1
    with pytest.raises(RetryableError, match="has no address"):
        await asking


async def test_unix_socket_directory_is_left_to_libpq(postgres: Postgres) -> None:
    with pytest.raises(RetryableError):
        await ask(settings_for(postgres, host="/nonexistent"), "SELECT 1")


async def test_missing_role_stops(postgres: Postgres) -> None:
    with pytest.raises(FatalError, match='role "stream_nobody" does not exist'):
        await connect_async(settings_for(postgres), role="stream_nobody", application_name="test")


async def test_cancelled_connecting_leaves_nothing(postgres: Postgres, silent_port: int) -> None:
    connecting = asyncio.create_task(ask(settings_for(postgres, port=str(silent_port)), "SELECT 1"))
    await asyncio.sleep(0.2)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    assert len(selector.get_map()) == 1  # the loop's own wake-up
