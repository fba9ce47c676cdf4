"""From the queue to the topic: what happens to each message, and in which thread.

Promise: a message is deleted from SQS only after Kafka has acknowledged its record with all in-sync replicas; until then it stays
in SQS, hidden while we hold it and visible again when we let go. So each message becomes at least one record, and each record that
it becomes has the same key and message id. Of a FIFO queue, the records of one message group first appear in the order sent.
A crash between the acknowledgement and the delete gives a second record: that is the worker's to recognise.

How it could break: a delete that does not wait for the acknowledgement (so only :meth:`SqsToKafka._acknowledged` adds to the
deletions); a failed head of a group that is passed over (:mod:`bridges.message_groups`); a receipt whose extension is forgotten
(:mod:`bridges.receipts`: then the message comes twice, which is harmless, or on and on, which is not).

Threads: receivers (SQS to Kafka's queue), one for Kafka's answers, deleters, one for visibility. They share what ``held`` guards.
"""

import heapq
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from random import uniform
from threading import Condition, Event

import structlog

from bridges.deletions import Deletions
from bridges.dependencies import BACKOFF_SECONDS, Dependency
from bridges.intake import Intake, Receive
from bridges.kafka_producer import KafkaProducer
from bridges.memory import held_bytes
from bridges.message import Message
from bridges.message_groups import MessageGroups
from bridges.metrics import BridgeMetrics
from bridges.receipts import EXTEND_AT, Receipts
from bridges.settings import BridgeSettings
from bridges.sqs_errors import QUEUE_ERRORS, QueueRetryableError
from bridges.sqs_queue import Answer, AnswerAbandonedError, QueueAttributes, SqsQueue
from bridges.step_threads import Beat
from bridges.visibility import Visibility

_log = structlog.stdlib.get_logger("bridges.sqs_to_kafka")

PRODUCE_BACKOFF_SECONDS_MAX = 5.0
LARGE_BYTES = 65_536
"""Bodies that take so much together are let go of when they are acknowledged, not only when they are deleted."""

_POLL_SECONDS = 0.1
_WAIT_SECONDS = 1.0


def produce_backoff_seconds(attempts: int) -> float:
    """How long to wait before a record is produced again that failed ``attempts`` times before; half of it is chance."""
    factor = 2.0 ** min(attempts, 10)  # a long outage counts to thousands, and 2 to that power is no float
    return min(BACKOFF_SECONDS * factor, PRODUCE_BACKOFF_SECONDS_MAX) * uniform(0.5, 1)  # noqa: S311 - no secret


