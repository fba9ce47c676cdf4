"""Deletes from SQS what Kafka has acknowledged, ten at a time.

A message gets here only after its acknowledgement. What SQS fails to delete is tried again until SQS answers: if its receipt has
expired by then, SQS says so, and gives the message out once more; the record's message id tells the worker that it is the same.
"""

import time
from collections.abc import Callable, Sequence
from queue import Empty, Queue
from threading import Event

from bridges.dependencies import Dependency
from bridges.message import Message
from bridges.metrics import BridgeMetrics
from bridges.settings import RECEIVE_MESSAGES_MAX
from bridges.sqs_errors import QUEUE_ERRORS, QueueRetryableError
from bridges.sqs_queue import Answer, SqsQueue
from bridges.step_threads import Beat

COALESCE_SECONDS = 0.005
"""How long a batch that is not full waits for more; a request costs as much for one message as for ten."""

_IDLE_SECONDS = 1.0


class Deletions:
    """One thread adds and hands over; several run :meth:`run`, so that a slow request does not hold up the next batch.

    Handing over whole batches wakes a thread a batch; a queue of single messages would wake one a message, which costs more than
    all else that the bridge does for it.
    """

    def __init__(
        self,
        queue: SqsQueue,
        *,
        sqs: Dependency,
        metrics: BridgeMetrics,
        on_answers: Callable[[Sequence[Message], Sequence[Answer]], None],
        until: Event,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``on_answers`` is told of each request's messages and SQS's answers; after ``until`` nothing is tried again."""
        self._queue = queue
        self._sqs = sqs
        self._metrics = metrics
        self._on_answers = on_answers
        self._until = until
        self._monotonic = monotonic
        self._gathered: list[Message] = []
        self._gathered_since = 0.0
        self._batches: Queue[list[Message]] = Queue()
        self.add = self._gathered.extend
        """To be called with acknowledged messages, by the thread that calls :meth:`hand_over`."""

    def hand_over(self) -> float | None:
        """Give full batches to the deleting threads, and the rest when it has waited long enough.

        Returns how many seconds to come back after, None when nothing waits.
        """
        gathered = self._gathered
        if not gathered:
            return None
        now = self._monotonic()
        full = len(gathered) - len(gathered) % RECEIVE_MESSAGES_MAX
        for start in range(0, full, RECEIVE_MESSAGES_MAX):
            self._batches.put(gathered[start : start + RECEIVE_MESSAGES_MAX])
        if full:
            del gathered[:full]
            self._gathered_since = 0.0
        if not gathered:
            return None
        if self._gathered_since == 0.0:
            self._gathered_since = now
        left = self._gathered_since + COALESCE_SECONDS - now
        if left > 0:
            return left
        self._batches.put(gathered[:])
        gathered.clear()
        self._gathered_since = 0.0
        return None

    def run(self, beat: Beat) -> None:
        """Delete for ever."""
        while True:
            beat()
            try:
                batch = self._batches.get(timeout=_IDLE_SECONDS)
            except Empty:
                continue
            self._delete(batch, beat)

    def _delete(self, batch: list[Message], beat: Beat) -> None:
        left = batch

        def delete() -> None:
            nonlocal left
            answers = self._queue.delete(left)
            for answer in Answer:
                if number := answers.count(answer):
                    self._metrics.deleted[answer.value].inc(number)
            self._on_answers(left, answers)
            left = [message for message, answer in zip(left, answers, strict=True) if answer is Answer.FAILED]
            if left:
                raise QueueRetryableError("DeleteMessageBatch", "EntriesFailed")

        try:
            self._sqs.repeat(delete, QUEUE_ERRORS, self._until, beat)
        except QUEUE_ERRORS:
            return  # the bridge ends: these come again, and the worker knows them by their message ids
