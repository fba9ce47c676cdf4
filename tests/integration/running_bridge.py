"""A bridge as its users run it: a process, configured by environment variables; and what it left in queue and topic."""

import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import Any, NamedTuple, Self, TypeVar, cast
from urllib.error import HTTPError
from urllib.request import urlopen

import boto3
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from mypy_boto3_sqs import SQSClient
from mypy_boto3_sqs.literals import QueueAttributeNameType
from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

from dev_servers.elasticmq import MADE_UP_CREDENTIALS
from dev_servers.pipeline_processes import PipelineProcesses
from dev_servers.ports import HOST
from pipeline.contract import RECORD_BYTES_MAX

WAIT_SECONDS = 30.0

Seen = TypeVar("Seen")


def wait_for(condition: Callable[[], Seen], what: str, seconds: float = WAIT_SECONDS) -> Seen:
    """Poll until ``condition`` is true; its value. Fails the test with ``what`` when the time is over."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return value


@dataclass(frozen=True, slots=True)
class Record:
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: dict[str, bytes]

    @classmethod
    def of(cls, message: Message) -> Self:
        """What a message may lack by its type is there in one that the bridge sent and a consumer read."""
        partition, offset, key, value = message.partition(), message.offset(), message.key(), message.value()
        assert partition is not None
        assert offset is not None
        assert key is not None
        assert value is not None
        return cls(partition, offset, key, value, dict(cast("list[tuple[str, bytes]]", message.headers() or [])))

    @property
    def message_id(self) -> str:
        return self.headers["message-id"].decode()


class QueuePlace(NamedTuple):
    """Where a queue is."""

    endpoint_url: str
    url: str


class Queue:
    """A queue of one test's own, on a real server."""

    def __init__(
        self, endpoint_url: str, *, fifo: bool = False, visibility_seconds: int = 30, receives_max: int | None = None
    ) -> None:
        self.endpoint_url = endpoint_url
        self.fifo = fifo
        self.client: SQSClient = boto3.client(
            "sqs",
            endpoint_url=endpoint_url,
            region_name=MADE_UP_CREDENTIALS["AWS_DEFAULT_REGION"],
            aws_access_key_id=MADE_UP_CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=MADE_UP_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )
        suffix = ".fifo" if fifo else ""
        self.name = f"logins-{secrets.token_hex(4)}{suffix}"
        kind: dict[QueueAttributeNameType, str] = {"FifoQueue": "true"} if fifo else {}
        attributes: dict[QueueAttributeNameType, str] = {"VisibilityTimeout": str(visibility_seconds), **kind}
        if receives_max is not None:
            dead_letters = self.client.create_queue(QueueName=f"dead-{self.name}", Attributes=kind)["QueueUrl"]
            self.dead_letters_url = dead_letters
            arn = self.client.get_queue_attributes(QueueUrl=dead_letters, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
            attributes["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": str(receives_max)})
        self.url = self.client.create_queue(QueueName=self.name, Attributes=attributes)["QueueUrl"]

    def send(
        self, bodies: Iterable[str], group: Callable[[int], str] = lambda _: "one", traceparent: str | None = None
    ) -> list[str]:
        """Send, in this order; the message ids."""
        entries: list[SendMessageBatchRequestEntryTypeDef] = []
        for index, body in enumerate(bodies):
            entry: SendMessageBatchRequestEntryTypeDef = {"Id": str(index), "MessageBody": body}
            if self.fifo:
                entry |= {"MessageGroupId": group(index), "MessageDeduplicationId": secrets.token_hex(8)}
            if traceparent is not None:
                entry["MessageAttributes"] = {"traceparent": {"DataType": "String", "StringValue": traceparent}}
            entries.append(entry)
        ids: dict[int, str] = {}
        start = 0
        while start < len(entries):
            batch: list[SendMessageBatchRequestEntryTypeDef] = []
            size = 0
            for entry in entries[start : start + 10]:
                size += len(entry["MessageBody"])
                if batch and size > 200_000:
                    break
                batch.append(entry)
            answer = self.client.send_message_batch(QueueUrl=self.url, Entries=batch)
            assert not answer.get("Failed"), answer
            ids |= {int(sent["Id"]): sent["MessageId"] for sent in answer["Successful"]}
            start += len(batch)
        return [ids[index] for index in range(len(entries))]

    def counts(self) -> tuple[int, int]:
        """Messages that can be received, messages that are hidden."""
        answer = self.client.get_queue_attributes(
            QueueUrl=self.url, AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        )["Attributes"]
        return int(answer["ApproximateNumberOfMessages"]), int(answer["ApproximateNumberOfMessagesNotVisible"])

    def is_empty(self) -> bool:
        """Counted twice: Moto counts first the visible, then the hidden, so that what turns visible meanwhile is in neither."""
        return self.counts() == self.counts() == (0, 0)


