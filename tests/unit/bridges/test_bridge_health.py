from collections.abc import Iterator
from threading import Event
from typing import cast

import pytest

from bridges.bridge import KAFKA_RENEW_SECONDS, Bridge
from bridges.kafka_producer import KafkaProducer
from bridges.metrics import BridgeMetrics
from bridges.settings import BridgeSettings
from bridges.sqs_queue import SqsQueue
from bridges.step_threads import Beat


class Queue:
    is_fifo = False
    request_seconds_max = 10.0


class Scene:
    """A bridge of which one thread runs: it has made its step and waits."""

    def __init__(self) -> None:
        self.now = 100.0
        settings = BridgeSettings(sqs_queue_url="http://127.0.0.1:1/0/logins")
        self.bridge = Bridge(settings, cast("SqsQueue", Queue()), BridgeMetrics(), lambda: self.now)
        self.fails, self._goes_on = False, Event()
        self.bridge._threads.start("receive-0", self._body)

    def _body(self, beat: Beat) -> None:
        beat()
        self._goes_on.wait(10)
        if self.fails:
            raise ValueError

    def end(self) -> None:
        self._goes_on.set()
        self.bridge._threads.join("receive-", self.now + 10)


@pytest.fixture
def scene() -> Iterator[Scene]:
    it = Scene()
    yield it
    it.end()


def test_a_thread_that_makes_no_step_needs_a_restart_when_no_request_takes_so_long(scene: Scene) -> None:
    assert scene.bridge.livez().ok
    scene.now += Queue.request_seconds_max + 60
    assert scene.bridge.livez().ok
    scene.now += 1
    assert not scene.bridge.livez().ok
    assert scene.bridge.livez().details == {"dead_threads": [], "stalled_threads": ["receive-0"]}


def test_a_thread_that_ended_by_an_error_needs_a_restart(scene: Scene) -> None:
    scene.fails = True
    scene.end()
    assert not scene.bridge.livez().ok
    assert scene.bridge.livez().details == {"dead_threads": ["receive-0"], "stalled_threads": []}


def test_sqs_and_kafka_that_fail_are_named_and_need_no_restart(scene: Scene) -> None:
    forwarding = scene.bridge._forwarding
    assert scene.bridge.readyz().details == {
        "started": False,
        "sqs": {"ok": True, "code": ""},
        "kafka": {"ok": True, "code": ""},
    }
    assert not scene.bridge.readyz().ok, "it has not started"
    forwarding.sqs.failed("EndpointConnectionError")
    assert scene.bridge.readyz().details["sqs"] == {"ok": False, "code": "EndpointConnectionError"}
    assert scene.bridge.readyz().details["kafka"]["ok"]
    assert scene.bridge.livez().ok


class Producer:
    def __init__(self) -> None:
        self.reachable, self.renewals = False, 0

    def is_reachable(self, _: float) -> bool:
        return self.reachable

    def renew(self) -> None:
        self.renewals += 1


def test_a_producer_that_reaches_no_broker_is_made_anew_once_in_a_while(scene: Scene) -> None:
    producer = Producer()
    scene.bridge._forwarding.producer = cast("KafkaProducer", producer)

    def pass_seconds(seconds: int) -> int:
        before = producer.renewals
        for _ in range(seconds):
            scene.bridge._renew_producer()
            scene.now += 1
        return producer.renewals - before

    assert pass_seconds(200) == 0, "Kafka works"
    scene.bridge._forwarding.kafka.failed("_MSG_TIMED_OUT")
    assert pass_seconds(int(KAFKA_RENEW_SECONDS)) == 0
    assert pass_seconds(300) in (int(300 / KAFKA_RENEW_SECONDS) - 1, int(300 / KAFKA_RENEW_SECONDS))
    producer.reachable = True
    assert pass_seconds(200) == 0, "a broker answers: another producer would do no better"
    producer.reachable = False
    scene.bridge._forwarding.kafka.worked()
    pass_seconds(1)
    scene.bridge._forwarding.kafka.failed("_MSG_TIMED_OUT")
    assert pass_seconds(int(KAFKA_RENEW_SECONDS)) == 0, "another outage, with all its time"
