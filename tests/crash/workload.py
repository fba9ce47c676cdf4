"""Sends made-up messages to a queue at a set rate, whatever the pipeline behind it does, and notes each in the ledger."""

import secrets
import threading
import time
from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

import boto3
from botocore.config import Config
from mypy_boto3_sqs import SQSClient

from crash.ledger import Ledger
from crash.messages import Message
from dev_servers.elasticmq import MADE_UP_CREDENTIALS

BATCH_MESSAGES_MAX = 10
BATCH_BYTES_MAX = 1_048_576
GROUPS = 16
"""Message groups of a FIFO queue."""


def sqs_client(endpoint_url: str) -> SQSClient:
    """A client that sends each request once: a send repeated by itself would be a message that nobody noted."""
    return boto3.client(
        "sqs",
        endpoint_url=endpoint_url,
        region_name=MADE_UP_CREDENTIALS["AWS_DEFAULT_REGION"],
        aws_access_key_id=MADE_UP_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=MADE_UP_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"total_max_attempts": 1}, read_timeout=60),
    )


class Queue:
    """A queue of one run's own, with a dead-letter queue if ``receives_max`` says after how many receives."""

    def __init__(
        self,
        sqs: SQSClient,
        name: str,
        *,
        fifo: bool = False,
        visibility_seconds: int = 6,
        receives_max: int | None = None,
    ) -> None:
        self.sqs = sqs
        self.fifo = fifo
        self.name = f"{name}.fifo" if fifo else name
        kind: Any = {"FifoQueue": "true"} if fifo else {}
        attributes: Any = {"VisibilityTimeout": str(visibility_seconds), **kind}
        self.dead_letters_url: str | None = None
        if receives_max is not None:
            url = sqs.create_queue(QueueName=f"dead-{self.name}", Attributes=kind)["QueueUrl"]
            arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
            attributes["RedrivePolicy"] = f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": "{receives_max}"}}'
            self.dead_letters_url = url
        self.url = sqs.create_queue(QueueName=self.name, Attributes=attributes)["QueueUrl"]

    def counts(self) -> tuple[int, int]:
        """Messages that can be received, messages that are hidden."""
        names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    def put_aside(self) -> int:
        """How many messages SQS itself has put aside."""
        if self.dead_letters_url is None:
            return 0
        names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.dead_letters_url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def dead_letters(self) -> Iterator[str]:
        """The ids of the messages that SQS itself has put aside; each is given out once."""
        while self.dead_letters_url is not None:
            answer = self.sqs.receive_message(QueueUrl=self.dead_letters_url, MaxNumberOfMessages=10, VisibilityTimeout=3_600)
            if not answer.get("Messages"):
                return
            for message in answer["Messages"]:
                yield message["MessageId"]

    def delete(self) -> None:
        for url in (self.url, self.dead_letters_url):
            if url is not None:
                self.sqs.delete_queue(QueueUrl=url)


class Workload:
    """One thread that sends. Open loop: what could not be sent in time is sent as soon as it can be, until it pauses or ends."""

    def __init__(self, queue: Queue, ledger: Ledger, source: Iterator[Message], chance: Random, messages_per_second: float) -> None:
        self.queue = queue
        self.messages_per_second = messages_per_second
        """May be changed while it runs; 0 pauses it."""
        self.sent = 0
        self._ledger = ledger
        self._source = source
        self._chance = chance
        self._sending = threading.Lock()  # one batch at a time: the order of a message group is the order of sending
        self._drawing = threading.Lock()  # a generator serves one thread at a time
        self._turn = threading.Lock()  # held from looking at the rate until what it asks for is sent
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"workload {queue.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send no more. Raises what ended the thread before its time."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.check()

    def pause(self) -> None:
        """Send no more until the rate is set again; returns when the last message is noted."""
        self.messages_per_second = 0.0
        with self._turn:
            self.check()

    def check(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._error is not None:
            raise RuntimeError("the workload could not send") from self._error

    def send(self, messages: list[Message]) -> list[str]:
        """Send these now, beside the rate; their message ids, in the same order."""
        ids: list[str] = []
        with self._sending:
            while len(ids) < len(messages):
                ids += self._send_batch(_that_fit(messages[len(ids) : len(ids) + BATCH_MESSAGES_MAX]))
        return ids

    def burst(self, number: int) -> list[str]:
        """Send so many of the source's messages now."""
        with self._drawing:
            messages = list(islice(self._source, number))
        return self.send(messages)

    def _run(self) -> None:
        due = 0.0
        last = time.monotonic()
        try:
            while not self._stopping.wait(self._pause_seconds(due)):
                with self._turn:
                    now = time.monotonic()
                    due = due + (now - last) * self.messages_per_second if self.messages_per_second else 0.0
                    last = now
                    number = min(int(due), BATCH_MESSAGES_MAX)
                    self.burst(number)
                    due -= number
        except BaseException as error:  # noqa: BLE001 - told to whoever asks
            self._error = error

    def _pause_seconds(self, due: float) -> float:
        """Until the next batch is due; none while the queue is slower than the rate."""
        return 0.0 if due >= 1 else BATCH_MESSAGES_MAX / max(self.messages_per_second, 2 * BATCH_MESSAGES_MAX)

    def _send_batch(self, messages: list[Message]) -> list[str]:
        groups = [f"group-{self._chance.randrange(GROUPS)}" if self.queue.fifo else None for _ in messages]
        entries: list[Any] = []
        for number, (message, group) in enumerate(zip(messages, groups, strict=True)):
            fifo = {} if group is None else {"MessageGroupId": group, "MessageDeduplicationId": secrets.token_hex(8)}
            entries.append({"Id": str(number), "MessageBody": message.body, **fifo})
        before = time.time()
        answer = self.queue.sqs.send_message_batch(QueueUrl=self.queue.url, Entries=entries)
        if answer.get("Failed"):
            raise RuntimeError(f"the queue refused a message: {answer['Failed'][0]['Code']}")
        ids = {int(sent["Id"]): sent["MessageId"] for sent in answer["Successful"]}
        noted = [
            (ids[index], message, self.sent + index, group)
            for index, (message, group) in enumerate(zip(messages, groups, strict=True))
        ]
        self._ledger.add(noted, self.queue.name, before, time.time())
        self.sent += len(messages)
        return [ids[index] for index in range(len(messages))]


def _that_fit(messages: list[Message]) -> list[Message]:
    """As many of them, from the first on, as one request may carry."""
    size = 0
    for index, message in enumerate(messages):
        size += len(message.body.encode())
        if size > BATCH_BYTES_MAX:
            return messages[: max(index, 1)]
    return messages
