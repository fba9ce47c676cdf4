"""What /livez and /readyz answer.

/livez says whether only a restart can help: the event loop or the consumer's thread has not moved for a while; a partition has not
although all that it needs answers; the consumer group has told nothing for a while although Kafka answers. Postgres or Kafka being
away is no reason: a restarted worker would not find them either, and would lose what it holds in hand. /readyz says what is being
waited for, be it the end of a transaction.

A partition with records in hand that does not move is soon known for stuck. One with nothing in hand may be right: offsets below
its log's end may all be control records, which nobody delivers. So it counts as stalled only when the log has grown since it was
first seen behind, and longer ago than it takes to be read again: then a record ought to have come. The log's end is here the last
stable offset: behind an open transaction nothing can come, and a restart would change nothing. (Transactions that are taken back
grow the log, too. Whoever writes nothing else into a partition has its worker restarted again and again, and no record is late.) A
claim that does not end counts likewise. What waits for a person, for another worker's claim, or for room in memory does not.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from pipeline.errors import PipelineError, cause_code
from pipeline.operations import Health
from stream_app.metrics import PartitionGauges, WorkerMetrics
from stream_app.partition_writer import State
from stream_app.partitions import Partitions
from stream_app.positions import Partition

LOOP_STUCK_SECONDS = 60.0
LOOP_LATE_SECONDS = 10.0
"""From then on the worker is not ready: it does nothing, though a restart is not called for yet."""

CONSUMER_STUCK_SECONDS = 120.0
"""More than a question to Kafka may take."""

PARTITION_STUCK_SECONDS = 300.0
"""More than the longest that a write may take that is tried again, with its pauses."""

PARTITION_STALLED_SECONDS = 900.0
"""Long enough for the partition to be read again three times (stall_guard.py), which mends what can be mended without a restart."""

ASSIGNMENT_MISSING_SECONDS = 300.0
"""More than a rebalance may take in which every worker writes what it holds."""

BEAT_SECONDS = 1.0

Dependency = Literal["postgres", "kafka"]
DEPENDENCIES: tuple[Dependency, ...] = get_args(Dependency)


@dataclass(frozen=True, slots=True)
class _Behind:
    """A partition with nothing in hand below its log's last stable offset, as it was first seen there."""

    next_offset: int
    last_stable_offset: int
    grown_since: float | None = None
    """When the log was first seen to have grown since."""


