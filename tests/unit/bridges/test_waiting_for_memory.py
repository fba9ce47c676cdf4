"""An answer of SQS is read when there is memory for it: what a receiver does until then."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import pytest

from bridges.kafka_producer import KafkaProducer
from bridges.memory import held_bytes
from bridges.message import Message
from bridges.metrics import BridgeMetrics
from bridges.settings import BridgeSettings
from bridges.sqs_queue import Answer, SqsQueue
from bridges.sqs_to_kafka import SqsToKafka

MEBIBYTE = 1_048_576


class Queue:
    """Its answers have ten messages of 1 MiB each; the first receive is the last one, unless it is told to go on."""

    is_fifo = False

    def __init__(self) -> None:
        self.asked_for: list[int] = []
        self.waits = threading.Event()
        self.forwarding: SqsToKafka

    def receive(self, _: int, messages: int, wait_to_read: Callable[[int], None]) -> list[Message]:
        self.asked_for.append(messages)
        self.forwarding.stopping.set()
        self.waits.set()
        wait_to_read(10 * MEBIBYTE)
        return messages_of_1_mib(10)


class Producer:
    def __init__(self) -> None:
        self.produced: list[Message] = []

    def produce(self, messages: Sequence[Message]) -> None:
        self.produced += messages


def messages_of_1_mib(number: int) -> list[Message]:
    return [Message(str(index), "", b"x" * MEBIBYTE) for index in range(number)]


class Scene:
    def __init__(self) -> None:
        self.queue, self.producer, self.metrics = Queue(), Producer(), BridgeMetrics()
        settings = BridgeSettings(sqs_queue_url="http://127.0.0.1:1/0/logins")
        self.forwarding = self.queue.forwarding = SqsToKafka(settings, cast("SqsQueue", self.queue), self.metrics)
        self.forwarding.producer = cast("KafkaProducer", self.producer)
        self.forwarding.visibility.seconds = 60

    def holds(self, number: int) -> list[Message]:
        """So many messages in Kafka's hands."""
        messages = messages_of_1_mib(number)
        self.forwarding.receipts.hold(messages, self.forwarding._monotonic(), 60)
        return messages

    @contextmanager
    def receiver(self) -> Iterator[threading.Thread]:
        thread = threading.Thread(target=self.forwarding.receive, args=(0, lambda: None))
        thread.start()
        assert self.queue.waits.wait(5)
        yield thread
        thread.join(5)
        assert not thread.is_alive()

    def waits(self) -> None:
        """Returns when an answer waits."""
        with self.forwarding.held:
            assert self.forwarding.held.wait_for(lambda: self.forwarding._intake.waiting == 1, 5)

    def metric(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_an_answer_for_which_there_is_memory_is_read_at_once(scene: Scene) -> None:
    with scene.receiver():
        pass
    assert len(scene.producer.produced) == 10
    assert scene.metric("bridge_in_flight_bytes") == held_bytes(10, 10 * MEBIBYTE)


def test_an_answer_waits_until_kafka_has_acknowledged_enough(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    in_kafka = scene.holds(19)
    monkeypatch.setattr("bridges.sqs_to_kafka._WAIT_SECONDS", 60.0)  # it is told, it does not look
    with scene.receiver():
        scene.waits()
        scene.forwarding._acknowledged(in_kafka[:9])
        with scene.forwarding.held:
            assert scene.forwarding._intake.waiting == 1, "there is not enough yet"
        assert scene.producer.produced == []
        scene.forwarding._acknowledged(in_kafka[9:16])
    assert len(scene.producer.produced) == 10
    assert scene.metric("bridge_answers_abandoned_total") == 0


def test_an_answer_that_waited_too_long_is_left_to_sqs(scene: Scene) -> None:
    """Its messages are visible again by then, or soon."""
    scene.holds(19)
    scene.forwarding.visibility.seconds = 0
    with scene.receiver():
        pass
    assert scene.producer.produced == []
    assert scene.metric("bridge_answers_abandoned_total") == 1
    assert scene.metric("bridge_receivers_asking") == 0
    assert scene.forwarding.sqs.works, "SQS did nothing wrong"


def test_a_stop_ends_the_waiting_when_its_time_is_over(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.holds(19)
    monkeypatch.setattr("bridges.sqs_to_kafka._WAIT_SECONDS", 0.01)
    with scene.receiver():
        scene.waits()
        scene.forwarding.letting_go.set()
    assert scene.metric("bridge_answers_abandoned_total") == 1


def test_messages_are_hidden_since_their_answer_began_not_since_it_was_read(scene: Scene) -> None:
    in_kafka = scene.holds(19)
    now = scene.forwarding._monotonic()
    with scene.receiver():
        scene.waits()
        read_at = scene.forwarding._monotonic()
        scene.forwarding._acknowledged(in_kafka)
    assert all(now + 60 <= message.hidden_until <= read_at + 60 for message in scene.producer.produced)


def test_large_bodies_are_let_go_of_when_kafka_has_them_though_sqs_has_not_deleted_them(scene: Scene) -> None:
    large, small = scene.holds(1), Message("small", "", b"y" * 100)
    scene.forwarding.receipts.hold([small], 0.0, 60)
    scene.forwarding._acknowledged(large)
    scene.forwarding._acknowledged([small])
    assert (large[0].value, small.value) == (b"", b"y" * 100)
    assert scene.forwarding.receipts.body_bytes == 100
    assert scene.metric("bridge_forwarded_bytes_total") == MEBIBYTE + 100
    assert scene.metric("bridge_in_flight_messages") == 2


def test_a_stop_leaves_its_body_to_a_message_that_another_thread_may_just_be_producing(scene: Scene) -> None:
    """It would go to Kafka empty, be acknowledged, and its message be deleted."""
    (message,) = scene.holds(1)
    scene.forwarding.visibility._change = lambda messages, _: [Answer.OK] * len(messages)  # type: ignore[method-assign,assignment]
    scene.forwarding.visibility.release([message], 5)
    assert (len(message.value), message in scene.forwarding.receipts) == (MEBIBYTE, False)


def test_a_message_whose_receipt_expired_while_kafka_had_it_is_counted_back_when_it_is_deleted(scene: Scene) -> None:
    receipts = scene.forwarding.receipts
    (message,) = scene.holds(1)
    receipts.settle(message)  # its extension was refused
    message.acknowledged = True
    scene.forwarding._on_delete_answers([message], [Answer.EXPIRED])
    assert receipts.body_bytes == 0
