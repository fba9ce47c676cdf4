"""What one partition holds in memory: records that wait packed, and batches from when they are built until they are written.

Promise: every byte and every turn that it takes of the shared :class:`Budget` is given back exactly once, however a batch ends. It
holds because a batch is let go of by itself, not by its place, and what is no longer held is not let go of again.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from stream_app.batch import Batch, BatchBuilder, KafkaRecord
from stream_app.chunk import Chunk
from stream_app.compaction import CompactedRecords
from stream_app.metrics import WorkerMetrics
from stream_app.partition_ports import Budget
from stream_app.positions import Partition
from stream_app.windows import Trigger, Window, WindowPolicy


@dataclass(frozen=True, slots=True, eq=False)
class BuiltBatch:
    """A batch that is built and not yet written, and what its records take in memory."""

    batch: Batch
    bytes: int
    oldest_sent_at_ms: int | None


class PartitionBuffer:
    """A window and the batches that were built of it. Event loop only, but for what reads: the metrics thread may ask, too."""

    def __init__(
        self,
        partition: Partition,
        *,
        builder: BatchBuilder,
        policy: WindowPolicy,
        budget: Budget,
        metrics: WorkerMetrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._partition = partition
        self._builder = builder
        self._policy = policy
        self._budget = budget
        self._metrics = metrics
        self._compacted = CompactedRecords(partition, metrics, monotonic)
        self._monotonic = monotonic
        self._window: Window[KafkaRecord] = Window(policy)
        self._built: list[BuiltBatch] = []  # at most two

    # --- what waits

    @property
    def waiting_records(self) -> int:
        """How many records wait to be built into a batch, at most."""
        return self._window.rows

    @property
    def records(self) -> int:
        """How many records it holds, at most."""
        return self._window.rows + sum(each.batch.records for each in tuple(self._built))

    @property
    def bytes(self) -> int:
        """What it holds of the budget."""
        return self._window.bytes + sum(each.bytes for each in tuple(self._built))

    @property
    def oldest_sent_at_ms(self) -> int | None:
        """Sent at of what has waited longest; None when there is nothing."""
        times = [each.oldest_sent_at_ms for each in tuple(self._built) if each.oldest_sent_at_ms is not None]
        oldest = self._window.oldest
        if oldest is not None:
            times.append(self._builder.sent_at_ms(self._partition, oldest))
        return min(times, default=None)

    @property
    def is_full(self) -> bool:
        """Whether no more should be fetched: some batches wait already, or the partition's share of the memory is taken."""
        bytes_max = min(2 * self._policy.bytes, self._budget.window_bytes_max)  # packed, so this is several batches
        return self._window.rows >= 2 * self._policy.rows or self._window.bytes >= bytes_max

    @property
    def unreadable(self) -> Exception | None:
        """Why the next record can't be unpacked, if so."""
        return self._window.unreadable

    def due(self, now: float) -> Trigger | None:
        """Why a batch must be built at ``now``, or None."""
        return self._window.due(now) or (Trigger.BYTES if self.is_full else None)

    def seconds_until_due(self, now: float) -> float | None:
        """How long what waits may wait without further records; None when nothing does."""
        return self._window.seconds_until_due(now)

    def add(self, chunk: Chunk[KafkaRecord]) -> None:
        """Take a chunk in."""
        self._window.add(chunk, self._monotonic())
        self._budget.bytes_used += chunk.bytes

    def clear(self) -> None:
        """Drop what waits. Batches that are built stay."""
        self._budget.bytes_used -= self._window.bytes
        self._window.clear()

    # --- batches

    async def build(self, first_offset: int) -> BuiltBatch | None:
        """Wait for a turn, and build the next batch. None: what waited was dropped meanwhile, or can't be unpacked."""
        while (chunk := self._window.unread) is not None:
            await self._read_unread(chunk)
        await self._budget.turns.acquire()
        built = None
        try:
            built = self._build(first_offset)
        finally:
            if built is None:
                self._budget.turns.release()
        return built

    async def _read_unread(self, chunk: Chunk[KafkaRecord]) -> None:
        """Go through a record that is too large to be held, beside the event loop, and without a turn."""
        rows, held = chunk.rows, chunk.bytes
        try:
            await asyncio.to_thread(chunk.read_next)
        except asyncio.CancelledError:
            chunk.abandon()
            raise
        self._budget.bytes_used += self._window.has_read(chunk, rows, held)

    def _build(self, first_offset: int) -> BuiltBatch | None:
        started = self._monotonic()
        packed, skipped, compacted = self._window.bytes, self._window.offsets_without_record, self._window.offsets_compacted
        draft = self._builder.begin(self._partition, first_offset)
        next_offset, unpacked = first_offset, 0
        try:
            for records, size in self._window.slices(started, self._budget.batch_bytes_max, draft.origins):
                self._builder.add(draft, records)
                next_offset, unpacked = records[-1].offset + 1, unpacked + size
            if unpacked:
                self._metrics.offsets_skipped.inc(self._window.offsets_without_record - skipped)
                self._compacted.count(self._window.offsets_compacted - compacted, first_offset, next_offset)
                self._metrics.build_seconds.observe(self._monotonic() - started)
        except BaseException:
            self._budget.bytes_used -= packed - self._window.bytes
            raise
        if not unpacked:
            return None
        batch = replace(draft, next_offset=next_offset)
        taken = packed - self._window.bytes  # less than none where more is held of what is left, to unpack on
        self._budget.bytes_used += unpacked + max(0, -taken)
        held = unpacked + max(0, taken)  # its chunks are kept until it is written
        built = BuiltBatch(batch, held, batch.oldest_sent_at_ms)
        self._built.append(built)  # last: whoever is told that there is none gives its turn back
        return built

    def let_go(self, built: BuiltBatch) -> None:
        """It is written, or will not be."""
        with suppress(ValueError):  # it is let go of already
            self._built.remove(built)
            self._budget.bytes_used -= built.bytes
            self._budget.turns.release()

    def let_go_of_all(self) -> None:
        """None of what is built will be written."""
        for built in tuple(self._built):
            self.let_go(built)
