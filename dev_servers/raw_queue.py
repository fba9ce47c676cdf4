"""SQS's JSON protocol on a kept connection, unsigned: as cheap as a client can be. ElasticMQ asks for no signature.

For what must not use up the machine beside what is measured: filling a queue, sending on a schedule, finding the server's limit.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPConnection
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

BATCH_MESSAGES_MAX = 10
REQUEST_SECONDS = 30.0


class _Received(msgspec.Struct, gc=False):
    receipt_handle: str = msgspec.field(name="ReceiptHandle")


class _Receive(msgspec.Struct, gc=False):
    messages: list[_Received] = msgspec.field(name="Messages", default_factory=list)


class _Sent(msgspec.Struct, gc=False):
    message_id: str = msgspec.field(name="MessageId")


class _Failed(msgspec.Struct, gc=False):
    code: str = msgspec.field(name="Code", default="for no reason that it says")


class _Batch(msgspec.Struct, gc=False):
    successful: list[_Sent] = msgspec.field(name="Successful", default_factory=list)
    failed: list[_Failed] = msgspec.field(name="Failed", default_factory=list)


class _Deleted(msgspec.Struct, gc=False):
    failed: list[_Failed] = msgspec.field(name="Failed", default_factory=list)


class _Attributes(msgspec.Struct, gc=False):
    attributes: dict[str, str] = msgspec.field(name="Attributes")


class _Created(msgspec.Struct, gc=False):
    queue_url: str = msgspec.field(name="QueueUrl")


class RawQueue:
    """One connection to one queue; for one thread."""

    def __init__(self, queue_url: str) -> None:
        self._queue_url = queue_url
        parts = urlsplit(queue_url)
        self._connection = HTTPConnection(parts.hostname or "", parts.port, timeout=REQUEST_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection; the next request opens another."""
        self._connection.close()

    def send(self, bodies: Sequence[str]) -> list[str]:
        """Up to ten; their message ids. Raises :class:`OSError` when one is refused."""
        batch = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
        answer = msgspec.json.decode(self._call("SendMessageBatch", {"Entries": batch}), type=_Batch)
        if answer.failed:
            raise OSError(f"the queue refused {len(answer.failed)} messages: {answer.failed[0].code}")
        return [sent.message_id for sent in answer.successful]

    def receive(self) -> list[str]:
        """The receipts of up to ten messages; none when there is no message that is visible."""
        answer = self._call("ReceiveMessage", {"MaxNumberOfMessages": BATCH_MESSAGES_MAX})
        return [message.receipt_handle for message in msgspec.json.decode(answer, type=_Receive).messages]

    def delete(self, receipts: Sequence[str]) -> None:
        """Up to ten. Raises :class:`OSError` when one is refused."""
        batch = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(receipts)]
        if msgspec.json.decode(self._call("DeleteMessageBatch", {"Entries": batch}), type=_Deleted).failed:
            raise OSError("the queue refused a delete")

    def size(self) -> int:
        """All messages in the queue, those included that somebody holds."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = msgspec.json.decode(self._call("GetQueueAttributes", {"AttributeNames": names}), type=_Attributes)
        return sum(map(int, answer.attributes.values()))

    def create(self, name: str, visibility_seconds: int) -> str:
        """Make another queue on the same server; its URL."""
        request = {"QueueName": name, "Attributes": {"VisibilityTimeout": str(visibility_seconds)}}
        return msgspec.json.decode(self._call("CreateQueue", request), type=_Created).queue_url

    def remove(self) -> None:
        """The queue itself."""
        self._call("DeleteQueue", {})

    def purge(self) -> None:
        """Throw all away."""
        self._call("PurgeQueue", {})

    def _call(self, operation: str, request: Mapping[str, Any]) -> bytes:
        body = msgspec.json.encode({"QueueUrl": self._queue_url, **request})
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"AmazonSQS.{operation}"}
        self._connection.request("POST", "/", body, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != HTTPStatus.OK:
            raise OSError(f"{operation}: HTTP {answer.status}")
        return text
