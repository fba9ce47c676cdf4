"""Message id and sent at of Kafka records: from the bridge's headers, or what stands in for them.

A record that another producer wrote without the headers is accepted: its message id is the UUIDv5 of its place in Kafka, its sent
at the Kafka timestamp. If a header comes more than once, the first counts: the bridge's own comes before what was added on the way.

A replayed record (:mod:`stream_app.replays`) is judged as when it first came: by the original's Kafka timestamp, and what stands in
for a missing header is what stood in for it then.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from uuid import UUID, uuid5

from pipeline.contract import HEADER_MESSAGE_ID, HEADER_SENT_AT
from pipeline.errors import PoisonError
from stream_app.dead_letters import KafkaRecord
from stream_app.large_records import LargeRecord
from stream_app.positions import Partition
from stream_app.reasons import Reason
from stream_app.replays import HEADER_REPLAY, ReplayMark, read_mark
from stream_app.sent_at import SENT_AT_MS_MAX, SentAtBounds, parse_sent_at_ms

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
    replays: dict[int, ReplayMark] = field(default_factory=dict)
    """The marks of replayed records, by index in the batch."""


def read_headers(
    place: Partition, records: Sequence[KafkaRecord], bounds: SentAtBounds, replay_key: bytes | None = None
) -> MessageHeaders:
    """Message id and sent at of each record of a partition. Never raises for what a record holds.

    ``replay_key``: what marks of replayed records verify with; without it there are none.
    """
    return _read_as_bridge_writes(records, bounds) or _read_each(place, records, bounds, replay_key)


def _read_as_bridge_writes(records: Sequence[KafkaRecord], bounds: SentAtBounds) -> MessageHeaders | None:
    """For a batch in which each record has well-formed headers, in the bridge's order; else None. Checks columns, not records."""
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
    ):
        return None
    timestamps = [record.timestamp for record in records]
    if not bounds.hold(int(min(times)), int(max(times)), min(timestamps), max(timestamps)):  # of equal length: as texts, too
        return None
    return MessageHeaders(joined.decode().lower().split(","), joined_times.decode().split(","))


def _read_each(place: Partition, records: Sequence[KafkaRecord], bounds: SentAtBounds, replay_key: bytes | None) -> MessageHeaders:
    headers = MessageHeaders([], [])
    for index, record in enumerate(records):
        values = _first_values(record)
        mark = _replay_mark(place, record, values, replay_key)
        if mark is not None:
            headers.replays[index] = mark
        timestamp = record.timestamp if mark is None else mark.timestamp
        try:
            message_id = _message_id(values)
        except PoisonError as problem:
            headers.problems[index] = problem.as_found()
            message_id = None
        try:
            sent_at = _sent_at_ms(values, timestamp, bounds)
        except PoisonError as problem:
            headers.problems.setdefault(index, problem.as_found())
            sent_at = _fallback_sent_at_ms(timestamp)
        if message_id is None:
            message_id = fallback_message_id(place, record.offset) if mark is None else mark.message_id
        headers.message_ids.append(message_id)
        headers.sent_at_ms.append(str(sent_at))
    return headers


def _replay_mark(
    place: Partition, record: KafkaRecord, values: dict[str, bytes | None], replay_key: bytes | None
) -> ReplayMark | None:
    if replay_key is None or HEADER_REPLAY not in values or isinstance(record, LargeRecord):  # of which not all is held
        return None
    return read_mark(replay_key, place.topic, record)


def _fallback_sent_at_ms(timestamp: int) -> int:
    return min(max(timestamp, 0), SENT_AT_MS_MAX)


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
        sent_at_ms = parse_sent_at_ms(values[HEADER_SENT_AT])
        if sent_at_ms is None:
            raise PoisonError(Reason.HEADER_INVALID, HEADER_SENT_AT)
        if not bounds.hold(sent_at_ms, sent_at_ms, timestamp, timestamp):
            raise PoisonError(Reason.SENT_AT_IMPLAUSIBLE, HEADER_SENT_AT)
        return sent_at_ms
    if not 0 <= timestamp <= SENT_AT_MS_MAX:
        raise PoisonError(Reason.HEADER_INVALID, HEADER_SENT_AT)
    return timestamp
