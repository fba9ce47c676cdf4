"""Becoming a partition's owner: what is asked, and held against each other, before a record of it is read.

The tables first, so that a partition whose rows nobody can write is not taken from whoever has it. Then the claim, and only then
where the log begins and ends: from the claim on nobody else moves the position.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.errors import RetryableError
from stream_app.chunk import Chunk
from stream_app.compaction import CompactedRecords
from stream_app.dead_letters import KafkaRecord
from stream_app.metrics import WorkerMetrics
from stream_app.partition_ports import Log, Store
from stream_app.position_check import check_position
from stream_app.positions import Claim, Partition

FUTURE_SECONDS = 3_600.0
"""Clocks differ; a newest row that is further ahead than this is told of. The alert RowsFromTheFuture has the same bound."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim, and what was found with it."""

    claim: Claim
    position: int
    newest_ms: int
    """Sent at of the newest row of all."""
    replay_key: bytes | None
    """What marks of replayed records verify with."""
    log_start: int
    log_end: int


class Claiming:
    """Claims one partition, and tells what of its log is lost. What is awaited may raise RetryableError and FatalError."""

    def __init__(
        self, partition: Partition, *, kafka: Log, store: Store, metrics: WorkerMetrics, log: Any, wall_clock: Callable[[], float]
    ) -> None:
        self._partition = partition
        self._kafka = kafka
        self._store = store
        self._metrics = metrics
        self._compacted = CompactedRecords(partition, metrics)
        self._log = log
        self._wall_clock = wall_clock

    async def claim(self) -> Claimed:
        """Claim it. A partition without a stored position begins where its log does, whatever offset the group has committed.

        The position may have been lost with the last rows, in a failover or a restore, and rows that are there stay single.
        """
        (await self._store.check_tables()).refuse()
        topic_id = await self._kafka.topic_id(self._partition)
        log_start, _ = await self._kafka.log_range(self._partition)
        claim, position = await self._store.claim(self._partition, log_start, topic_id)
        log_start, log_end = await self._kafka.log_range(self._partition)  # after the claim: nobody moves the position now
        check_position(claim, position, topic_id=topic_id, log_start=log_start, log_end=log_end)
        return Claimed(claim, position, await self._newest_sent_at_ms(), await self._store.replay_key(), log_start, log_end)

    async def _newest_sent_at_ms(self) -> int:
        """Of all rows. One from the future costs each row a look-up until its time has come: it is said."""
        newest_ms = await self._store.newest_sent_at_ms()
        self._metrics.newest_sent_at.set(newest_ms / 1_000)
        ahead_seconds = newest_ms / 1_000 - self._wall_clock()
        if ahead_seconds > FUTURE_SECONDS:
            self._log.warning("rows_from_the_future", newest_ms=newest_ms, each_row_looked_up_for_seconds=round(ahead_seconds))
        return newest_ms

    async def explain_gap(self, from_offset: int, chunk: Chunk[KafkaRecord]) -> None:
        """Say what became of offsets that did not come before a chunk: lost to retention, to compaction, or never records."""
        to_offset, empty = chunk.first_offset, chunk.empty_before
        try:
            log_start, _ = await self._kafka.log_range(self._partition)
        except RetryableError:
            log_start = to_offset  # not known: call them lost rather than harmless
        lost = max(0, min(log_start, to_offset) - from_offset)
        self.count_lost(lost, from_offset)
        self._metrics.offsets_skipped.inc(to_offset - from_offset - lost)
        self._compacted.count(to_offset - from_offset - lost - empty, from_offset + lost, to_offset)

    def count_lost(self, records: int, from_offset: int) -> None:
        """Count and tell of records that retention took before they were read."""
        if records:
            self._metrics.records_lost.inc(records)
            self._log.error("records_lost_by_retention", records=records, from_offset=from_offset, to_offset=from_offset + records)
