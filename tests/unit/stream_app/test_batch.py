import json
from itertools import pairwise

import pytest
from aiokafka.structs import ConsumerRecord
from login_records import (
    ABSENT,
    LOGIN,
    PLACE,
    SENT_AT_MS,
    batch_of,
    build,
    builder,
    headers,
    login,
    masker,
    opened,
    record,
    records,
)

from stream_app.batch import SEALED_BYTES_MAX, TEXT_CHARACTERS_MAX, Batch, KafkaRecord
from stream_app.ip_address import pack
from stream_app.large_records import LargeRecord
from stream_app.login_record import FIELDS
from stream_app.message_headers import fallback_message_id
from stream_app.reasons import Reason
from stream_app.reductions import Reduction
from stream_app.refusals import Refusal

POISON = {1: b"x", 4: login(ip="x"), 5: b"", 8: login(locale=1)}
EXTRA = {0, 3, 9}
PORTS = {0, 4, 6, 9}
PORT = ("ip", Reduction.PORT)


@pytest.fixture(scope="module")
def mixed() -> Batch:
    """Ten records from offset 100 on: 4 poison, 3 with extra keys, 4 with a port. The position before is 90, the one after 115."""
    return build_mixed()


def build_mixed(slice_records: int = 10) -> Batch:
    good = [
        login(
            user_id=f"u{number}",
            ip="203.0.113.9:80" if number in PORTS else "203.0.113.9",
            **({"more": 1} if number in EXTRA else {}),
        )
        for number in range(10)
    ]
    bodies = [POISON.get(number, body) for number, body in enumerate(good)]
    return batch_of(records(bodies, 100), 90, 115, slice_records=slice_records)


def test_columns_parameters_and_counts(mixed: Batch) -> None:
    assert list(mixed.columns) == [
        "user_id",
        "app_version",
        "device_type",
        "masked_ip",
        "locale",
        "masked_device_id",
        "sent_at_ms",
        "message_id",
    ]
    assert mixed.row_offsets == [100, 102, 103, 106, 107, 109]
    assert mixed.columns["user_id"] == ["u0", "u2", "u3", "u6", "u7", "u9"]
    assert mixed.columns["sent_at_ms"] == [str(SENT_AT_MS + offset) for offset in mixed.row_offsets]
    assert mixed.columns["message_id"] == [headers(offset)[0][1].decode() for offset in mixed.row_offsets]
    assert mixed.parameters()["user_id"] == "u0\x1fu2\x1fu3\x1fu6\x1fu7\x1fu9"
    assert [letter.offset for letter in mixed.dead_letters] == [101, 104, 105, 108]
    assert (mixed.records, mixed.extra_keys, mixed.oldest_sent_at_ms) == (10, 3, SENT_AT_MS + 100)
    assert mixed.reduced_offsets == {PORT: [100, 106, 109]}  # 104 is poison
    assert set(mixed.columns["masked_ip"]) == set(masker().mask("ip", [pack("203.0.113.9")]))


def test_one_sent_at_of_a_dead_letter_is_the_oldest() -> None:
    batch = build([b"x", login()])

    assert batch.oldest_sent_at_ms == SENT_AT_MS


def test_null_of_a_single_row_is_not_an_empty_column() -> None:
    assert build([login(locale=ABSENT)]).parameters()["locale"] == "\x02"


def test_halves_hold_everything_once_and_touch(mixed: Batch) -> None:
    first, second = mixed.split()

    assert (first.first_offset, first.next_offset, second.first_offset, second.next_offset) == (90, 106, 106, 115)
    assert (first.row_offsets, second.row_offsets) == ([100, 102, 103], [106, 107, 109])
    assert [letter.offset for letter in first.dead_letters] == [101, 104, 105]
    assert [letter.offset for letter in second.dead_letters] == [108]
    assert (first.extra_keys, second.extra_keys) == (2, 1)
    assert (first.reduced_offsets, second.reduced_offsets) == ({PORT: [100]}, {PORT: [106, 109]})
    assert second.split()[1].split()[0].reduced_offsets == {}
    assert (first.records, second.records) == (6, 4)
    for name, column in mixed.columns.items():
        assert first.columns[name] + second.columns[name] == column
    assert (first.oldest_sent_at_ms, second.oldest_sent_at_ms) == (SENT_AT_MS + 100, SENT_AT_MS + 106)


