"""One partition writer over a log, a store and time that are all made up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fake_log import FakeLog
from login_records import builder
from memory_store import MemoryStore

from stream_app.metrics import WorkerMetrics
from stream_app.partition_ports import Budget
from stream_app.partition_writer import PartitionWriter
from stream_app.positions import Partition
from stream_app.refused_rows import RefusedRows
from stream_app.windows import WindowPolicy

PARTITION = Partition("logins", 3)
BUILDER = builder()


@dataclass
class Scene:
    log: FakeLog = field(default_factory=FakeLog)
    store: MemoryStore = field(default_factory=MemoryStore)
    policy: WindowPolicy = field(default_factory=lambda: WindowPolicy(rows=10, bytes=1_000_000, seconds=0.2))
    budget: Budget = field(default_factory=lambda: Budget(10_000_000, batches_max=5))
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    refused_rows_max: int = 100
    neighbours: list["Scene"] = field(default_factory=list)
    """Scenes with the same budget, this one among them; none: it is alone."""
    writer: PartitionWriter | None = None

    def open(self) -> PartitionWriter:
        writer = PartitionWriter(
            PARTITION,
            kafka=self.log,
            store=self.store,
            builder=BUILDER,
            policy=self.policy,
            refused_rows_max=self.refused_rows_max,
            refused_rows=RefusedRows(asyncio.get_running_loop().time),
            budget=self.budget,
            on_budget_changed=self._follow_budget,
            metrics=self.metrics,
            monotonic=asyncio.get_running_loop().time,
            wall_clock=lambda: 2e9,
        )
        self.writer = writer
        return writer

    def _follow_budget(self) -> None:
        for scene in self.neighbours or [self]:
            if scene.writer is not None:
                scene.writer.follow_budget()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[PartitionWriter]:
        """A writer that has claimed the partition."""
        writer = self.open()
        await self.until(lambda: writer.writes)
        yield writer
        await writer.close(60)

    async def until(self, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        """In virtual time."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, "it never happened"
            await asyncio.sleep(0.01)

    async def drain(self, writer: PartitionWriter, chunk: int = 7) -> None:
        """Fetch and write until the position is at the log's end."""
        deadline = asyncio.get_running_loop().time() + 600
        while self.position != self.log.log_end:
            assert asyncio.get_running_loop().time() < deadline, "it never drained"
            if not self.log.deliver(writer, chunk):
                await asyncio.sleep(0.5)
                writer.saw_log_end(self.log.end)
            await asyncio.sleep(0)

    @property
    def position(self) -> int:
        stored = self.store.positions.get(PARTITION)
        return -1 if stored is None else stored.next_offset

    def count(self, metric: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"stream_{metric}", labels) or 0.0
