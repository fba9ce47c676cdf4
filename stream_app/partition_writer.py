"""One partition, from its claim to the last write: records in, rows and dead letters out.

Promise: what this object writes follows, without gap or overlap, the position that its claim returned. It holds because

1. the claim returns the position, and reading starts there;
2. a chunk counts only if it was fetched after that seek and is the next one in the order of fetching; if Faust dropped one between
   (it does so around rebalances), the partition is claimed and read again. So a gap between two chunks is one in Kafka's log;
3. a batch is written under the claim and only on top of the position it was built for (``claimed_writer.py``).

How it could break: building a batch from records that were not received in one unbroken run, or going on with a claim after a
write was refused. Either drops everything that was fetched and claims again: it will be read again.

Decoding and masking of the next batch happen while the last one is being written; never more than these two are under way, and
no more of all partitions together than there are turns (``partition_ports.Budget``).
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum

import structlog

from pipeline.errors import FatalError
from stream_app.batch import Batch, BatchBuilder, KafkaRecord
from stream_app.chunk import Chunk
from stream_app.claimed_writer import RECLAIM_SECONDS, RETRY_SECONDS_MIN, ClaimedWriter, ClaimLostError, retrying
from stream_app.claiming import Claimed, Claiming
from stream_app.lag import Lag
from stream_app.metrics import PartitionGauges, WorkerMetrics
from stream_app.open_transaction import LogEnd, TransactionWatch
from stream_app.partition_buffer import BuiltBatch, PartitionBuffer
from stream_app.partition_ports import Budget, Log, Store
from stream_app.position_check import is_other_topic
from stream_app.positions import Claim, Partition
from stream_app.postgres.table_check import TableError
from stream_app.refusals import RefusedRun, RowsRefused, RowsRefusedError
from stream_app.refused_rows import RefusedRows
from stream_app.stall_guard import StallGuard
from stream_app.windows import Trigger, WindowPolicy

log = structlog.get_logger(__name__)

POSITION_CHECK_SECONDS = 30.0
"""An idle partition asks Postgres this often whether its position still stands."""


class State(StrEnum):
    """What a partition is doing; shown by /readyz."""

    CLAIMING = "claiming"
    WRITING = "writing"
    FENCED = "fenced"
    STOPPED = "stopped"
    CLOSED = "closed"


class PartitionWriter:
    """Owns one partition while the consumer group gives it to this worker. Used from the event loop only."""

    def __init__(
        self,
        partition: Partition,
        *,
        kafka: Log,
        store: Store,
        builder: BatchBuilder,
        policy: WindowPolicy,
        refused_rows_max: int,
        refused_rows: RefusedRows,
        budget: Budget,
        on_budget_changed: Callable[[], None],
        metrics: WorkerMetrics,
        monotonic: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.partition = partition
        self.state = State.CLAIMING
        self.problem: str | None = None
        self.refused: RowsRefused | None = None
        """Why it stands, if that is so because Postgres refuses row after row."""
        self.lag = Lag(wall_clock)
        self.transaction = TransactionWatch(partition.topic, partition.partition, monotonic)
        self._kafka = kafka
        self._store = store
        self._builder = builder
        self._budget = budget
        self._on_budget_changed = on_budget_changed
        self._metrics = metrics
        self._monotonic = monotonic
        self._wall_clock = wall_clock
        self._log = log.bind(topic=partition.topic, partition=partition.partition)
        self._buffer = PartitionBuffer(
            partition, builder=builder, policy=policy, budget=budget, metrics=metrics, monotonic=monotonic
        )
        self._claiming = Claiming(partition, kafka=kafka, store=store, metrics=metrics, log=self._log, wall_clock=wall_clock)
        self._refused_rows = refused_rows
        self._refused_run = RefusedRun(refused_rows_max, monotonic)
        self._expected_offset: int | None = None  # of the next chunk; None while nothing may be received
        self._received_for: Claim | None = None
        self._seek_number = -1
        self._next_sequence = 0
        self._stall_guard = StallGuard(monotonic)
        self._reads_again = False  # something did not come as it should: claim, and read from the position again
        self._changed = asyncio.Event()
        self._closing = asyncio.Event()
        self._paused = False
        self._gap_tasks: set[asyncio.Task[None]] = set()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"write {partition.topic}/{partition.partition}")

    # --- what others call

    def receive(self, chunk: Chunk[KafkaRecord]) -> None:
        """Take a chunk in. When one is missing before it, the partition is claimed and read again."""
        expected = self._expected_offset
        if expected is None or chunk.seek_number != self._seek_number:
            return  # not claimed yet, closing, or fetched before the last seek: it will be read again, or has been
        if chunk.sequence != self._next_sequence:
            self._read_again("a fetched chunk was dropped on the way")
            return
        if chunk.first_offset < expected:
            self._read_again("the log went back")
            return
        if chunk.first_offset > expected:
            self._gap_tasks.add(task := asyncio.create_task(self._claiming.explain_gap(expected, chunk)))
            task.add_done_callback(self._gap_tasks.discard)
        self._buffer.add(chunk)
        self._next_sequence += 1  # only now: what could not be kept must not count as received
        self._expected_offset = chunk.next_offset
        if chunk.next_offset > (self.lag.log_end_offset or 0):
            self.lag.log_ends_at(chunk.next_offset)
        self._metrics.fetched(chunk.rows, chunk.bytes)
        self._changed.set()
        self.follow_budget()
        if self._budget.exceeded:
            self._on_budget_changed()

    def saw_log_end(self, end: LogEnd) -> None:
        """The log's end, as Kafka has just told it. Called every few seconds."""
        self.lag.log_ends_at(end.log_end_offset)
        self.transaction.saw(end)
        if self._stall_guard.is_stalled(None if self._paused else self._expected_offset, end.last_stable_offset):
            self._read_again("nothing came although the log goes on")

    def saw_topic(self, topic_id: str | None) -> None:
        """The topic's id, likewise. Another than that of the claim: what comes now is not what the position is for."""
        claim = self._received_for
        if claim is not None and self._expected_offset is not None and is_other_topic(claim, topic_id):
            self._read_again("the topic was made anew")

    def follow_budget(self) -> None:
        """Fetch while there is room for what comes, of our own and of all partitions together."""
        if self._expected_offset is None:
            return
        if self._buffer.is_full or self._budget.exceeded:
            self._pause()
        elif self._paused:
            self._paused = False
            self._kafka.release(self.partition)

    async def close(self, seconds: float) -> None:
        """Write what is in hand, for ``seconds`` at most, and stop. What was not written will be read again by the next owner."""
        self._expected_offset = None
        self._closing.set()
        self._changed.set()
        _, pending = await asyncio.wait({self._task}, timeout=seconds)
        if pending:
            self._log.warning("flush_given_up", seconds=seconds, records=self._buffer.records)
        while not self._task.done():
            self._task.cancel()  # again and again: asyncio.wait_for of Python 3.11 swallows one that comes together with its answer
            await asyncio.wait({self._task}, timeout=1)
        for task in self._gap_tasks:
            task.cancel()
        self._buffer.clear()
        self._on_budget_changed()
        self.state = State.CLOSED

    @property
    def writes(self) -> bool:
        """Whether the partition is claimed and being written."""
        return self.state is State.WRITING

    def gauges(self) -> PartitionGauges:
        """What the partition shows; called from the metrics thread too, so it only reads."""
        return PartitionGauges(
            topic=self.partition.topic,
            partition=self.partition.partition,
            next_offset=self.lag.next_offset,
            log_end_offset=self.lag.log_end_offset,
            last_stable_offset=None if self.transaction.end is None else self.transaction.end.last_stable_offset,
            open_transaction_seconds=self.transaction.seconds,
            oldest_unwritten_seconds=self.lag.oldest_unwritten_seconds(self._buffer.oldest_sent_at_ms),
            buffered_records=self._buffer.records,
            buffered_bytes=self._buffer.bytes,
            stopped=self.state is State.STOPPED,
            refused=self.refused,
            paused=self._paused,
        )

    # --- the life of a claim

    async def _run(self) -> None:
        while not self._closing.is_set():
            self.state = State.CLAIMING
            try:
                claimed = await self._claim()
                if claimed is not None:
                    self.state = State.WRITING
                    await self._write_windows(claimed)
                    await self._rest(RETRY_SECONDS_MIN)
            except ClaimLostError as lost:
                self._stop_receiving()
                if lost.fenced:
                    self.state, self.problem = State.FENCED, lost.why
                await self._rest(lost.seconds)
            except FatalError as error:
                self._stop_receiving()
                self._stopped_by(error)
                await self._rest(RECLAIM_SECONDS)
            except Exception as error:  # noqa: BLE001 - a defect of ours must neither end the partition in silence nor skip a record
                self._stop_receiving()
                self._log.exception("partition_failed", next_offset=self.lag.next_offset, tried_again_every_seconds=RECLAIM_SECONDS)
                self.state, self.problem = State.STOPPED, f"unexpected {type(error).__name__}: see the log line partition_failed"
                await self._rest(RECLAIM_SECONDS)

    def _stopped_by(self, error: FatalError) -> None:
        """Say it once. The offset is that of the position: all before it is written."""
        refused, problem = error.found if isinstance(error, RowsRefusedError) else None, str(error)
        if refused is None and self.state is State.WRITING:
            problem = f"{problem} (from offset {self.lag.next_offset} on)"
        if self.problem != problem:
            found = {} if refused is None else refused.named()
            self._log.error("partition_stopped", problem=problem, tried_again_every_seconds=RECLAIM_SECONDS, **found)
        if not isinstance(error, TableError):  # which is what is asked next time, before a row is tried
            self.refused = refused
        self.state, self.problem = State.STOPPED, problem

    async def _claim(self) -> ClaimedWriter | None:
        """Claim the partition and start fetching at its position; None when closing."""
        async for attempt in retrying("claim", self._log, self._sleep):
            with attempt:
                if self._closing.is_set():
                    return None
                found = await self._claiming.claim()
                self._builder.replay_key = found.replay_key
                claimed = self._claimed_writer(found)
                if found.position < found.log_start:
                    await self._pass_lost(claimed, found.log_start)
                await self._start_receiving(found.claim, claimed.next_offset, found.log_end)
                self._metrics.claims.inc()
                self._log.info(
                    "partition_claimed",
                    epoch=found.claim.epoch,
                    next_offset=claimed.next_offset,
                    log_end_offset=found.log_end,
                )
                return claimed
        return None

    async def _pass_lost(self, claimed: ClaimedWriter, log_start: int) -> None:
        """Move the position to where the log begins now, be it without a record to write: the loss is counted once."""
        position = claimed.next_offset
        await claimed.write(replace(self._builder.begin(self.partition, position), next_offset=log_start))
        self._claiming.count_lost(log_start - position, position)

    def _claimed_writer(self, found: Claimed) -> ClaimedWriter:
        self._refused_run.begin()
        return ClaimedWriter(
            found.claim,
            found.position,
            found.newest_ms,
            store=self._store,
            builder=self._builder,
            refused_run=self._refused_run,
            refused_rows=self._refused_rows,
            metrics=self._metrics,
            log=self._log,
            sleep=self._sleep,
            on_written=self._written,
        )

    async def _start_receiving(self, claim: Claim, position: int, log_end: int) -> None:
        self.lag.moved_to(position)
        self.lag.log_ends_at(log_end)
        self._seek_number = await self._kafka.seek_to(self.partition, position)
        # Only now: before, a chunk with the former number would be taken for one that follows this seek.
        self._expected_offset, self._next_sequence, self._reads_again = position, 0, False
        self._received_for = claim
        self._paused = False
        self._kafka.release(self.partition)

    def _read_again(self, why: str) -> None:
        self._log.info("partition_read_again", why=why, next_offset=self.lag.next_offset)
        self._stop_receiving()
        self._reads_again = True
        self._changed.set()

    def _stop_receiving(self) -> None:
        self._expected_offset = None
        self._pause()
        self._buffer.clear()
        self._on_budget_changed()

    # --- batches

    async def _write_windows(self, claimed: ClaimedWriter) -> None:
        """Build batch after batch and write each while the next is built, until closing or until the claim is lost."""
        writing: asyncio.Task[None] | None = None
        built_to = claimed.next_offset
        try:
            while (trigger := await self._next_trigger(claimed, writing)) is not None:
                built = await self._buffer.build(built_to)
                self.follow_budget()
                if writing is not None:
                    await writing
                if built is None:
                    if self._buffer.unreadable is not None:
                        raise self._buffer.unreadable  # now that all before it is written
                    continue
                built_to = built.batch.next_offset
                writing = asyncio.create_task(self._write(claimed, built, trigger))
                writing.add_done_callback(lambda _: self._changed.set())
                del built  # else it would be kept, megabytes a partition, until the next window closes
                await asyncio.sleep(0)  # what the socket takes of its statement goes out before the next batch keeps the event loop
            if writing is not None:
                await writing
        finally:
            try:
                if writing is not None:
                    writing.cancel()
                    await asyncio.gather(writing, return_exceptions=True)
            finally:
                self._buffer.let_go_of_all()

    async def _next_trigger(self, claimed: ClaimedWriter, writing: "asyncio.Task[None] | None") -> Trigger | None:
        """Wait for a window to close. None: there will be none under this claim."""
        while True:
            self._changed.clear()
            if writing is not None and writing.done():
                writing.result()  # an error ends the claim now, not when the next window is full
                writing = None
            if self._reads_again:
                return None
            if self._closing.is_set():
                return Trigger.FLUSH if self._buffer.waiting_records else None
            now = self._monotonic()
            trigger = self._buffer.due(now)
            # While the last batch is being written there is nothing to gain from closing early: let the window fill. And a second
            # batch wants room; without it, it is built when the first one is written.
            if trigger is not None and not (writing is not None and (trigger is Trigger.SECONDS or self._budget.exceeded)):
                return trigger
            idle = writing is None and not self._buffer.waiting_records
            timeout = None if writing is not None else POSITION_CHECK_SECONDS if idle else self._buffer.seconds_until_due(now)
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait()
            except TimeoutError:
                if idle:
                    await claimed.check()

    async def _write(self, claimed: ClaimedWriter, built: BuiltBatch, trigger: Trigger) -> None:
        started, batch = self._monotonic(), built.batch
        try:
            await claimed.write(batch)
        finally:
            self._buffer.let_go(built)  # also where it failed: the next one may wait for the turn that this one has
        self._metrics.write_seconds.observe(self._monotonic() - started)
        self._metrics.batches.labels(trigger.value).inc()
        self._metrics.batch_rows.observe(batch.records)
        self._metrics.records_with_extra_keys.inc(batch.extra_keys)
        for (field, reduction), offsets in batch.reduced_offsets.items():
            self._metrics.values_reduced.labels(field, reduction.value).inc(len(offsets))
        self._on_budget_changed()

    def _written(self, part: Batch) -> None:
        """A batch, or a part of one, is in Postgres."""
        self.lag.moved_to(part.next_offset)
        self.problem = self.refused = None
        self._metrics.sent_to_written.observe_all(part.first_sent_at_ms, self._wall_clock())

    # --- waiting

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._kafka.hold(self.partition)

    async def _sleep(self, seconds: float) -> None:
        """Between attempts. Closing ends the pause: what little time is left then goes into quick attempts."""
        if self._closing.is_set():
            await asyncio.sleep(min(seconds, RETRY_SECONDS_MIN))
        else:
            await self._rest(seconds)

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
