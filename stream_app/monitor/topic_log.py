"""The topic as Kafka shows it to somebody who is in no consumer group: its ends, its retention, and how old a record is."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec  # type: ignore[attr-defined] # not in its __all__

from pipeline.contract import HEADER_SENT_AT
from pipeline.errors import RetryableError
from pipeline.kafka_reachability import KafkaUnreachableError
from pipeline.settings import KafkaSettings
from stream_app.open_transaction import LogEnd
from stream_app.sent_at import SentAtBounds, parse_sent_at_ms

REQUEST_SECONDS = 5.0


class Times(NamedTuple):
    """Of a record, in seconds since the epoch."""

    sent_at: float
    kept_since: float
    """Its timestamp in Kafka, by which retention removes it: later by what it waited in SQS, be it days."""


class Keeping(NamedTuple):
    """What Kafka removes of a topic by itself."""

    retention_seconds: float
    """How long it keeps a record; 0: for ever."""
    compacts: bool
    """Whether it removes records whose key came again."""


class LogRange(NamedTuple):
    """Of a partition's log."""

    start: int
    """First offset that Kafka still has."""
    end: LogEnd


class TimedRecord(Protocol):
    """What tells when a record was sent."""

    @property
    def timestamp(self) -> int:
        """Kafka's, in milliseconds since the epoch; -1 if it has none."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Names and values; none where the record is too large to be held."""


class FirstRecords(Protocol):
    """What reads records: a thing of the transport's, which unpacks them within bounds. Raises :class:`RetryableError`."""

    def __call__(self, offsets: Mapping[int, int], *, committed: bool) -> Mapping[int, TimedRecord]:
        """Of each partition the first record from its offset on, of those that are ``committed`` or of all; none: it is missing."""


class TopicLog:
    """Blocking calls, for one thread; each raises :class:`RetryableError` when Kafka does not answer.

    After that the next call is made by a new client: one of librdkafka that was told of no node, as while all are fenced, may
    connect to none ever again (its issue #5301).
    """

    def __init__(self, settings: KafkaSettings, sent_at_bounds: SentAtBounds, first_records: FirstRecords) -> None:
        self._first_records = first_records
        self._topic = settings.kafka_topic
        self._sent_at_bounds = sent_at_bounds
        self._common: dict[str, Any] = {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "log_level": 0,
            "reconnect.backoff.max.ms": 1_000,
        }
        self._admin = AdminClient(self._common)

    def ranges(self) -> dict[int, LogRange]:
        """First offset and ends of each partition's log; empty while there is no such topic."""
        topic = self._asked(lambda: self._admin.list_topics(self._topic, timeout=REQUEST_SECONDS)).topics[self._topic]
        partitions = [TopicPartition(self._topic, partition) for partition in topic.partitions]
        if topic.error is not None or not partitions:
            return {}
        starts = self._offsets(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call] # confluent-kafka says nothing
        ends = self._offsets(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        # Asked for last: one that is below the log's end of before is so now, and no record that came in between makes it so.
        stable_ends = self._offsets(partitions, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)  # type: ignore[no-untyped-call]
        return {
            partition: LogRange(start, LogEnd(max(ends[partition], stable_ends[partition]), stable_ends[partition]))
            for partition, start in starts.items()
        }

    def keeping(self) -> Keeping:
        """What the topic does with records in time."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, self._topic)
        futures = self._admin.describe_configs([resource], request_timeout=REQUEST_SECONDS)
        found = self._asked(lambda: futures[resource].result(REQUEST_SECONDS))
        return Keeping(max(0.0, float(found["retention.ms"].value) / 1_000), "compact" in found["cleanup.policy"].value.split(","))

    def times(self, offsets: Mapping[int, int]) -> dict[int, Times]:
        """Those of the first record that can be read at or after each partition's offset.

        A partition is missing where none is: offsets that Kafka has may all be control records, which are no records to anybody.
        """
        return self._first_times(offsets, committed=True)

    def times_in_transaction(self, offsets: Mapping[int, int]) -> dict[int, Times]:
        """Likewise, of records that nobody can read yet: those of a transaction that is open."""
        return self._first_times(offsets, committed=False)

    def _first_times(self, offsets: Mapping[int, int], *, committed: bool) -> dict[int, Times]:
        records = self._first_records(offsets, committed=committed)
        return {partition: _times(record, self._sent_at_bounds) for partition, record in records.items()}

    def _offsets(
        self, partitions: list[TopicPartition], spec: OffsetSpec, isolation_level: IsolationLevel = IsolationLevel.READ_UNCOMMITTED
    ) -> dict[int, int]:
        futures = self._admin.list_offsets(
            dict.fromkeys(partitions, spec), isolation_level=isolation_level, request_timeout=REQUEST_SECONDS
        )
        return {
            partition.partition: self._asked(lambda future=future: future.result(REQUEST_SECONDS)).offset
            for partition, future in futures.items()
        }

    def _asked(self, request: Any) -> Any:
        try:
            return request()
        except KafkaException as error:
            self._admin = AdminClient(self._common)
            raise _retryable(error) from error
        except TimeoutError as error:
            self._admin = AdminClient(self._common)
            raise RetryableError("Kafka at KAFKA_BOOTSTRAP_SERVERS does not answer") from error


def _retryable(error: KafkaException) -> RetryableError:
    code = error.args[0].name()
    return KafkaUnreachableError(f"Kafka at KAFKA_BOOTSTRAP_SERVERS does not answer: {code}", code)


def _times(record: TimedRecord, bounds: SentAtBounds) -> Times:
    """Sent at as the worker reads it: the bridge's header where it can be true, else the Kafka timestamp."""
    kept_since = max(0, record.timestamp) / 1_000
    sent_at_ms = parse_sent_at_ms(next((value for name, value in record.headers if name == HEADER_SENT_AT), None))
    if sent_at_ms is not None and bounds.hold(sent_at_ms, sent_at_ms, record.timestamp, record.timestamp):
        return Times(sent_at_ms / 1_000, kept_since)
    return Times(kept_since, kept_since)
