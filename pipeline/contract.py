"""The Kafka message that the bridge writes and the worker reads.

value: the SQS body, byte for byte. key: see :func:`record_key`. headers: the names below, values as UTF-8 text; in the order below,
since the worker reads a batch by columns when each record has it, else record by record.
The Kafka timestamp is the broker's: with sent at as timestamp, retention would delete late messages on arrival.
"""

import msgspec

HEADER_MESSAGE_ID = "message-id"
"""The SQS MessageId, a UUID in text form."""

HEADER_SENT_AT = "sent-at"
"""The SQS SentTimestamp: milliseconds since the epoch, decimal text."""

HEADER_SOURCE = "source"
"""The name of the queue that the message came from."""

HEADER_TRACEPARENT = "traceparent"
"""W3C trace context, only where the SQS message had one."""

BODY_BYTES_MAX = 1_048_576
"""The largest SQS body (1 MiB since 2025)."""

RECORD_BYTES_MAX = BODY_BYTES_MAX + 65_536
"""What the topic must take: the largest body, its key (a FIFO group id has up to 128 characters, a user id as much as the body
has room for) and headers, with room to spare. ``max.message.bytes`` of the topic is at least this."""

KEY_BYTES_MAX = 1_024
"""A longer user id is no key: it would count against the record's size a second time."""


class _KeyOnly(msgspec.Struct, gc=False):
    user_id: str


_decode_key = msgspec.json.Decoder(_KeyOnly).decode


def record_key(body: bytes, message_id: str, message_group_id: str | None = None) -> bytes:
    """The Kafka key, so that what must stay in order meets in one partition.

    The message group id for a FIFO queue; else the record's user_id when the body is a JSON object with a string ``user_id``;
    else the message id. Never raises: a body of any kind gets a key, and the worker is the judge of it.
    """
    if message_group_id is not None:
        return message_group_id.encode()
    try:
        key = _decode_key(body).user_id.encode()
    except (
        msgspec.DecodeError,
        RecursionError,
        UnicodeError,
    ):  # RecursionError: deep nesting; msgspec raises it as it is
        return message_id.encode()
    return key if 0 < len(key) <= KEY_BYTES_MAX else message_id.encode()
