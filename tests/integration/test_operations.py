import json
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, Counter

from pipeline.operations import Health, OperationsServer


class Answers:
    live = Health(ok=True, details={"seconds": 1})
    ready = Health(ok=False, details={"waiting_for": "Kafka"})


def server(port: int = 0) -> OperationsServer:
    registry = CollectorRegistry()
    Counter("made_up", "For the test.", registry=registry).inc(3)
    return OperationsServer("127.0.0.1", port, registry, lambda: Answers.live, lambda: Answers.ready)


@pytest.fixture
def started() -> Iterator[OperationsServer]:
    it = server()
    it.start()
    yield it
    it.stop()


def get(it: OperationsServer, path: str) -> tuple[int, bytes]:
    try:
        with urlopen(f"http://127.0.0.1:{it.port}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


def test_metrics_are_the_registrys(started: OperationsServer) -> None:
    status, body = get(started, "/metrics")
    assert status == 200
    assert b"made_up_total 3.0" in body


def test_health_is_told_by_status_and_as_json(started: OperationsServer) -> None:
    status, body = get(started, "/livez")
    assert (status, json.loads(body)) == (200, {"ok": True, "seconds": 1})
    status, body = get(started, "/readyz")
    assert (status, json.loads(body)) == (503, {"ok": False, "waiting_for": "Kafka"})


def test_there_is_nothing_else(started: OperationsServer) -> None:
    assert get(started, "/")[0] == 404


def test_a_port_that_is_taken_gives_way_to_the_next(started: OperationsServer) -> None:
    second = server(started.port)
    second.start()
    try:
        assert second.port > started.port
        assert get(second, "/livez")[0] == 200
    finally:
        second.stop()
