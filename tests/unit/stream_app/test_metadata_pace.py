"""A topic that is gone is asked for now and then, on virtual time, with aiokafka's own client and no server."""

import asyncio
from typing import Any

import virtual_time
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.protocol.metadata import MetadataResponse_v1

from stream_app.transport.metadata_pace import PAUSE_SECONDS, pace_metadata

BROKERS = [(1, "127.0.0.1", 1, None)]
GONE: tuple[int, str, bool, list[tuple[int, int, int, list[int], list[int]]]] = (3, "logins", False, [])
WITHOUT_LEADER = (0, "logins", False, [(5, 0, -1, [1], [1])])
THERE = (0, "logins", False, [(0, 0, 1, [1], [1])])


async def updates(topic: Any, seconds: float) -> int:
    """How many updates a client makes that is told this of its topic and asks again at once."""
    client, asked = AIOKafkaClient(), 0

    async def update(cluster: ClusterMetadata, _: Any) -> bool:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        cluster.update_metadata(MetadataResponse_v1(BROKERS, 1, [topic]))
        return True

    client._metadata_update = update
    pace_metadata(client)
    client._topics = {"logins"}
    client._sync_task = asyncio.create_task(client._md_synchronizer())
    try:
        async with asyncio.timeout(seconds):
            while True:
                await client.force_metadata_update()
    except TimeoutError:
        return asked
    finally:
        client._sync_task.cancel()
        await asyncio.gather(client._sync_task, return_exceptions=True)


def test_a_topic_that_is_gone_is_asked_for_with_pauses() -> None:
    assert virtual_time.run(updates(GONE, 10)) <= 10 / PAUSE_SECONDS + 1


def test_a_partition_without_a_leader_likewise() -> None:
    assert virtual_time.run(updates(WITHOUT_LEADER, 10)) <= 10 / PAUSE_SECONDS + 1


def test_a_topic_that_is_there_is_asked_for_at_once() -> None:
    assert virtual_time.run(updates(THERE, 1)) > 50


def test_a_client_that_was_told_of_no_partition_asks_again_by_itself_until_it_is() -> None:
    """Nobody forces an update: the consumer has been given no partition."""

    async def scene() -> float:
        client, told = AIOKafkaClient(), iter([GONE, WITHOUT_LEADER, THERE])
        done = asyncio.Event()

        async def update(cluster: ClusterMetadata, _: Any) -> bool:
            topic: Any = next(told)
            cluster.update_metadata(MetadataResponse_v1(BROKERS, 1, [topic]))
            if topic is THERE:
                done.set()
            return True

        client._metadata_update = update
        pace_metadata(client)
        client._topics = {"logins"}
        client._sync_task = asyncio.create_task(client._md_synchronizer())
        client.force_metadata_update()
        await done.wait()
        client._sync_task.cancel()
        await asyncio.gather(client._sync_task, return_exceptions=True)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(scene()) <= 3 * 2 * PAUSE_SECONDS
