"""Writes records to a run's topic without SQS: faster than a queue would, and as no bridge writes them. They count as sent."""

import time
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, Producer

from crash.checker import message_id_of
from crash.messages import Message
from crash.system import System
from pipeline.contract import HEADER_MESSAGE_ID, HEADER_SENT_AT, HEADER_SOURCE, RECORD_BYTES_MAX

SOURCE = "another producer"
NOTED_AT_ONCE = 1_000
ANSWER_SECONDS = 30.0

Headers = list[tuple[str, str | bytes | None]]


class TopicProducer:
    """One producer; what it writes is in the ledger when a call returns. ``configuration``: librdkafka's, on top."""

    def __init__(
        self, system: System, configuration: dict[str, str | int] | None = None, *, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._system = system
        self._answer_seconds = answer_seconds
        self._failed: list[KafkaError] = []
        self._producer = Producer(
            {
                "bootstrap.servers": system.servers.kafka.bootstrap_servers,
                "acks": "all",
                "partitioner": "murmur2",  # as the bridge's: a user's records meet in one partition
                "linger.ms": 50,
                "compression.type": "lz4",
                "message.max.bytes": RECORD_BYTES_MAX,
                "log_level": 0,
                **(configuration or {}),
            }
        )

    def new_id(self) -> str:
        """A message id, the same one for the same seed."""
        return str(UUID(int=self._system.chance.getrandbits(128), version=4))

    def send(self, messages: Iterable[Message], partition: int = -1) -> None:
        """Write records as the bridge does, by key or to one partition."""
        source = iter(messages)
        while some := [(self.new_id(), message) for message in islice(source, NOTED_AT_ONCE)]:
            self.send_as(some, partition=partition)

    def send_as(self, messages: Sequence[tuple[str, Message]], *, times: int = 1, partition: int = -1, noted: bool = True) -> int:
        """Write records of these ids, each so many times in a row; milliseconds of their time of sending."""
        sent_at_ms = time.time_ns() // 1_000_000
        if noted:
            self._note(messages, sent_at_ms)
        self.repeat(messages, sent_at_ms, times=times, partition=partition)
        return sent_at_ms

    def repeat(self, messages: Sequence[tuple[str, Message]], sent_at_ms: int, *, times: int = 1, partition: int = -1) -> None:
        """Write records of messages that were sent before."""
        for message_id, message in messages:
            headers: Headers = [
                (HEADER_MESSAGE_ID, message_id.encode()),
                (HEADER_SENT_AT, str(sent_at_ms).encode()),
                (HEADER_SOURCE, SOURCE.encode()),
            ]
            for _ in range(times):
                self._produce(message, headers, key=self._key(message_id, message), partition=partition)
        self._wait()

    def send_strange(self, message: Message, headers: Headers, sent_at_ms: int | None = None) -> None:
        """Write a record with headers of its own; ``sent_at_ms``: what must come of them, None: Kafka's timestamp stands in."""
        delivered: list[Any] = []
        self._produce(message, headers, on_delivery=lambda _, record: delivered.append(record))
        self._wait()
        (record,) = delivered
        message_id = message_id_of(headers, record.topic(), record.partition(), record.offset())
        self._note([(message_id, message)], record.timestamp()[1] if sent_at_ms is None else sent_at_ms)

    def send_in_transaction(self, messages: Sequence[Message], *, aborted: bool) -> None:
        """Write records of a transaction that ends; if it is ``aborted``, nobody has sent them."""
        self._producer.init_transactions(ANSWER_SECONDS)
        self._producer.begin_transaction()
        self.send_as([(self.new_id(), message) for message in messages], noted=not aborted)
        if aborted:
            self._producer.abort_transaction(ANSWER_SECONDS)
        else:
            self._producer.commit_transaction(ANSWER_SECONDS)

    def leave_transaction_open(self, messages: Sequence[Message], partition: int) -> None:
        """Write records of a transaction that ends neither way: nobody has sent them. The producer is then as if it had died."""
        self._producer.init_transactions(ANSWER_SECONDS)
        self._producer.begin_transaction()
        self.send_as([(self.new_id(), message) for message in messages], partition=partition, noted=False)

    def _note(self, messages: Sequence[tuple[str, Message]], sent_at_ms: int) -> None:
        noted = [(message_id, message, number, None) for number, (message_id, message) in enumerate(messages)]
        self._system.ledger.add(noted, SOURCE, sent_at_ms / 1_000, (sent_at_ms + 0.5) / 1_000)

    def _key(self, message_id: str, message: Message) -> bytes:
        return (message_id if message.columns is None else message.columns.user_id).encode()

    def _produce(
        self, message: Message, headers: Headers, *, key: bytes | None = None, partition: int = -1, on_delivery: Any = None
    ) -> None:
        value = message.value or None  # nothing: a tombstone
        while True:
            try:
                self._producer.produce(
                    self._system.name, value, key, partition, on_delivery=on_delivery or self._delivered, headers=headers
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return

    def _delivered(self, error: KafkaError | None, _: Any) -> None:
        if error is not None:
            self._failed.append(error)

    def _wait(self) -> None:
        left = self._producer.flush(self._answer_seconds)
        if left or self._failed:
            raise KafkaException(self._failed[0] if self._failed else f"{left} records were not acknowledged")
