"""Has aiokafka ask for the cluster's metadata again and again, with pauses, while a topic is gone or a partition has no leader.

Read against aiokafka 0.14.0: ``Fetcher._fetch_requests_routine`` forces an update for as long as it finds no leader, and each one
ends at once: a whole core, and a thousand log lines a second. A consumer without a partition, on the other hand, forces none: one
that joins its group while Kafka has just come back and knows no node yet would be given nothing until the metadata is too old.
"""

import asyncio
from collections.abc import Collection
from typing import Any

PAUSE_SECONDS = 0.5
"""Between two requests, and so how late a leader that is back is seen."""


def pace_metadata(client: Any) -> None:
    """Change the client of one aiokafka consumer, before it is started."""
    update = client._metadata_update  # noqa: SLF001 - what its one background task calls
    last = float("-inf")

    async def paced(cluster: Any, topics: Collection[str]) -> bool:
        nonlocal last
        now = asyncio.get_running_loop().time()
        if any(_lacks_leader(cluster, topic) for topic in topics):
            await asyncio.sleep(max(0.0, last + PAUSE_SECONDS - now))
        last = asyncio.get_running_loop().time()
        updated = bool(await update(cluster, topics))
        if any(_lacks_leader(cluster, topic) for topic in topics):
            asyncio.get_running_loop().call_later(PAUSE_SECONDS, client.force_metadata_update)
        return updated

    client._metadata_update = paced  # noqa: SLF001


def _lacks_leader(cluster: Any, topic: str) -> bool:
    partitions = cluster.partitions_for_topic(topic)
    return not partitions or cluster.available_partitions_for_topic(topic) != partitions
