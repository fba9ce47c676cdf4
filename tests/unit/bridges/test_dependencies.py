from collections.abc import Iterator
from threading import Event

import pytest

from bridges import dependencies
from bridges.dependencies import Dependency
from bridges.metrics import BridgeMetrics
from bridges.sqs_errors import QUEUE_ERRORS, QueueRefusedError, QueueRetryableError


def test_a_request_is_repeated_until_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "BACKOFF_SECONDS_MAX", 0.001)
    metrics = BridgeMetrics()
    changes: list[str] = []
    sqs = Dependency("sqs", metrics, lambda: changes.append("works again"))
    answers: Iterator[str | Exception] = iter(
        [QueueRetryableError("ReceiveMessage", "503"), QueueRefusedError("ReceiveMessage", "AccessDenied", ""), "an answer"]
    )
    seen, beats = [], []

    def request() -> str:
        seen.append(sqs.code)
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert sqs.repeat(request, QUEUE_ERRORS, Event(), lambda: beats.append(1)) == "an answer"
    assert seen == ["", "503", "AccessDenied"]
    assert len(beats) == 2
    assert changes == ["works again"]
    assert sqs.works
    assert metrics.backoffs["sqs"]._value.get() == 2
    assert metrics.ready["sqs"]._value.get() == 1


def test_the_end_stops_the_repetition_with_the_last_error() -> None:
    until = Event()
    sqs = Dependency("sqs", BridgeMetrics())
    errors = [QueueRetryableError("ReceiveMessage", "503")]

    def request() -> None:
        until.set()
        raise errors[0]

    with pytest.raises(QueueRetryableError) as caught:
        sqs.repeat(request, QUEUE_ERRORS, until, lambda: None)
    assert caught.value is errors[0]


def test_other_errors_are_not_repeated() -> None:
    sqs = Dependency("sqs", BridgeMetrics())

    def request() -> None:
        raise QueueRefusedError("GetQueueAttributes", "AccessDenied", "grant it")

    with pytest.raises(QueueRefusedError):
        sqs.repeat(request, (QueueRetryableError,), Event(), lambda: None)
    assert sqs.works