class SqsToKafka:
    """The forwarding; :class:`bridges.bridge.Bridge` starts and stops it."""

    def __init__(
        self,
        settings: BridgeSettings,
        queue: SqsQueue,
        metrics: BridgeMetrics,
        monotonic: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._metrics = metrics
        self._monotonic = monotonic
        self._wall_clock = wall_clock
        self.stopping = Event()
        """Set: receive no more."""
        self.letting_go = Event()
        """Set: produce no more, repeat no delete."""
        self.held = Condition()
        """Guards receipts, groups, intake and repeats; notified when any of them lets something go on."""
        self.receipts = Receipts()
        self._groups = MessageGroups()
        self._intake = Intake(
            settings.bridge_receivers, settings.bridge_in_flight_messages_max, settings.bridge_in_flight_bytes_max
        )
        self._repeats: list[tuple[float, int, Message]] = []  # (when to produce it again, tie-breaker, message)
        self._tie = count()
        self.sqs = Dependency("sqs", metrics, monotonic=monotonic)
        self.kafka = Dependency("kafka", metrics, self._notify, monotonic)
        self.visibility = Visibility(
            queue,
            held=self.held,
            receipts=self.receipts,
            sqs=self.sqs,
            metrics=metrics,
            threads_max=settings.bridge_receivers,
            monotonic=monotonic,
        )
        self.deletions = Deletions(
            queue,
            sqs=self.sqs,
            metrics=metrics,
            on_answers=self._on_delete_answers,
            until=self.letting_go,
            monotonic=monotonic,
        )
        self.receives_max: int | None = None
        """How often the queue gives a message out before it goes to the dead-letter queue; None without one."""
        self.kafka_suspected = Event()
        """Set: librdkafka believes that Kafka is away."""
        self.producer: KafkaProducer | None = None
        metrics.watch(
            messages=lambda: len(self.receipts),
            size=lambda: held_bytes(len(self.receipts), self.receipts.body_bytes) + self._intake.reading_bytes,
            receivers=lambda: self._intake.active,
            asking=lambda: self._intake.asking,
            oldest=self._oldest_sent_at,
            unacknowledged=lambda: 0 if self.producer is None else len(self.producer),
        )

    def connect(self, settings: BridgeSettings, produce_timeout_seconds: float) -> None:
        """Make the producer: from now on messages can be taken in."""
        self.producer = KafkaProducer(
            settings,
            produce_timeout_seconds,
            on_failed=self._failed,
            on_refused=self._refused,
            on_suspicion=self.kafka_suspected.set,
        )

    def _oldest_sent_at(self) -> float:
        """Seconds since the epoch; 0 when nothing waits for Kafka. Looks at all that is held: for whoever asks every few seconds.

        What Kafka has acknowledged and SQS has not deleted is a record already, and late only if the workers are.
        """
        with self.held:
            held = self.receipts.held()
        waiting = (int(message.sent_at) for message in held if message.sent_at is not None and not message.acknowledged)
        return min(waiting, default=0) / 1_000

    @property
    def is_unfinished(self) -> bool:
        """Whether waiting may still finish something that is held. With Kafka away only deletes can be finished."""
        with self.held:
            if self.kafka.works:
                return len(self.receipts) > 0
            return any(message.acknowledged for message in self.receipts.held())

    @property
    def waits_for_kafka(self) -> bool:
        """Whether something is in Kafka's hands, or will be: its outcome will tell how Kafka does."""
        return bool(self._repeats) or (self.producer is not None and len(self.producer) > 0)

    # The thread that starts the others

    def ask_attributes(self, beat: Beat) -> QueueAttributes:
        """The queue's attributes, asked for until SQS answers: the first that is asked of it. Raises QueueRefusedError."""
        with self.held:
            self._intake.asking += 1  # so that a bridge that gets no further is known to wait for SQS
        try:
            return self.sqs.repeat(self._queue.attributes, (QueueRetryableError,), self.stopping, beat)
        finally:
            with self.held:
                self._intake.asking -= 1

    # The receivers' threads

    def receive(self, index: int, beat: Beat) -> None:
        """Receive and take in until stopping."""
        while (receive := self._wait_for_room(index, beat)) is not None:
            messages: list[Message] | None = None
            try:
                messages = self.sqs.repeat(partial(self._ask, receive, beat), QUEUE_ERRORS, self.stopping, beat)
            except QUEUE_ERRORS:  # only when stopping
                return
            except AnswerAbandonedError:
                self._metrics.abandoned.inc()
                _log.warning("answer_abandoned", bytes=receive.answer_length, waited_seconds=self.visibility.seconds * EXTEND_AT)
            finally:
                if messages is None:
                    with self.held:
                        self._intake.answered(receive, None)
                        self.held.notify_all()
            if messages is not None:
                self._take_in(receive, messages)

    def _wait_for_room(self, index: int, beat: Beat) -> Receive | None:
        """Wait until this receiver may ask, and count it as asking; None when stopping."""
        with self.held:
            while not self.stopping.is_set():
                beat()
                if self.kafka.works:
                    receive = self._intake.ask(index, len(self.receipts), self.receipts.body_bytes)
                    if receive is not None:
                        return receive
                self.held.wait(_WAIT_SECONDS)
        return None

    def _ask(self, receive: Receive, beat: Beat) -> list[Message]:
        receive.arrived_at = None
        try:
            return self._queue.receive(self.visibility.seconds, receive.messages, partial(self._wait_to_read, receive, beat))
        except QUEUE_ERRORS:
            with self.held:
                self._intake.broke_off(receive)
                self.held.notify_all()
            raise

    def _wait_to_read(self, receive: Receive, beat: Beat, length: int) -> None:
        """Wait until there is memory for an answer that has begun to come.

        Its messages are hidden already. If that takes too long, they are left to SQS, which gives them out again.
        """
        receive.arrived_at = self._monotonic()
        abandon_at = receive.arrived_at + self.visibility.seconds * EXTEND_AT
        with self.held:
            if self._intake.read(receive, length, len(self.receipts), self.receipts.body_bytes):
                return
            self._intake.waiting += 1
            try:
                while True:
                    beat()
                    if self.letting_go.is_set() or (left := abandon_at - self._monotonic()) <= 0:
                        raise AnswerAbandonedError
                    if self._intake.read(receive, length, len(self.receipts), self.receipts.body_bytes):
                        return
                    self.held.wait(min(left, _WAIT_SECONDS))
            finally:
                self._intake.waiting -= 1

    def _take_in(self, receive: Receive, messages: list[Message]) -> None:
        """Hold what came, then produce it; of a FIFO queue only the head of each group."""
        now = self._monotonic()
        with self.held:
            others = self.receipts.body_bytes
            self.receipts.hold(messages, now if receive.arrived_at is None else receive.arrived_at, self.visibility.seconds)
            self._intake.answered(receive, len(messages), self.receipts.body_bytes - others)
            heads = [message for message in messages if self._groups.admit(message)] if self._queue.is_fifo else messages
            self.held.notify_all()
        self._produce(heads, now)
        self._metrics.last_poll.set(self._wall_clock())
        if messages:
            self._metrics.received.inc(len(messages))
            self._metrics.redelivered.inc(sum(message.receive_count > 1 for message in messages))
            if (sent_at := messages[0].sent_at) is not None:
                self._metrics.queue_delay.observe(max(0.0, self._wall_clock() - float(sent_at) / 1_000))

    # The thread that serves Kafka's answers

    def serve_kafka(self, beat: Beat) -> None:
        """Serve outcomes for ever, hand acknowledged messages on, and produce again what failed when its time has come."""
        hand_over_in: float | None = None
        while self.producer is not None:
            beat()
            if acknowledged := self.producer.poll(_POLL_SECONDS if hand_over_in is None else hand_over_in):
                self._acknowledged(acknowledged)
            hand_over_in = self.deletions.hand_over()
            if self._repeats:
                self._repeat_produces()

    def _repeat_produces(self) -> None:
        now = self._monotonic()
        while True:
            with self.held:
                if not self._repeats or self._repeats[0][0] > now:
                    return
                message = heapq.heappop(self._repeats)[2]
            self._take_turn(message)

    def _produce(self, messages: Sequence[Message], now: float) -> None:
        for message in messages:
            message.produced_at = now
        if self.producer is None:
            raise RuntimeError("nothing can be produced before connect()")
        self.producer.produce(messages)

    def _acknowledged(self, messages: Sequence[Message]) -> None:
        """Kafka has them: all that is left is to delete them, and to go on with their groups."""
        size = 0
        for message in messages:
            message.acknowledged = True
            size += len(message.value)
        if size >= LARGE_BYTES:
            with self.held:  # small ones stay until they are deleted, which costs no lock
                for message in messages:
                    self.receipts.drop_body(message)
                self.held.notify_all()
        self.deletions.add(messages)
        if not self.kafka.works:
            self.kafka.worked()
        if self._queue.is_fifo:
            for message in messages:
                self._advance(message)
        self._metrics.forwarded.inc(len(messages))
        self._metrics.forwarded_bytes.inc(size)
        self._metrics.acknowledge_seconds.observe(self._monotonic() - messages[0].produced_at)
        self._metrics.last_acknowledged.set_to_current_time()

    def _failed(self, message: Message, code: str) -> None:
        """Kafka may have it or not: produce it again after a while."""
        if self.letting_go.is_set():
            return
        self._metrics.produce_failures.inc()
        self.kafka.failed(code)
        produce_at = self._monotonic() + produce_backoff_seconds(message.attempts)
        message.attempts += 1
        with self.held:
            heapq.heappush(self._repeats, (produce_at, next(self._tie), message))

    def _refused(self, message: Message, code: str) -> None:
        """Leave it in SQS, which moves it to the dead-letter queue when it has been given out often enough.

        Until then it holds back its group. The last time its followers go on: the refused one will not come back, and they were
        given out as often as it was, so that they would go to the dead-letter queue with it.
        """
        last_receive = self.receives_max is not None and message.receive_count >= self.receives_max
        self._metrics.refused.inc()
        _log.warning(
            "record_refused", message_id=message.message_id, bytes=len(message.value), code=code, last_receive=last_receive
        )
        if not last_receive:
            self._give_up(message)
            return
        with self.held:
            self.receipts.settle(message)
            self.receipts.drop_body(message)
            self.held.notify_all()
        self._advance(message)

    def _advance(self, message: Message) -> None:
        """The head of a group is done with: its next message takes its turn."""
        with self.held:
            following = self._groups.advance(message)
        if following is not None:
            self._take_turn(following)

    def _take_turn(self, message: Message) -> None:
        """Produce what had to wait, unless its receipt has expired meanwhile: then SQS gives it out again."""
        if self.letting_go.is_set():
            return
        now = self._monotonic()
        with self.held:
            is_valid = self.receipts.is_valid(message, now)
        if is_valid:
            self._produce([message], now)
        else:
            self._give_up(message)

    def _give_up(self, message: Message) -> None:
        """Hold it no longer, without a delete: SQS shows it again when its time runs out. Its followers must not overtake it."""
        with self.held:
            expired = not self.receipts.is_valid(message, self._monotonic())
            was_held = self.receipts.settle(message)
            self.receipts.drop_body(message)
            followers = self._groups.give_up(message)
            self.held.notify_all()
        if expired and was_held:
            self._metrics.expired.inc()
        if followers:
            self.visibility.release_later(followers)

    # The deleters' threads

    def _on_delete_answers(self, messages: Sequence[Message], answers: Sequence[Answer]) -> None:
        expired = 0
        with self.held:
            for message, answer in zip(messages, answers, strict=True):
                if answer is Answer.FAILED:
                    continue
                if self.receipts.settle(message) and answer is Answer.EXPIRED:
                    expired += 1
                self.receipts.drop_body(message)  # also of one whose receipt expired while Kafka had it
            self.held.notify_all()
        if expired:
            self._metrics.expired.inc(expired)
        if refused := answers.count(Answer.REFUSED):
            _log.warning("deletes_refused", messages=refused)

    def _notify(self) -> None:
        with self.held:
            self.held.notify_all()

    def thread_bodies(self, receivers: int) -> dict[str, Callable[[Beat], None]]:
        """All threads by name; once they run, messages flow."""
        return {
            "kafka": self.serve_kafka,
            "visibility": partial(self.visibility.keep, self.letting_go),
            **{f"delete-{index}": self.deletions.run for index in range(receivers)},
            **{f"receive-{index}": partial(self.receive, index) for index in range(receivers)},
        }
