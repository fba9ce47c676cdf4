"""Keeps hidden from other readers what the bridge holds, and shows again what it has given up."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, Queue
from random import uniform
from threading import Condition, Event

import structlog

from bridges.dependencies import Dependency
from bridges.message import Message
from bridges.metrics import BridgeMetrics
from bridges.receipts import Receipts
from bridges.settings import RECEIVE_MESSAGES_MAX
from bridges.sqs_errors import QUEUE_ERRORS
from bridges.sqs_queue import Answer, SqsQueue
from bridges.step_threads import Beat, in_parallel

_log = structlog.stdlib.get_logger("bridges.visibility")

_STEP_SECONDS = 0.5


class Visibility:
    """Extends half-way through; requests go out in parallel, since all that is held may fall due at once."""

    def __init__(
        self,
        queue: SqsQueue,
        *,
        held: Condition,
        receipts: Receipts,
        sqs: Dependency,
        metrics: BridgeMetrics,
        threads_max: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``held`` guards ``receipts``; it is notified when something is held no longer."""
        self._queue = queue
        self._held = held
        self._receipts = receipts
        self._sqs = sqs
        self._metrics = metrics
        self._threads_max = threads_max
        self._monotonic = monotonic
        self._given_up: Queue[Sequence[Message]] = Queue()
        self.seconds = 0
        """The queue's own visibility timeout."""
        self.release_later = self._given_up.put
        """Have messages made visible soon by the thread of :meth:`keep`; for callers that must not wait for SQS."""

    def keep(self, until: Event, beat: Beat) -> None:
        """Extend and release, until ``until`` is set."""
        while not until.is_set():
            beat()
            self._release_given_up()
            with self._held:
                due = self._receipts.due(self._monotonic())
            in_parallel([partial(self._extend, chunk) for chunk in chunks(due)], self._threads_max)

    def release(self, messages: Sequence[Message], seconds: float) -> bool:
        """Make messages visible at once, waiting up to ``seconds`` for SQS; False if that was too short.

        Where it fails they stay hidden until their time runs out.
        """
        return in_parallel([partial(self._release, chunk) for chunk in chunks(messages)], self._threads_max, seconds)

    def _release_given_up(self) -> None:
        """Wait for something to release, but no longer than until something is due to be extended."""
        with self._held:
            due_at = self._receipts.next_due_at()
        wait = _STEP_SECONDS if due_at is None else min(max(due_at - self._monotonic(), 0.0), _STEP_SECONDS)
        try:
            given_up = self._given_up.get(timeout=wait)
        except Empty:
            return
        for chunk in chunks(given_up):
            self._release(chunk)
            with self._held:
                for message in chunk:
                    self._receipts.drop_body(message)  # they waited behind another of their group: nobody produces them
                self._held.notify_all()

    def _extend(self, messages: Sequence[Message]) -> None:
        asked_at, seconds = self._monotonic(), self.seconds
        answers = self._change(messages, seconds)
        by_answer = {answer: [m for m, a in zip(messages, answers, strict=True) if a is answer] for answer in Answer}
        with self._held:
            self._receipts.extended(by_answer[Answer.OK], asked_at, seconds)
            again_at = self._monotonic() + seconds * uniform(0.05, 0.15)  # noqa: S311 - jitter
            self._receipts.extend_later(by_answer[Answer.FAILED], again_at)
            # One that Kafka has is being deleted, and may be gone for that reason: the delete's answer tells.
            ended = [m for m in (*by_answer[Answer.EXPIRED], *by_answer[Answer.REFUSED]) if not m.acknowledged]
            expired = sum(map(self._receipts.settle, ended))
            self._held.notify_all()
        for answer, answered in by_answer.items():
            self._metrics.extensions[answer.value].inc(len(answered))
        if expired:
            self._metrics.expired.inc(expired)
            _log.warning("receipts_expired", messages=expired)

    def _release(self, messages: Sequence[Message]) -> None:
        """Their bodies stay: at a stop another thread may just be producing one, and an empty record must not stand for it."""
        answers = self._change(messages, 0)
        with self._held:
            for message in messages:
                self._receipts.settle(message)
            self._held.notify_all()
        self._metrics.released.inc(answers.count(Answer.OK))

    def _change(self, messages: Sequence[Message], seconds: int) -> Sequence[Answer]:
        try:
            answers = self._queue.change_visibility(messages, seconds)
        except QUEUE_ERRORS as error:
            self._sqs.failed(error.code, str(error))
            return [Answer.FAILED] * len(messages)
        if not self._sqs.works:
            self._sqs.worked()
        return answers


def chunks(messages: Sequence[Message]) -> list[Sequence[Message]]:
    """Batches of what one request may carry."""
    return [messages[start : start + RECEIVE_MESSAGES_MAX] for start in range(0, len(messages), RECEIVE_MESSAGES_MAX)]
