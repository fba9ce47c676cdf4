"""Sends replayed records to the topic: each acknowledged by all in-sync replicas, or told as not sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from pipeline.contract import RECORD_BYTES_MAX
from pipeline.errors import FatalError, RetryableError
from pipeline.settings import KafkaSettings

ANSWER_SECONDS = 10.0
DELIVERY_SECONDS = 30.0
"""A record without an acknowledgement by then counts as not sent, though Kafka may have it."""


@dataclass(frozen=True, slots=True)
class ReplayedRecord:
    """What is sent."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class ReplayProducer:
    """Keeps the order of each partition."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Asks Kafka for the topic. Raises :class:`FatalError` where it is not there, :class:`RetryableError` where Kafka isn't."""
        self._topic = settings.kafka_topic
        self._producer = Producer(
            {
                "bootstrap.servers": settings.kafka_bootstrap_servers,
                "client.id": "login-stream-replay",
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2",  # as the bridge's, where a record's partition is gone
                "compression.type": "lz4",
                "linger.ms": 5,
                "delivery.timeout.ms": int(DELIVERY_SECONDS * 1_000),
                "message.max.bytes": RECORD_BYTES_MAX,
                "log.connection.close": False,
                "log_level": 2,
            }
        )
        try:
            topic = self._producer.list_topics(timeout=ANSWER_SECONDS).topics.get(self._topic)
        except KafkaException as error:
            raise RetryableError(
                f"Kafka at KAFKA_BOOTSTRAP_SERVERS does not answer: {error.args[0].name()}; nothing was sent"
            ) from error
        if topic is None or topic.error is not None:
            raise FatalError(f"KAFKA_TOPIC: Kafka has no topic {self._topic!r}; nothing was sent, and none is made for a replay")
        self._partitions = len(topic.partitions)

    def send(self, records: Sequence[ReplayedRecord]) -> list[str | None]:
        """Of each record None when it is acknowledged, else Kafka's name for the error. Blocks."""
        outcomes: list[str | None] = ["no acknowledgement"] * len(records)

        def delivered(index: int, error: KafkaError | None, _: Any) -> None:
            outcomes[index] = None if error is None else error.name()

        for index, record in enumerate(records):
            partition = record.partition if record.partition < self._partitions else -1
            try:
                self._producer.produce(
                    self._topic,
                    record.value,
                    record.key,
                    partition,
                    on_delivery=partial(delivered, index),
                    headers=list[tuple[str, str | bytes | None]](record.headers),
                )
            except (KafkaException, BufferError) as error:
                code = error.args[0]
                outcomes[index] = code.name() if isinstance(code, KafkaError) else type(error).__name__
        self._producer.flush(DELIVERY_SECONDS + ANSWER_SECONDS)
        return outcomes
