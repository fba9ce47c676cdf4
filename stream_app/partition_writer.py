"""One partition, from its claim to the last write: records in, rows and dead letters out.

Promise: what this object writes follows, without gap or overlap, the position that its claim returned. It holds because

1. the claim returns the position, and reading starts there;
2. a chunk counts only if it was fetched after that seek and is the next one in the order of fetching; if Faust dropped one between
   (it does so around rebalances), the partition is claimed and read again. So a gap between two chunks is one in Kafka's log;
3. a batch is written under the claim and only on top of the position it was built for (see ``postgres/batch_writer.py``);
4. an unknown outcome is never guessed: the position in Postgres says whether the batch is in.

How it could break: building a batch from records that were not received in one unbroken run, or going on with a claim after a
write was refused. Either drops everything that was fetched and claims again: it will be read again.

Decoding and masking of the next batch happen while the last one is being written; never more than these two are under way.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from pipeline.errors import FatalError, RetryableError
from stream_app.batch import Batch, BatchBuilder, KafkaRecord
from stream_app.message_headers import read_headers
from stream_app.metrics import PartitionGauges, WorkerMetrics
from stream_app.positions import Claim, Partition, Position, Written
from stream_app.postgres.errors import RowRefusedError
from stream_app.windows import Trigger, Window, WindowPolicy

log = structlog.get_logger(__name__)

RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 10.0
RECLAIM_SECONDS = 15.0
"""A partition that was fenced or stopped, and that the consumer group still gives to us, is claimed again after this long: a fence
by a worker that had not noticed its own end would otherwise leave the partition with nobody."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The records of one fetch of one partition: the ``sequence``-th chunk (from 0) since the ``seek_number``-th seek."""

    records: Sequence[KafkaRecord]
    seek_number: int
    sequence: int


class Log(Protocol):
    """What a partition asks of Kafka. Each call may raise :class:`RetryableError`."""

    async def log_range(self, partition: Partition) -> tuple[int, int]:
        """The first offset that the log still has, and its end (the offset of the next record to come)."""

    async def committed(self, partition: Partition) -> int | None:
        """The consumer group's committed offset, if it has one."""

    async def seek(self, partition: Partition, offset: int) -> int:
        """Fetch from ``offset`` on; the number that chunks fetched from there carry as ``seek_number``."""

    def pause(self, partition: Partition) -> None:
        """Fetch no more until :meth:`resume`."""

    def resume(self, partition: Partition) -> None:
        """Fetch again."""


class Store(Protocol):
    """What a partition asks of Postgres; :class:`stream_app.postgres.batch_writer.BatchWriter`, or a test's own."""

    async def position(self, partition: Partition) -> Position | None: ...

    async def claim(self, partition: Partition, start: int) -> tuple[Claim, int]: ...

    async def write(self, claim: Claim, batch: Batch) -> Written: ...


