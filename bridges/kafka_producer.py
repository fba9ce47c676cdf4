"""Gives records to Kafka and tells what became of each; the only module of the bridge that knows librdkafka.

Promise: each message that was given to :meth:`KafkaProducer.produce` comes back exactly once: as acknowledged, from
:meth:`KafkaProducer.poll`, or as failed or refused, by a callback. Acknowledged means that all in-sync replicas have it. Failed:
Kafka may or may not have it, produce it again. Refused: no repetition will make Kafka take it.

A broker refuses a whole batch when the batch is too large, the small records with the large one. So what is refused that way goes
once more, each record in a batch of its own, and only a record that is refused alone is refused.
"""

from collections.abc import Callable, Sequence
from functools import partial
from threading import RLock
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from bridges.message import Message, record_headers, record_key
from bridges.settings import RECEIVE_MESSAGES_MAX, BridgeSettings
from pipeline.contract import RECORD_BYTES_MAX

_BATCH_BYTES_MAX = 524_288
# librdkafka's own codes below 0 are about the client's state, those of the broker not listed here about the cluster's or topic's.
_REFUSED_CODES = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD})

OnFailure = Callable[[Message, str], None]
"""Called with the message and Kafka's name for the error, in the thread that produces or in the one that polls."""

_OnDelivery = Callable[[Message, KafkaError | None, Any], None]


