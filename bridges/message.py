"""One SQS message, and the Kafka record that it becomes."""

import re

import msgspec

from pipeline import contract

_TIMESTAMP_LENGTH_MAX = 15  # more digits are later than the year 9999
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_XRAY = re.compile(
    r"Root=1-(?P<time>[0-9a-f]{8})-(?P<random>[0-9a-f]{24});Parent=(?P<parent>[0-9a-f]{16});Sampled=(?P<sampled>[01])"
)


class Message(msgspec.Struct, eq=False, gc=False):
    """A message that the bridge has received. Compared by identity: the same message received twice is held twice."""

    message_id: str
    receipt_handle: str
    """Ours for as long as the message stays hidden from others; a later receive of the same message makes another."""
    value: bytes
    """The body; empty once it is not needed any more. Never logged."""
    sent_at: str | None = None
    """Milliseconds since the epoch, decimal digits; None from a server that doesn't say. The worker judges it."""
    group_id: str | None = None
    """Only of a FIFO queue; order is kept within it."""
    receive_count: int = 1
    """How often SQS has given it out, this time included."""
    traceparent: str | None = None
    """W3C trace context."""
    hidden_until: float = 0.0
    """Monotonic seconds until which SQS hides it from others, while it is held."""
    produced_at: float = 0.0
    """Monotonic seconds of the last time it was given to Kafka."""
    attempts: int = 0
    """How often Kafka failed to take it."""
    acknowledged: bool = False
    """Kafka has it: all that is left is to delete it."""


def body_bytes(body: str) -> bytes:
    """The body as it was sent. Where a server lets lone surrogates pass (SQS doesn't), the worker refuses them."""
    return body.encode("utf-8", "surrogatepass")


def sent_timestamp(text: str | None) -> str | None:
    """SQS's SentTimestamp as the record's header says it; None where a server says none, or something that is no time."""
    return text if text is not None and len(text) <= _TIMESTAMP_LENGTH_MAX and text.isascii() and text.isdigit() else None


def trace_context(traceparent: str | None, xray_header: str | None) -> str | None:
    """The W3C trace context of the message's own attribute, else of AWS's X-Ray header.

    Anyone who may send can write anything there, so only what has the exact form is passed on.
    """
    if traceparent is not None:
        return traceparent if _TRACEPARENT.fullmatch(traceparent) else None
    if xray_header is not None and (found := _XRAY.search(xray_header)) is not None:
        return f"00-{found['time']}{found['random']}-{found['parent']}-0{found['sampled']}"
    return None


def record_key(message: Message) -> bytes:
    """The Kafka key: what must stay in order meets in one partition."""
    return contract.record_key(message.value, message.message_id, message.group_id)


def record_headers(message: Message, source: bytes) -> list[tuple[str, str | bytes | None]]:
    """The Kafka headers, in the order of the contract; ``source`` is the queue's name."""
    headers: list[tuple[str, str | bytes | None]] = [(contract.HEADER_MESSAGE_ID, message.message_id.encode())]
    if message.sent_at is not None:
        headers.append((contract.HEADER_SENT_AT, message.sent_at.encode()))
    headers.append((contract.HEADER_SOURCE, source))
    if message.traceparent is not None:
        headers.append((contract.HEADER_TRACEPARENT, message.traceparent.encode()))
    return headers
