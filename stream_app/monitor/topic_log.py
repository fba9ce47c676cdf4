"""The topic as Kafka shows it to somebody who is in no consumer group: its ends, its retention, and how old a record is."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
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


class LogRange(NamedTuple):
    """Of a partition's log."""

    start: int
    """First offset that Kafka still has."""
    end: LogEnd


class TopicLog:
    """Blocking calls, for one thread; each raises :class:`RetryableError` when Kafka does not answer.

    After that the next call is made by a new client: one of librdkafka that was told of no node, as while all are fenced, may
    connect to none ever again (its issue #5301).
    """

    def __init__(self, settings: KafkaSettings, sent_at_bounds: SentAtBounds) -> None:
        self._topic = settings.kafka_topic
        self._sent_at_bounds = sent_at_bounds
        self._common: dict[str, Any] = {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "log_level": 0,
            "reconnect.backoff.max.ms": 1_000,
        }
        self._admin = AdminClient(self._common)
        self._consumer = self._new_consumer("read_committed")

    def _new_consumer(self, isolation_level: str) -> Consumer:
        return Consumer(
            {
                **self._common,
                "group.id": f"{self._topic}-monitor",  # librdkafka wants one; it is never joined and nothing is committed
                "enable.auto.commit": False,
                "isolation.level": isolation_level,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.message.max.bytes": 16_384,  # one record is wanted; Kafka sends the batch that it is in
                "queued.min.messages": 1,
            }
        )

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

    def retention_seconds(self) -> float:
        """How long the topic keeps a record; 0: for ever."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, self._topic)
        futures = self._admin.describe_configs([resource], request_timeout=REQUEST_SECONDS)
        milliseconds = float(self._asked(lambda: futures[resource].result(REQUEST_SECONDS))["retention.ms"].value)
        return max(0.0, milliseconds / 1_000)

    def times(self, offsets: Mapping[int, int]) -> dict[int, Times]:
        """Those of the first record that can be read at or after each partition's offset.

        A partition is missing where none is: offsets that Kafka has may all be control records, which are no records to anybody.
        """
        try:
            return self._first_times(self._consumer, offsets)
        except RetryableError:
            self._consumer.close()
            self._consumer = self._new_consumer("read_committed")
            raise

    def times_in_transaction(self, offsets: Mapping[int, int]) -> dict[int, Times]:
        """Likewise, of records that nobody can read yet: those of a transaction that is open."""
        consumer = self._new_consumer("read_uncommitted")  # at most once a look
        try:
            return self._first_times(consumer, offsets)
        finally:
            consumer.close()

    def _first_times(self, consumer: Consumer, offsets: Mapping[int, int]) -> dict[int, Times]:
        found: dict[int, Times] = {}
        waiting = set(offsets)
        deadline = time.monotonic() + REQUEST_SECONDS
        consumer.assign([TopicPartition(self._topic, partition, offset) for partition, offset in offsets.items()])
        try:
            while waiting:
                message = consumer.poll(max(0.0, deadline - time.monotonic()))
                if message is None:
                    raise RetryableError("Kafka did not deliver a record")
                partition, error = message.partition(), message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own codes begin so
                    raise RetryableError(f"Kafka did not deliver a record: {error.name()}")
                if partition in waiting:
                    waiting.discard(partition)
                    if error is None:
                        found[partition] = _times(message, self._sent_at_bounds)
                    consumer.incremental_unassign([TopicPartition(self._topic, partition)])
        except KafkaException as error:
            raise _retryable(error) from error
        finally:
            consumer.unassign()
        return found

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close()

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


def _times(message: Message, bounds: SentAtBounds) -> Times:
    """Sent at as the worker reads it: the bridge's header where it can be true, else the Kafka timestamp."""
    timestamp = message.timestamp()[1]
    kept_since = max(0, timestamp) / 1_000
    headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    sent_at_ms = parse_sent_at_ms(next((value for name, value in headers if name == HEADER_SENT_AT), None))
    if sent_at_ms is not None and bounds.hold(sent_at_ms, sent_at_ms, timestamp, timestamp):
        return Times(sent_at_ms / 1_000, kept_since)
    return Times(kept_since, kept_since)
