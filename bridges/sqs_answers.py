"""What SQS answers, as far as we read it: the names of its JSON protocol, in our spelling.

How it could break: a type that a thread is the first to decode. msgspec (0.22.0) builds what it knows of a Struct when it is first
used, and shows it to other threads before it is complete: two that use it at that moment end the process with a segmentation fault.
"""

import json
from typing import Any, TypeVar, cast

import msgspec


class SystemAttributes(msgspec.Struct, rename="pascal", gc=False):
    """What SQS says of a message; which of it a server says, differs."""

    sent_timestamp: str | None = None
    approximate_receive_count: str = "1"
    message_group_id: str | None = None
    aws_trace_header: str | None = msgspec.field(default=None, name="AWSTraceHeader")


class MessageAttribute(msgspec.Struct, rename="pascal", gc=False):
    """What the sender said beside the body; None where it is not text."""

    string_value: str | None = None


class ReceivedMessage(msgspec.Struct, rename="pascal", gc=False):
    """One message."""

    message_id: str
    receipt_handle: str
    body: str
    attributes: SystemAttributes = msgspec.field(default_factory=SystemAttributes)
    message_attributes: dict[str, MessageAttribute] = {}


class ReceiveAnswer(msgspec.Struct, rename="pascal"):
    """To ReceiveMessage."""

    messages: list[ReceivedMessage] = []


class DoneEntry(msgspec.Struct, rename="pascal", gc=False):
    """One that worked."""

    id: str


class FailedEntry(msgspec.Struct, rename="pascal", gc=False):
    """One that did not."""

    id: str
    sender_fault: bool = False
    code: str = ""


class BatchAnswer(msgspec.Struct, rename="pascal"):
    """To DeleteMessageBatch and ChangeMessageVisibilityBatch: an entry is in one of the two lists."""

    successful: list[DoneEntry] = []
    failed: list[FailedEntry] = []


class AttributesAnswer(msgspec.Struct, rename="pascal"):
    """To GetQueueAttributes."""

    attributes: dict[str, str]


AnswerT = TypeVar("AnswerT", bound=ReceiveAnswer | BatchAnswer | AttributesAnswer)

_DECODERS: dict[type[Any], msgspec.json.Decoder[Any]] = {
    answer_type: msgspec.json.Decoder(answer_type) for answer_type in (ReceiveAnswer, BatchAnswer, AttributesAnswer)
}
"""Made when the module is read, in one thread: with them msgspec knows all types of this module."""


def decode(content: bytes | bytearray, answer_type: type[AnswerT]) -> AnswerT:
    """An answer from its JSON. Raises ValueError when it is none of its type; on any thread."""
    try:
        return cast("AnswerT", _DECODERS[answer_type].decode(content))
    except msgspec.DecodeError:
        # It refuses lone surrogates. So does SQS, but a server that does not must not hand us a batch that we can never read.
        return convert(json.loads(content), answer_type)


def convert(answer: object, answer_type: type[AnswerT]) -> AnswerT:
    """An answer from what boto3 has made of it. Raises ValueError when it is none of its type; on any thread."""
    return msgspec.convert(answer, answer_type)
