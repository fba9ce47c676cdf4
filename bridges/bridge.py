"""The bridge's life: wait for SQS and Kafka, run the threads, watch, stop."""

import time
from collections.abc import Callable
from queue import Queue

import structlog

from bridges.metrics import BridgeMetrics
from bridges.receipts import EXTEND_AT
from bridges.settings import RELEASE_SECONDS, BridgeSettings
from bridges.sqs_errors import QUEUE_ERRORS
from bridges.sqs_queue import QueueAttributes, SqsQueue
from bridges.sqs_to_kafka import SqsToKafka
from bridges.step_threads import Beat, StepThreads
from pipeline.errors import FatalError, RetryableError
from pipeline.kafka_reachability import KafkaUnreachableError, Reachability
from pipeline.kafka_topic import ensure_topic
from pipeline.operations import Health

_log = structlog.stdlib.get_logger("bridges.bridge")

VISIBILITY_SECONDS_MIN = 2
"""A shorter visibility timeout of the queue leaves no time to extend it."""

KAFKA_RENEW_SECONDS = 20.0
"""How long no broker may answer before the producer is made anew, and again."""

_STALLED_SECONDS = 60.0  # beyond what one request may take: a backoff, and the busiest machine
_ATTRIBUTES_SECONDS = 30.0
_WATCH_SECONDS = 1.0
_PROBE_SECONDS = 2.0


