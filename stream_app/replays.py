"""The mark of a replayed record: which dead letter it is of, and what was known of the record when it first came.

``faust -A stream_app dead-letters replay`` sends the original record to the topic once more, with this mark as its first header. By
it the worker judges the record as it was: its Kafka timestamp is the original's, its message id and sent at are the dead letter's
where the record has none of its own. And by it Postgres knows which dead letter is to be closed, or opened again.

Promise: nobody gains by a mark that he made up. It is a message authentication code over all of the record; the key is in Postgres,
for operators and workers. A mark that doesn't verify is none: the record is taken as any other. Whoever can read the topic can send
the same record once more, which is a duplicate like any other, and nothing else.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from stream_app.dead_letters import KafkaRecord

HEADER_REPLAY = "login-stream-replay"
"""First of a replayed record's headers. The bridge never writes it, and a record with anything but the bridge's headers at the
front is looked at on its own, so it costs other batches nothing."""

Headers = Sequence[tuple[str, bytes | None]]

_FORM = re.compile(
    rb"1 ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) ([0-9]{1,15}) (-1|[0-9]{1,18}) ([1-9][0-9]{0,8}) [0-9a-f]{64}"
)
_encode = msgspec.msgpack.Encoder().encode


class Content(msgspec.Struct, frozen=True, array_like=True):
    """What a mark is for: the record without it."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class ReplayMark:
    """What a replayed record says of its dead letter."""

    message_id: str
    """Of the dead letter, with ``sent_at_ms`` its key."""
    sent_at_ms: int
    timestamp: int
    """The Kafka timestamp of the original record; -1 for none."""
    attempt: int
    """Which replay of the dead letter this is, from 1 on. What an earlier one became changes nothing any more."""

    def signed(self, key: bytes, content: Content) -> bytes:
        """The header's value for a record."""
        text = f"1 {self.message_id} {self.sent_at_ms} {self.timestamp} {self.attempt}".encode()
        return text + b" " + _code(key, text, content)


def read_mark(key: bytes, topic: str, record: KafkaRecord) -> ReplayMark | None:
    """The mark of a record; None where it has none at the front, or one that wasn't made for it with this key."""
    if not record.headers or record.headers[0][0] != HEADER_REPLAY:
        return None
    value = record.headers[0][1] or b""
    found = _FORM.fullmatch(value)
    if found is None:
        return None
    text, _, code = value.rpartition(b" ")
    if not hmac.compare_digest(code, _code(key, text, Content(topic, record.key, record.value, record.headers[1:]))):
        return None
    return ReplayMark(found[1].decode(), int(found[2]), int(found[3]), int(found[4]))


def _code(key: bytes, text: bytes, content: Content) -> bytes:
    return hmac.new(key, _encode((text, content)), hashlib.sha256).hexdigest().encode()
