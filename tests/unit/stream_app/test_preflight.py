"""The rounds of checks before a worker joins its group, and what is said of them."""

from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from pipeline.errors import FatalError, RetryableError
from stream_app.health import Dependency
from stream_app.preflight import REPEAT_SECONDS, Check, WaitLog, look_at_all


class Scene:
    """Checks that find what they are told to."""

    def __init__(self) -> None:
        self.found: dict[str, Exception] = {}
        self.looked: list[str] = []

    def check(self, name: str, dependency: Dependency) -> Check:
        return Check(name, dependency, self._look(name))

    def _look(self, name: str) -> Callable[[], Awaitable[None]]:
        async def look() -> None:
            self.looked.append(name)
            if name in self.found:
                raise self.found[name]

        return look

    async def waits(self) -> list[str]:
        self.looked.clear()
        checks = [self.check("session", "postgres"), self.check("tables", "postgres"), self.check("topic", "kafka")]
        return [check.name for check, _ in await look_at_all(checks)]


async def test_all_is_looked_at_and_nothing_waited_for() -> None:
    scene = Scene()
    assert await scene.waits() == []
    assert scene.looked == ["session", "tables", "topic"]


async def test_what_one_server_keeps_waiting_hides_nothing_of_the_other() -> None:
    scene = Scene()
    scene.found = {"session": RetryableError("away"), "topic": RetryableError("away, too")}
    assert await scene.waits() == ["session", "topic"]
    assert scene.looked == ["session", "topic"], "the rest of its checks would say the same"


async def test_what_only_a_person_mends_is_not_waited_for_though_another_server_is_away() -> None:
    scene = Scene()
    scene.found = {"session": RetryableError("away"), "topic": FatalError("KAFKA_TOPIC")}
    with pytest.raises(FatalError, match="KAFKA_TOPIC"):
        await scene.waits()


def test_what_is_waited_for_is_said_at_once_when_it_changes_once_a_minute_and_at_its_end() -> None:
    now = [0.0]
    said = WaitLog(lambda: now[0])
    scene = Scene()
    session, tables = scene.check("session", "postgres"), scene.check("tables", "postgres")

    def at(seconds: float, check: Check | None) -> list[tuple[object, ...]]:
        now[0] = seconds
        with capture_logs() as logs:
            if check is None:
                said.passed("postgres")
            else:
                said.waits(check, RetryableError("why"))
        return [(line["event"], line.get("check"), line["waited_seconds"]) for line in logs]

    assert at(0, None) == []
    assert at(1, session) == [("start_waits", "session", 0.0)]
    assert at(2, session) == []
    assert at(1 + REPEAT_SECONDS, session) == [("start_waits", "session", 60.0)]
    assert at(62, tables) == [("start_waits", "tables", 61.0)]
    assert at(63, tables) == []
    assert at(64, None) == [("start_goes_on", None, 63.0)]
    assert at(65, None) == []