def test_halves_of_halves_end_at_single_rows(mixed: Batch) -> None:
    parts, done = [mixed], []
    while parts:
        part = parts.pop(0)
        if len(part.row_offsets) > 1:
            parts[:0] = part.split()
        else:
            done.append(part)

    assert [part.row_offsets for part in done] == [[offset] for offset in mixed.row_offsets]
    assert [part.first_offset for part in done] == [90, *(part.next_offset for part in done[:-1])]
    assert done[-1].next_offset == 115
    assert [letter for part in done for letter in part.dead_letters] == mixed.dead_letters
    assert sum(part.records for part in done) == 10


def test_fewer_than_two_rows_have_no_halves() -> None:
    with pytest.raises(ValueError, match="fewer than two rows"):
        build([login(), b"x"]).split()


def test_a_batch_is_one_statement(mixed: Batch) -> None:
    assert list(mixed.statements()) == [mixed]
    assert [part.records for part in build([]).statements()] == [0]


def test_large_dead_letters_are_spread_over_statements() -> None:
    large = b"x" * (SEALED_BYTES_MAX // 3)
    bodies = [large, login(), large, b"small", large, login(), b"x" * SEALED_BYTES_MAX, large, login()]
    batch = batch_of(records(bodies, 100), 90, 115)

    parts = list(batch.statements())

    assert [[letter.offset for letter in part.dead_letters] for part in parts] == [[100, 102, 103], [104], [106], [107]]
    assert [part.row_offsets for part in parts] == [[101], [105], [], [108]]
    assert [part.first_offset for part in parts] == [90, 104, 106, 107]
    assert [part.next_offset for part in parts] == [104, 106, 107, 115]
    assert sum(part.records for part in parts) == batch.records == len(bodies)
    assert [letter for part in parts for letter in part.dead_letters] == batch.dead_letters
    for name, column in batch.columns.items():
        assert [value for part in parts for value in part.columns[name]] == column


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("masked_ip", "ip"),
        ("user_id", "user_id"),
        ("sent_at", "sent-at"),
        ("message_id", "message-id"),
        ("create_date", "create_date"),
        ("tenant", "tenant"),
        (None, None),
    ],
)
def test_a_row_that_postgres_refused_becomes_a_dead_letter_with_its_original(
    mixed: Batch, column: str | None, field: str | None
) -> None:
    part = mixed.split()[1].split()[1].split()[0]  # the row 107 and the dead letter 108
    assert (part.row_offsets, [letter.offset for letter in part.dead_letters]) == ([107], [108])

    refused = builder().refuse_row(part, Refusal("23514", column=column))

    assert (refused.first_offset, refused.next_offset, refused.records) == (part.first_offset, part.next_offset, part.records)
    assert (refused.row_offsets, refused.extra_key_offsets, refused.reduced_offsets) == ([], [], {})
    assert set(refused.parameters().values()) == {""}
    letter, other = refused.dead_letters
    assert other == part.dead_letters[0]
    assert (letter.offset, letter.reason, letter.field) == (107, Reason.ROW_REFUSED, field)
    assert letter.refusal == Refusal("23514", column=column)
    assert (letter.message_id, letter.sent_at_ms) == (headers(107)[0][1].decode(), SENT_AT_MS + 107)
    assert json.loads(opened(letter).value or b"")["user_id"] == "u7"


def test_the_original_of_a_refused_row_is_found_among_its_neighbours() -> None:
    refused = builder().refuse_row(build([b"x", login(user_id="second"), b"y"]), Refusal())

    assert [letter.offset for letter in refused.dead_letters] == [0, 1, 2]
    original = opened(refused.dead_letters[1])
    assert json.loads(original.value or b"")["user_id"] == "second"


def test_only_a_batch_of_one_row_can_be_refused(mixed: Batch) -> None:
    with pytest.raises(ValueError, match="unpack"):
        builder().refuse_row(mixed, Refusal())


def test_raw_values_are_in_no_column_and_in_no_clear_part_of_a_dead_letter() -> None:
    batch = build([login(), login(locale=1), login(app_version="x"), b"{" + login()])

    assert len(batch.dead_letters) == 3
    clear = [(letter.message_id, letter.sent_at_ms, letter.reason, letter.field) for letter in batch.dead_letters]
    for value in (LOGIN["ip"], LOGIN["device_id"], LOGIN["user_id"]):
        assert value not in str(clear)
        assert all(value.encode() not in letter.sealed for letter in batch.dead_letters)
    for value in (LOGIN["ip"], LOGIN["device_id"]):
        assert value not in str(batch.columns)


