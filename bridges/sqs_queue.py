"""The queue: what can be asked of it, and how its answers are understood.

A batch request that worked may still have failed for single entries: these come back one by one.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any, TypeVar
from urllib.parse import urlsplit

from bridges.http_connections import WaitToRead
from bridges.message import Message, body_bytes, sent_timestamp, trace_context
from bridges.sqs_answers import AnswerT, AttributesAnswer, BatchAnswer, ReceiveAnswer, ReceivedMessage
from bridges.sqs_client import ATTEMPTS_MAX, CONNECT_SECONDS, SqsClient, boto3_session
from bridges.sqs_errors import translated

ResultT = TypeVar("ResultT")

_ANSWER_SECONDS = 6  # beyond the wait that we asked for
_RETENTION_SECONDS = 345_600  # SQS's own default, four days: for servers that don't say


class AnswerAbandonedError(Exception):
    """Raised by whoever was asked whether an answer may be read: it may not, and SQS gives its messages out again."""


class Answer(Enum):
    """How SQS answered one entry of a batch request."""

    OK = "ok"
    EXPIRED = "expired"
    """The receipt handle is no longer good: the message was deleted, or given out anew."""
    REFUSED = "refused"
    """Refused for another reason that repeating won't change."""
    FAILED = "failed"
    """SQS failed; try again."""


_EXPIRED_CODES = frozenset({"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidReceiptHandle", "InvalidParameterValue"})


@dataclass(frozen=True, slots=True)
class QueueAttributes:
    """What the queue says of itself."""

    visibility_seconds: int
    """How long a received message is hidden from others."""
    visible_messages: int
    """Approximate number that can be received."""
    hidden_messages: int
    """Approximate number in flight, with whichever reader."""
    retention_seconds: int
    """How long a message is kept."""
    receives_max: int | None
    """How often a message is given out before it goes to the dead-letter queue; None without one."""


Observer = Callable[[str, str, float], None]
"""Told of each request: operation, result (``ok``, ``throttled``, ``failed``, ``refused``), seconds."""


class SqsQueue:
    """One queue. Its methods may be called from several threads at a time."""

    def __init__(self, url: str, *, wait_seconds: int, threads: int, observe: Observer) -> None:
        """Opens no connection. Raises :class:`SettingsError` when boto3 can't be set up."""
        self.url = url
        self.is_fifo = url.endswith(".fifo")
        self._wait_seconds = wait_seconds
        self._observe = observe
        region, session = region_of(url), boto3_session()
        # Two clients, as each has one time for an answer: an extension must not hang for as long as a receive may.
        self._receiving = SqsClient(session, region, wait_seconds + _ANSWER_SECONDS, threads)
        self._answering = SqsClient(session, region, _ANSWER_SECONDS, threads * 2)

    @property
    def request_seconds_max(self) -> float:
        """The longest that one request can take: its attempts, and one on a kept connection that is closed before the answer."""
        return (ATTEMPTS_MAX + 1) * (CONNECT_SECONDS + self._wait_seconds + _ANSWER_SECONDS) + 1

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._receiving.close()
        self._answering.close()

    def attributes(self) -> QueueAttributes:
        """The queue's attributes."""
        parameters = {
            "QueueUrl": self.url,
            "AttributeNames": [
                "VisibilityTimeout",
                "ApproximateNumberOfMessages",
                "ApproximateNumberOfMessagesNotVisible",
                "MessageRetentionPeriod",
                "RedrivePolicy",
            ],
        }
        # By the receiving client, whose first request is boto3's: that of an answer with messages would have no bound on memory.
        return self._request(self._receiving, "GetQueueAttributes", parameters, AttributesAnswer, _attributes)

    def receive(self, visibility_seconds: int, messages_max: int, wait_to_read: WaitToRead) -> list[Message]:
        """Up to ``messages_max`` messages, hidden from others for ``visibility_seconds``; waits for the first, but not for ever.

        ``wait_to_read`` is called when they are about to come, with the answer's length (not where boto3 has to read it). What it
        raises comes back as it is.
        """
        parameters = {
            "QueueUrl": self.url,
            "MaxNumberOfMessages": messages_max,
            "WaitTimeSeconds": self._wait_seconds,
            "VisibilityTimeout": visibility_seconds,
            "MessageSystemAttributeNames": ["SentTimestamp", "ApproximateReceiveCount", "MessageGroupId", "AWSTraceHeader"],
            "MessageAttributeNames": ["traceparent"],
        }
        return self._request(self._receiving, "ReceiveMessage", parameters, ReceiveAnswer, self._messages, wait_to_read)

    def delete(self, messages: Sequence[Message]) -> list[Answer]:
        """Delete up to ten; one answer a message, in their order."""
        entries = [{"Id": str(index), "ReceiptHandle": message.receipt_handle} for index, message in enumerate(messages)]
        return self._change("DeleteMessageBatch", entries)

    def change_visibility(self, messages: Sequence[Message], visibility_seconds: int) -> list[Answer]:
        """Hide up to ten for ``visibility_seconds`` from now; 0: visible at once. One answer a message, in their order."""
        entries = [
            {"Id": str(index), "ReceiptHandle": message.receipt_handle, "VisibilityTimeout": visibility_seconds}
            for index, message in enumerate(messages)
        ]
        return self._change("ChangeMessageVisibilityBatch", entries)

    def _messages(self, answer: ReceiveAnswer) -> list[Message]:
        is_fifo = self.is_fifo
        return [
            Message(
                message_id=received.message_id,
                receipt_handle=received.receipt_handle,
                value=body_bytes(received.body),
                sent_at=sent_timestamp(received.attributes.sent_timestamp),
                group_id=received.attributes.message_group_id if is_fifo else None,  # a standard queue's groups promise no order
                receive_count=int(received.attributes.approximate_receive_count),
                traceparent=_traceparent(received),
            )
            for received in answer.messages
        ]

    def _change(self, operation: str, entries: Sequence[Mapping[str, Any]]) -> list[Answer]:
        parameters = {"QueueUrl": self.url, "Entries": entries}
        return self._request(self._answering, operation, parameters, BatchAnswer, lambda answer: _answers(answer, len(entries)))

    def _request(  # noqa: PLR0917 - in the order in which they come about
        self,
        client: SqsClient,
        operation: str,
        parameters: Mapping[str, Any],
        answer_type: type[AnswerT],
        understand: Callable[[AnswerT], ResultT],
        wait_to_read: WaitToRead | None = None,
    ) -> ResultT:
        began = time.perf_counter()
        try:
            result = understand(client.ask(operation, parameters, answer_type, wait_to_read))
        except AnswerAbandonedError:  # SQS did nothing wrong
            raise
        except Exception as error:  # an answer that is no SQS answer raises anything, in botocore or in understand()
            our_error, kind = translated(operation, error)
            self._observe(operation, kind, time.perf_counter() - began)
            raise our_error from error
        self._observe(operation, "ok", time.perf_counter() - began)
        return result


