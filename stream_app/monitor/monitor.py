"""The monitor's loop: look at Kafka and Postgres every few seconds, and show what the two say together.

Promise: lag in records and seconds of every partition, also while no worker lives. It holds because it asks what cannot lie: the
position in Postgres, the log's ends in Kafka, and the record at the position for the time when it was sent. An open transaction
hides what lies behind it from whoever reads, not from this: then it is the transaction's first record whose time counts.

While one of the two is away, what it said last stands: without Postgres no position moves, and without Kafka the oldest record that
waits grows older. It can't tell whether that one is away from all or from the monitor alone, so the rules then prefer what the
workers say.
"""

import time
from collections.abc import Callable, Mapping
from threading import Event
from typing import TypeAlias

import structlog

from pipeline.errors import PipelineError, RetryableError, cause_code
from pipeline.kafka_reachability import Reachability
from pipeline.operations import Health
from pipeline.outages import Outage, OutageEvent
from stream_app.monitor.database import Database
from stream_app.monitor.metrics import MonitorMetrics
from stream_app.monitor.settings import MonitorSettings
from stream_app.monitor.topic_log import LogRange, Times, TopicLog
from stream_app.open_transaction import TransactionWatch
from stream_app.transaction_producers import transaction_producers

log = structlog.get_logger(__name__)

_Oldest: TypeAlias = dict[int, tuple[int, Times]]
"""By partition: the offset that was looked at, and the times of the record there."""

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
        self._settings = settings
        self._topic = settings.kafka_topic
        self._metrics = metrics
        self._log = topic_log
        self._database = database
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._tables_due_at = monotonic()
        self._reachability = reachability or Reachability(settings)
        self._away: dict[str, tuple[str, str]] = {}  # a code, and the error's text
        self._outages = {dependency: Outage(quiet_seconds=0) for dependency in ("postgres", "kafka")}
        self._ranges: dict[int, LogRange] = {}
        self._transactions: dict[int, TransactionWatch] = {}
        self._positions: dict[int, int] = {}
        self._oldest: _Oldest = {}
        self._oldest_hidden: _Oldest = {}
        metrics.freshness_objective_seconds.set(settings.freshness_objective_seconds)
        metrics.freshness_objective_ratio.set(settings.freshness_objective_ratio)
        metrics.topic_compaction_accepted.set(settings.kafka_topic_compacted == "accept")

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
        """503 while one of the two is away: it is named, with a code or in words.

        So is a transaction that stays open, which is not waited for.
        """
        away = dict(self._away)
        problems = {f"{self._topic}/{partition}": watch.problem for partition, watch in list(self._transactions.items())}
        open_transactions = {place: problem for place, problem in problems.items() if problem is not None}
        codes = {dependency: code for dependency, (code, _) in away.items()}
        words = {dependency: text for dependency, (_, text) in away.items()}
        details = {"waiting_for": codes, "open_transactions": open_transactions}
        return Health(
            not away, {name: found for name, found in details.items() if found}, in_words={"waiting_for": words} if away else {}
        )

    def _ask(self, dependency: str, ask: Callable[[], None]) -> None:
        outage = self._outages[dependency]
        try:
            ask()
        except PipelineError as error:
            explained = self._reachability.explain(error) if dependency == "kafka" and isinstance(error, RetryableError) else error
            code, problem = cause_code(explained), str(explained)
            event = outage.failed(self._monotonic(), code, problem)
            self._away[dependency] = code, problem
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
            self._metrics.show_oldest_dead_letters(facts.oldest_dead_letter_seconds)
            self._metrics.reveals.by_field = facts.reveals
            self._metrics.skipped.by_topic = {self._topic: facts.records_skipped}
            self._metrics.database_sessions.set(facts.sessions)
            self._metrics.database_sessions_max.set(facts.sessions_max)
            for table, size in facts.table_bytes.items():
                self._metrics.table_bytes.labels(table).set(size)
            self._tables_due_at = self._monotonic() + TABLES_LOOK_SECONDS

    def _ask_kafka(self) -> None:
        self._ranges = self._log.ranges()
        if self._ranges:
            keeping = self._log.keeping()
            self._metrics.topic_retention.set(keeping.retention_seconds)
            self._metrics.topic_compacts.set(keeping.compacts)
        self._look_for_transactions()
        positions = {partition: self._position(partition) for partition in self._ranges}
        readable = {
            partition: position
            for partition, position in positions.items()
            if position < self._ranges[partition].end.last_stable_offset
        }
        self._oldest = _found(self._oldest, readable, self._log.times)
        hidden = {
            partition: max(position, self._ranges[partition].end.last_stable_offset)
            for partition, position in positions.items()
            if partition not in self._oldest and self._ranges[partition].end.transaction_is_open
        }
        self._oldest_hidden = _found(self._oldest_hidden, hidden, self._log.times_in_transaction)

    def _look_for_transactions(self) -> None:
        gone = self._transactions.keys() - self._ranges.keys()
        for partition in gone:
            del self._transactions[partition]
            self._metrics.open_transaction_seconds.labels(self._topic, str(partition)).set(0)
        unnamed: dict[int, int] = {}
        for partition, found in self._ranges.items():
            if partition not in self._transactions:
                self._transactions[partition] = TransactionWatch(self._topic, partition, self._monotonic)
            watch = self._transactions[partition]
            watch.saw(found.end)
            if watch.unnamed_at is not None:
                unnamed[partition] = watch.unnamed_at
        if unnamed:
            for partition, producer in transaction_producers(self._settings, unnamed).items():
                self._transactions[partition].name(producer)

    def _position(self, partition: int) -> int:
        """Where the records begin that are not in Postgres: what retention removed is no lag, it is lost."""
        start = self._ranges[partition].start
        return max(start, self._positions.get(partition, start))

    def _show(self) -> None:
        metrics, now = self._metrics, self._wall_clock()
        for partition, (start, end) in self._ranges.items():
            where = (self._topic, str(partition))
            offset, times = self._oldest.get(partition) or self._oldest_hidden.get(partition) or (-1, Times(now, now))
            waits = offset >= self._position(partition)
            metrics.log_start_offset.labels(*where).set(start)
            metrics.log_end_offset.labels(*where).set(end.log_end_offset)
            metrics.last_stable_offset.labels(*where).set(end.last_stable_offset)
            metrics.open_transaction_seconds.labels(*where).set(self._transactions[partition].seconds)
            metrics.next_offset.labels(*where).set(self._positions.get(partition, start))
            metrics.lag_records.labels(*where).set(max(0, end.log_end_offset - self._position(partition)) if waits else 0)
            metrics.lag_seconds.labels(*where).set(max(0.0, now - times.sent_at) if waits else 0)
            metrics.kept_seconds.labels(*where).set(max(0.0, now - times.kept_since) if waits else 0)


def _found(known: _Oldest, wanted: Mapping[int, int], ask: Callable[[Mapping[int, int]], Mapping[int, Times]]) -> _Oldest:
    """The oldest records at or after the wanted offsets: as they are known, or as Kafka tells."""
    still = {partition: seen for partition, seen in known.items() if wanted.get(partition) == seen[0]}
    unknown = {partition: offset for partition, offset in wanted.items() if partition not in still}
    found = ask(unknown) if unknown else {}
    return still | {partition: (unknown[partition], times) for partition, times in found.items()}


def _say(dependency: str, event: OutageEvent) -> None:
    if event.kind == "recovered":
        log.info("monitor_goes_on", dependency=dependency, seconds=event.seconds)
    else:
        log.warning("monitor_waits", dependency=dependency, problem=event.problem, seconds=event.seconds)
