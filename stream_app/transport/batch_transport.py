"""Faust's transport extension point: one event a partition and fetch, positions from Postgres, no acknowledgements.

Read against faust-streaming 0.15.3 (``transport/consumer.py``, ``transport/drivers/aiokafka.py``, ``tables/recovery.py``) and
aiokafka 0.14.0 (``consumer/fetcher.py``). What is replaced, and why:

- ``_to_message``: the message's value is a whole chunk; per-event delivery costs about 60 us a record.
- ``perform_seek``: Faust calls it after each assignment, and also while a rebalance is going on. The first call after an assignment
  hands the partitions to :class:`Partitions`, which claims them in Postgres and seeks each as soon as it can. Faust would give up
  waiting after ``broker_request_timeout`` and fetch from the committed offset instead; so nothing here waits, and an unclaimed
  partition is paused.
- ``on_partitions_revoked``: what is in hand is written before the group goes on.
- ``commit``: Faust's bookkeeping of acknowledged offsets is off (the topic has ``acks=False``). Positions that are in Postgres are
  committed to Kafka, for the sake of lag tools.
- ``_wait_next_records``: Faust sleeps a flat second when every partition is paused; this wakes when one is resumed.
- ``_read_offset``: Faust drops what is below the highest offset it delivered, so after a seek back it would drop everything. What
  comes out of order is the writer's to judge.
- what was fetched is taken whole and packed by ``fetched_records.py``: it is unpacked where batches are built.
- ``check_errors``: aiokafka keeps what its coordinator and fetcher die of until somebody asks, and Faust never does.
- ``close``: Faust would close aiokafka's client from the wrong event loop when a rebalance meets a stop.
- ``_fetch_records`` and seeking, in the consumer's thread: each chunk carries the number of the seek that it follows and its place
  in the order of fetching, taken where both happen on one thread. So a chunk that Faust drops on its way is noticed.
- questions about the log's ends go through other aiokafka consumers (``log_reader.py``): on the first one's connection they would
  wait behind its long-polling fetch. For the same reason that wait is short (Faust has it fixed), and a partition is paused in
  aiokafka until it is claimed: else its fetches begin at the committed offset and are thrown away.
- ``_metadata_update`` of its client is given a pause by ``metadata_pace.py``.
- the topic's id is asked for beside the logs' ends: aiokafka knows topics by name only, and goes on with one that was made anew.
- ``_isolation_level``: Faust reads what a transaction has taken back, unless it writes in transactions itself.
- ``on_crash`` of the thread: mode prints the error, with its text, past the log.
- ``verify_event_path``: Faust's stall detector would call a pause for back-pressure a stall; /livez and /readyz tell better.
- the consumer's thread connects until it stands, and nothing asks it before: Faust tries once, and its tasks and ours would begin
  to ask while it still does. How aiokafka connects: ``connecting.py``.
"""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode import Service

from pipeline.errors import RetryableError, cause_code
from stream_app.chunk import Chunk
from stream_app.dead_letters import KafkaRecord
from stream_app.positions import Partition
from stream_app.transaction_producers import transaction_producers
from stream_app.transport.consumer_thread import BatchConsumerThread

if TYPE_CHECKING:
    from stream_app.application import StreamApp

log = structlog.get_logger(__name__)

KAFKA_ANSWER_SECONDS = 15.0
LOG_END_SECONDS = 5.0
"""How often the logs' ends are asked for: a paused partition's fetches no longer tell them."""

LAST_COMMIT_SECONDS = 1.0
"""Correctness does not rest on it, and a stop has little time beside FLUSH_SECONDS."""

FETCH_WAIT_SECONDS = 1.0
FETCH_WAIT_SECONDS_WHILE_PAUSED = 0.05
"""A fetch under way does not see a partition that is resumed meanwhile; so it is short while one is paused."""


class _NoReadOffsets(dict[TP, int | None]):
    """Faust's highest delivered offsets: never any."""

    def __missing__(self, _: TP) -> None:
        return None

    def __setitem__(self, _: TP, __: int | None) -> None:
        """Keep nothing."""