def region_of(url: str) -> str | None:
    """The region that an AWS queue URL names; None for other servers. No other works, whatever AWS_DEFAULT_REGION says."""
    host = (urlsplit(url).hostname or "").split(".")
    if not ("amazonaws" in host or host[-2:] == ["api", "aws"]):
        return None
    for before, after in pairwise(host):
        if before in {"sqs", "sqs-fips"}:
            return after  # sqs.REGION.amazonaws.com, vpce-ID.sqs.REGION.vpce.amazonaws.com
        if after == "queue" and before.count("-") >= 2:  # noqa: PLR2004 - as in eu-west-1
            return before  # REGION.queue.amazonaws.com, the form of old
    return None


def _attributes(answer: AttributesAnswer) -> QueueAttributes:
    attributes = answer.attributes
    redrive_policy = json.loads(attributes["RedrivePolicy"]) if attributes.get("RedrivePolicy") else {}
    receives_max = redrive_policy.get("maxReceiveCount")  # a number from AWS, a text from others
    return QueueAttributes(
        visibility_seconds=int(attributes["VisibilityTimeout"]),
        visible_messages=int(attributes.get("ApproximateNumberOfMessages", 0)),
        hidden_messages=int(attributes.get("ApproximateNumberOfMessagesNotVisible", 0)),
        retention_seconds=int(attributes.get("MessageRetentionPeriod", _RETENTION_SECONDS)),
        receives_max=None if receives_max is None else int(receives_max),
    )


def _traceparent(received: ReceivedMessage) -> str | None:
    own, xray_header = received.message_attributes.get("traceparent"), received.attributes.aws_trace_header
    return None if own is None and xray_header is None else trace_context(own.string_value if own else None, xray_header)


def _answers(answer: BatchAnswer, count: int) -> list[Answer]:
    """One answer an entry. An entry that SQS doesn't mention has failed: nothing is taken for done that isn't said to be."""
    answers = [Answer.FAILED] * count
    for done in answer.successful:
        answers[int(done.id)] = Answer.OK
    for failed in answer.failed:
        if failed.sender_fault:
            code = failed.code.rsplit(".", 1)[-1]
            answers[int(failed.id)] = Answer.EXPIRED if code in _EXPIRED_CODES else Answer.REFUSED
        else:
            answers[int(failed.id)] = Answer.FAILED
    return answers
