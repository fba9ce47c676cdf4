"""Everything that issue and design call bad input: the reason, the field, and the good records beside it."""

import json

import pytest
from login_records import ABSENT, LOGIN, PLACE, build, login, opener, record

from stream_app.decoding import decode_batch
from stream_app.message_headers import read_headers
from stream_app.reasons import Reason
from stream_app.sent_at import SentAtBounds

DEEP = 100_000
DIGITS = b"9" * 100_000
MEBIBYTE = 1_048_576


def raw(field: str, json_text: bytes) -> bytes:
    """A login whose field has this JSON text."""
    return login(**{field: "@@"}).replace(b'"@@"', json_text)


WHOLE_RECORD: dict[str, tuple[bytes | None, Reason]] = {
    "tombstone": (None, Reason.EMPTY_BODY),
    "empty": (b"", Reason.EMPTY_BODY),
    "white_space": (b" \r\n\t", Reason.EMPTY_BODY),
    "text": (b"hello", Reason.NOT_JSON),
    "cut_off": (login()[:-5], Reason.NOT_JSON),
    "two_objects": (login() + login(), Reason.NOT_JSON),
    "trailing_comma": (login()[:-1] + b",}", Reason.NOT_JSON),
    "single_quotes": (login().replace(b'"', b"'"), Reason.NOT_JSON),
    "nan": (raw("ip", b"NaN"), Reason.NOT_JSON),
    "byte_order_mark": (b"\xef\xbb\xbf" + login(), Reason.NOT_JSON),
    "bad_escape": (raw("user_id", rb'"\x"'), Reason.NOT_JSON),
    "raw_nul_in_a_string": (raw("user_id", b'"a\0b"'), Reason.NOT_JSON),
    "raw_newline_in_a_string": (raw("user_id", b'"a\nb"'), Reason.NOT_JSON),
    "nonsense_of_1_mib": (b"\x01nonsense" * (MEBIBYTE // 9), Reason.NOT_JSON),
    "quotes_of_1_mib": (b'"' * MEBIBYTE, Reason.NOT_JSON),
    "backslashes_of_1_mib": (b'{"ip":"' + b"\\" * MEBIBYTE, Reason.NOT_JSON),
    "zeros_of_1_mib": (b"\0" * MEBIBYTE, Reason.NOT_JSON),
    "latin_1": (login(user_id="@@").replace(b"@@", b"Andr\xe9"), Reason.NOT_UTF8),
    "utf_16": (login().decode().encode("utf-16"), Reason.NOT_UTF8),
    "surrogate_in_utf_8": (raw("ip", b'"\xed\xa0\x80"'), Reason.NOT_UTF8),
    "bad_utf_8_in_an_unknown_key": (login(foo="@@").replace(b"@@", b"\xff"), Reason.NOT_UTF8),
    "bad_utf_8_and_no_json": (b"\xffhello", Reason.NOT_UTF8),
    "list": (b"[" + login() + b"]", Reason.NOT_AN_OBJECT),
    "string": (json.dumps(login().decode()).encode(), Reason.NOT_AN_OBJECT),
    "null": (b"null", Reason.NOT_AN_OBJECT),
    "true": (b"true", Reason.NOT_AN_OBJECT),
    "number_of_100_000_digits": (DIGITS, Reason.NOT_AN_OBJECT),
    "arrays_100_000_deep": (b"[" * DEEP + b"]" * DEEP, Reason.TOO_DEEP),
    "arrays_that_do_not_close": (b"[" * DEEP, Reason.TOO_DEEP),
    "objects_100_000_deep": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, Reason.TOO_DEEP),
    "deep_in_a_field": (raw("ip", b"[" * DEEP + b"]" * DEEP), Reason.TOO_DEEP),
    "deep_in_an_unknown_key": (login(foo="@@").replace(b'"@@"', b"[" * DEEP + b"]" * DEEP), Reason.TOO_DEEP),
    "list_cut_off": (b"[1,", Reason.NOT_JSON),
    "lone_surrogate_in_an_unknown_value": (login(foo="\ud800"), Reason.LONE_SURROGATE),
    "lone_surrogate_in_a_key": (login(**{"\udc00": 1}), Reason.LONE_SURROGATE),
    "lone_surrogate_in_a_list": (b'["\\ud800"]', Reason.NOT_AN_OBJECT),
    "lone_surrogate_and_no_json": (b'{"ip":"\\ud800",', Reason.NOT_JSON),
    "surrogates_of_1_mib": (b'"' + rb"\ud800" * (MEBIBYTE // 6) + b'"', Reason.NOT_AN_OBJECT),
}

NO_ADDRESSES = (
    *("localhost", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.-4", "1.2.3.4/24", "1.2.3.4:80", "01.2.3.4", "1.2.3.4a", "0x7f.1.1.1"),
    *("2130706433", "\uff11.2.3.4", "::g", ":::", "1::2::3", "fe80::1%eth0", "[::1]", "1:2:3:4:5:6:7", "::ffff:1.2.3", "12345::"),
    "i" * MEBIBYTE,
)
NO_VERSIONS = (
    *("1.2.3.4", "2.3.0-beta", "-1.0", "+1.0", "1.1000", "1.0.1000", "99999.1", "2147", "1.", ".1", "1..2", "1,2", "1 .2", "v1.2"),
    *("1_0.2", "1e3", "\u0663.1", "\u00b2", "9" * 5_000, "9" * MEBIBYTE),
)

IN_A_FIELD: dict[str, tuple[bytes, Reason, str]] = {
    "another_kind_of_message": (b'{"foo": "1", "bar": 2}', Reason.MISSING_KEY, "user_id"),
    "empty_object": (b"{}", Reason.MISSING_KEY, "user_id"),
    **{f"{field}_missing": (login(**{field: ABSENT}), Reason.MISSING_KEY, field) for field in LOGIN if field != "locale"},
    **{f"{field}_null": (login(**{field: None}), Reason.NULL_VALUE, field) for field in LOGIN if field != "locale"},
    **{f"{field}_number": (login(**{field: 5}), Reason.WRONG_TYPE, field) for field in LOGIN},
    **{f"{field}_boolean": (login(**{field: True}), Reason.WRONG_TYPE, field) for field in LOGIN},
    **{f"{field}_list": (login(**{field: ["a"]}), Reason.WRONG_TYPE, field) for field in LOGIN},
    **{f"{field}_object": (login(**{field: {"a": "b"}}), Reason.WRONG_TYPE, field) for field in LOGIN},
    **{f"{field}_of_100_000_digits": (raw(field, DIGITS), Reason.WRONG_TYPE, field) for field in LOGIN},
    **{f"{field}_infinite": (raw(field, b"-1e999"), Reason.WRONG_TYPE, field) for field in LOGIN},
    **{f"{field}_empty": (login(**{field: ""}), Reason.EMPTY_VALUE, field) for field in LOGIN if field != "locale"},
    **{f"{field}_blank": (login(**{field: " \n\u2003"}), Reason.EMPTY_VALUE, field) for field in LOGIN if field != "locale"},
    **{f"{field}_nul": (login(**{field: "a\0b"}), Reason.CONTROL_CHARACTER, field) for field in LOGIN},
    **{f"{field}_newline": (login(**{field: "a\nb"}), Reason.CONTROL_CHARACTER, field) for field in LOGIN},
    **{f"{field}_separator": (login(**{field: "a\x1fb"}), Reason.CONTROL_CHARACTER, field) for field in LOGIN},
    **{f"{field}_null_text": (login(**{field: "\x02"}), Reason.CONTROL_CHARACTER, field) for field in LOGIN},
    **{f"{field}_delete": (login(**{field: "a\x7fb"}), Reason.CONTROL_CHARACTER, field) for field in LOGIN},
    **{f"{field}_c1": (login(**{field: "a\x9bb"}), Reason.CONTROL_CHARACTER, field) for field in LOGIN},
    **{f"{field}_high_surrogate": (login(**{field: "a\ud800"}), Reason.LONE_SURROGATE, field) for field in LOGIN},
    **{f"{field}_low_surrogate": (login(**{field: "\udfffa"}), Reason.LONE_SURROGATE, field) for field in LOGIN},
    "user_id_too_long": (login(user_id="u" * 129), Reason.TOO_LONG, "user_id"),
    "user_id_of_1_mib": (login(user_id="u" * MEBIBYTE), Reason.TOO_LONG, "user_id"),
    "device_type_too_long": (login(device_type="d" * 33), Reason.TOO_LONG, "device_type"),
    "locale_too_long": (login(locale="l" * 33), Reason.TOO_LONG, "locale"),
    "device_id_too_long": (login(device_id="i" * 129), Reason.TOO_LONG, "device_id"),
    "device_id_too_long_in_bytes": (login(device_id="é" * 65), Reason.TOO_LONG, "device_id"),
    **{f"ip_{text}": (login(ip=text), Reason.INVALID_IP, "ip") for text in NO_ADDRESSES},
    **{f"app_version_{text}": (login(app_version=text), Reason.INVALID_APP_VERSION, "app_version") for text in NO_VERSIONS},
}


@pytest.mark.parametrize(("body", "reason"), WHOLE_RECORD.values(), ids=WHOLE_RECORD.keys())
def test_bad_record_is_a_dead_letter_without_a_field(body: bytes | None, reason: Reason) -> None:
    expect_dead_letter_beside_good_rows(body, reason, None)


@pytest.mark.parametrize(("body", "reason", "field"), IN_A_FIELD.values(), ids=[name[:40] for name in IN_A_FIELD])
def test_bad_field_is_a_dead_letter_that_names_it(body: bytes, reason: Reason, field: str) -> None:
    expect_dead_letter_beside_good_rows(body, reason, field)


def expect_dead_letter_beside_good_rows(body: bytes | None, reason: Reason, field: str | None) -> None:
    batch = build([login(), body, login(user_id="after")])

    (letter,) = batch.dead_letters
    assert (letter.offset, letter.reason, letter.field) == (1, reason, field)
    assert letter.message_id.endswith("001")
    assert letter.sent_at_ms == int(batch.columns["sent_at_ms"][0]) + 1
    assert opener().open(letter.sealed, topic="logins", partition=3, offset=1).value == body
    assert batch.row_offsets == [0, 2]
    assert batch.columns["user_id"] == [LOGIN["user_id"], "after"]
    assert {len(column) for column in batch.columns.values()} == {2}


def test_first_bad_field_of_the_declaration_counts() -> None:
    batch = build(
        [login(device_id=5, app_version="x", user_id=""), login(ip="x", device_type="\0", locale=1), login(ip="x", app_version="x")]
    )

    # A wrong type anywhere is found before what a text holds.
    assert [(letter.reason, letter.field) for letter in batch.dead_letters] == [
        (Reason.WRONG_TYPE, "device_id"),
        (Reason.WRONG_TYPE, "locale"),
        (Reason.INVALID_APP_VERSION, "app_version"),
    ]


def test_a_batch_of_nothing_but_bad_records_has_no_row() -> None:
    bodies = [*(body for body, _ in WHOLE_RECORD.values()), *(body for body, _, _ in IN_A_FIELD.values())]

    batch = build(bodies)

    assert batch.row_offsets == []
    assert [letter.offset for letter in batch.dead_letters] == list(range(len(bodies)))
    assert [letter.reason for letter in batch.dead_letters] == [
        reason for _, reason, *_ in (*WHOLE_RECORD.values(), *IN_A_FIELD.values())
    ]
    assert set(batch.parameters().values()) == {""}


def test_every_reason_of_a_record_is_in_this_table() -> None:
    seen = {reason for _, reason, *_ in (*WHOLE_RECORD.values(), *IN_A_FIELD.values())}

    assert seen | {Reason.HEADER_INVALID, Reason.SENT_AT_IMPLAUSIBLE, Reason.ROW_REFUSED} == set(Reason)


@pytest.mark.parametrize(
    ("changes", "column", "text"),
    [
        ({"locale": ABSENT}, "locale", "\x02"),
        ({"locale": None}, "locale", "\x02"),
        ({"locale": " "}, "locale", "\x02"),
        ({"locale": " PT\t"}, "locale", "PT"),
        ({"user_id": "\u00a0 u \r\n"}, "user_id", "u"),
        ({"user_id": "u" * 128}, "user_id", "u" * 128),
        ({"user_id": " " + "é" * 128}, "user_id", "é" * 128),
        ({"user_id": "a\u00a0b\u200b😀"}, "user_id", "a\u00a0b\u200b😀"),
        ({"device_type": "iOS"}, "device_type", "iOS"),
        ({"app_version": " 0.96 "}, "app_version", "96000"),
        ({"app_version": "2146.999.999"}, "app_version", "2146999999"),
        ({"app_version": "2.00"}, "app_version", "2000000"),
        ({"app_version": "7"}, "app_version", "7000000"),
    ],
)
def test_what_is_only_unusual_is_cleaned_and_stored(changes: dict[str, object], column: str, text: str) -> None:
    batch = build([login(**changes)])

    assert batch.dead_letters == []
    assert batch.columns[column] == [text]


def test_extra_keys_are_ignored_and_counted_by_record() -> None:
    huge = login(foo="@@").replace(b'"@@"', b"[1e999," + DIGITS + b"]")

    batch = build([login(foo=1, bar=[2]), login(), huge, login(foo=1, ip="x"), b'{"foo": "1", "bar": 2}'])

    assert batch.row_offsets == [0, 1, 2]
    assert batch.extra_keys == 2
    assert "foo" not in str(batch.columns)


@pytest.mark.parametrize("first", ['"198.51.100.7"', '"secret-device"', "5", "null", "[1]"])
@pytest.mark.parametrize("field", ["ip", "device_id"])
def test_of_duplicate_keys_the_last_counts_and_neither_is_stored_raw(field: str, first: str) -> None:
    body = b"{" + f'"{field}": {first},'.encode() + login()[1:]

    batch = build([body, login()])

    assert batch.dead_letters == []
    assert batch.columns["masked_ip"][0] == batch.columns["masked_ip"][1]
    assert batch.columns["masked_device_id"][0] == batch.columns["masked_device_id"][1]
    assert first.strip('"') not in str(batch.columns).replace("[", "").replace("]", "") or len(first) < 8
    assert LOGIN[field] not in str(batch.columns)


@pytest.mark.parametrize(("last", "reason"), [("5", Reason.WRONG_TYPE), ("null", Reason.NULL_VALUE), ('""', Reason.EMPTY_VALUE)])
def test_of_duplicate_keys_a_bad_last_one_counts(last: str, reason: Reason) -> None:
    batch = build([login()[:-1] + f', "device_id": {last}}}'.encode()])

    assert [(letter.reason, letter.field) for letter in batch.dead_letters] == [(reason, "device_id")]


def test_a_problem_that_is_kept_keeps_no_frames() -> None:
    """Else all records of its batch stay until garbage is collected: with bodies of 1 MiB, hundreds of MiB."""
    wrong = [record(b"x", headers_=(("message-id", b"x"), ("sent-at", b"x"))), record(b"{}", 1, headers_=(("sent-at", b"x"),))]
    problems = [
        *decode_batch([b"x", b"", login(), b"[]"]).problems.values(),
        *read_headers(PLACE, wrong, SentAtBounds()).problems.values(),
    ]

    assert len(problems) == 5
    assert {(problem.__traceback__, problem.__context__) for problem in problems} == {(None, None)}
