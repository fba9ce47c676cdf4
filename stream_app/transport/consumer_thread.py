"""aiokafka's consumer in a thread of its own: it connects until it stands, fetches, seeks and commits.

What is replaced of Faust's thread, and why, is listed in ``batch_transport.py``.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, cast

import aiokafka
import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from pipeline.errors import RetryableError
from pipeline.kafka_topic import TopicId
from stream_app.chunk import Chunk
from stream_app.dead_letters import KafkaRecord
from stream_app.transport.connecting import start_consumer
from stream_app.transport.fetched_records import PackedRecords, fetch_whole
from stream_app.transport.log_reader import LogReader
from stream_app.transport.metadata_pace import pace_metadata

if TYPE_CHECKING:
    from stream_app.application import StreamApp

log = structlog.get_logger(__name__)

CONNECT_AGAIN_SECONDS = 1.0
SLOW_SECONDS = 3.0
"""A start that still waits for Kafka says so."""

THREAD_STOP_SECONDS = 3.0
"""A stop while Kafka does not answer: what is in Postgres is safe, so it is not waited for long. With the last commit's bound less
than the 5 s that a stop may take beside FLUSH_SECONDS."""

BROKER_WAIT_MILLISECONDS = 250
"""How long a fetch may wait in the broker for a first record. aiokafka has one fetch under way for each broker, so this is also the
longest that a partition which is resumed waits for the others' fetch."""

ANSWER_BYTES_MAX = 4 * 1_048_576
"""Of one answer of a broker, packed, all partitions together: so memory does not grow with their number. A larger record comes."""

