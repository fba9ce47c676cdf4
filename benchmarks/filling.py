"""Topics that are full before anything is measured."""

import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from dev_servers.made_up_logins import SEED, made_up_logins
from pipeline.contract import HEADER_MESSAGE_ID, HEADER_SENT_AT, HEADER_SOURCE
from pipeline.kafka_topic import ensure_topic
from pipeline.settings import KafkaSettings, load

SENT_AT_MS = 1_795_000_000_000
MESSAGES_PER_MS = 10
"""How dense the made-up times of sending are: rows arrive nearly in the order of the unique index, as in a real stream."""
DUPLICATE_DISTANCE = 1_000
REQUEST_SECONDS = 10.0
FLUSH_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class TopicMessage:
    """One record of the topic, as the bridge writes it."""

    user_id: str
    body: str
    message_id: str
    sent_at_ms: int


def login_messages(count: int) -> Iterator[TopicMessage]:
    """The same ones each time."""
    chance = random.Random(SEED)  # noqa: S311 - to be repeatable is the point
    for number, login in enumerate(made_up_logins(count)):
        message_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        yield TopicMessage(login.user_id, login.body(), message_id, SENT_AT_MS + number // MESSAGES_PER_MS)


def each_twice(messages: Iterable[TopicMessage], distance: int = DUPLICATE_DISTANCE) -> Iterator[TopicMessage]:
    """Each message again, ``distance`` messages later."""
    waiting: list[TopicMessage] = []
    for message in messages:
        yield message
        waiting.append(message)
        if len(waiting) > distance:
            yield waiting.pop(0)
    yield from waiting


class LogEnds:
    """Asks where each partition's log ends, over a connection that is kept."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self.consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "log-ends", "log_level": 0})
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


def fill_topic(
    bootstrap_servers: str,
    topic: str,
    partitions: int,
    messages: Iterable[TopicMessage],
    count: int,
    *,
    body: Callable[[str], str] | None = None,
    say: Callable[[str], None],
) -> None:
    """Make a topic that holds exactly these, unless it is there; ``count`` is how many they are."""
    ends = log_ends(bootstrap_servers, topic)
    if sum(ends.values()) == count and len(ends) == partitions:
        return
    if ends:
        remove_topic(bootstrap_servers, topic)
    say(f"filling topic {topic} with {count:,} made-up logins")
    make_topic(bootstrap_servers, topic, partitions)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "linger.ms": 50,
            "batch.size": 262_144,
            "compression.type": "lz4",
            "enable.idempotence": True,
            "partitioner": "murmur2",
            "log_level": 0,
        }
    )
    for message in messages:
        value = message.body if body is None else body(message.body)
        headers: list[tuple[str, str | bytes | None]] = [
            (HEADER_MESSAGE_ID, message.message_id),
            (HEADER_SENT_AT, str(message.sent_at_ms)),
            (HEADER_SOURCE, "login-queue"),
        ]
        while True:
            try:
                producer.produce(topic, value, message.user_id, headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush(FLUSH_SECONDS)
    held = sum(log_ends(bootstrap_servers, topic).values())
    if held != count:
        raise KafkaException(f"topic {topic} holds {held:,} records instead of {count:,}")
