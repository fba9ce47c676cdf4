from collections.abc import Sequence
from threading import Event

import pytest

from bridges.deletions import COALESCE_SECONDS, Deletions
from bridges.dependencies import Dependency
from bridges.message import Message
from bridges.metrics import BridgeMetrics
from bridges.sqs_queue import Answer


class Scene:
    """Deletions on a clock of ours; no thread runs, so batches stay where they were handed over."""

    def __init__(self) -> None:
        self.now = 100.0
        metrics = BridgeMetrics()
        self.deletions = Deletions(
            None,  # type: ignore[arg-type] # nothing is asked of the queue
            sqs=Dependency("sqs", metrics),
            metrics=metrics,
            on_answers=self.on_answers,
            until=Event(),
            monotonic=lambda: self.now,
        )

    def on_answers(self, _: Sequence[Message], __: Sequence[Answer]) -> None:
        raise AssertionError("no request was made")

    def add(self, number: int) -> None:
        self.deletions.add([Message(f"id-{index}", "", b"") for index in range(number)])

    def batches(self) -> list[int]:
        sizes = []
        while not self.deletions._batches.empty():
            sizes.append(len(self.deletions._batches.get()))
        return sizes


def test_full_batches_go_at_once_and_the_rest_waits_a_moment() -> None:
    scene = Scene()
    scene.add(23)
    assert scene.deletions.hand_over() == pytest.approx(COALESCE_SECONDS)
    assert scene.batches() == [10, 10]
    scene.now += COALESCE_SECONDS / 2
    scene.add(4)
    wait = scene.deletions.hand_over()
    assert wait is not None
    assert 0 < wait <= COALESCE_SECONDS / 2
    assert scene.batches() == []
    scene.now += wait * 1.001
    assert scene.deletions.hand_over() is None
    assert scene.batches() == [7]


def test_nothing_is_handed_over_when_nothing_was_acknowledged() -> None:
    scene = Scene()
    assert scene.deletions.hand_over() is None
    assert scene.batches() == []


def test_the_wait_of_the_rest_begins_with_the_rest() -> None:
    scene = Scene()
    scene.add(9)
    scene.deletions.hand_over()
    scene.now += COALESCE_SECONDS * 0.9
    scene.add(2)
    assert scene.deletions.hand_over() == pytest.approx(COALESCE_SECONDS)
    assert scene.batches() == [10]