def producer_configuration(settings: BridgeSettings, produce_timeout_seconds: float) -> dict[str, Any]:
    """The configuration of librdkafka, with all that matters said."""
    return {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "client.id": "login-stream-bridge",
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2",  # that of Java clients: one key has one partition, whoever produces
        "compression.type": "lz4",
        "linger.ms": settings.bridge_linger_seconds * 1_000,
        "batch.size": _BATCH_BYTES_MAX,
        "delivery.timeout.ms": int(produce_timeout_seconds * 1_000),
        "request.timeout.ms": int(produce_timeout_seconds * 1_000),
        "socket.timeout.ms": max(int(produce_timeout_seconds * 1_000), 10_000),
        "message.max.bytes": RECORD_BYTES_MAX,
        # Never reached: the in-flight bounds are lower, but for one answer that alone may be more than they are.
        "queue.buffering.max.messages": settings.bridge_in_flight_messages_max * 2,
        "queue.buffering.max.kbytes": ((settings.bridge_in_flight_bytes_max + RECEIVE_MESSAGES_MAX * RECORD_BYTES_MAX) // 1_024),
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 2_000,  # how late we notice that Kafka is back
        "topic.metadata.refresh.interval.ms": 30_000,
        "topic.metadata.propagation.max.ms": 5_000,
        "connections.max.idle.ms": 0,
        "socket.keepalive.enable": True,
        "log.connection.close": False,
        "log_level": 2,  # what goes wrong is told by the outcomes; librdkafka's own lines would double it, unstructured
    }


class KafkaProducer:
    """``produce`` may be called from any thread, ``poll`` from one.

    ``on_suspicion`` is called when librdkafka finds all brokers gone, which a closed idle connection can make it believe, too.
    """

    def __init__(
        self,
        settings: BridgeSettings,
        produce_timeout_seconds: float,
        *,
        on_failed: OnFailure,
        on_refused: OnFailure,
        on_suspicion: Callable[[], None],
    ) -> None:
        self._topic = settings.kafka_topic
        self._source = settings.queue_name.encode()
        self._on_failed = on_failed
        self._on_refused = on_refused
        self._acknowledged: list[Message] = []
        self._configuration = producer_configuration(settings, produce_timeout_seconds)
        self._on_suspicion = on_suspicion
        self._replacing = RLock()  # reentrant, since what is refused may let another message be produced
        self._producer = self._start({})
        self._alone: Producer | None = None
        self._retired: list[Producer] = []
        self._broken = False

    def __len__(self) -> int:
        """Messages without an outcome."""
        return sum(len(producer) for producer in self._producers())

    def produce(self, messages: Sequence[Message]) -> None:
        """Give messages to Kafka. Never raises and does not wait: whatever happens comes as their outcomes."""
        with self._replacing:  # or a message could be given to a producer that has been replaced, and let go of, meanwhile
            self._produce(self._producer, messages, self._delivered)

    def poll(self, seconds: float) -> list[Message]:
        """Wait for outcomes and serve them; those that are acknowledged. Call it again and again, from one thread."""
        self._serve(self._producer, seconds)
        if self._alone is not None:
            self._serve(self._alone, 0)
        if self._broken:
            self._replace()
        for producer in self._retired:
            self._serve(producer, 0)
        self._retired = [producer for producer in self._retired if len(producer)]
        acknowledged, self._acknowledged = self._acknowledged, []
        return acknowledged

    def is_reachable(self, seconds: float) -> bool:
        """Whether a broker answers within ``seconds``."""
        try:
            self._producer.list_topics(self._topic, timeout=seconds)
        except KafkaException:
            return False
        return True

    def renew(self) -> None:
        """Begin with a new connection to Kafka; what has no outcome yet comes back as failed. With the next poll.

        For when Kafka has been out of reach for long: a client of librdkafka that was told of no node, as while all are fenced, may
        connect to none ever again, however long they are back (its issue #5301).
        """
        self._broken = True

    def abandon(self) -> None:
        """Let go of all that has no outcome yet: it comes back as failed with the next poll."""
        for producer in self._producers():
            producer.purge(in_queue=True, in_flight=True, blocking=False)

    def _producers(self) -> list[Producer]:
        return [self._producer, *([self._alone] if self._alone is not None else []), *self._retired]

    def _serve(self, producer: Producer, seconds: float) -> None:
        try:
            producer.poll(seconds)
        except KafkaException as error:  # confluent-kafka raises a fatal error from here, whichever call met it
            self._broken = self._broken or (producer not in self._retired and error.args[0].fatal())

    def _start(self, changes: dict[str, Any]) -> Producer:
        return Producer({**self._configuration, **changes, "error_cb": self._on_error})

    def _produce(self, producer: Producer, messages: Sequence[Message], on_delivery: _OnDelivery) -> None:
        topic, source = self._topic, self._source
        for message in messages:
            try:
                producer.produce(
                    topic,
                    message.value,
                    record_key(message),
                    headers=record_headers(message, source),
                    on_delivery=partial(on_delivery, message),
                )
            except KafkaException as error:
                self._failed(message, error.args[0])
            except BufferError:
                self._on_failed(message, "_QUEUE_FULL")

    def _delivered(self, message: Message, error: KafkaError | None, _: Any) -> None:
        if error is None:
            self._acknowledged.append(message)
        elif error.code() in _REFUSED_CODES:
            if self._alone is None:
                self._alone = self._start({"batch.num.messages": 1})
            self._produce(self._alone, [message], self._delivered_alone)
        else:
            self._failed(message, error)

    def _delivered_alone(self, message: Message, error: KafkaError | None, _: Any) -> None:
        if error is None:
            self._acknowledged.append(message)
        else:
            self._failed(message, error)

    def _failed(self, message: Message, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001 - the names of librdkafka's own errors begin so
            self._broken = True
        (self._on_refused if error.code() in _REFUSED_CODES else self._on_failed)(message, error.name())

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._broken = True
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001
            self._on_suspicion()

    def _replace(self) -> None:
        """A fatal error ends an idempotent producer: begin with new ones. What the old ones hold comes back as failed."""
        self._broken = False
        old = [producer for producer in (self._producer, self._alone) if producer is not None]
        with self._replacing:
            self._producer, self._alone = self._start({}), None
        for producer in old:
            producer.purge(in_queue=True, in_flight=True, blocking=False)
        self._retired.extend(old)