class Topic:
    """A topic of one test's own."""

    def __init__(self, bootstrap_servers: str, bytes_max: int = RECORD_BYTES_MAX, partitions: int = 4) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.name = f"logins-{secrets.token_hex(4)}"
        self.partitions = partitions
        self.admin = AdminClient({"bootstrap.servers": bootstrap_servers})
        self.admin.create_topics([NewTopic(self.name, partitions, 1, config={"max.message.bytes": str(bytes_max)})])[
            self.name
        ].result()

    def records(self) -> list[Record]:
        """All that is in it now, by partition and offset."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": "none", "enable.auto.commit": False})
        records: list[Record] = []
        try:
            ends = {p: consumer.get_watermark_offsets(TopicPartition(self.name, p), timeout=10)[1] for p in range(self.partitions)}
            consumer.assign([TopicPartition(self.name, p, 0) for p in ends])
            while len(records) < sum(ends.values()):
                for message in consumer.consume(min(500, sum(ends.values()) - len(records)), timeout=10):
                    assert message.error() is None
                    records.append(Record.of(message))
        finally:
            consumer.close()
        return sorted(records, key=lambda record: (record.partition, record.offset))

    def has(self, number: int) -> bool:
        return len(self.records()) >= number


class RunningBridge:
    """One bridge process; ends with the test, whatever happens."""

    def __init__(
        self, directory: Path, queue: Queue | QueuePlace, topic: Topic, *, endpoint_url: str | None = None, **settings: str
    ) -> None:
        environment: Mapping[str, str] = {
            **MADE_UP_CREDENTIALS,
            "AWS_ENDPOINT_URL_SQS": endpoint_url or queue.endpoint_url,
            "SQS_QUEUE_URL": queue.url,
            "KAFKA_BOOTSTRAP_SERVERS": topic.bootstrap_servers,
            "KAFKA_TOPIC": topic.name,
            "LOG_FORMAT": "json",
            "BRIDGE_RECEIVE_WAIT_SECONDS": "1",
            "BRIDGE_RECEIVERS": "4",
            "PYTHONWARNINGS": "error",
            **settings,
        }
        self._processes = PipelineProcesses(directory, environment)
        self._name = f"bridge-{secrets.token_hex(4)}"
        self.child = self._processes.start_bridge(self._name)
        self.log_file = self.child.log_file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Its log, or the events of one name."""
        lines = [json.loads(line) for line in self.log_file.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if name is None or line["event"] == name]

    def wait_for_event(self, name: str, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
        def seen() -> list[dict[str, Any]]:
            if not (events := self.events(name)):
                self.child.check()
            return events

        try:
            return wait_for(seen, f"the event {name}", seconds)[-1]
        except AssertionError as error:
            error.add_note(f"the end of its log: {self.log_file.read_text()[-2_000:]}")
            raise

    def metric(self, name: str, **labels: str) -> float:
        """The sum over a metric's series that have these labels."""
        self.wait_for_event("operations_served")
        return self._processes.metric(self._name, name, **labels)

    def health(self, path: str) -> tuple[int, dict[str, Any]]:
        self.wait_for_event("operations_served")
        try:
            with urlopen(f"http://{HOST}:{self._processes.ports[self._name]}{path}", timeout=5) as response:
                return response.status, json.load(response)
        except HTTPError as error:
            return error.code, json.load(error)

    def stop(self, seconds: float = 12.0) -> float:
        """SIGTERM; how long it took. Fails unless it exits with 0."""
        began = time.monotonic()
        self.child.send_signal(SIGTERM)
        assert self.child.wait(seconds) == 0, self.log_file.read_text()[-3_000:]
        return time.monotonic() - began
