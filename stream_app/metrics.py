"""Every metric of the worker. Counted per batch, never per record; labels are bounded.

Gauges by partition are read from the partitions when Prometheus asks, so that one which moved to another worker is gone from here.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, Info, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import pipeline
from pipeline.errors import PipelineError, RetryableError
from stream_app.batch import STEPS, Step
from stream_app.login_record import FIELDS
from stream_app.postgres.errors import RETRY_CLASSES, retry_class
from stream_app.postgres.pool import StatementResult
from stream_app.reasons import Reason
from stream_app.refusals import RowsRefused
from stream_app.windows import Trigger

DELAY_BUCKETS = (
    0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0, 90.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0,
)  # fmt: skip
"""A quantile is read between two edges: these are at most half apart up to two minutes, so p50 and p99.9 alike are off by less than
a third. prometheus-client has no native histograms yet."""

STATEMENT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PAUSE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
BYTES_BUCKETS = (1_024, 16_384, 65_536, 262_144, 1_048_576, 2_097_152, 4_194_304, 8_388_608, 16_777_216, 67_108_864)
DEPENDENCIES = ("kafka", "postgres")
REFUSAL_LABELS = ("sqlstate", "table", "column", "constraint", "trigger", "function")
"""Names of the schema; a partition has one set of them at most."""

ROWS_BUCKETS = (1, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionGauges:
    """What one partition shows.

    ``oldest_unwritten_seconds`` is the sent-at time (since the epoch) of the oldest record that waits, if one does;
    ``last_stable_offset`` is where what can be read ends, ``open_transaction_seconds`` how long a transaction has been seen open.
    """

    topic: str
    partition: int
    next_offset: int | None
    log_end_offset: int | None
    last_stable_offset: int | None
    open_transaction_seconds: float
    oldest_unwritten_seconds: float | None
    buffered_records: int
    buffered_bytes: int
    stopped: bool
    refused: RowsRefused | None
    """Why it stands, if Postgres refuses row after row."""
    paused: bool


class DelayHistogram(Collector):
    """Seconds from many moments until now, a batch at a time: one bisect a bucket instead of one observation a record."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._name, self._documentation, self._edges = name, documentation, tuple(buckets)
        self._counts = [0] * (len(self._edges) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe_all(self, moments_ms: Iterable[int], now: float) -> None:
        """Count the delay of each moment (milliseconds since the epoch). One that is yet to come, by our clock, counts as now."""
        ordered = sorted(moments_ms)
        later = len(ordered)  # those from here on have a smaller delay, and are counted
        for index, edge in enumerate(self._edges):
            place = bisect_left(ordered, (now - edge) * 1000, hi=later)
            self._counts[index] += later - place
            later = place
        self._counts[-1] += later
        past = bisect_left(ordered, now * 1000)
        self._sum += now * past - sum(ordered[:past]) / 1000

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
        last_stable = gauge(
            "last_stable_offset", "Where what can be read of it ends: below the log's end while a transaction is open."
        )
        open_transaction = gauge(
            "open_transaction_seconds", "For how long the oldest open transaction has been seen open; 0 when there is none."
        )
        lag_records = gauge("lag_records", "Log end less position.")
        lag_seconds = gauge("lag_seconds", "Now less sent at of the oldest record that is not in Postgres; 0 when there is none.")
        buffered_records = gauge("buffered_records", "Records fetched and not yet written.")
        buffered_bytes = gauge("buffered_bytes", "Memory held by records fetched and not yet written.")
        stopped = gauge("stopped", "1 while the partition waits for a person: see the log line partition_stopped.")
        refused = GaugeMetricFamily(
            "stream_partition_rows_refused",
            "How many rows in a row Postgres has refused of a partition that it stopped, and what it names; else 0.",
            labels=(*labels, *REFUSAL_LABELS),
        )
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
            if state.last_stable_offset is not None:
                last_stable.add_metric(where, state.last_stable_offset)
                open_transaction.add_metric(where, state.open_transaction_seconds)
            oldest = state.oldest_unwritten_seconds
            if oldest is not None or state.next_offset is not None:  # of a partition that is not claimed nothing is known
                lag_seconds.add_metric(where, 0.0 if oldest is None else max(0.0, now - oldest))
            buffered_records.add_metric(where, state.buffered_records)
            buffered_bytes.add_metric(where, state.buffered_bytes)
            stopped.add_metric(where, float(state.stopped))
            paused.add_metric(where, float(state.paused))
            names = {} if state.refused is None else state.refused.refusal.named()
            rows = 0 if state.refused is None else state.refused.rows
            refused.add_metric((*where, *(names.get(label, "") for label in REFUSAL_LABELS)), rows)
        yield from (next_offset, log_end, last_stable, open_transaction, lag_records, lag_seconds)
        yield from (buffered_records, buffered_bytes, stopped, refused, paused)


class WorkerMetrics:
    """The metric objects and the registry that `/metrics` serves."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

        def counter(name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"stream_{name}", documentation, labels, registry=self.registry)

        def gauge(name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
            return Gauge(f"stream_{name}", documentation, labels, registry=self.registry)

        def histogram(name: str, documentation: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
            return Histogram(f"stream_{name}", documentation, labels, buckets=buckets, registry=self.registry)

        self.build = Info("stream_build", "Version of the running code.", registry=self.registry)
        self.build.info({"version": pipeline.__version__})
        self.records_received = counter("records_received_total", "Records fetched from Kafka, re-read ones included.")
        self.rows_written = counter("rows_written_total", "Rows inserted into user_logins.")
        self.duplicates_skipped = counter("duplicates_skipped_total", "Records whose message was in Postgres already.")
        self.duplicates_differing = counter(
            "duplicates_differing_total", "Messages that came again with other content than the row that is there, which stays."
        )
        self.dead_letters = counter("dead_letters_total", "Records stored as dead letters.", ["reason"])
        self.records_with_extra_keys = counter(
            "records_with_extra_keys_total", "Records with keys that no field declares; the keys are ignored."
        )
        self.values_reduced = counter(
            "values_reduced_total",
            "Values of which a row holds less than the record said, by field and what was left off.",
            ["field", "reduction"],
        )
        self.fetch_records = histogram(
            "fetch_records",
            "Records in what one fetch brought of one partition, at most: some offsets may hold none.",
            ROWS_BUCKETS,
        )
        self.fetch_bytes = histogram("fetch_bytes", "Memory that these records take while they are packed.", BYTES_BUCKETS)
        self.batches = counter("batches_total", "Micro-batches written, by what closed their window.", ["trigger"])
        step_seconds = counter("build_step_seconds_total", "Time in each step of building micro-batches.", ["step"])
        self.step_seconds = {step: step_seconds.labels(step) for step in STEPS}
        self.batch_rows = histogram("batch_rows", "Records in a micro-batch.", ROWS_BUCKETS)
        self.build_seconds = histogram("batch_build_seconds", "Decoding, cleaning and masking a micro-batch.", STATEMENT_BUCKETS)
        self.write_seconds = histogram(
            "batch_write_seconds", "Writing a micro-batch, retries included.", (*STATEMENT_BUCKETS, 60.0, 300.0)
        )
        self.sent_to_written = DelayHistogram(
            "stream_sent_to_written_seconds", "From sent at (SQS) to written (Postgres).", DELAY_BUCKETS, self.registry
        )
        statement_seconds = histogram(
            "statement_seconds",
            "Statements sent to Postgres, by how they ended: ok, retryable (tried again), refused (a row, a missing right).",
            (*STATEMENT_BUCKETS, 60.0),
            ["result"],
        )
        self.statement_seconds = {result: statement_seconds.labels(result) for result in get_args(StatementResult)}
        self.database_connections = gauge("database_connections", "Connections to Postgres that are open.")
        self.database_connections_wanted = gauge(
            "database_connections_wanted",
            "Connections that are opened at most: fewer than POSTGRES_CONNECTIONS_MAX while Postgres gives no more.",
        )
        self.database_retries = counter(
            "database_retries_total",
            "Statements tried again, by SQLSTATE class; tls: a certificate was refused, none: no answer.",
            ["sqlstate_class"],
        )
        self.batch_splits = counter(
            "batch_splits_total", "Batches halved: Postgres refused a row in them, or they were too much for one statement."
        )
        self.writes_fenced = counter("writes_fenced_total", "Writes refused because another worker had claimed the partition.")
        self.claims = counter("claims_total", "Partitions claimed.")
        self.newest_sent_at = gauge(
            "newest_sent_at_timestamp_seconds",
            "Sent at of the newest row when a partition was last claimed; while it lies in the future each row is looked up.",
        )
        self.records_lost = counter("records_lost_total", "Records that Kafka's retention removed before they were read.")
        self.records_compacted = counter(
            "records_compacted_total",
            "Offsets whose records Kafka's compaction removed, read or not; what is read again is counted again.",
        )
        self.offsets_skipped = counter(
            "offsets_skipped_total", "Offsets that hold no record: control records, what transactions took back, compaction."
        )
        self.rebalances = counter("rebalances_total", "Assignments received from the consumer group.")
        self.rebalance_seconds = histogram(
            "rebalance_seconds", "From partitions taken back by the group to the next assignment.", PAUSE_BUCKETS
        )
        self.event_loop_delay_seconds = histogram(
            "event_loop_delay_seconds", "How late the event loop woke from a pause of a second.", PAUSE_BUCKETS
        )
        self.buffer_bytes = gauge("buffer_bytes", "Memory held by records that wait to be written, all partitions together.")
        self.buffer_bytes_max = gauge("buffer_bytes_max", "BUFFER_BYTES_MAX: fetching pauses while so much waits.")
        ready = gauge("ready", "1 while the dependency answers.", ["dependency"])
        self.ready = {dependency: ready.labels(dependency) for dependency in DEPENDENCIES}
        self.keys = gauge(
            "masking_key_info", "1 for each key of a masking keyset; the primary one masks.", ["keyset", "key_id", "primary"]
        )
        self.commit_errors = counter(
            "kafka_commit_errors_total", "Kafka offset commits that failed; correctness does not rest on them."
        )
        for reason in Reason:
            self.dead_letters.labels(reason.value)
        for field in FIELDS:
            for reduction in field.reductions:
                self.values_reduced.labels(field.name, reduction.value)
        for trigger in Trigger:
            self.batches.labels(trigger.value)
        for sqlstate_class in RETRY_CLASSES:
            self.database_retries.labels(sqlstate_class)

    def fetched(self, records: int, size: int) -> None:
        """Count what one fetch brought of one partition."""
        self.records_received.inc(records)
        self.fetch_records.observe(records)
        self.fetch_bytes.observe(size)

    def took_step(self, step: Step, seconds: float) -> None:
        """Count the time of a step of building a batch."""
        self.step_seconds[step].inc(seconds)

    def use_keys(self, keys: Iterable[tuple[str, int, bool]]) -> None:
        """Show which keys mask: the keyset's setting, the key's id, whether it is the primary one."""
        for setting, key_id, primary in keys:
            self.keys.labels(setting.lower().removesuffix("_keyset_file"), str(key_id), str(primary).lower()).set(1)

    def ran_statement(self, result: StatementResult, seconds: float, error: PipelineError | None) -> None:
        """Count a statement; ``error``: how it failed."""
        self.statement_seconds[result].observe(seconds)
        if isinstance(error, RetryableError):
            self.database_retries.labels(retry_class(error)).inc()

    def serve_partitions(self, snapshot: Callable[[], Sequence[PartitionGauges]], wall_clock: Callable[[], float]) -> None:
        """Show the gauges of the partitions that ``snapshot`` tells; it is called from the metrics thread."""
        self.registry.register(_PartitionCollector(snapshot, wall_clock))
