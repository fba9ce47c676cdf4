"""The partitions that the consumer group gives to this worker: one writer each, sharing one memory budget."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from stream_app.batch import BatchBuilder
from stream_app.chunk import Chunk
from stream_app.dead_letters import KafkaRecord
from stream_app.metrics import PartitionGauges, WorkerMetrics
from stream_app.open_transaction import LogEnd, TransactionWatch
from stream_app.partition_ports import Budget, Log, Store
from stream_app.partition_writer import PartitionWriter, State
from stream_app.positions import Partition
from stream_app.refused_rows import RefusedRows
from stream_app.windows import WindowPolicy


class Partitions:
    """Opens writers when partitions are assigned, closes them when they are revoked, and routes chunks to them.

    Event loop only, but for :meth:`gauges` and :meth:`problems`, which the metrics thread may call.
    """

    def __init__(
        self,
        *,
        store: Store,
        builder: BatchBuilder,
        policy: WindowPolicy,
        refused_rows_max: int,
        budget: Budget,
        flush_seconds: float,
        metrics: WorkerMetrics,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._builder = builder
        self._policy = policy
        self._refused_rows_max = refused_rows_max
        self.refused_rows = RefusedRows(monotonic)
        """Those that became dead letters."""
        self._budget = budget
        self._flush_seconds = flush_seconds
        self._metrics = metrics
        self._writers: dict[Partition, PartitionWriter] = {}
        self._committed: dict[Partition, int] = {}
        self.assigned = False
        """Whether the group has told what is ours, and each of these has a writer; until the group takes it back."""
        self._monotonic = monotonic
        self._taken_back_at: float | None = None
        metrics.serve_partitions(self.gauges, wall_clock)
        metrics.buffer_bytes.set_function(lambda: budget.bytes_used)
        metrics.buffer_bytes_max.set(budget.bytes_max)

    def assign(self, partitions: Iterable[Partition], kafka: Log) -> None:
        """Start to claim and write these, and only these. The ones held before must have been revoked."""
        if self._writers:
            raise RuntimeError("partitions are assigned while others are still held")
        self._committed.clear()
        mine = list(partitions)
        self._budget.partitions = max(1, len(mine))
        for partition in mine:
            self._writers[partition] = PartitionWriter(
                partition,
                kafka=kafka,
                store=self._store,
                builder=self._builder,
                policy=self._policy,
                refused_rows_max=self._refused_rows_max,
                refused_rows=self.refused_rows,
                budget=self._budget,
                on_budget_changed=self._on_budget_changed,
                metrics=self._metrics,
            )
        self.assigned = True

    def told(self, partitions: Collection[object]) -> None:
        """The group has told what is ours: if anything is, :meth:`assign` follows, once the agents are there for it."""
        self.assigned = not partitions
        self._metrics.rebalances.inc()
        if self._taken_back_at is not None:
            self._metrics.rebalance_seconds.observe(self._monotonic() - self._taken_back_at)
            self._taken_back_at = None

    async def revoke(self) -> None:
        """Write what is in hand, within the bound, and give every partition up. Returns at once when none is held."""
        self.assigned = False
        self._taken_back_at = self._monotonic()
        writers = list(self._writers.values())
        await asyncio.gather(*(writer.close(self._flush_seconds) for writer in writers))

    def forget(self) -> None:
        """Drop the closed writers, once their last positions are committed."""
        self._writers.clear()

    def receive(self, partition: Partition, chunk: Chunk[KafkaRecord]) -> None:
        """Route a chunk; one of a partition that is no longer held is dropped, its next owner reads it."""
        writer = self._writers.get(partition)
        if writer is not None:
            writer.receive(chunk)

    def uncommitted(self) -> dict[Partition, int]:
        """Positions that moved since :meth:`committed` was last told."""
        return {
            partition: writer.lag.next_offset
            for partition, writer in self._writers.items()
            if writer.lag.next_offset and self._committed.get(partition) != writer.lag.next_offset
        }

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """These are in Kafka now too."""
        self._committed.update(offsets)

    def saw_log_ends(self, ends: Mapping[Partition, LogEnd]) -> None:
        """The ends of the logs as Kafka has just told them."""
        self.refused_rows.look()
        for partition, end in ends.items():
            if partition in self._writers:
                self._writers[partition].saw_log_end(end)

    def unnamed_transactions(self) -> list[tuple[Partition, int, TransactionWatch]]:
        """The transactions that have been open for long and are not named yet, each with its first offset."""
        found = ((partition, writer.transaction.unnamed_at, writer.transaction) for partition, writer in self._writers.items())
        return [(partition, offset, watch) for partition, offset, watch in found if offset is not None]

    def saw_topic(self, topic_id: str | None) -> None:
        """The topic's id as Kafka has just told it."""
        for writer in self._writers.values():
            writer.saw_topic(topic_id)

    @property
    def held(self) -> list[Partition]:
        """The partitions that are held now."""
        return list(self._writers)

    def gauges(self) -> list[PartitionGauges]:
        """What each partition shows."""
        return [writer.gauges() for writer in list(self._writers.values())]

    def states(self) -> dict[Partition, State]:
        """What each partition is doing."""
        return {writer.partition: writer.state for writer in list(self._writers.values())}

    @property
    def memory_is_full(self) -> bool:
        """Whether fetching waits for writing, of whichever partition."""
        return self._budget.exceeded

    def problems(self) -> dict[str, str]:
        """The partitions that do not write, or can't read on, and why."""
        found = {}
        for writer in list(self._writers.values()):
            problem = writer.transaction.problem if writer.writes else writer.problem or writer.state.value
            if problem is not None:
                found[f"{writer.partition.topic}/{writer.partition.partition}"] = problem
        return found

    def _on_budget_changed(self) -> None:
        for writer in self._writers.values():
            writer.follow_budget()
