"""The first record at or after an offset, for who belongs to no consumer group and wants nothing but its time.

A client's consumer unpacks the batch that a record is in whole, and librdkafka holds more than all of it: 614 MiB were seen for one
record that Kafka keeps in half a megabyte. Here the batch is unpacked by ``record_pieces.py``, no more of it than a piece. Nothing
is fetched before it is asked for, and of few partitions at a time.

What cannot be read has a time all the same, as its batch's header says it: nobody waits less for it than for others.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import TopicPartition

from pipeline.errors import RetryableError
from pipeline.settings import KafkaSettings
from stream_app.chunk import Unread, Unreadable
from stream_app.dead_letters import KafkaRecord
from stream_app.transport.fetched_records import batches_of, first_of

ANSWER_SECONDS: Final = 5.0
_FETCH_BYTES: Final = 16_384
"""One record is wanted; Kafka sends the batch that it is in, whatever its size."""
_FETCH_BYTES_MAX: Final = 1_048_576
"""Of what is asked for at once where no record counts, as in a transaction that was taken back."""
_FETCH_WAIT_MS: Final = 0
"""What is there is answered at once; of a log that ends in control records there is nothing, at each look."""
_AT_ONCE: Final = 8
"""Partitions that are asked about at a time: over a slow line each waits for its answer, and each answer takes memory."""
_READ_REPLICA_VERSION: Final = 11
"""Of a fetch: from then on the answer names a replica between a partition's aborted transactions and its records."""


@dataclass(frozen=True, slots=True)
class _NotRead:
    """In the place of a record that can't be unpacked."""

    timestamp: int
    headers: Sequence[tuple[str, bytes | None]] = ()


FirstRecord: TypeAlias = KafkaRecord | Unread[KafkaRecord] | _NotRead
"""What has a timestamp and headers; of a record that is too large to be held only the first."""


class FirstRecords:
    """Blocking calls, each with a client of its own: none is left behind in a state that it can't get out of."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._bootstrap_servers = settings.kafka_bootstrap_servers
        self._topic = settings.kafka_topic

    def at(self, offsets: Mapping[int, int], *, committed: bool) -> dict[int, FirstRecord]:
        """Of each partition the first record from its offset on, of those that are ``committed`` or of all; none: it is missing.

        Raises :class:`RetryableError` when Kafka does not answer.
        """
        try:
            return asyncio.run(
                asyncio.wait_for(self._ask(offsets, READ_COMMITTED if committed else READ_UNCOMMITTED), ANSWER_SECONDS)
            )
        except (KafkaError, OSError) as error:  # a TimeoutError among them
            raise RetryableError(f"Kafka did not deliver a record: {type(error).__name__}") from error

    async def _ask(self, offsets: Mapping[int, int], isolation_level: int) -> dict[int, FirstRecord]:
        found: dict[int, FirstRecord] = {}
        places = asyncio.Semaphore(_AT_ONCE)

        async def ask(partition: int, offset: int) -> None:
            async with places:
                record = await self._first(client, TopicPartition(self._topic, partition), offset, isolation_level)
            if record is not None:
                found[partition] = record

        client = AIOKafkaClient(bootstrap_servers=self._bootstrap_servers, request_timeout_ms=int(ANSWER_SECONDS * 1_000))
        try:
            await client.bootstrap()
            await client.set_topics([self._topic])
            await asyncio.gather(*(ask(partition, offset) for partition, offset in offsets.items()))
        finally:
            await client.close()
        return found

    async def _first(
        self, client: AIOKafkaClient, partition: TopicPartition, offset: int, isolation_level: int
    ) -> FirstRecord | None:
        leader = client.cluster.leader_for_partition(partition)
        if leader in (None, -1):
            raise RetryableError(f"Kafka did not deliver a record: partition {partition.partition} has no leader")
        bytes_max = _FETCH_BYTES
        while True:
            asked = [(partition.topic, [(partition.partition, offset, bytes_max)])]
            answer = await client.send(leader, FetchRequest(_FETCH_WAIT_MS, 1, bytes_max, isolation_level, asked))
            ((_, (answered,)),) = answer.topics
            error_code, packed = answered[1], answered[-1]
            if error_code:
                raise for_code(error_code)
            if not packed:
                return None
            aborted = answered[-3 if answer.API_VERSION >= _READ_REPLICA_VERSION else -2] or ()
            first, next_offset = first_record(partition, packed, aborted, isolation_level, offset)
            if first is not None:
                return first
            if next_offset <= offset:
                raise RetryableError(f"Kafka did not deliver a record: less than one batch of partition {partition.partition}")
            offset, bytes_max = next_offset, min(2 * bytes_max, _FETCH_BYTES_MAX)


def first_record(
    partition: TopicPartition, packed: bytes, aborted: Sequence[tuple[int, int]], isolation_level: int, offset: int
) -> tuple[FirstRecord | None, int]:
    """Of one answer: its first record from ``offset`` on, and where the next fetch begins."""
    first, next_offset = first_of(partition, packed, aborted, isolation_level, offset)
    if isinstance(first, Unreadable):
        batch = next(batch for batch, _ in batches_of(packed) if batch.next_offset > offset)
        return _NotRead(getattr(batch, "max_timestamp", -1)), next_offset  # the forms before Kafka 0.11 have none
    return first, next_offset