class Budget:
    """Memory that all partitions of a worker share for records that wait to be written."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes_used = 0

    @property
    def exceeded(self) -> bool:
        """Whether fetching must wait."""
        return self.bytes_used >= self.bytes_max


class State(StrEnum):
    """What a partition is doing; shown by /readyz."""

    CLAIMING = "claiming"
    WRITING = "writing"
    FENCED = "fenced"
    STOPPED = "stopped"
    CLOSED = "closed"


class _ClaimLostError(Exception):
    """The claim can't be used any more: claim again, at once or after ``seconds``."""

    def __init__(self, why: str, seconds: float = 0.0) -> None:
        super().__init__(why)
        self.why = why
        self.seconds = seconds


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
        budget: Budget,
        on_budget_freed: Callable[[], None],
        metrics: WorkerMetrics,
        monotonic: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.partition = partition
        self.state = State.CLAIMING
        self.problem: str | None = None
        self.next_offset = 0
        self.log_end_offset: int | None = None
        self._kafka = kafka
        self._store = store
        self._builder = builder
        self._policy = policy
        self._budget = budget
        self._on_budget_freed = on_budget_freed
        self._metrics = metrics
        self._monotonic = monotonic
        self._wall_clock = wall_clock
        self._log = log.bind(topic=partition.topic, partition=partition.partition)
        self._window: Window[KafkaRecord] = Window(policy)
        self._expected_offset: int | None = None  # of the next chunk; None while nothing may be received
        self._seek_number = -1
        self._next_sequence = 0
        self._newest_written_ms: int | None = None
        self._lost_claim: _ClaimLostError | None = None
        self._changed = asyncio.Event()
        self._closing = asyncio.Event()
        self._paused = False
        self._gap_tasks: set[asyncio.Task[None]] = set()
        self._in_hand: list[tuple[Batch, int]] = []  # built and not yet written, with their bytes in memory: at most two
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"write {partition.topic}/{partition.partition}")

    # --- what others call

    def receive(self, chunk: Chunk) -> None:
        """Take a chunk in. When one is missing before it, the partition is claimed and read again."""
        expected = self._expected_offset
        if expected is None or chunk.seek_number != self._seek_number:
            return  # not claimed yet, closing, or fetched before the last seek: it will be read again, or has been
        if chunk.sequence != self._next_sequence:
            self._lose_claim("a fetched chunk was dropped on the way")
            return
        records = chunk.records
        if records[0].offset < expected:
            self._lose_claim("the log went back")
            return
        if records[0].offset > expected:
            self._gap_tasks.add(task := asyncio.create_task(self._explain_gap(expected, records[0].offset)))
            task.add_done_callback(self._gap_tasks.discard)
        self._next_sequence += 1
        self._expected_offset = records[-1].offset + 1
        if self.log_end_offset is not None:
            self.log_end_offset = max(self.log_end_offset, self._expected_offset)
        self._metrics.records_received.inc(len(records))
        self._budget.bytes_used += self._window.add(records, self._monotonic())
        self._changed.set()
        if self._too_much_waits():
            self._pause()

    def budget_freed(self) -> None:
        """Fetch again if it was this that fetching waited for."""
        if self._paused and self._expected_offset is not None and not self._too_much_waits():
            self._paused = False
            self._kafka.resume(self.partition)

    async def close(self, seconds: float) -> None:
        """Write what is in hand, for ``seconds`` at most, and stop. What was not written will be read again by the next owner."""
        self._expected_offset = None
        self._closing.set()
        self._changed.set()
        _, pending = await asyncio.wait({self._task}, timeout=seconds)
        if pending:
            self._log.warning("flush_given_up", seconds=seconds, records=self._window.rows + sum(b.records for b, _ in self._in_hand))
            self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        for task in self._gap_tasks:
            task.cancel()
        self._budget.bytes_used -= self._window.clear()
        self._on_budget_freed()
        self.state = State.CLOSED

    @property
    def writes(self) -> bool:
        """Whether the partition is claimed and being written."""
        return self.state is State.WRITING

    def gauges(self) -> PartitionGauges:
        """What the partition shows; called from the metrics thread too, so it only reads."""
        in_hand = [batch.oldest_sent_at_ms for batch, _ in list(self._in_hand) if batch.oldest_sent_at_ms is not None]
        oldest = self._window.oldest
        if in_hand:
            oldest_ms: int | None = min(in_hand)
        elif oldest is not None:
            oldest_ms = int(read_headers([oldest]).sent_at_ms[0])
        else:
            behind = self.log_end_offset is not None and self.log_end_offset > self.next_offset
            oldest_ms = self._newest_written_ms if behind else None
        return PartitionGauges(
            topic=self.partition.topic,
            partition=self.partition.partition,
            next_offset=self.next_offset,
            log_end_offset=self.log_end_offset,
            oldest_unwritten_seconds=None if oldest_ms is None else oldest_ms / 1000,
            buffered_records=self._window.rows + sum(batch.records for batch, _ in list(self._in_hand)),
            buffered_bytes=self._window.bytes + sum(size for _, size in list(self._in_hand)),
            stopped=self.state is State.STOPPED,
            paused=self._paused,
        )

    # --- the life of a claim

    async def _run(self) -> None:
        while not self._closing.is_set():
            self.state = State.CLAIMING
            try:
                claim = await self._claim()
                if claim is None:
                    return
                self.state, self.problem = State.WRITING, None
                await self._write_windows(claim)
            except _ClaimLostError as lost:
                self._stop_receiving()
                if lost.seconds:
                    self.state, self.problem = State.FENCED, lost.why
                await self._rest(max(lost.seconds, RETRY_SECONDS_MIN))
            except FatalError as error:
                self._stop_receiving()
                if self.problem != str(error):
                    self._log.error("partition_stopped", problem=str(error), tried_again_every_seconds=RECLAIM_SECONDS)
                self.state, self.problem = State.STOPPED, str(error)
                await self._rest(RECLAIM_SECONDS)
            except Exception as error:
                # A defect of ours. The partition must not die in silence, and it must not skip a record: stop it, loudly, and try again.
                self._stop_receiving()
                self._log.exception("partition_failed", tried_again_every_seconds=RECLAIM_SECONDS)
                self.state, self.problem = State.STOPPED, f"unexpected {type(error).__name__}: see the log line partition_failed"
                await self._rest(RECLAIM_SECONDS)

    async def _claim(self) -> Claim | None:
        """Claim the partition and start fetching at its position; None when closing."""
        async for attempt in self._retrying("claim"):
            with attempt:
                if self._closing.is_set():
                    return None
                stored = await self._store.position(self.partition)
                log_start, log_end = await self._kafka.log_range(self.partition)
                start = log_start if stored is not None else await self._first_position(log_start, log_end)
                claim, position = await self._store.claim(self.partition, start)
                await self._start_receiving(position, log_start, log_end)
                self._metrics.claims.inc()
                self._log.info("partition_claimed", epoch=claim.epoch, next_offset=position, log_end_offset=log_end)
                return claim
        return None

    async def _explain_gap(self, from_offset: int, to_offset: int) -> None:
        """Say what became of offsets that Kafka did not deliver: lost to retention, or never records (control records, compaction)."""
        try:
            log_start, _ = await self._kafka.log_range(self.partition)
        except RetryableError:
            log_start = to_offset  # not known: call them lost rather than harmless
        lost = max(0, min(log_start, to_offset) - from_offset)
        self._count_lost(lost, from_offset)
        self._metrics.offsets_skipped.inc(to_offset - from_offset - lost)

    def _count_lost(self, records: int, from_offset: int) -> None:
        if records:
            self._metrics.records_lost.inc(records)
            self._log.error("records_lost_by_retention", records=records, from_offset=from_offset, to_offset=from_offset + records)

    async def _first_position(self, log_start: int, log_end: int) -> int:
        committed = await self._kafka.committed(self.partition)
        return log_start if committed is None else min(max(committed, log_start), log_end)

    async def _start_receiving(self, position: int, log_start: int, log_end: int) -> None:
        if position > log_end:
            raise FatalError(
                f"the position {position} of {self.partition.topic}/{self.partition.partition} is past the log's end {log_end}: the topic was"
                " made anew or lost records. If that was meant: faust -A stream_app positions reset"
                f" --topic {self.partition.topic} --partition {self.partition.partition} --to {log_start}"
            )
        self._count_lost(max(0, log_start - position), position)
        self.next_offset = position
        self.log_end_offset = log_end
        self._expected_offset = max(position, log_start)
        self._lost_claim = None
        self._next_sequence = 0
        self._seek_number = await self._kafka.seek(self.partition, self._expected_offset)
        self._paused = False
        self._kafka.resume(self.partition)

    def _lose_claim(self, why: str) -> None:
        self._log.info("partition_read_again", why=why, next_offset=self.next_offset)
        self._stop_receiving()
        self._lost_claim = _ClaimLostError(why)
        self._changed.set()

    def _stop_receiving(self) -> None:
        self._expected_offset = None
        self._pause()
        self._budget.bytes_used -= self._window.clear()
        self._on_budget_freed()

    # --- windows and batches

    async def _write_windows(self, claim: Claim) -> None:
        writing: asyncio.Task[None] | None = None
        built_to = self.next_offset
        try:
            while (trigger := await self._next_trigger(writing)) is not None:
                started = self._monotonic()
                held = self._window.bytes
                records = self._window.take(started)
                held -= self._window.bytes
                batch = self._builder.build(records, built_to, records[-1].offset + 1)
                built_to = batch.next_offset
                self._in_hand.append((batch, held))
                self._metrics.build_seconds.observe(self._monotonic() - started)
                self.budget_freed()
                if writing is not None:
                    await writing
                writing = asyncio.create_task(self._write_counted(claim, batch, trigger))
                writing.add_done_callback(lambda _: self._changed.set())
            if writing is not None:
                await writing
                writing = None
            if self._lost_claim is not None:
                raise self._lost_claim
        finally:
            if writing is not None:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
            self._budget.bytes_used -= sum(size for _, size in self._in_hand)
            self._in_hand.clear()

    async def _next_trigger(self, writing: "asyncio.Task[None] | None") -> Trigger | None:
        """Wait for a window to close. None: there will be none under this claim."""
        while True:
            self._changed.clear()
            if writing is not None and writing.done():
                writing.result()  # an error ends the claim now, not when the next window is full
                writing = None
            if self._lost_claim is not None:
                return None
            if self._closing.is_set():
                return Trigger.FLUSH if self._window.rows else None
            now = self._monotonic()
            trigger = self._window.due(now)
            # While the last batch is being written there is nothing to gain from closing early: let the window fill.
            if trigger is not None and not (trigger is Trigger.SECONDS and writing is not None):
                return trigger
            timeout = None if writing is not None else self._window.seconds_until_due(now)
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._changed.wait()

    async def _write_counted(self, claim: Claim, batch: Batch, trigger: Trigger) -> None:
        started = self._monotonic()
        await self._write(claim, batch)
        self._metrics.write_seconds.observe(self._monotonic() - started)
        self._metrics.batches.labels(trigger.value).inc()
        self._metrics.batch_rows.observe(batch.records)
        if batch.extra_keys:
            self._metrics.records_with_extra_keys.inc(batch.extra_keys)
        _, held = self._in_hand.pop(0)
        self._budget.bytes_used -= held
        self._on_budget_freed()

    async def _write(self, claim: Claim, batch: Batch) -> None:
        """Write a batch; a row that Postgres refuses is found by halving and becomes a dead letter, the others are written."""
        try:
            written = await self._write_whole(claim, batch)
        except RowRefusedError as refused:
            rows = len(batch.row_offsets)
            if rows == 0:
                raise FatalError(f"Postgres refuses a dead letter ({refused}); nothing is skipped until it takes it") from refused
            if rows == 1:
                await self._write(claim, self._builder.refuse_row(batch, refused.field))
                return
            self._metrics.batch_splits.inc()
            for half in batch.split():
                await self._write(claim, half)
            return
        self.next_offset = batch.next_offset
        sent_at_ms = [int(text) for text in batch.columns["sent_at_ms"]]
        if sent_at_ms:
            self._newest_written_ms = max(sent_at_ms)
            now = self._wall_clock()
            self._metrics.sent_to_written.observe_all([max(0.0, now - ms / 1000) for ms in sent_at_ms])
        self._metrics.rows_written.inc(written.rows)
        self._metrics.duplicates_skipped.inc(batch.records - written.rows - written.dead_letters)
        if written.dead_letters:
            for letter in batch.dead_letters:
                self._metrics.dead_letters.labels(letter.reason).inc()

    async def _write_whole(self, claim: Claim, batch: Batch) -> Written:
        """Write a batch as it is, however long Postgres is away. Raises what ends the claim, and RowRefusedError."""
        async for attempt in self._retrying("write"):
            with attempt:
                if attempt.retry_state.attempt_number > 1 and await self._is_written(claim, batch):
                    return _all_of(batch)
                written = await self._store.write(claim, batch)
                if written.moved:
                    return written
                if await self._is_written(claim, batch):
                    return _all_of(batch)
                raise RetryableError("the position is free again")  # what blocked the write was undone meanwhile
        raise AssertionError("unreachable: retrying ends by returning or raising")

    async def _is_written(self, claim: Claim, batch: Batch) -> bool:
        """Ask Postgres whether the batch is in; False: it can still be written. Else the claim is lost."""
        stored = await self._store.position(self.partition)
        if stored is not None and stored.epoch == claim.epoch:
            if stored.next_offset == batch.next_offset:
                return True
            if stored.next_offset == batch.first_offset:
                return False
        if stored is not None and stored.epoch > claim.epoch:
            self._metrics.writes_fenced.inc()
            self._log.warning("write_fenced", epoch=claim.epoch, claimed_with_epoch=stored.epoch, dropped_records=batch.records)
            raise _ClaimLostError("another worker has claimed the partition", RECLAIM_SECONDS)
        # Set back by a failover to a standby that missed the last commits, or by hand: read from there again.
        self._log.warning(
            "position_changed",
            expected=batch.first_offset,
            found=None if stored is None else stored.next_offset,
            epoch=claim.epoch,
            found_epoch=None if stored is None else stored.epoch,
        )
        raise _ClaimLostError("the position in Postgres was changed")

    # --- waiting

    def _too_much_waits(self) -> bool:
        return self._window.rows >= 2 * self._policy.rows or self._window.bytes >= 2 * self._policy.bytes or self._budget.exceeded

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._kafka.pause(self.partition)

    def _retrying(self, what: str) -> AsyncRetrying:
        def count(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome is not None else None
            code = getattr(error.__cause__, "pgcode", None) if error is not None else None
            label = code[:2] if isinstance(code, str) else "none"
            self._metrics.database_retries.labels(label).inc()
            if state.attempt_number == 1:
                self._log.warning("retrying", what=what, problem=str(error))

        return AsyncRetrying(
            retry=retry_if_exception_type(RetryableError),
            wait=wait_random_exponential(multiplier=RETRY_SECONDS_MIN, max=RETRY_SECONDS_MAX),
            before_sleep=count,
            sleep=self._sleep,
            reraise=True,
        )

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


def _all_of(batch: Batch) -> Written:
    """What a batch did whose answer was lost: which of its messages were there before is not known, so none counts as such."""
    return Written(moved=True, rows=len(batch.row_offsets), dead_letters=len(batch.dead_letters))


