"""What the worker says of a Kafka that is away, and of having nothing to do; made-up time, no socket."""

import asyncio
from types import SimpleNamespace
from typing import Any

import structlog

from pipeline.errors import RetryableError
from pipeline.kafka_reachability import Reachability
from pipeline.outages import QUIET_SECONDS, REPEAT_SECONDS
from pipeline.settings import KafkaSettings, load
from stream_app.kafka_wait import NO_PARTITION_SECONDS, KafkaWait

ERROR = RetryableError("Kafka did not answer")


class Scene:
    def __init__(self, problem: str | None = "nobody listens at kafka:9092") -> None:
        self.now = 100.0
        self.away: list[str] = []
        health: Any = SimpleNamespace(answered=lambda _: self.away.clear(), did_not_answer=self._did_not_answer)
        reachability = Reachability(load(KafkaSettings), lambda _: problem, lambda: self.now)
        self.kafka = KafkaWait(reachability, health, lambda: self.now)

    def _did_not_answer(self, _: str, error: RetryableError) -> None:
        self.away.append(str(error))

    def fail(self) -> None:
        asyncio.run(self.kafka.failed(ERROR))


def test_an_outage_is_told_at_once_once_a_minute_and_at_its_end_with_what_it_took() -> None:
    scene = Scene()
    scene.kafka.answered()
    with structlog.testing.capture_logs() as events:
        scene.now += 15
        scene.fail()
        scene.now += REPEAT_SECONDS - 1
        scene.fail()
        scene.now += 1
        scene.fail()
        scene.now += 10
        scene.kafka.answered()
        scene.now += QUIET_SECONDS
        scene.kafka.answered()
    assert [(event["event"], event["log_level"], event["seconds"]) for event in events] == [
        ("kafka_failing", "warning", 15.0),
        ("kafka_still_failing", "warning", 75.0),
        ("kafka_recovered", "info", 85.0),
    ]
    assert {event["problem"] for event in events} == {"nobody listens at kafka:9092"}


def test_readyz_is_told_at_once_and_then_why() -> None:
    scene = Scene()
    scene.fail()
    assert scene.away == ["Kafka did not answer", "nobody listens at kafka:9092"]
    scene.fail()
    assert scene.away[2:] == ["nobody listens at kafka:9092"], "what is known is not forgotten while it is looked for anew"
    scene.kafka.answered()
    assert scene.away == []


def test_a_request_that_failed_although_kafka_answers_says_both() -> None:
    scene = Scene(problem=None)
    scene.fail()
    assert scene.away[-1] == "Kafka did not answer; a new connection to Kafka is answered"


def test_a_stop_does_not_wait_for_the_look() -> None:
    async def stopped() -> None:
        task = asyncio.create_task(Scene().kafka.failed(ERROR))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(stopped())


def test_a_worker_that_stands_by_says_so_once() -> None:
    scene = Scene()
    with structlog.testing.capture_logs() as events:
        for _ in range(100):
            scene.kafka.holds(0)
            scene.now += NO_PARTITION_SECONDS / 10
    (event,) = events
    assert (event["event"], event["log_level"]) == ("no_partition", "warning")
    assert "stands by" in event["what"]


def test_a_worker_without_a_partition_for_a_moment_says_nothing() -> None:
    scene = Scene()
    with structlog.testing.capture_logs() as events:
        for partitions in (0, 0, 1, 0, 0, 1) * 10:
            scene.kafka.holds(partitions)
            scene.now += NO_PARTITION_SECONDS / 3
    assert events == []
