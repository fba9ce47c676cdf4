"""What SQS answers, as far as we read it: the names of its JSON protocol, in our spelling."""

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
