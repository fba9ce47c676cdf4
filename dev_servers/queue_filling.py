"""Fills a queue with message bodies."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import boto3

from dev_servers.elasticmq import ElasticMq
from dev_servers.process import DevServerError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

BATCH_MESSAGES_MAX = 10
BATCH_BYTES_MAX = 1_048_576
"""What one SendMessageBatch may carry, all bodies together; a single body likewise."""
SENDERS = 4


def sqs_client(elasticmq: ElasticMq) -> "SQSClient":
    """A client of this server, whatever the environment says about another."""
    credentials = elasticmq.environment
    return boto3.client(
        "sqs",
        endpoint_url=elasticmq.endpoint_url,
        region_name=credentials["AWS_DEFAULT_REGION"],
        aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
    )


def batches(bodies: Sequence[str]) -> Iterator[list[str]]:
    """The bodies in order, as many in one batch as SQS takes. Raises :class:`ValueError` for one that it never takes."""
    batch: list[str] = []
    room = BATCH_BYTES_MAX
    for number, body in enumerate(bodies, start=1):
        size = len(body.encode())
        if not 0 < size <= BATCH_BYTES_MAX:
            raise ValueError(f"message {number} has {size:,} bytes; SQS takes 1 to {BATCH_BYTES_MAX:,}")
        if len(batch) == BATCH_MESSAGES_MAX or size > room:
            yield batch
            batch, room = [], BATCH_BYTES_MAX
        batch.append(body)
        room -= size
    if batch:
        yield batch


class QueueFiller:
    """Sends from threads of its own, so that the caller can watch."""

    def __init__(self, sqs: "SQSClient", queue_url: str) -> None:
        self._sqs = sqs
        self._queue_url = queue_url
        self._lock = threading.Lock()
        self.sent = 0
        """Messages that the queue has accepted."""

    def send(self, bodies: Sequence[str]) -> None:
        """Send all; returns when all are accepted. Raises :class:`DevServerError` when the queue refuses one."""
        with ThreadPoolExecutor(SENDERS) as pool:
            for _ in pool.map(self._send_batch, batches(bodies)):
                pass

    def _send_batch(self, batch: Sequence[str]) -> None:
        answer = self._sqs.send_message_batch(
            QueueUrl=self._queue_url,
            Entries=[{"Id": str(number), "MessageBody": body} for number, body in enumerate(batch)],
        )
        if answer.get("Failed"):
            raise DevServerError("elasticmq", f"refused a message: {answer['Failed'][0]['Code']}")
        with self._lock:
            self.sent += len(batch)