class BatchConsumer(driver.Consumer):
    """Faust's consumer, with whole fetches as messages; it is what a partition writer asks of Kafka."""

    app: "StreamApp"
    _thread: BatchConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._assignment_is_new = False
        self._partition_resumed = asyncio.Event()
        self._read_offset = _NoReadOffsets()

    @property
    def thread_has_died(self) -> bool:
        """Whether the consumer's thread has ended and nobody stopped it. May be asked from any thread."""
        thread = self._thread._thread  # noqa: SLF001 - mode's; None until it starts
        return thread is not None and thread.ident is not None and not thread.is_alive() and not self._stopped.is_set()

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def on_start(self) -> None:
        """Wait until the thread has connected: what follows, this consumer's tasks among it, asks it."""
        await super().on_start()
        await self._thread.maybe_start()

    # --- whole fetches as messages

    def _to_message(self, tp: TP, record: Chunk[KafkaRecord]) -> ConsumerMessage:
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            record.next_offset - 1,
            0.0,
            0,
            [],
            None,
            cast("bytes", [record]),  # Faust passes it through (the topic's serializer is raw), and keeps it until the next one
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:  # noqa: ARG002, ASYNC109 - Faust's signature
        if not self.flow_active:
            await self.wait(cast("Any", self.can_resume_flow))
        active = self._get_active_partitions()
        if not active:
            self._partition_resumed.clear()
            try:
                async with asyncio.timeout(FETCH_WAIT_SECONDS):
                    await self._partition_resumed.wait()
            except TimeoutError:
                return {}, active
            if not active:  # an empty set would mean all partitions to aiokafka
                return {}, active
        paused = bool(self._buffered_partitions or self._paused_partitions)
        seconds = FETCH_WAIT_SECONDS_WHILE_PAUSED if paused else FETCH_WAIT_SECONDS
        return await self._getmany(active_partitions=set(active), timeout=seconds), active

    # --- assignment

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Remember that these partitions have to be claimed."""
        self._assignment_is_new = True
        self.app.partitions.told(assigned)
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Have newly assigned partitions claimed; their fetching begins when they are."""
        if not self._assignment_is_new or self.app.should_stop:
            return
        self._assignment_is_new = False
        assigned = self.assignment()
        self._buffered_partitions.clear()
        self.pause_partitions(assigned)
        self.app.partitions.assign([Partition(tp.topic, tp.partition) for tp in assigned], self)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Stop the flow, then write and commit what is in hand."""
        await super().on_partitions_revoked(revoked)
        self._assignment_is_new = False
        await self.give_up()

    async def give_up(self) -> None:
        """Give up every partition: write what is in hand, within the bound, and commit the positions."""
        await self.app.partitions.revoke()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_COMMIT_SECONDS):
                await self.commit()
        self.app.partitions.forget()

    def close(self) -> None:
        """Nothing: see the module. The thread's own stop closes everything."""

    # --- what a partition writer asks

    async def topic_id(self, partition: Partition) -> str | None:  # noqa: ARG002 - the worker has one topic
        """See :class:`stream_app.partition_ports.Log`."""
        return cast("str | None", await self._ask(self._thread.topic_id))

    async def log_range(self, partition: Partition) -> tuple[int, int]:
        """See :class:`stream_app.partition_ports.Log`."""
        return cast("tuple[int, int]", await self._ask(self._thread.log_reader.log_range, _kafka(partition)))

    async def seek_to(self, partition: Partition, offset: int) -> int:
        """See :class:`stream_app.partition_ports.Log`."""
        return cast("int", await self._ask(self._thread.seek_numbered, _kafka(partition), offset))

    def hold(self, partition: Partition) -> None:
        """See :class:`stream_app.partition_ports.Log`. What has been fetched is still delivered, as for Faust's own full buffer."""
        self._get_active_partitions().discard(TP(*partition))
        self._buffered_partitions.add(TP(*partition))

    def release(self, partition: Partition) -> None:
        """See :class:`stream_app.partition_ports.Log`."""
        self._buffered_partitions.discard(TP(*partition))
        self.resume_partitions({TP(*partition)})
        self._partition_resumed.set()

    async def _ask(self, method: Any, *args: Any) -> Any:
        if self._thread.thread_loop.is_closed():  # a crash ends the thread first; what is in hand can still be written
            raise RetryableError("the consumer's thread has ended")
        try:
            async with asyncio.timeout(KAFKA_ANSWER_SECONDS):
                # Not through the thread's method queue, whose two places a waiting fetch and a commit may hold.
                return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(method(*args), self._thread.thread_loop))
        except (KafkaError, TimeoutError) as error:
            raise RetryableError(f"Kafka did not answer ({type(error).__name__})") from error

    # --- committing

    async def commit(
        self,
        topics: Any = None,  # noqa: ARG002 - Faust's signature
        start_new_transaction: bool = True,  # noqa: ARG002, FBT001, FBT002 - Faust's signature
    ) -> bool:
        """Commit to Kafka the positions that are in Postgres. A failure is counted: correctness does not rest on it."""
        offsets = self.app.partitions.uncommitted()
        if not offsets:
            return False
        try:
            await self._ask(self._thread.commit_offsets, {_kafka(partition): offset for partition, offset in offsets.items()})
        except RetryableError as error:
            self.app.metrics.commit_errors.inc()
            log.info("kafka_commit_failed", problem=cause_code(error))
            return False
        self.app.partitions.committed(offsets)
        return True

    @Service.task
    async def _watch_log_ends(self) -> None:
        while not self.should_stop:
            await self.sleep(LOG_END_SECONDS)
            partitions = self.app.partitions.held or [Partition(self.app.settings.kafka_topic, 0)]  # so as to hear of Kafka at all
            if self._stopped.is_set():
                return
            await self._check_errors()
            self.app.health.consumer_moves()
            if self.app.partitions.assigned:
                self.app.kafka.holds(len(self.app.partitions.held))
            try:
                topic_id = await self._ask(self._thread.topic_id)
                ends = await self._ask(self._thread.log_reader.log_ends, [_kafka(partition) for partition in partitions])
            except RetryableError as error:
                await self.wait(self.app.kafka.failed(error))
                continue  # the gauges keep what they knew
            self.app.kafka.answered()
            self.app.partitions.saw_topic(topic_id)
            self.app.partitions.saw_log_ends({Partition(*partition): end for partition, end in ends.items()})
            await self._name_transactions()

    async def _name_transactions(self) -> None:
        """Have each transaction that has been open for long named, once."""
        unnamed = self.app.partitions.unnamed_transactions()
        if unnamed:
            offsets = {partition.partition: offset for partition, offset, _ in unnamed}
            producers = await asyncio.to_thread(transaction_producers, self.app.settings, offsets)
            for partition, _, watch in unnamed:
                watch.name(producers[partition.partition])

    async def _check_errors(self) -> None:
        try:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._thread.check_errors(), self._thread.thread_loop))
        except KafkaError as error:
            log.critical(
                "kafka_refuses", problem=type(error).__name__, what="the worker ends; check the group's rights and settings"
            )
            raise

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Say nothing: see the module."""


# mode gives each service class a logger named after its module; here its starts and stops would look like events of ours.
BatchConsumer.logger = driver.logger


class BatchTransport(driver.Transport):
    """Registered for the URL scheme ``batch``."""

    Consumer = BatchConsumer


def _kafka(partition: Partition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.partition)
