"""The monitor's loop: look at Kafka and Postgres every few seconds, and show what the two say together.

Promise: lag in records and seconds of every partition, also while no worker lives. It holds because it asks what cannot lie: the
position in Postgres, the log's ends in Kafka, and the record at the position for the time when it was sent. While one of the two is
away, what it said last stands: without Postgres no position moves, and without Kafka the oldest record that waits grows older. It
can't tell whether that one is away from all or from the monitor alone, so the rules then prefer what the workers say.
"""

import time
from collections.abc import Callable
from threading import Event

import structlog

from pipeline.errors import PipelineError, RetryableError
from pipeline.kafka_reachability import Reachability
from pipeline.operations import Health
from pipeline.outages import Outage, OutageEvent
from stream_app.monitor.database import Database
from stream_app.monitor.metrics import MonitorMetrics
from stream_app.monitor.settings import MonitorSettings
from stream_app.monitor.topic_log import Times, TopicLog

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
TABLES_LOOK_SECONDS = 30.0
STUCK_SECONDS = 120.0
"""More than all requests of one look may take together."""


class Monitor:
    """:meth:`run` blocks until ``stopping`` is set."""

    def __init__(
        self,
        settings: MonitorSettings,
        metrics: MonitorMetrics,
        *,
        topic_log: TopicLog,
        database: Database,
        reachability: Reachability | None = None,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = settings.kafka_topic
        self._metrics = metrics
        self._log = topic_log
        self._database = database
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._tables_due_at = monotonic()
        self._reachability = reachability or Reachability(settings)
        self._away: dict[str, str] = {}
        self._outages = {dependency: Outage(quiet_seconds=0) for dependency in ("postgres", "kafka")}
        self._ranges: dict[int, tuple[int, int]] = {}
        self._positions: dict[int, int] = {}
        self._oldest: dict[int, tuple[int, Times]] = {}  # by partition: the offset that was looked at, and its record's times
        metrics.freshness_objective_seconds.set(settings.freshness_objective_seconds)
        metrics.freshness_objective_ratio.set(settings.freshness_objective_ratio)

    def run(self, stopping: Event) -> None:
        """Look every few seconds."""
        while not stopping.is_set():
            self.look()
            stopping.wait(LOOK_SECONDS)

    def look(self) -> None:
        """Ask both, as far as they answer, and show what is known."""
        # Positions first: a log's end that was asked before its position would make a lag of less than none.
        self._ask("postgres", self._ask_postgres)
        self._ask("kafka", self._ask_kafka)
        self._show()
        self._looked_at = self._monotonic()
        self._metrics.looked.set(self._wall_clock())

    def livez(self) -> Health:
        """503 when only a restart can help: the loop stands still."""
        silent = self._monotonic() - self._looked_at
        return Health(silent < STUCK_SECONDS, {"silent_seconds": round(silent, 1)})

    def readyz(self) -> Health:
        """503 while one of the two is away: it is named."""
        away = dict(self._away)
        return Health(not away, {"waiting_for": away} if away else {})

    def _ask(self, dependency: str, ask: Callable[[], None]) -> None:
        outage = self._outages[dependency]
        try:
            ask()
        except PipelineError as error:
            explains = dependency == "kafka" and isinstance(error, RetryableError)
            problem = str(self._reachability.explain(error) if explains else error)
            event = outage.failed(self._monotonic(), type(error).__name__, problem)
            self._away[dependency] = problem
            self._metrics.ready[dependency].set(0)
        else:
            event = outage.worked(self._monotonic())
            self._away.pop(dependency, None)
            self._metrics.ready[dependency].set(1)
        if event is not None:
            _say(dependency, event)

    def _ask_postgres(self) -> None:
        self._positions = self._database.positions()
        if self._monotonic() >= self._tables_due_at:
            facts = self._database.table_facts()
            self._metrics.show_dead_letters(facts.open_dead_letters)
            self._metrics.reveals.by_field = facts.reveals
            self._metrics.database_sessions.set(facts.sessions)
            self._metrics.database_sessions_max.set(facts.sessions_max)
            for table, size in facts.table_bytes.items():
                self._metrics.table_bytes.labels(table).set(size)
            self._tables_due_at = self._monotonic() + TABLES_LOOK_SECONDS

    def _ask_kafka(self) -> None:
        self._ranges = self._log.ranges()
        if self._ranges:
            self._metrics.topic_retention.set(self._log.retention_seconds())
        waiting = {
            partition: self._position(partition) for partition, (_, end) in self._ranges.items() if self._position(partition) < end
        }
        known = {partition: seen for partition, seen in self._oldest.items() if waiting.get(partition) == seen[0]}
        unknown = {partition: offset for partition, offset in waiting.items() if partition not in known}
        found = self._log.times(unknown) if unknown else {}
        self._oldest = known | {partition: (unknown[partition], times) for partition, times in found.items()}

    def _position(self, partition: int) -> int:
        """Where the records begin that are not in Postgres: what retention removed is no lag, it is lost."""
        start, _ = self._ranges[partition]
        return max(start, self._positions.get(partition, start))

    def _show(self) -> None:
        metrics, now = self._metrics, self._wall_clock()
        for partition, (start, end) in self._ranges.items():
            where = (self._topic, str(partition))
            waits = partition in self._oldest and self._oldest[partition][0] >= self._position(partition)
            metrics.log_start_offset.labels(*where).set(start)
            metrics.log_end_offset.labels(*where).set(end)
            metrics.next_offset.labels(*where).set(self._positions.get(partition, start))
            metrics.lag_records.labels(*where).set(max(0, end - self._position(partition)) if waits else 0)
            times = self._oldest[partition][1] if waits else Times(now, now)
            metrics.lag_seconds.labels(*where).set(max(0.0, now - times.sent_at))
            metrics.kept_seconds.labels(*where).set(max(0.0, now - times.kept_since))


def _say(dependency: str, event: OutageEvent) -> None:
    if event.kind == "recovered":
        log.info("monitor_goes_on", dependency=dependency, seconds=event.seconds)
    else:
        log.warning("monitor_waits", dependency=dependency, problem=event.problem, seconds=event.seconds)
