"""Every metric of the monitor: what Kafka and Postgres themselves say, whichever worker lives."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Gauge, Info, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import pipeline
from stream_app.login_record import FIELDS
from stream_app.monitor.database import Reveals
from stream_app.reasons import Reason

DEPENDENCIES = ("kafka", "postgres")


class RevealCounters(Collector):
    """The totals of the audit table as counters.

    They are not shown before they are known: a 0 at each start would look like a counter that began anew.
    """

    def __init__(self) -> None:
        self.by_field: Mapping[str, Reveals] | None = None

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        calls = CounterMetricFamily("monitor_reveals", "Calls of the command reveal.", labels=["field"])
        tokens = CounterMetricFamily("monitor_revealed_tokens", "Masked values that these asked for.", labels=["field"])
        if self.by_field is not None:
            for name in (field.name for field in FIELDS if field.masking is not None):
                found = self.by_field.get(name, Reveals(0, 0))
                calls.add_metric([name], found.calls)
                tokens.add_metric([name], found.tokens)
        yield from (calls, tokens)


class SkippedCounter(Collector):
    """The total of the table operator_actions as a counter; likewise."""

    def __init__(self) -> None:
        self.by_topic: Mapping[str, int] = {}

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        skipped = CounterMetricFamily(
            "monitor_records_skipped", "Offsets over which `positions reset` has moved positions forward.", labels=["topic"]
        )
        for topic, records in self.by_topic.items():
            skipped.add_metric([topic], records)
        yield skipped


class MonitorMetrics:
    """The metric objects and the registry that `/metrics` serves."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        partition = ("topic", "partition")

        def gauge(name: str, documentation: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"monitor_{name}", documentation, labels, registry=self.registry)

        self.build = Info("monitor_build", "Version of the running code.", registry=self.registry)
        self.build.info({"version": pipeline.__version__})
        ready = gauge("ready", "1 while the dependency answers.", ("dependency",))
        self.ready = {dependency: ready.labels(dependency) for dependency in DEPENDENCIES}
        self.looked = gauge("look_timestamp_seconds", "When the monitor last looked at Kafka and Postgres, answered or not.")
        self.freshness_objective_seconds = gauge(
            "freshness_objective_seconds", "FRESHNESS_OBJECTIVE_SECONDS: a record that waits for longer is late."
        )
        self.freshness_objective_ratio = gauge(
            "freshness_objective_ratio", "FRESHNESS_OBJECTIVE_RATIO: the share of time in which no record may be late."
        )
        self.log_start_offset = gauge("partition_log_start_offset", "First offset that Kafka still has.", partition)
        self.log_end_offset = gauge("partition_log_end_offset", "Offset of the next record to come.", partition)
        self.last_stable_offset = gauge(
            "partition_last_stable_offset",
            "Where what can be read of it ends: below the log's end while a transaction is open.",
            partition,
        )
        self.open_transaction_seconds = gauge(
            "partition_open_transaction_seconds",
            "For how long the oldest open transaction has been seen open; 0 when there is none.",
            partition,
        )
        self.next_offset = gauge("partition_next_offset", "Position in Postgres: the next offset to be written.", partition)
        self.lag_records = gauge("partition_lag_records", "Records in Kafka that are not in Postgres.", partition)
        self.lag_seconds = gauge(
            "partition_lag_seconds",
            "Age of the oldest record in Kafka that is not in Postgres, since sent; 0 without one.",
            partition,
        )
        self.kept_seconds = gauge(
            "partition_kept_seconds",
            "Age of that record in Kafka, by its timestamp there: retention goes by it; 0 without one.",
            partition,
        )
        self.topic_retention = gauge("topic_retention_seconds", "How long Kafka keeps a record; 0: for ever.")
        self.topic_compacts = gauge(
            "topic_compacts", "1 while the topic's cleanup.policy has Kafka remove records whose key came again, read or not."
        )
        self.topic_compaction_accepted = gauge("topic_compaction_accepted", "1 with KAFKA_TOPIC_COMPACTED=accept.")
        self.open_dead_letters = gauge("open_dead_letters", "Dead letters without a resolution.", ("reason",))
        self.oldest_dead_letter = gauge(
            "oldest_open_dead_letter_seconds", "Age of the oldest one without a resolution; 0 without one.", ("reason",)
        )
        self.reveals = RevealCounters()
        self.registry.register(self.reveals)
        self.skipped = SkippedCounter()
        self.registry.register(self.skipped)
        self.database_sessions = gauge("database_sessions", "Connections to Postgres, of all its clients.")
        self.database_sessions_max = gauge("database_sessions_max", "max_connections of Postgres.")
        self.table_bytes = gauge("table_bytes", "What a table takes on disk, its indexes included.", ("table",))
        for reason in Reason:
            self.open_dead_letters.labels(reason.value)
            self.oldest_dead_letter.labels(reason.value)

    def show_dead_letters(self, by_reason: Mapping[str, int]) -> None:
        """The open ones; a reason that has none shows 0."""
        for reason in Reason:
            self.open_dead_letters.labels(reason.value).set(by_reason.get(reason.value, 0))

    def show_oldest_dead_letters(self, seconds: Mapping[str, float]) -> None:
        """How old the oldest open one is, likewise."""
        for reason in Reason:
            self.oldest_dead_letter.labels(reason.value).set(seconds.get(reason.value, 0.0))
