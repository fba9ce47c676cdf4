from collections.abc import Sequence
from uuid import UUID

import pytest
from aiokafka.structs import ConsumerRecord
from login_records import MESSAGE_ID, PLACE, SENT_AT_MS, batch_of, build, headers, login, record

from stream_app.dead_letters import KafkaRecord
from stream_app.message_headers import MessageHeaders, fallback_message_id
from stream_app.message_headers import read_headers as read_headers_within
from stream_app.positions import Partition
from stream_app.reasons import Reason
from stream_app.sent_at import AGE_SECONDS_MAX, AHEAD_SECONDS_MAX, SentAtBounds

FALLBACK_OF_OFFSET_7 = "cd69175f-dc41-56bb-a6c0-0e5602a476b0"
"""UUIDv5 of logins/3/7. A change of this value would give records that are read again a second row."""

BOUNDS = SentAtBounds()
AGE_MS, AHEAD_MS = AGE_SECONDS_MAX * 1_000, AHEAD_SECONDS_MAX * 1_000
NOW = SENT_AT_MS + 10 * AGE_MS


def read_headers(place: Partition, records: Sequence[KafkaRecord], bounds: SentAtBounds = BOUNDS) -> MessageHeaders:
    return read_headers_within(place, records, bounds)


def sent(sent_at_ms: int | bytes, timestamp: int, offset: int = 0) -> ConsumerRecord[bytes, bytes]:
    """A record with this sent at and Kafka timestamp."""
    value = sent_at_ms if isinstance(sent_at_ms, bytes) else str(sent_at_ms).encode()
    return record(login(), offset, headers_=(headers(offset)[0], ("sent-at", value)), timestamp=timestamp)


def test_the_fallback_id_never_changes() -> None:
    assert fallback_message_id(PLACE, 7) == FALLBACK_OF_OFFSET_7
    assert UUID(FALLBACK_OF_OFFSET_7).version == 5


def test_headers_of_the_bridge_are_taken() -> None:
    read = read_headers(PLACE, [record(login(), offset) for offset in range(3)])

    assert read.message_ids == [f"{MESSAGE_ID[:24]}{offset:012x}" for offset in range(3)]
    assert read.sent_at_ms == [str(SENT_AT_MS + offset) for offset in range(3)]
    assert not read.problems


