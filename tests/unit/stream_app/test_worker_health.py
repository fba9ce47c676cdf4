import asyncio
from types import SimpleNamespace
from typing import Any

from stream_app.health import LOOP_STUCK_SECONDS, WorkerHealth


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def health(*, assigned: bool = True, problems: dict[str, str] | None = None, clock: Clock | None = None) -> WorkerHealth:
    partitions: Any = SimpleNamespace(assigned=assigned, problems=lambda: problems or {})
    it = WorkerHealth(partitions, clock or Clock())
    it.waiting_for = None
    return it


def test_a_loop_that_stands_still_needs_a_restart() -> None:
    clock = Clock()
    it = health(clock=clock)
    assert it.livez().ok
    clock.now += LOOP_STUCK_SECONDS + 1
    assert not it.livez().ok


def test_a_loop_that_moves_does_not() -> None:
    async def scene() -> None:
        clock = Clock()
        it = health(clock=clock)
        clock.now += LOOP_STUCK_SECONDS + 1
        beat = asyncio.create_task(it.beat())
        await asyncio.sleep(0)
        assert it.livez().ok
        beat.cancel()

    asyncio.run(scene())


def test_an_absent_dependency_is_no_reason_to_restart() -> None:
    it = health(assigned=False, problems={"logins/0": "Postgres doesn't answer"})
    it.waiting_for = "Kafka"
    assert it.livez().ok


def test_ready_when_nothing_is_waited_for() -> None:
    assert health().readyz().ok


def test_what_is_waited_for_is_named() -> None:
    it = health()
    it.waiting_for = "Kafka"
    assert (it.readyz().ok, it.readyz().details) == (False, {"waiting_for": "Kafka"})
    assert "consumer group" in health(assigned=False).readyz().details["waiting_for"]
    stopped = health(problems={"logins/3": "a table is missing"}).readyz()
    assert (stopped.ok, stopped.details) == (False, {"partitions": {"logins/3": "a table is missing"}})
