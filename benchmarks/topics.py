"""Topics of benchmarks: made as the product makes them, written as the bridge writes them."""

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pipeline.contract import HEADER_MESSAGE_ID, HEADER_SENT_AT, HEADER_SOURCE
from pipeline.kafka_topic import ensure_topic
from pipeline.settings import KafkaSettings, load

REQUEST_SECONDS = 10.0
FLUSH_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class TopicMessage:
    """One record of the topic, as the bridge writes it."""

    user_id: str
    body: str
    message_id: str
    sent_at_ms: int


class LogEnds:
    """Asks where each partition's log ends, over a connection that is kept."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self.consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "log-ends",
                "isolation.level": "read_uncommitted",  # else an open transaction would be taken for the end
                "log_level": 0,
            }
        )
        self._topic = topic
        found = self.consumer.list_topics(topic, timeout=REQUEST_SECONDS).topics[topic]
        self._partitions = [] if found.error is not None else list(found.partitions)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.consumer.close()

    def read(self) -> dict[int, int]:
        """By partition; empty for a topic that was not there."""
        return {
            partition: self.consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=REQUEST_SECONDS)[1]
            for partition in self._partitions
        }


def log_ends(bootstrap_servers: str, topic: str) -> dict[int, int]:
    """Where each partition's log ends; empty for a topic that is not there."""
    with LogEnds(bootstrap_servers, topic) as ends:
        return ends.read()


def make_bounded_topic(bootstrap_servers: str, topic: str, partitions: int, kept_bytes: int) -> None:
    """For a stream without end: each partition's log is cut at its old end."""
    config = {"retention.bytes": str(kept_bytes), "segment.bytes": str(kept_bytes // 4)}
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result()


def make_topic(bootstrap_servers: str, topic: str, partitions: int) -> None:
    """With the settings that the product gives it."""
    ensure_topic(
        load(
            KafkaSettings,
            kafka_bootstrap_servers=bootstrap_servers,
            kafka_topic=topic,
            kafka_topic_partitions=partitions,
            kafka_topic_retention_hours=24 * 365,  # a kept one is still full the next time
        )
    )


def remove_topic(bootstrap_servers: str, topic: str) -> None:
    """Returns when it is gone."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})  # kept until the answer is here
    admin.delete_topics([topic])[topic].result()
    while log_ends(bootstrap_servers, topic):
        time.sleep(0.1)


class TopicProducer:
    """Puts messages on a topic."""

    def __init__(self, bootstrap_servers: str, topic: str, *, linger_milliseconds: int = 50) -> None:
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "linger.ms": linger_milliseconds,
                "batch.size": 262_144,
                "compression.type": "lz4",
                "enable.idempotence": True,
                "partitioner": "murmur2",
                "log_level": 0,
            }
        )

    def produce(self, message: TopicMessage) -> None:
        """Hand one over; waits while too many are under way."""
        headers: list[tuple[str, str | bytes | None]] = [
            (HEADER_MESSAGE_ID, message.message_id),
            (HEADER_SENT_AT, str(message.sent_at_ms)),
            (HEADER_SOURCE, "login-queue"),
        ]
        while True:
            try:
                self._producer.produce(self._topic, message.body, message.user_id, headers=headers)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def flush(self) -> None:
        """Returns when Kafka has all of them. Raises :class:`KafkaException` when it does not take them."""
        if left := self._producer.flush(FLUSH_SECONDS):
            raise KafkaException(f"Kafka has not acknowledged {left:,} records")
