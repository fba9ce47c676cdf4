"""Fills a queue with message bodies."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import TYPE_CHECKING

import boto3

from dev_servers.elasticmq import ElasticMq
from dev_servers.process import DevServerError
from dev_servers.raw_queue import BATCH_MESSAGES_MAX, RawQueue

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

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
    """Sends from threads of its own, so that the caller can watch: as fast as the queue takes them, and cheaply."""

    def __init__(self, queue_url: str) -> None:
        self._queue_url = queue_url
        self._lock = threading.Lock()
        self._stopped = False
        self.sent = 0
        """Messages that the queue has accepted."""

    def send(self, bodies: Sequence[str]) -> None:
        """Send all; returns when all are accepted, or after :meth:`stop`. Raises :class:`DevServerError` when one is refused."""
        waiting = batches(bodies)
        with ThreadPoolExecutor(SENDERS) as pool:
            for sender in [pool.submit(self._send_batches, waiting) for _ in range(SENDERS)]:
                sender.result()

    def stop(self) -> None:
        """Send no further batch."""
        self._stopped = True

    def _send_batches(self, waiting: Iterator[list[str]]) -> None:
        with RawQueue(self._queue_url) as queue:
            while not self._stopped:
                with self._lock:
                    batch = next(waiting, None)
                if batch is None:
                    return
                try:
                    queue.send(batch)
                except (OSError, HTTPException) as error:
                    raise DevServerError("elasticmq", f"did not take messages: {error}") from error
                with self._lock:
                    self.sent += len(batch)