class Bridge:
    """:meth:`run` blocks until :meth:`stop` or until a thread fails."""

    def __init__(
        self,
        settings: BridgeSettings,
        queue: SqsQueue,
        metrics: BridgeMetrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._metrics = metrics
        self._monotonic = monotonic
        self._ends: Queue[FatalError | None] = Queue()
        self._threads = StepThreads(self._ends.put, monotonic)
        self._forwarding = SqsToKafka(settings, queue, metrics, monotonic)
        self._renew_at: float | None = None
        self._reachability = Reachability(settings, monotonic=monotonic)

    def run(self) -> None:
        """Forward messages until stopped. Raises :class:`FatalError` when it can't start or a thread ended by an error."""
        self._threads.start("start", self._start)
        failure = self._ends.get()
        self._finish()
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Let :meth:`run` finish what is held and return. May be called from any thread, also before it."""
        self._ends.put(None)

    def crash(self) -> str | None:
        """What has crashed, if anything: :meth:`run` then ends, unless that hangs."""
        dead = self._threads.failed()
        return f"dead threads: {', '.join(dead)}" if dead else None

    def livez(self) -> Health:
        """503 when only a restart can help: a thread has died or makes no step. SQS or Kafka being away is no reason."""
        dead = self._threads.failed()
        stalled = self._threads.silent(self._queue.request_seconds_max + _STALLED_SECONDS)
        return Health(not dead and not stalled, {"dead_threads": dead, "stalled_threads": stalled})

    def readyz(self) -> Health:
        """503 while something is waited for: it is named, with a code or in words."""
        started = self._forwarding.producer is not None
        both = (self._forwarding.sqs, self._forwarding.kafka)
        details = {dependency.name: {"ok": dependency.works, "code": dependency.code} for dependency in both}
        in_words = {dependency.name: dependency.details() for dependency in both}
        return Health(started and all(dependency.works for dependency in both), {"started": started, **details}, in_words)

    def _start(self, beat: Beat) -> None:
        """Wait for SQS and Kafka, then start the threads."""
        settings, forwarding = self._settings, self._forwarding
        try:
            attributes = forwarding.ask_attributes(beat)
            self._check(attributes)
            created = forwarding.kafka.repeat(self._ensure_topic, (RetryableError,), forwarding.stopping, beat)
        except RetryableError:  # only when stopping
            return
        produce_timeout = min(settings.bridge_produce_timeout_seconds, attributes.visibility_seconds * EXTEND_AT)
        if produce_timeout < settings.bridge_produce_timeout_seconds:
            _log.warning("produce_timeout_shortened", seconds=produce_timeout, visibility_seconds=attributes.visibility_seconds)
        forwarding.connect(settings, produce_timeout)
        for name, body in forwarding.thread_bodies(settings.bridge_receivers).items():
            self._threads.start(name, body)
        self._threads.start("watch", self._watch)
        _log.info(
            "bridge_started",
            queue=settings.queue_name,
            fifo=self._queue.is_fifo,
            topic=settings.kafka_topic,
            topic_created=created,
            receivers=settings.bridge_receivers,
            visibility_seconds=attributes.visibility_seconds,
        )

    def _ensure_topic(self) -> bool:
        try:
            return ensure_topic(self._settings)
        except RetryableError as error:
            raise self._reachability.explain(error) from error

    def _check(self, attributes: QueueAttributes) -> None:
        if attributes.visibility_seconds < VISIBILITY_SECONDS_MIN:
            raise FatalError(
                f"the queue of SQS_QUEUE_URL has a visibility timeout of {attributes.visibility_seconds} s; set it to at least "
                f"{VISIBILITY_SECONDS_MIN}, better 30: a message must stay hidden until Kafka has it"
            )
        self._note(attributes)

    def _note(self, attributes: QueueAttributes) -> None:
        self._forwarding.visibility.seconds = max(attributes.visibility_seconds, VISIBILITY_SECONDS_MIN)
        self._forwarding.receives_max = attributes.receives_max
        self._metrics.queue_visible.set(attributes.visible_messages)
        self._metrics.queue_hidden.set(attributes.hidden_messages)
        self._metrics.queue_retention.set(attributes.retention_seconds)

    def _watch(self, beat: Beat) -> None:
        """Close outages, follow the queue's attributes, find out whether Kafka is away or back while nothing is produced."""
        forwarding = self._forwarding
        attributes_at = self._monotonic() + _ATTRIBUTES_SECONDS
        while not forwarding.letting_go.is_set():
            beat()
            forwarding.sqs.tick()
            forwarding.kafka.tick()
            self._probe_kafka()
            self._explain_kafka()
            self._renew_producer()
            if self._monotonic() >= attributes_at:
                attributes_at = self._monotonic() + _ATTRIBUTES_SECONDS
                try:
                    self._note(self._queue.attributes())
                except QUEUE_ERRORS as error:
                    forwarding.sqs.failed(error.code, str(error))
                else:
                    forwarding.sqs.worked()
            forwarding.kafka_suspected.wait(_WATCH_SECONDS)

    def _probe_kafka(self) -> None:
        """Ask Kafka whether it is away, when librdkafka suspects so; or back, when nothing is produced that would tell."""
        forwarding = self._forwarding
        suspected = forwarding.kafka_suspected.is_set()
        forwarding.kafka_suspected.clear()
        if forwarding.producer is None:
            return
        if suspected and forwarding.kafka.works:
            if not forwarding.producer.is_reachable(_PROBE_SECONDS):
                forwarding.kafka.failed("_ALL_BROKERS_DOWN")
        elif not forwarding.kafka.works and not forwarding.waits_for_kafka and forwarding.producer.is_reachable(_PROBE_SECONDS):
            forwarding.kafka.worked()

    def _explain_kafka(self) -> None:
        """Say why Kafka is away: what librdkafka calls it says little."""
        kafka = self._forwarding.kafka
        if code := kafka.code:
            unreachable = KafkaUnreachableError(f"Kafka acknowledges nothing ({code})", code)
            kafka.explained(str(self._reachability.explain(unreachable)))

    def _renew_producer(self) -> None:
        """Make the producer anew when no broker has answered it for long: it may be deaf for ever, see KafkaProducer.renew."""
        forwarding, now = self._forwarding, self._monotonic()
        if forwarding.producer is None or forwarding.kafka.works:
            self._renew_at = None
        elif self._renew_at is None:
            self._renew_at = now + KAFKA_RENEW_SECONDS
        elif now >= self._renew_at:
            self._renew_at = None
            if not forwarding.producer.is_reachable(_PROBE_SECONDS):
                forwarding.producer.renew()
                _log.info("producer_renewed", seconds=KAFKA_RENEW_SECONDS)

    def _finish(self) -> None:
        """Receive no more, finish what is held, make the rest visible again; all within the shutdown time."""
        forwarding = self._forwarding
        deadline = self._monotonic() + self._settings.bridge_shutdown_seconds
        forwarding.stopping.set()
        if forwarding.producer is None:
            return
        with forwarding.held:
            forwarding.held.notify_all()
            _log.info("bridge_stopping", in_flight=len(forwarding.receipts))
        finish_until = deadline - RELEASE_SECONDS
        self._threads.join("receive-", finish_until)
        while forwarding.is_unfinished and (left := finish_until - self._monotonic()) > 0:
            with forwarding.held:
                forwarding.held.wait(min(left, 0.05))
        forwarding.letting_go.set()
        forwarding.producer.abandon()
        with forwarding.held:
            now = self._monotonic()
            rest = [m for m in forwarding.receipts.held() if not m.acknowledged and forwarding.receipts.is_valid(m, now)]
        in_time = forwarding.visibility.release(rest, max(0.0, deadline - self._monotonic()))
        with forwarding.held:
            left_hidden = len(forwarding.receipts)
        _log.info("bridge_stopped", released=len(rest), left_hidden=left_hidden, in_time=in_time)