def test_headers_of_the_bridge_are_read_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other way gives the same and takes ten times as long, which nobody would see but in a benchmark."""
    monkeypatch.delattr("stream_app.message_headers._read_each")

    assert len(read_headers(PLACE, [record(login(), offset) for offset in range(3)]).message_ids) == 3


def test_a_sent_at_among_others_loses_its_leading_zeros() -> None:
    first, second = record(login(), 0), record(login(), 1, headers_=(headers(1)[0], ("sent-at", b"0000000000001")), timestamp=5)

    assert read_headers(PLACE, [first, second]).sent_at_ms == [str(SENT_AT_MS), "1"]


@pytest.mark.parametrize(
    ("given", "message_id", "sent_at_ms"),
    [
        ((), FALLBACK_OF_OFFSET_7, 5),
        ((("source", b"q"),), FALLBACK_OF_OFFSET_7, 5),
        ((("message-id", MESSAGE_ID.encode()),), MESSAGE_ID, 5),
        ((("message-id", MESSAGE_ID.upper().encode()),), MESSAGE_ID, 5),
        ((("sent-at", b"7"), ("message-id", MESSAGE_ID.encode())), MESSAGE_ID, 7),
        ((("sent-at", b"0"),), FALLBACK_OF_OFFSET_7, 0),
        ((("sent-at", b"3600005"),), FALLBACK_OF_OFFSET_7, 3_600_005),
        ((("message-id", MESSAGE_ID.encode()), ("sent-at", b"0000000000001")), MESSAGE_ID, 1),
        ((*headers()[:1], ("sent-at", b"8"), ("message-id", b"x"), ("sent-at", b"y")), headers()[0][1].decode(), 8),
    ],
)  # fmt: skip
def test_what_is_absent_has_a_stand_in(given: object, message_id: str, sent_at_ms: int) -> None:
    read = read_headers(PLACE, [record(login(), 7, headers_=given, timestamp=5)])

    assert (read.message_ids, read.sent_at_ms, read.problems) == ([message_id], [str(sent_at_ms)], {})


ID = MESSAGE_ID.encode()
WRONG_IDS = [
    b"",
    b"x",
    None,
    ID[:-1],
    ID + b"0",
    ID.replace(b"-", b""),
    ID.replace(b"-", b"0"),
    b"{" + ID + b"}",
    b" " + ID[1:],
    b"-" * 36,
    ID[:-1] + b"g",
    ID[:-1] + b"\xff",
    ID[:-1] + b",",
    b"," + ID[1:],
    b"5fea77560-ea4-451a-a703-a558b933e274",
    b"5fea7756-0ea4-451a-a703-a558b933e-74",
]
WRONG_TIMES = [
    b"",
    b"x",
    None,
    b"-1",
    b"+1",
    b" 1",
    b"1.0",
    b"253402300800000",
    b"9" * 100_000,
    b"1763900000000\n",
    b"0x7f",
    "\u0661".encode(),
    b"12345678901x3",
    b"123456789012,",
    b"1,34567890123",
]


@pytest.mark.parametrize("value", WRONG_IDS)
def test_a_message_id_that_is_no_uuid_is_a_dead_letter_under_the_stand_in(value: bytes | None) -> None:
    batch = batch_of([record(login(), 6), record(login(), 7, headers_=(("message-id", value), headers(9)[1]))], 6, 8)

    (letter,) = batch.dead_letters
    assert (letter.reason, letter.field, letter.offset) == (Reason.HEADER_INVALID, "message-id", 7)
    assert (letter.message_id, letter.sent_at_ms) == (FALLBACK_OF_OFFSET_7, SENT_AT_MS + 9)
    assert batch.row_offsets == [6]


@pytest.mark.parametrize("value", WRONG_TIMES)
def test_a_sent_at_that_is_no_time_is_a_dead_letter_with_the_kafka_timestamp(value: bytes | None) -> None:
    batch = batch_of([record(login(), 6), record(login(), 7, headers_=(headers(9)[0], ("sent-at", value)), timestamp=5)], 6, 8)

    (letter,) = batch.dead_letters
    assert (letter.reason, letter.field, letter.offset) == (Reason.HEADER_INVALID, "sent-at", 7)
    assert (letter.message_id, letter.sent_at_ms) == (headers(9)[0][1].decode(), 5)
    assert batch.row_offsets == [6]


@pytest.mark.parametrize(("timestamp", "sent_at_ms"), [(-1, 0), (253_402_300_800_000, 253_402_300_799_999)])
def test_without_any_time_a_record_is_a_dead_letter(timestamp: int, sent_at_ms: int) -> None:
    (letter,) = batch_of([record(login(), 7, headers_=(), timestamp=timestamp)], 7, 8).dead_letters

    assert (letter.reason, letter.field, letter.sent_at_ms) == (Reason.HEADER_INVALID, "sent-at", sent_at_ms)


@pytest.mark.parametrize(
    ("sent_at_ms", "timestamp"),
    [
        (0, NOW),
        (NOW // 1_000, NOW),
        (NOW * 10, NOW),
        (253_402_300_799_999, NOW),
        (9_999_999_999_999, NOW),
        (NOW - AGE_MS - 1, NOW),
        (NOW + AHEAD_MS + 1, NOW),
        (NOW, -1),
        (0, -1),
    ],
    ids=["1970", "seconds", "a digit more", "9999", "2286", "too old", "too late", "no Kafka timestamp", "neither"],
)
def test_a_sent_at_that_can_not_be_is_a_dead_letter_with_the_kafka_timestamp(sent_at_ms: int, timestamp: int) -> None:
    batch = batch_of([sent(NOW, NOW, 6), sent(sent_at_ms, timestamp, 7), sent(NOW, NOW, 8)], 6, 9)

    (letter,) = batch.dead_letters
    assert (letter.reason, letter.field, letter.offset) == (Reason.SENT_AT_IMPLAUSIBLE, "sent-at", 7)
    assert (letter.message_id, letter.sent_at_ms) == (headers(7)[0][1].decode(), max(timestamp, 0))
    assert batch.columns["sent_at_ms"] == [str(NOW)] * 2
    assert batch.row_offsets == [6, 8]


@pytest.mark.parametrize("sent_at_ms", [NOW - AGE_MS, NOW - 1, NOW, NOW + AHEAD_MS])
@pytest.mark.parametrize("others", [[], [sent(NOW - 2 * AGE_MS, NOW - 2 * AGE_MS, 1), sent(NOW + AGE_MS, NOW + AGE_MS, 2)]])
def test_a_sent_at_within_the_bounds_is_taken_whenever_others_were_written(
    sent_at_ms: int, others: list[KafkaRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("stream_app.message_headers._read_each")

    assert read_headers(PLACE, [sent(sent_at_ms, NOW), *others]).sent_at_ms[0] == str(sent_at_ms)


def test_what_is_implausible_is_found_among_others_of_all_times() -> None:
    """Within the bounds of the batch, not within its own."""
    found = read_headers(PLACE, [sent(NOW, NOW, 0), sent(NOW, NOW + 2 * AGE_MS, 1), sent(NOW, NOW - AGE_MS, 2), sent(NOW, NOW, 3)])

    assert {index: problem.reason for index, problem in found.problems.items()} == dict.fromkeys((1, 2), Reason.SENT_AT_IMPLAUSIBLE)
    assert found.sent_at_ms == [str(time) for time in (NOW, NOW + 2 * AGE_MS, NOW - AGE_MS, NOW)]


def test_the_bounds_are_those_of_the_settings() -> None:
    years = SentAtBounds.of_seconds(10 * 365 * 86_400, 60)

    assert not read_headers(PLACE, [sent(NOW - 100 * AGE_MS, NOW)], years).problems
    assert read_headers(PLACE, [sent(NOW + 60_001, NOW)], years).problems


def test_a_bad_body_counts_before_a_bad_header() -> None:
    (letter,) = batch_of([record(b"x", 7, headers_=(("message-id", b"x"),))], 7, 8).dead_letters

    assert letter.reason is Reason.NOT_JSON


def test_one_record_without_headers_changes_nothing_for_its_neighbours() -> None:
    alone = read_headers(PLACE, [record(login(), offset) for offset in (0, 2)])
    read = read_headers(PLACE, [record(login(), 0), record(login(), 1, headers_=()), record(login(), 2)])

    assert [read.message_ids[0], read.message_ids[2]] == alone.message_ids
    assert [read.sent_at_ms[0], read.sent_at_ms[2]] == alone.sent_at_ms


def test_an_empty_batch_is_a_batch() -> None:
    batch = build([])

    assert (batch.records, batch.row_offsets, batch.dead_letters, batch.oldest_sent_at_ms) == (0, [], [], None)
