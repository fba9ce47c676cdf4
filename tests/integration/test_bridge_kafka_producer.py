"""The producer on real Kafka, without a queue: what becomes of each record, and a fatal error of librdkafka's own."""

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka import KafkaError
from integration.running_bridge import Topic, wait_for

from bridges.kafka_producer import KafkaProducer
from bridges.message import Message
from bridges.settings import BridgeSettings
from dev_servers.kafka import Kafka

SMALL, LARGE = 100, 30_000


class Scene:
    """A producer and what it told."""

    def __init__(self, topic: Topic, produce_timeout_seconds: float = 10, **settings: object) -> None:
        self.outcomes: list[tuple[str, str, str]] = []
        self.suspicions = 0
        values = {
            "sqs_queue_url": "http://127.0.0.1/1/q",
            "kafka_bootstrap_servers": topic.bootstrap_servers,
            "kafka_topic": topic.name,
            **settings,
        }
        self.producer = KafkaProducer(
            BridgeSettings(**values),  # type: ignore[arg-type]
            produce_timeout_seconds,
            on_failed=self.on_failed,
            on_refused=self.on_refused,
            on_suspicion=self.on_suspicion,
        )

    def on_failed(self, message: Message, code: str) -> None:
        self.outcomes.append((message.message_id, "failed", code))

    def on_refused(self, message: Message, code: str) -> None:
        self.outcomes.append((message.message_id, "refused", code))

    def on_suspicion(self) -> None:
        self.suspicions += 1

    def produce(self, message_id: str, size: int) -> None:
        self.producer.produce([Message(message_id, "", b"x" * size, sent_at="1", group_id="one")])

    def poll_until(self, condition: Callable[[], bool], what: str) -> None:
        def polled() -> bool:
            self.outcomes += [(message.message_id, "acknowledged", "") for message in self.producer.poll(0.01)]
            return condition()

        wait_for(polled, what)


@pytest.fixture
def topic(kafka: Kafka) -> Topic:
    return Topic(kafka.bootstrap_servers, bytes_max=10_000, partitions=1)


def test_what_is_refused_in_a_batch_is_tried_alone(topic: Topic) -> None:
    """Not compressible below the limit together; the small ones fit alone."""
    scene = Scene(topic, bridge_linger_seconds=0.3)
    bodies = {
        f"small-{index}": (b"%06d" % index).join([b"%06d" % (index * 7919 + step) for step in range(300)]) for index in range(8)
    }
    scene.producer.produce([Message(name, "", body, group_id="one") for name, body in bodies.items()])
    scene.producer.produce([Message("large", "", os.urandom(LARGE), group_id="one")])
    scene.poll_until(lambda: len(scene.outcomes) == 9, "all have an outcome")
    by_name = {name: (outcome, code) for name, outcome, code in scene.outcomes}
    assert by_name.pop("large") == ("refused", "MSG_SIZE_TOO_LARGE")
    assert set(by_name.values()) == {("acknowledged", "")}
    assert len(scene.producer) == 0
    assert {record.message_id for record in topic.records()} == set(bodies)


def test_what_exceeds_our_own_limit_is_refused_without_asking_kafka(topic: Topic) -> None:
    scene = Scene(topic)
    scene.produce("huge", 2_000_000)
    assert scene.outcomes == [("huge", "refused", "MSG_SIZE_TOO_LARGE")]


def test_a_fatal_error_ends_the_producer_but_not_the_forwarding(topic: Topic) -> None:
    """Through what librdkafka offers for such tests; its handle is at the head of Python's object."""
    scene = Scene(topic)
    scene.produce("before", SMALL)
    scene.poll_until(lambda: len(scene.outcomes) == 1, "it works")
    librdkafka = next((Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka-*.so*"))
    handle = ctypes.c_void_p.from_address(id(scene.producer._producer) + sys.getsizeof(object())).value
    ctypes.CDLL(str(librdkafka)).rd_kafka_test_fatal_error(
        ctypes.c_void_p(handle), KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, b"made up by the test"
    )
    scene.produce("failing", SMALL)
    scene.poll_until(lambda: len(scene.outcomes) == 2, "the fatal error is an outcome")
    assert scene.outcomes[1][:2] == ("failing", "failed")
    scene.produce("after", SMALL)
    scene.poll_until(lambda: len(scene.outcomes) == 3, "a new producer goes on")
    assert scene.outcomes[2] == ("after", "acknowledged", "")
    assert [record.message_id for record in topic.records()] == ["before", "after"]


def test_what_is_abandoned_comes_back_as_failed(topic: Topic) -> None:
    scene = Scene(topic, bridge_linger_seconds=1)
    scene.produce("waits for others", SMALL)
    scene.producer.abandon()
    scene.poll_until(lambda: len(scene.outcomes) == 1, "it comes back")
    assert scene.outcomes[0][1] == "failed"
    assert topic.records() == []


def test_kafka_that_does_not_answer_is_suspected_and_unreachable() -> None:
    class NoTopic:
        bootstrap_servers, name = "127.0.0.1:1", "none"

    scene = Scene(NoTopic(), produce_timeout_seconds=1)  # type: ignore[arg-type]
    scene.produce("one", SMALL)
    scene.poll_until(lambda: scene.suspicions > 0 and bool(scene.outcomes), "given up")
    assert scene.outcomes == [("one", "failed", "_MSG_TIMED_OUT")]
    assert not scene.producer.is_reachable(0.2)