class WorkerHealth:
    """Written by the event loop, read by the operations server's threads."""

    def __init__(self, partitions: Partitions, metrics: WorkerMetrics, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._partitions = partitions
        self._metrics = metrics
        self._monotonic = monotonic
        self._beat_at = monotonic()
        self._away: dict[str, tuple[str, str]] = {}  # a code, and the error's text
        self._moved: dict[tuple[str, int], tuple[int | None, float]] = {}  # where each partition was seen first, and when
        self._behind: dict[tuple[str, int], _Behind] = {}
        self._claims_since: dict[tuple[str, int], float] = {}
        self._assigned_at = monotonic()
        self._consumer_moved_at: float | None = None
        self.starting = True
        """Until all has been seen that is needed to write (:mod:`stream_app.preflight`)."""
        for dependency in DEPENDENCIES:
            metrics.ready[dependency].set(1)

    def answered(self, dependency: Dependency) -> None:
        """The dependency did what was asked."""
        if self._away.pop(dependency, None) is not None:
            self._metrics.ready[dependency].set(1)

    def did_not_answer(self, dependency: Dependency, error: PipelineError) -> None:
        """It did not; the error's text says why."""
        self._away[dependency] = cause_code(error), str(error)
        self._metrics.ready[dependency].set(0)

    def consumer_moves(self) -> None:
        """The consumer's thread has done something; told every few seconds, whether Kafka answers or not."""
        self._consumer_moved_at = self._monotonic()

    async def beat(self) -> None:
        """Show for ever that the event loop moves, and look whether the partitions do."""
        while True:
            self.look()
            due = self._monotonic() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            self._metrics.event_loop_delay_seconds.observe(max(0.0, self._monotonic() - due))

    def look(self) -> None:
        """Note what moves. Time in which a dependency is away counts for nobody."""
        now = self._beat_at = self._monotonic()
        if self._partitions.assigned or self._away or self.starting:
            self._assigned_at = now
        before = {} if self._away else self._moved
        self._moved = {}
        gauges = self._partitions.gauges()
        for state in gauges:
            where, seen = (state.topic, state.partition), (state.next_offset, now)
            was = before.get(where, seen)
            self._moved[where] = was if _waits(state) and was[0] == state.next_offset else seen
        self._look_for_stalled(gauges, now)

    def _look_for_stalled(self, gauges: list[PartitionGauges], now: float) -> None:
        behind, claims_since = ({}, {}) if self._away else (self._behind, self._claims_since)
        states, memory_is_full = self._partitions.states(), self._partitions.memory_is_full
        self._claims_since = {where: claims_since.get(where, now) for where, state in states.items() if state is State.CLAIMING}
        found: dict[tuple[str, int], _Behind] = {}
        for seen in gauges:
            where, state = (seen.topic, seen.partition), states.get(Partition(seen.topic, seen.partition))
            may_come = state is State.CLAIMING or (state is State.WRITING and not memory_is_full)
            if not may_come or seen.buffered_records or seen.next_offset is None or seen.last_stable_offset is None:
                continue
            if seen.last_stable_offset <= seen.next_offset:
                continue
            was = behind.get(where)
            if was is None or was.next_offset != seen.next_offset:
                was = _Behind(seen.next_offset, seen.last_stable_offset)
            if was.grown_since is None and seen.last_stable_offset > was.last_stable_offset:
                was = replace(was, grown_since=now)
            found[where] = was
        self._behind = found

    def livez(self) -> Health:
        """503 when only a restart can help."""
        now = self._monotonic()
        silent = now - self._beat_at
        details: dict[str, Any] = {"event_loop_silent_seconds": round(silent, 1)}
        stuck = [
            f"{topic}/{partition}"
            for (topic, partition), (_, since) in list(self._moved.items())
            if now - since >= PARTITION_STUCK_SECONDS
        ]
        if stuck:
            details["stuck_partitions"] = stuck
        waits_since = {where: was.grown_since for where, was in self._behind.items() if was.grown_since is not None}
        waits_since |= self._claims_since
        stalled = [f"{topic}/{number}" for (topic, number), at in waits_since.items() if now - at >= PARTITION_STALLED_SECONDS]
        if stalled:
            details["stalled_partitions"] = stalled
        consumer_silent = 0.0 if self._consumer_moved_at is None else now - self._consumer_moved_at
        if consumer_silent >= CONSUMER_STUCK_SECONDS:
            details["consumer_silent_seconds"] = round(consumer_silent, 1)
        unassigned = now - self._assigned_at
        if unassigned >= ASSIGNMENT_MISSING_SECONDS:
            details["assignment_missing_seconds"] = round(unassigned, 1)
        return Health(silent < LOOP_STUCK_SECONDS and len(details) == 1, details)

    def readyz(self) -> Health:
        """503 while anything is waited for: it is named, with a code or in words. Beside it, why rows were refused lately."""
        away = dict(self._away)
        waiting_for = {dependency: code for dependency, (code, _) in away.items()}
        silent = self._monotonic() - self._beat_at
        if silent >= LOOP_LATE_SECONDS:
            waiting_for["event_loop"] = f"it has not moved for {silent:.0f} s"
        if self.starting:
            waiting_for.setdefault("start", "what is needed to write is looked at")
        elif not self._partitions.assigned:
            waiting_for["assignment"] = "the Kafka consumer group is sharing the partitions out"
        details: dict[str, Any] = {}
        in_words: dict[str, Any] = {}
        if waiting_for:
            details["waiting_for"] = waiting_for
            in_words["waiting_for"] = {**waiting_for, **{dependency: text for dependency, (_, text) in away.items()}}
        problems = self._partitions.problems()
        if problems:
            states = {
                f"{partition.topic}/{partition.partition}": state.value for partition, state in self._partitions.states().items()
            }
            details["partitions"] = {where: states.get(where, "given up") for where in problems}
            in_words["partitions"] = problems
        ready = not details
        refused = self._partitions.refused_rows.recent()
        if refused:  # they are dead letters, and nothing waits for them
            in_words["refused_rows"] = refused
            details["refused_rows"] = [{name: row[name] for name in ("sqlstate", "rows") if name in row} for row in refused]
        return Health(ready, details, in_words)


def _waits(state: PartitionGauges) -> bool:
    """Whether records are in hand that should be written by and by. A stopped partition waits for a person, not for a restart."""
    return state.buffered_records > 0 and not state.stopped
