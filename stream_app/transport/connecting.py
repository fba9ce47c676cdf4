"""How aiokafka's clients connect: with a bound of its own for each connection, and by whichever bootstrap server answers first.

A bootstrap server that knows no node yet, as while all are fenced, counts as none: aiokafka would start, and its coordinator die.

aiokafka has one time for a connection and for an answer, and Kafka may hold the answer to a JoinGroup back for as long as a
rebalance takes. So an address that takes connections and never answers, or swallows SYNs, would cost most of a minute each time: at
a start once for each such bootstrap server before a good one, and later with all other connections of the client waiting behind it.

Read against aiokafka 0.14.0 (``client.py``: ``bootstrap``, ``_get_conn``; ``conn.py``: ``create_conn``). Runs on the event loop of
the consumer's thread.
"""

import asyncio
from typing import Any, Final

import aiokafka
from aiokafka import client as aiokafka_client
from aiokafka.conn import AIOKafkaConnection, collect_hosts
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest

CONNECT_SECONDS: Final = 10.0
"""For a connection and its first answer; a broker that is busier than that is tried again."""

NO_NODE: Final = "no node takes clients"
"""So Kafka says while its nodes are fenced: right after a start, or after a pause of a Kafka with one node."""

_MILLISECONDS: Final = 1_000


async def _connect_soon(host: str, port: int, **options: Any) -> AIOKafkaConnection:
    """In the place of aiokafka's ``create_conn``: what is asked later has the time that the client's setting gives."""
    answer_milliseconds: int = options.pop("request_timeout_ms")
    connection = AIOKafkaConnection(
        host, port, request_timeout_ms=min(answer_milliseconds, int(CONNECT_SECONDS * _MILLISECONDS)), **options
    )
    try:
        await connection.connect()
    except TimeoutError as error:  # aiokafka logs what it says, and it says nothing
        raise TimeoutError(f"{host}:{port} does not answer within {CONNECT_SECONDS:g} s") from error
    connection._request_timeout = answer_milliseconds / _MILLISECONDS  # noqa: SLF001 - see the module
    return connection


aiokafka_client.create_conn = _connect_soon


async def start_consumer(consumer: aiokafka.AIOKafkaConsumer) -> None:
    """Connect it, once. Raises a KafkaError or an OSError, TimeoutError among them; the consumer has to be stopped then."""
    client = consumer._client  # noqa: SLF001 - see the module
    await _choose_bootstrap_server(client)
    await consumer.start()
    if not client.cluster.brokers():  # its coordinator would die of it
        raise KafkaConnectionError(NO_NODE)


async def _choose_bootstrap_server(client: Any) -> None:
    """Leave ``client``, which is not started, the one bootstrap server that answered first."""
    servers = [(host, port) for host, port, _ in collect_hosts(client._bootstrap_servers)]  # noqa: SLF001 - see the module
    asking = [asyncio.create_task(_asked(client, host, port)) for host, port in servers]
    try:
        for asked in asyncio.as_completed(asking):
            try:
                client._bootstrap_servers = [await asked]  # noqa: SLF001 - only bootstrap() reads it
            except (KafkaError, OSError) as error:  # TimeoutError is one
                failure = error
            else:
                return
        raise KafkaConnectionError("no bootstrap server answers") from failure
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def _asked(client: Any, host: str, port: int) -> str:
    """The server, once it has answered what bootstrap() will ask."""
    connection = await _connect_soon(host, port, client_id=client._client_id, request_timeout_ms=client._request_timeout_ms)  # noqa: SLF001
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            metadata = await connection.send(MetadataRequest([]))
    finally:
        connection.close()
    if not metadata.brokers:
        raise KafkaConnectionError(NO_NODE)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