PARTITIONS_FETCH_BYTES_MAX = 16 * 1_048_576
PARTITION_FETCH_BYTES_MAX = 1_048_576
"""Of all partitions together, and of one, packed: aiokafka holds a fetch of each. A larger record comes, too."""


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """aiokafka's consumer in its own thread; everything here runs on that thread's loop but ``__post_init__``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._seek_numbers: dict[TopicPartition, int] = {}
        self._next_sequences: dict[TopicPartition, int] = {}
        self._empty: dict[TopicPartition, int] = {}  # offsets of fetches without a record, since the last chunk or seek

    async def on_start(self) -> None:
        """Connect, again and again until it stands, what is asked about the topic and its log, and what fetches."""
        self._topic_id = TopicId(self._stream_app.settings)
        transport = cast("driver.Transport", self.transport)
        while True:
            self.log_reader = LogReader(lambda: self._create_worker_consumer(transport))
            self._consumer = self._create_worker_consumer(transport)
            self.time_started = time.monotonic()
            saying = asyncio.create_task(self._say_that_it_lasts())
            try:
                await self.wait(self._connect())
            except (KafkaError, OSError) as error:  # TimeoutError is one
                await self.log_reader.stop()
                await self._consumer.stop()
                await self.wait(self._tell(error))
                await self.sleep(CONNECT_AGAIN_SECONDS)
                if self.should_stop:
                    return
            else:
                return
            finally:
                saying.cancel()

    async def _connect(self) -> None:
        await self.log_reader.start()
        await start_consumer(self._ensure_consumer())
        fetch_whole(self._ensure_consumer()._fetcher)  # noqa: SLF001 - nothing is assigned yet, so nothing was fetched
        self.parent_loop.call_soon_threadsafe(self._stream_app.kafka.answered)

    async def _say_that_it_lasts(self) -> None:
        await asyncio.sleep(SLOW_SECONDS)
        await self._tell(TimeoutError())

    async def _tell(self, error: Exception) -> None:
        unreachable = RetryableError(f"Kafka did not answer ({type(error).__name__})")
        unreachable.__cause__ = error
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._stream_app.kafka.failed(unreachable), self.parent_loop))

    @property
    def _stream_app(self) -> "StreamApp":
        return cast("StreamApp", self.app)

    async def on_thread_stop(self) -> None:
        """Leave the group and disconnect, within the bound and whatever comes of it: mode waits for ever where this raises."""
        group, _ = await asyncio.gather(
            _within_the_bound(super().on_thread_stop()), _within_the_bound(self.log_reader.stop()), return_exceptions=True
        )
        if group is not None:
            log.warning("group_not_left", seconds=THREAD_STOP_SECONDS, problem=type(group).__name__)

    def _stopped_set(self) -> None:
        if not self.thread_loop.is_closed():  # a crash has ended the thread already: mode would take that for an error
            super()._stopped_set()

    def on_crash(self, msg: str, *fmt: Any) -> None:  # noqa: ARG002 - mode's signature
        """Log what ends the thread: mode would print it, past the log, with what the error says."""
        log.critical("consumer_thread_crashed", exc_info=sys.exc_info()[1])

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = BROKER_WAIT_MILLISECONDS  # noqa: SLF001 - before start() it is only a setting
        consumer._fetch_max_bytes = ANSWER_BYTES_MAX  # noqa: SLF001 - likewise; aiokafka's own is 50 MiB
        pace_metadata(consumer._client)  # noqa: SLF001 - likewise
        consumer._isolation_level = "read_committed"  # noqa: SLF001 - likewise; what a transaction took back was never sent
        return consumer

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Fetch nothing until a partition is claimed; then no more of each than all may have."""
        consumer = self._ensure_consumer()
        each = min(PARTITION_FETCH_BYTES_MAX, PARTITIONS_FETCH_BYTES_MAX // max(1, len(assigned)))
        consumer._fetcher._max_partition_fetch_bytes = each  # noqa: SLF001 - read for each request
        consumer.pause(*(TopicPartition(*partition) for partition in assigned))
        await super().on_partitions_assigned(assigned, generation_id)

    async def _fetch_records(  # type: ignore[override] # chunks, for WholeFetches
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float = 0.0,  # noqa: ASYNC109 - Faust's signature
        max_records: int | None = None,  # noqa: ARG002 - Faust's signature
    ) -> dict[TopicPartition, Chunk[KafkaRecord]]:
        found = await super()._fetch_records(consumer, active_partitions, timeout=timeout, max_records=None)
        # From here on nothing is awaited: no seek comes between taking records and numbering them.
        numbered = {partition: self._numbered(partition, cast("PackedRecords", packed)) for partition, (packed,) in found.items()}
        return {partition: chunk for partition, chunk in numbered.items() if chunk is not None}

    def _numbered(self, partition: TopicPartition, packed: PackedRecords) -> Chunk[KafkaRecord] | None:
        """None where there is no record: what there is in its place is told with the next one."""
        empty = self._empty.pop(partition, 0) + packed.empty_before
        if packed.first is None:
            self._empty[partition] = empty
            return None
        sequence = self._next_sequences.get(partition, 0)
        self._next_sequences[partition] = sequence + 1
        return Chunk(
            packed.first,
            packed.unpack,
            next_offset=packed.next_offset,
            packed_bytes=packed.packed_bytes,
            seek_number=self._seek_numbers.get(partition, 0),
            sequence=sequence,
            empty_before=empty,
            empty_within=packed.empty_within,
        )

    async def check_errors(self) -> None:
        """Raise what aiokafka's coordinator or fetcher has died of, or would tell whoever asks."""
        consumer = self._ensure_consumer()
        consumer._coordinator.check_errors()  # noqa: SLF001 - getone() and getmany() ask it; Faust calls neither
        fetching = consumer._fetcher.error_future  # noqa: SLF001 - likewise
        if fetching.done():
            fetching.result()

    async def seek_numbered(self, partition: TopicPartition, offset: int) -> int:
        """Seek, and return the number that chunks fetched from there on carry."""
        consumer = self._ensure_consumer()
        consumer.seek(partition, offset)  # drops what was fetched for the partition, without an await
        consumer.resume(partition)
        self._next_sequences[partition] = 0
        self._empty.pop(partition, None)
        number = self._seek_numbers[partition] = self._seek_numbers.get(partition, 0) + 1
        return number

    async def topic_id(self) -> str | None:
        """Kafka's id of the topic. Raises :class:`RetryableError`."""
        return await asyncio.to_thread(self._topic_id.read)

    async def commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit offsets of partitions that are still assigned."""
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        mine = {partition: OffsetAndMetadata(offset, "") for partition, offset in offsets.items() if partition in assigned}
        if mine:
            await consumer.commit(mine)


async def _within_the_bound(stop: Awaitable[None]) -> None:
    """Raise TimeoutError, and whatever ``stop`` raises.

    A CancelledError, too: where a commit that was given up took aiokafka's search for the group's coordinator along with it.
    """
    async with asyncio.timeout(THREAD_STOP_SECONDS):
        await stop


# mode gives each service class a logger named after its module; here its starts and stops would look like events of ours.
BatchConsumerThread.logger = driver.logger
