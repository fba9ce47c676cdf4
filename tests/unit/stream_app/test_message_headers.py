from uuid import UUID

import pytest
from login_records import MESSAGE_ID, PLACE, SENT_AT_BOUNDS, SENT_AT_MS, batch_of, build, headers, login, record

from pipeline.settings import load
from stream_app.message_headers import fallback_message_id, read_headers
from stream_app.reasons import Reason
from stream_app.sent_at import SentAtBounds
from stream_app.settings import SentAtSettings

ANY_TIME = SentAtBounds(10**15, 10**15)
FALLBACK_OF_OFFSET_7 = "cd69175f-dc41-56bb-a6c0-0e5602a476b0"
"""UUIDv5 of logins/3/7. A change of this value would give records that are read again a second row."""


def test_the_fallback_id_never_changes() -> None:
    assert fallback_message_id(PLACE, 7) == FALLBACK_OF_OFFSET_7
    assert UUID(FALLBACK_OF_OFFSET_7).version == 5


def test_headers_of_the_bridge_are_taken() -> None:
    read = read_headers(PLACE, [record(login(), offset) for offset in range(3)], SENT_AT_BOUNDS)

    assert read.message_ids == [f"{MESSAGE_ID[:24]}{offset:012x}" for offset in range(3)]
    assert read.sent_at_ms == [str(SENT_AT_MS + offset) for offset in range(3)]
    assert not read.problems


def test_headers_of_the_bridge_are_read_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other way gives the same and takes ten times as long, which nobody would see but in a benchmark."""
    monkeypatch.delattr("stream_app.message_headers._read_each")

    assert len(read_headers(PLACE, [record(login(), offset) for offset in range(3)], SENT_AT_BOUNDS).message_ids) == 3


def test_a_sent_at_among_others_loses_its_leading_zeros() -> None:
    first, second = record(login(), 0), record(login(), 1, headers_=(headers(1)[0], ("sent-at", b"0000000000001")))

    assert read_headers(PLACE, [first, second], ANY_TIME).sent_at_ms == [str(SENT_AT_MS), "1"]


@pytest.mark.parametrize(
    ("given", "message_id", "sent_at_ms"),
    [
        ((), FALLBACK_OF_OFFSET_7, 5),
        ((("source", b"q"),), FALLBACK_OF_OFFSET_7, 5),
        ((("message-id", MESSAGE_ID.encode()),), MESSAGE_ID, 5),
        ((("message-id", MESSAGE_ID.upper().encode()),), MESSAGE_ID, 5),
        ((("sent-at", b"1763900000001"),), FALLBACK_OF_OFFSET_7, 1_763_900_000_001),
        ((("sent-at", b"7"), ("message-id", MESSAGE_ID.encode())), MESSAGE_ID, 7),
        ((("sent-at", b"0"),), FALLBACK_OF_OFFSET_7, 0),
        ((("sent-at", b"253402300799999"),), FALLBACK_OF_OFFSET_7, 253_402_300_799_999),
        ((("message-id", MESSAGE_ID.upper().encode()), ("sent-at", b"1763900000001")), MESSAGE_ID, 1_763_900_000_001),
        ((("message-id", MESSAGE_ID.encode()), ("sent-at", b"0000000000001")), MESSAGE_ID, 1),
        ((*headers()[:1], ("sent-at", b"8"), ("message-id", b"x"), ("sent-at", b"y")), headers()[0][1].decode(), 8),
    ],
)  # fmt: skip
def test_what_is_absent_has_a_stand_in(given: object, message_id: str, sent_at_ms: int) -> None:
    read = read_headers(PLACE, [record(login(), 7, headers_=given, timestamp=5)], ANY_TIME)

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


def test_a_bad_body_counts_before_a_bad_header() -> None:
    (letter,) = batch_of([record(b"x", 7, headers_=(("message-id", b"x"),))], 7, 8).dead_letters

    assert letter.reason is Reason.NOT_JSON


def test_one_record_without_headers_changes_nothing_for_its_neighbours() -> None:
    alone = read_headers(PLACE, [record(login(), offset) for offset in (0, 2)], SENT_AT_BOUNDS)
    read = read_headers(PLACE, [record(login(), 0), record(login(), 1, headers_=()), record(login(), 2)], SENT_AT_BOUNDS)

    assert [read.message_ids[0], read.message_ids[2]] == alone.message_ids
    assert [read.sent_at_ms[0], read.sent_at_ms[2]] == alone.sent_at_ms


def test_an_empty_batch_is_a_batch() -> None:
    batch = build([])

    assert (batch.records, batch.row_offsets, batch.dead_letters, batch.oldest_sent_at_ms) == (0, [], [], None)


DAY_MS = 86_400_000


def test_the_bounds_of_these_tests_are_the_settings_own() -> None:
    assert load(SentAtSettings).sent_at_bounds == SENT_AT_BOUNDS


@pytest.mark.parametrize(
    ("sent_at_ms", "is_plausible"),
    [
        (SENT_AT_MS - 31 * DAY_MS, True),
        (SENT_AT_MS - 31 * DAY_MS - 1, False),
        (SENT_AT_MS + DAY_MS, True),
        (SENT_AT_MS + DAY_MS + 1, False),
        (0, False),
        (SENT_AT_MS // 1_000, False),  # seconds
        (253_402_300_799_999, False),  # the end of the year 9999
    ],
)
@pytest.mark.parametrize("neighbours", [0, 2])
def test_a_sent_at_too_far_from_kafkas_time_is_a_dead_letter_with_that_time(
    sent_at_ms: int,
    is_plausible: bool,  # noqa: FBT001 - a parameter of the test
    neighbours: int,
) -> None:
    found = [record(login(), offset) for offset in range(neighbours)]
    found.append(record(login(), neighbours, headers_=(headers(9)[0], ("sent-at", b"%d" % sent_at_ms)), timestamp=SENT_AT_MS))
    batch = batch_of(found, 0, neighbours + 1)

    assert batch.row_offsets == list(range(neighbours + is_plausible))
    assert [(letter.reason, letter.field, letter.sent_at_ms, letter.message_id) for letter in batch.dead_letters] == (
        [] if is_plausible else [(Reason.SENT_AT_IMPLAUSIBLE, "sent-at", SENT_AT_MS, headers(9)[0][1].decode())]
    )


def test_without_a_time_of_kafka_no_sent_at_is_believed() -> None:
    (letter,) = batch_of([record(login(), 7, timestamp=-1)], 7, 8).dead_letters

    assert (letter.reason, letter.field, letter.sent_at_ms) == (Reason.SENT_AT_IMPLAUSIBLE, "sent-at", 0)


def test_times_of_a_batch_are_held_against_each_records_own() -> None:
    """Records of two weeks in one batch: what is true of each must not be doubted for the sake of another."""
    spread = []
    for day in range(0, 40, 10):
        then = SENT_AT_MS + day * DAY_MS
        spread.append(record(login(), day, headers_=(headers(day)[0], ("sent-at", b"%d" % then)), timestamp=then))

    assert batch_of(spread, 0, 40).row_offsets == [0, 10, 20, 30]
