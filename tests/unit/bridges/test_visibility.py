from collections.abc import Sequence
from threading import Condition, Event
from typing import cast

from bridges.dependencies import Dependency
from bridges.message import Message
from bridges.metrics import BridgeMetrics
from bridges.receipts import Receipts
from bridges.sqs_queue import Answer, SqsQueue
from bridges.visibility import Visibility


class Queue:
    """Answers extensions as it is told, once; then the test is over."""

    def __init__(self, answers: Sequence[Answer], until: Event) -> None:
        self._answers = answers
        self._until = until
        self.asked: list[tuple[list[Message], int]] = []

    def change_visibility(self, messages: Sequence[Message], seconds: int) -> Sequence[Answer]:
        self.asked.append((list(messages), seconds))
        self._until.set()
        return self._answers


def test_only_what_kafka_does_not_have_is_given_up_when_its_receipt_has_expired() -> None:
    """A delete may overtake the extension of the same message, which then finds nothing: nothing has expired."""
    until, receipts, metrics = Event(), Receipts(), BridgeMetrics()
    answers = [Answer.OK, Answer.EXPIRED, Answer.EXPIRED, Answer.REFUSED, Answer.REFUSED]
    messages = [Message(str(number), "", b"", acknowledged=number in (2, 4)) for number, _ in enumerate(answers)]
    queue = Queue(answers, until)
    visibility = Visibility(
        cast("SqsQueue", queue),
        held=Condition(),
        receipts=receipts,
        sqs=Dependency("sqs", metrics),
        metrics=metrics,
        threads_max=1,
        monotonic=lambda: 100.0,
    )
    visibility.seconds = 30
    receipts.hold(messages, 80.0, 30)
    visibility.keep(until, lambda: None)
    assert queue.asked == [(messages, 30)]
    assert [message.message_id for message in receipts.held()] == ["0", "2", "4"]
    assert (messages[0].hidden_until, messages[2].hidden_until) == (130.0, 110.0)
    assert metrics.registry.get_sample_value("bridge_receipts_expired_total") == 2
