"""Topics that are full before anything is measured."""

import random
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from confluent_kafka import KafkaException

from benchmarks.topics import TopicMessage, TopicProducer, log_ends, make_topic, remove_topic
from dev_servers.made_up_logins import SEED, made_up_logins

SENT_AT_MS = 1_795_000_000_000
MESSAGES_PER_MS = 10
"""How dense the made-up times of sending are: rows arrive nearly in the order of the unique index, as in a real stream."""
DUPLICATE_DISTANCE = 1_000


def login_messages(count: int) -> Iterator[TopicMessage]:
    """The same ones each time."""
    chance = random.Random(SEED)  # noqa: S311 - to be repeatable is the point
    for number, login in enumerate(made_up_logins(count)):
        message_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        yield TopicMessage(login.user_id, login.body(), message_id, SENT_AT_MS + number // MESSAGES_PER_MS)


def each_twice(messages: Iterable[TopicMessage], distance: int = DUPLICATE_DISTANCE) -> Iterator[TopicMessage]:
    """Each message again, ``distance`` messages later."""
    waiting: deque[TopicMessage] = deque()
    for message in messages:
        yield message
        waiting.append(message)
        if len(waiting) > distance:
            yield waiting.popleft()
    yield from waiting


def with_dead_letters(messages: Iterable[TopicMessage], each: int) -> Iterator[TopicMessage]:
    """The messages, and every so many-th of another kind."""
    for number, message in enumerate(messages, 1):
        yield message if number % each else replace(message, body='{"foo": 1}')


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
    producer = TopicProducer(bootstrap_servers, topic)
    for message in messages:
        producer.produce(message if body is None else replace(message, body=body(message.body)))
    producer.flush()
    held = sum(log_ends(bootstrap_servers, topic).values())
    if held != count:
        raise KafkaException(f"topic {topic} holds {held:,} records instead of {count:,}")
