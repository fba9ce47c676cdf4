"""By which bootstrap server a consumer connects; made-up connections, virtual time, aiokafka's own client."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import virtual_time
from aiokafka import client as aiokafka_client
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError

from stream_app.transport import connecting
from stream_app.transport.connecting import CONNECT_SECONDS

ANSWER_SECONDS = 0.5


class MadeUp:
    """Connections to hosts whose names say how they behave."""

    def __init__(self) -> None:
        self.connected: list[str] = []
        self.closed: list[str] = []

    async def connect(self, host: str, port: int, **_: Any) -> Any:
        self.connected.append(f"{host}:{port}")
        if host.startswith("swallowing"):
            await asyncio.sleep(CONNECT_SECONDS)
            raise TimeoutError
        if host.startswith("refusing"):
            raise ConnectionRefusedError
        return SimpleNamespace(send=lambda _: self._answer(host), close=lambda: self.closed.append(f"{host}:{port}"))

    async def _answer(self, host: str) -> Any:
        await asyncio.sleep(3_600 if host.startswith("silent") else ANSWER_SECONDS)
        return SimpleNamespace(brokers=[] if host.startswith("fenced") else [(1, "kafka", 9092, None)])


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    network = MadeUp()
    monkeypatch.setattr(connecting, "_connect_soon", network.connect)
    return network


async def chosen(servers: str) -> tuple[str, float]:
    """Which one, and after how long."""
    client = AIOKafkaClient(bootstrap_servers=servers.split(","))
    await connecting._choose_bootstrap_server(client)
    (server,) = client._bootstrap_servers
    return server, asyncio.get_running_loop().time()


@pytest.mark.parametrize("bad", ["silent:1", "swallowing:1", "refusing:1", "fenced:1", "silent:1,swallowing:2,refusing:3,fenced:4"])
def test_the_first_to_answer_is_chosen_and_no_bad_one_is_waited_for(made_up: MadeUp, bad: str) -> None:
    assert virtual_time.run(chosen(f"{bad},good:9092")) == ("good:9092", ANSWER_SECONDS)
    assert "good:9092" in made_up.closed


def test_an_ipv6_address_keeps_its_brackets(made_up: MadeUp) -> None:
    assert virtual_time.run(chosen("[::1]:9092")) == ("[::1]:9092", ANSWER_SECONDS)
    assert made_up.connected == ["::1:9092"]


@pytest.mark.parametrize("bad", ["silent:1", "swallowing:1", "refusing:1", "fenced:1", "silent:1,swallowing:2,refusing:3,fenced:4"])
def test_where_none_answers_it_ends_within_the_bound(made_up: MadeUp, bad: str) -> None:
    async def scene() -> float:
        with pytest.raises(KafkaConnectionError):
            await chosen(bad)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(scene()) <= CONNECT_SECONDS
    assert len(made_up.connected) == len(bad.split(","))


def test_a_start_that_learns_of_no_node_has_failed(made_up: MadeUp) -> None:  # noqa: ARG001 - it is patched in
    """All may have been fenced between the two questions; aiokafka would take it for a start, and die of it later."""

    async def scene() -> None:
        client = AIOKafkaClient(bootstrap_servers=["good:9092"])
        consumer: Any = SimpleNamespace(_client=client, start=lambda: asyncio.sleep(0))
        with pytest.raises(KafkaConnectionError, match="no node takes clients"):
            await connecting.start_consumer(consumer)

    virtual_time.run(scene())


def test_each_connection_has_its_own_bound_and_answers_on_it_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aiokafka connects by this function wherever it does, and an answer may take as long as a rebalance."""
    bounds: list[float] = []

    async def connect(connection: AIOKafkaConnection) -> None:
        bounds.append(connection._request_timeout)

    monkeypatch.setattr(AIOKafkaConnection, "connect", connect)

    async def scene() -> None:
        connection = await aiokafka_client.create_conn("kafka", 9092, request_timeout_ms=45_000, client_id="made-up")
        assert (bounds, connection._request_timeout) == ([CONNECT_SECONDS], 45.0)

    asyncio.run(scene())


def test_a_connection_that_takes_too_long_says_so_in_aiokafkas_log(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(_: AIOKafkaConnection) -> None:
        raise TimeoutError

    monkeypatch.setattr(AIOKafkaConnection, "connect", connect)
    with pytest.raises(TimeoutError, match=r"kafka:9092 does not answer within 10 s"):
        asyncio.run(aiokafka_client.create_conn("kafka", 9092, request_timeout_ms=45_000))
