"""Asks where partitions' logs begin and end, beside the consumer that fetches.

On that one's connection a question would wait behind its long-polling fetch, 1.5 seconds each. There are two consumers, since
aiokafka (0.14.0, ``Fetcher._proc_offset_request``) asks for the end that its isolation level shows: the log end offset, to which
lag is counted, or the last stable offset, at which an open transaction ends what is read.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from stream_app.open_transaction import LogEnd
from stream_app.transport.connecting import start_consumer


class LogReader:
    """Used on one event loop. ``new_consumer`` makes one that is not started yet. Calls raise what aiokafka raises."""

    def __init__(self, new_consumer: Callable[[], AIOKafkaConsumer]) -> None:
        self._ends = _that_joins_no_group(new_consumer(), "read_uncommitted")
        self._stable_ends = _that_joins_no_group(new_consumer(), "read_committed")

    async def start(self) -> None:
        """Connect, once; raises likewise, and has to be stopped then."""
        for consumer in (self._ends, self._stable_ends):
            await start_consumer(consumer)

    async def stop(self) -> None:
        """Disconnect."""
        await asyncio.gather(self._ends.stop(), self._stable_ends.stop())

    async def log_range(self, partition: TopicPartition) -> tuple[int, int]:
        """First offset and log end offset."""
        starts = await self._ends.beginning_offsets([partition])
        ends = await self._ends.end_offsets([partition])
        return starts[partition], ends[partition]

    async def log_ends(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, LogEnd]:
        """Both ends of each."""
        asked = list(partitions)
        ends = await self._ends.end_offsets(asked)
        # Asked for last: one that is below the log's end of before is so now. The other way round each record that comes in between
        # would look like an open transaction.
        stable_ends = await self._stable_ends.end_offsets(asked)
        return {partition: LogEnd(max(ends[partition], stable_ends[partition]), stable_ends[partition]) for partition in asked}


def _that_joins_no_group(consumer: AIOKafkaConsumer, isolation_level: str) -> AIOKafkaConsumer:
    consumer._group_id = None  # noqa: SLF001 - before start() it is only a setting
    consumer._isolation_level = isolation_level  # noqa: SLF001 - likewise
    return consumer
