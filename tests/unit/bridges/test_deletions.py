from collections.abc import Sequence
from threading import Event
from typing import cast

import pytest

from bridges.deletions import COALESCE_SECONDS, Deletions
from bridges.dependencies import Dependency
from bridges.message import Message
from bridges.metrics import BridgeMetrics
from bridges.sqs_errors import QueueRefusedError
from bridges.sqs_queue import Answer, SqsQueue


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


class RefusingQueue:
    """Turns away the first requests as a whole, then fails single entries, then works."""

    def __init__(self, ends: Event) -> None:
        self.answers: list[list[Answer]] = [[], [Answer.OK, Answer.FAILED], [Answer.FAILED], [Answer.OK]]
        self._ends = ends

    def delete(self, messages: Sequence[Message]) -> list[Answer]:
        answers = self.answers.pop(0)
        if not self.answers:
            self._ends.set()
        if not answers:
            raise QueueRefusedError("DeleteMessageBatch", "AccessDenied", "")
        assert len(answers) == len(messages)
        return answers


def test_each_answer_counts_and_a_request_that_failed_as_a_whole_counts_no_message() -> None:
    """What alerts rest on: of a refused right nothing is seen but the requests, which the queue counts."""
    metrics, ends = BridgeMetrics(), Event()
    deletions = Deletions(
        cast("SqsQueue", RefusingQueue(ends)),
        sqs=Dependency("sqs", metrics),
        metrics=metrics,
        on_answers=lambda _, __: None,
        until=ends,
    )
    deletions._delete([Message("1", "", b""), Message("2", "", b"")], lambda: None)
    counted = {
        result: metrics.registry.get_sample_value("bridge_messages_deleted_total", {"result": result})
        for result in ("ok", "failed", "refused")
    }
    assert counted == {"ok": 2, "failed": 2, "refused": 0}