@pytest.mark.parametrize("methods", ["", "ip=hmac,device_id=rotate", "ip=truncate,device_id=redact"])
def test_masked_columns_are_what_the_masker_makes_of_the_cleaned_values(methods: str) -> None:
    batch = build(
        [login(ip="::FFFF:203.0.113.9 ", device_id="\tdevice"), login(), login(ip="x"), login(ip="2001:DB8:0::1")], methods
    )

    addresses = [pack(ip) for ip in ("203.0.113.9", LOGIN["ip"], "2001:db8::1")]
    devices = [b"device", LOGIN["device_id"].encode(), LOGIN["device_id"].encode()]
    assert batch.columns["masked_ip"] == masker(methods).mask("ip", addresses)
    assert batch.columns["masked_device_id"] == masker(methods).mask("device_id", devices)


def test_joined_app_versions_by_setting() -> None:
    batch = batch_of([record(login(app_version="0.2.6"))], 0, 1, by=builder(app_version_encoding="joined"))

    assert batch.columns["app_version"] == ["26"]


def test_a_record_of_aiokafka_is_a_kafka_record() -> None:
    taken: KafkaRecord = record(login())

    assert isinstance(taken, ConsumerRecord)


@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_batch_built_in_slices_is_the_batch_built_at_once(size: int, mixed: Batch) -> None:
    sliced = build_mixed(size)
    assert (sliced.row_offsets, sliced.columns, sliced.parameters(), sliced.extra_key_offsets, sliced.reduced_offsets) == (
        mixed.row_offsets,
        mixed.columns,
        mixed.parameters(),
        mixed.extra_key_offsets,
        mixed.reduced_offsets,
    )
    known = [(letter.offset, letter.message_id, letter.reason, letter.field) for letter in mixed.dead_letters]
    assert [(letter.offset, letter.message_id, letter.reason, letter.field) for letter in sliced.dead_letters] == known


@pytest.mark.parametrize("slice_records", [1, 2, 6])
def test_of_a_message_that_is_in_a_batch_more_than_once_only_the_first_row_is_sent(slice_records: int) -> None:
    """Also of a part of it, and wherever a slice ends."""
    taken = [record(login(user_id=f"u{offset}"), offset, headers_=headers(min(offset, 4))) for offset in range(6)]
    batch = batch_of(taken, 0, 6, slice_records=slice_records)
    _, second = batch.split()

    assert batch.parameters()["user_id"] == "u0\x1fu1\x1fu2\x1fu3\x1fu4"
    assert second.parameters()["user_id"] == "u3\x1fu4"
    assert batch.columns["user_id"] == ["u0", "u1", "u2", "u3", "u4", "u5"]


def test_a_record_too_large_to_be_held_is_a_dead_letter_between_rows() -> None:
    large = LargeRecord(offset=1, timestamp=SENT_AT_MS, size=5_000_000, headers=headers(1))
    without = LargeRecord(offset=2, timestamp=1_000, size=5_000_000, headers=[("message-id", b"no uuid")])
    it = builder()
    batch = it.begin(PLACE, 0)
    it.add(batch, [record(login(), 0), large, without, record(login(), 3)])
    assert batch.row_offsets == [0, 3]
    first, second = batch.dead_letters
    assert (first.offset, first.reason, first.field) == (1, Reason.RECORD_TOO_LARGE, None)
    assert (first.message_id, first.sent_at_ms) == (headers(1)[0][1].decode(), SENT_AT_MS + 1)
    assert (second.reason, second.message_id, second.sent_at_ms) == (
        Reason.RECORD_TOO_LARGE, fallback_message_id(PLACE, 2), 1_000,
    )  # fmt: skip


def test_a_statement_is_bounded_in_characters_of_rows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_app.batch.TEXT_CHARACTERS_MAX", 2_000)
    found = build([login(user_id="u" * 100 + str(number)) for number in range(20)] + [b"x"])
    parts = list(found.statements())
    assert len(parts) == 3
    assert [offset for part in parts for offset in part.row_offsets] == list(range(20))
    assert [letter.offset for part in parts for letter in part.dead_letters] == [20]
    assert (parts[0].first_offset, parts[-1].next_offset) == (found.first_offset, found.next_offset)
    assert all(one.next_offset == other.first_offset for one, other in pairwise(parts))
    for part in parts:
        assert sum(len(text) for texts in part.texts.values() for text in texts) <= 2_000


def test_the_largest_statement_is_far_below_what_postgres_takes() -> None:
    row = sum(field.length_max or 64 for field in FIELDS) + 600  # two tokens, a time, an id
    assert 4 * 2 * (TEXT_CHARACTERS_MAX + row) < 2**30 // 2


def test_halves_are_of_rows_and_dead_letters() -> None:
    first, second = build([b"x", login(), b"y"]).halves()
    assert (first.records, second.records, first.next_offset, second.first_offset) == (1, 2, 1, 1)
    with pytest.raises(ValueError, match="no halves"):
        build([b"x"]).halves()
