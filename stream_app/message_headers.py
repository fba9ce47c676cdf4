"""Message id and sent at of Kafka records: from the bridge's headers, or what stands in for them.

A record that another producer wrote without the headers is accepted: its message id is the UUIDv5 of its place in Kafka, its sent
at the Kafka timestamp, which also stands in for one that can't be (``sent_at.py``). If a header comes more than once, the first
counts: the bridge's own comes before what was added on the way.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from uuid import UUID, uuid5

from pipeline.contract import HEADER_MESSAGE_ID, HEADER_SENT_AT
from pipeline.errors import PoisonError
from stream_app.dead_letters import KafkaRecord
from stream_app.positions import Partition
from stream_app.reasons import Reason
from stream_app.sent_at import SENT_AT_MS_MAX, SentAtBounds, read_sent_at_ms

FALLBACK_NAMESPACE = UUID("8d7a2f57-6f0c-5d0e-9c55-0c0f1b8e64b1")
"""The namespace of message ids made from ``topic/partition/offset``. Never changes: a record read again must get its id again."""

_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_UUID_LENGTH = 36
_HYPHEN_PLACES = (8, 13, 18, 23)
_DIGITS = b"0123456789"
_HEX_AND_HYPHEN = _DIGITS + b"abcdefABCDEF-"
_COMMA = b","
_first, _second = itemgetter(0), itemgetter(1)
_MILLISECONDS_LENGTH_NOW = 13  # from 2001 to 2286


@dataclass(slots=True)
class MessageHeaders:
    """Message ids and sent at of a batch, one for each record; stand-ins where there is a problem."""

    message_ids: list[str]
    sent_at_ms: list[str]
    """Milliseconds since the epoch, decimal text."""
    problems: dict[int, PoisonError] = field(default_factory=dict)
    """By index in the batch; the field is the header's name."""


def read_headers(place: Partition, records: Sequence[KafkaRecord], bounds: SentAtBounds) -> MessageHeaders:
    """Message id and sent at of each record of a partition. Never raises for what a record holds."""
    return _read_as_bridge_writes(records, bounds) or _read_each(place, records, bounds)


def _read_as_bridge_writes(records: Sequence[KafkaRecord], bounds: SentAtBounds) -> MessageHeaders | None:
    """For a batch in which each record has good headers, in the bridge's order; else None. Checks columns, not records."""
    headers = [record.headers for record in records]
    try:
        first_names, ids = zip(*map(_first, headers), strict=True)
        second_names, times = zip(*map(_second, headers), strict=True)
    except (IndexError, ValueError):  # fewer than two headers, or no record
        return None
    # Counted by equality: aiokafka makes each name anew, and a set would hash each of them.
    if first_names.count(HEADER_MESSAGE_ID) != len(records) or second_names.count(HEADER_SENT_AT) != len(records):
        return None
    try:
        joined, joined_times = _COMMA.join(ids), _COMMA.join(times)
    except TypeError:  # a header without a value
        return None
    separators = _COMMA * (len(records) - 1)
    if (
        set(map(len, ids)) != {_UUID_LENGTH}
        or joined.translate(None, _HEX_AND_HYPHEN) != separators
        or joined.count(b"-") != len(ids) * len(_HYPHEN_PLACES)
        or any(joined[place :: _UUID_LENGTH + 1].strip(b"-") for place in _HYPHEN_PLACES)
        or set(map(len, times)) != {_MILLISECONDS_LENGTH_NOW}
        or joined_times.translate(None, _DIGITS) != separators
        or b"0" in joined_times[:: _MILLISECONDS_LENGTH_NOW + 1]
        or not bounds.allow_all(times, [record.timestamp for record in records])
    ):
        return None
    return MessageHeaders(joined.decode().lower().split(","), joined_times.decode().split(","))


def _read_each(place: Partition, records: Sequence[KafkaRecord], bounds: SentAtBounds) -> MessageHeaders:
    headers = MessageHeaders([], [])
    for index, record in enumerate(records):
        values = _first_values(record)
        try:
            message_id = _message_id(values)
        except PoisonError as problem:
            headers.problems[index] = problem.as_found()
            message_id = None
        try:
            sent_at = _sent_at_ms(values, record.timestamp, bounds)
        except PoisonError as problem:
            headers.problems.setdefault(index, problem.as_found())
            sent_at = _fallback_sent_at_ms(record)
        headers.message_ids.append(message_id or fallback_message_id(place, record.offset))
        headers.sent_at_ms.append(str(sent_at))
    return headers


def _fallback_sent_at_ms(record: KafkaRecord) -> int:
    return min(max(record.timestamp, 0), SENT_AT_MS_MAX)


def _first_values(record: KafkaRecord) -> dict[str, bytes | None]:
    values: dict[str, bytes | None] = {}
    for name, value in record.headers:
        values.setdefault(name, value)
    return values


def fallback_message_id(place: Partition, offset: int) -> str:
    """The message id of a record that came without one. A topic's name has no slash, so no two places meet."""
    return str(uuid5(FALLBACK_NAMESPACE, f"{place.topic}/{place.partition}/{offset}"))


def _message_id(values: dict[str, bytes | None]) -> str | None:
    if HEADER_MESSAGE_ID not in values:
        return None
    value = values[HEADER_MESSAGE_ID]
    if value is None or not _UUID.fullmatch(value):
        raise PoisonError(Reason.HEADER_INVALID, HEADER_MESSAGE_ID)
    return value.decode().lower()


def _sent_at_ms(values: dict[str, bytes | None], timestamp: int, bounds: SentAtBounds) -> int:
    if HEADER_SENT_AT in values:
        return read_sent_at_ms(values[HEADER_SENT_AT], timestamp, bounds)
    if not 0 <= timestamp <= SENT_AT_MS_MAX:
        raise PoisonError(Reason.HEADER_INVALID, HEADER_SENT_AT)
    return timestamp
