"""Every metric of the worker. Counted per batch, never per record; labels are bounded.

Gauges by partition are read from the partitions when Prometheus asks, so that one which moved to another worker is gone from here.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, Info, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import pipeline
from stream_app.reasons import Reason
from stream_app.windows import Trigger

DELAY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0)
STATEMENT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SQLSTATE_CLASSES = ("08", "25", "28", "40", "53", "55", "57", "58", "XX")
"""Those that ``postgres/errors.py`` calls retryable; an error without one is ``none``."""

ROWS_BUCKETS = (1, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000)


@dataclass(frozen=True, slots=True)
class PartitionGauges:
    """What one partition shows.

    ``oldest_unwritten_seconds`` is the sent-at time (since the epoch) of the oldest record that waits, if one does.
    """

    topic: str
    partition: int
    next_offset: int | None
    log_end_offset: int | None
    oldest_unwritten_seconds: float | None
    buffered_records: int
    buffered_bytes: int
    stopped: bool
    paused: bool


class DelayHistogram(Collector):
    """A histogram that takes a whole batch of values: one bisect a bucket instead of one observation a record."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._name, self._documentation, self._edges = name, documentation, tuple(buckets)
        self._counts = [0] * (len(self._edges) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe_all(self, values: Iterable[float]) -> None:
        """Count every value into its bucket."""
        ordered = sorted(values)
        below = 0
        for index, edge in enumerate(self._edges):
            upto = bisect_right(ordered, edge)
            self._counts[index] += upto - below
            below = upto
        self._counts[-1] += len(ordered) - below
        self._sum += sum(ordered)

    def collect(self) -> Iterator[Metric]:
        """For the registry: cumulative buckets, as Prometheus wants them."""
        cumulative, buckets = 0, []
        for edge, count in zip((*map(str, self._edges), "+Inf"), self._counts, strict=True):
            cumulative += count
            buckets.append((edge, float(cumulative)))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=self._sum)


class _PartitionCollector(Collector):
    def __init__(self, snapshot: Callable[[], Sequence[PartitionGauges]], wall_clock: Callable[[], float]) -> None:
        self._snapshot, self._wall_clock = snapshot, wall_clock

    def collect(self) -> Iterator[Metric]:
        labels = ("topic", "partition")

        def gauge(name: str, documentation: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"stream_partition_{name}", documentation, labels=labels)

        next_offset = gauge("next_offset", "Position in Postgres: the next offset to be written.")
        log_end = gauge("log_end_offset", "End of the partition's log in Kafka, as last seen.")
        lag_records = gauge("lag_records", "Log end less position.")
        lag_seconds = gauge("lag_seconds", "Now less sent at of the oldest record that is not in Postgres; 0 when there is none.")
        buffered_records = gauge("buffered_records", "Records fetched and not yet written.")
        buffered_bytes = gauge("buffered_bytes", "Memory held by records fetched and not yet written.")
        stopped = gauge("stopped", "1 while the partition waits for a person: see the log line partition_stopped.")
        paused = gauge("fetch_paused", "1 while fetching waits for writing.")
        now = self._wall_clock()
        for state in self._snapshot():
            where = (state.topic, str(state.partition))
            if state.next_offset is not None:
                next_offset.add_metric(where, state.next_offset)
            if state.log_end_offset is not None:
                log_end.add_metric(where, state.log_end_offset)
                if state.next_offset is not None:
                    lag_records.add_metric(where, max(0, state.log_end_offset - state.next_offset))
            oldest = state.oldest_unwritten_seconds
            lag_seconds.add_metric(where, 0.0 if oldest is None else max(0.0, now - oldest))
            buffered_records.add_metric(where, state.buffered_records)
            buffered_bytes.add_metric(where, state.buffered_bytes)
            stopped.add_metric(where, float(state.stopped))
            paused.add_metric(where, float(state.paused))
        yield from (next_offset, log_end, lag_records, lag_seconds, buffered_records, buffered_bytes, stopped, paused)


class WorkerMetrics:
    """The metric objects and the registry that `/metrics` serves."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

        def counter(name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"stream_{name}", documentation, labels, registry=self.registry)

        def histogram(name: str, documentation: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
            return Histogram(f"stream_{name}", documentation, labels, buckets=buckets, registry=self.registry)

        self.build = Info("stream_build", "Version of the running code.", registry=self.registry)
        self.build.info({"version": pipeline.__version__})
        self.records_received = counter("records_received_total", "Records fetched from Kafka, re-read ones included.")
        self.rows_written = counter("rows_written_total", "Rows inserted into user_logins.")
        self.duplicates_skipped = counter("duplicates_skipped_total", "Records whose message was in Postgres already.")
        self.dead_letters = counter("dead_letters_total", "Records stored as dead letters.", ["reason"])
        self.records_with_extra_keys = counter(
            "records_with_extra_keys_total", "Records with keys that no field declares; the keys are ignored."
        )
        self.batches = counter("batches_total", "Micro-batches written, by what closed their window.", ["trigger"])
        self.batch_rows = histogram("batch_rows", "Records in a micro-batch.", ROWS_BUCKETS)
        self.build_seconds = histogram("batch_build_seconds", "Decoding, cleaning and masking a micro-batch.", STATEMENT_BUCKETS)
        self.write_seconds = histogram(
            "batch_write_seconds", "Writing a micro-batch, retries included.", (*STATEMENT_BUCKETS, 60.0, 300.0)
        )
        self.sent_to_written = DelayHistogram(
            "stream_sent_to_written_seconds", "From sent at (SQS) to written (Postgres).", DELAY_BUCKETS, self.registry
        )
        self.database_retries = counter(
            "database_retries_total", "Statements that are tried again, by SQLSTATE class.", ["sqlstate_class"]
        )
        self.batch_splits = counter("batch_splits_total", "Batches halved because Postgres refused a row in them.")
        self.writes_fenced = counter("writes_fenced_total", "Writes refused because another worker had claimed the partition.")
        self.claims = counter("claims_total", "Partitions claimed.")
        self.records_lost = counter("records_lost_total", "Records that Kafka's retention removed before they were read.")
        self.offsets_skipped = counter("offsets_skipped_total", "Offsets that hold no record: control records or compaction.")
        self.rebalances = counter("rebalances_total", "Assignments received from the consumer group.")
        self.commit_errors = counter(
            "kafka_commit_errors_total", "Kafka offset commits that failed; correctness does not rest on them."
        )
        for reason in Reason:
            self.dead_letters.labels(reason.value)
        for trigger in Trigger:
            self.batches.labels(trigger.value)
        for sqlstate_class in (*SQLSTATE_CLASSES, "none"):
            self.database_retries.labels(sqlstate_class)

    def retried(self, sqlstate: str | None) -> None:
        """Count a statement that is tried again."""
        known = sqlstate is not None and sqlstate[:2] in SQLSTATE_CLASSES
        self.database_retries.labels(sqlstate[:2] if known and sqlstate is not None else "none").inc()

    def serve_partitions(self, snapshot: Callable[[], Sequence[PartitionGauges]], wall_clock: Callable[[], float]) -> None:
        """Show the gauges of the partitions that ``snapshot`` tells; it is called from the metrics thread."""
        self.registry.register(_PartitionCollector(snapshot, wall_clock))
