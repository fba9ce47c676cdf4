"""Whatever a record holds: one row or one dead letter, nothing raw, and the same result whoever stands beside it."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from login_records import LOGIN, batch_of, build, headers, login, opened, record, records
from msgspec.structs import asdict

from stream_app.batch import NULL_TEXT, UNIT_SEPARATOR, Batch
from stream_app.decoding import _decode_by_field, decode_batch
from stream_app.login_record import FIELDS, NIL_UUID
from stream_app.reasons import Reason
from stream_app.reductions import Reduction

CANARY = "CANARY"
quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

any_text = st.text(max_size=200) | st.text(st.characters(codec="ascii"), max_size=200)
address = st.ip_addresses().map(str)
odd_address = st.sampled_from(["1.2.3.4, 10.0.0.1", "1.2.3.4:80", "[::1]:443", "fe80::1%en0, x", "unknown, 1.2.3.4"])
odd_version = st.sampled_from(["v2.3", "2.3.1042", "2.3 (451)", "2.3.0+4", "20260115", "2.3-beta"])
odd_id = st.sampled_from([NIL_UUID, "F3A1B2C4-0000-4000-8000-00000000ABCD", "e\u0301", "\u00e9", f" {NIL_UUID}", f"{NIL_UUID}0"])
odd_text = (
    st.sampled_from(
        ["", " ", "\0", "\x1f", "\x02", "\x7f", "\ud800", "é" * 129, "1.2.3.4", "::ffff:1.2.3.4", "2.3.0", "1.1000", "\u2028"]
    )
    | odd_address
    | odd_version
    | odd_id
)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | any_text | odd_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
version = st.lists(st.integers(0, 2_200), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
well_formed = st.fixed_dictionaries(
    {
        "user_id": any_text | st.uuids().map(str),
        "app_version": version | st.just("2.3.0") | odd_version,
        "device_type": st.sampled_from(["ios", "android"]) | any_text,
        "ip": address | st.just(LOGIN["ip"]) | odd_address,
        "device_id": any_text | st.just(LOGIN["device_id"]) | odd_id,
    },
    optional={"locale": st.none() | st.sampled_from(["RU", "", " PT "]) | any_text, "more": any_json},
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes | None:
    """From good logins, over logins with something changed, to any bytes."""
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return draw(st.none() | st.binary(max_size=300))
    if kind == 1:
        return json.dumps(draw(any_json)).encode()
    content: dict[str, Any] = draw(well_formed)
    if kind == 2:  # one field is anything
        content[draw(st.sampled_from(sorted(LOGIN)))] = draw(any_json)
    if kind == 3:  # one key is missing
        content.pop(draw(st.sampled_from(sorted(content))))
    body = json.dumps(content, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    if kind == 4:  # a duplicate key, first
        key = draw(st.sampled_from(sorted(LOGIN)))
        body = b"{" + json.dumps({key: draw(any_json)}).encode()[1:-1] + b"," + body[1:]
    if kind == 5 and draw(st.booleans()):  # some bytes are changed
        place = draw(st.integers(0, len(body)))
        body = body[:place] + draw(st.binary(max_size=3)) + body[place + draw(st.integers(0, 3)) :]
    return body


def expect_each_record_once(batch: Batch, bodies_: list[bytes | None]) -> None:
    lettered = [letter.offset for letter in batch.dead_letters]
    assert sorted(batch.row_offsets + lettered) == list(range(len(bodies_)))
    assert batch.row_offsets == sorted(batch.row_offsets)
    assert lettered == sorted(lettered)
    for letter in batch.dead_letters:
        assert opened(letter).value == bodies_[letter.offset]
        assert letter.field in {None, *(field.name for field in FIELDS)}
    rows = len(batch.row_offsets)
    for name, text in batch.parameters().items():
        column = text.split(UNIT_SEPARATOR) if rows else []
        assert column == batch.columns[name]
        assert len(column) == rows
        assert all(column)
        if name not in {"locale", "masked_device_id"}:
            assert NULL_TEXT not in column
        if name == "masked_device_id":
            nulls = [offset for offset, cell in zip(batch.row_offsets, column, strict=True) if cell == NULL_TEXT]
            assert nulls == batch.reduced_offsets.get(("device_id", Reduction.NO_VALUE), [])
        for cell in column:
            assert cell == NULL_TEXT or not any(character < " " or "\x7f" <= character < "\xa0" for character in cell)
            assert len(cell) <= {"user_id": 128, "device_type": 32, "locale": 32}.get(name, 256)
            cell.encode()  # no lone surrogate
    declared = {(field.name, reduction) for field in FIELDS for reduction in field.reductions}
    assert batch.reduced_offsets.keys() <= declared
    for offsets in batch.reduced_offsets.values():
        assert offsets == sorted(set(offsets) & set(batch.row_offsets)) != []
    assert all(0 <= int(integer) <= 2_147_483_647 for integer in batch.columns["app_version"])


def joined_offsets(batches: list[Batch]) -> dict[tuple[str, Reduction], list[int]]:
    """The reduced offsets of batches that follow each other."""
    whats = {what for batch in batches for what in batch.reduced_offsets}
    return {what: [offset for batch in batches for offset in batch.reduced_offsets.get(what, [])] for what in whats}


@quick
@given(st.lists(st.none() | st.binary(max_size=100), max_size=5))
def test_any_bytes_end_as_one_row_or_one_dead_letter(bodies_: list[bytes | None]) -> None:
    expect_each_record_once(build(bodies_), bodies_)


@quick
@given(st.lists(bodies(), max_size=6))
def test_anything_like_a_login_ends_as_one_row_or_one_dead_letter(bodies_: list[bytes | None]) -> None:
    expect_each_record_once(build(bodies_), bodies_)


@quick
@given(st.lists(bodies(), min_size=2, max_size=6))
def test_a_record_has_the_same_end_alone_and_beside_others(bodies_: list[bytes | None]) -> None:
    together = build(bodies_)
    alone = [batch_of([taken], taken.offset, taken.offset + 1) for taken in records(bodies_)]

    assert together.row_offsets == [offset for batch in alone for offset in batch.row_offsets]
    assert together.columns == {name: [cell for batch in alone for cell in batch.columns[name]] for name in together.columns}
    assert together.extra_key_offsets == [offset for batch in alone for offset in batch.extra_key_offsets]
    assert together.reduced_offsets == joined_offsets(alone)
    assert [(letter.offset, letter.reason, letter.field) for letter in together.dead_letters] == [
        (letter.offset, letter.reason, letter.field) for batch in alone for letter in batch.dead_letters
    ]


@quick
@given(bodies().filter(bool))
def test_the_quick_decoder_and_the_one_by_field_agree(body: bytes) -> None:
    decoded = decode_batch([body])

    if decoded.logins:
        by_field, has_extra_keys = _decode_by_field(body)
        assert asdict(by_field) == asdict(decoded.logins[0])
        assert has_extra_keys is bool(decoded.extra_keys)


escape = st.sampled_from(
    [r"\ud800", r"\uDfff", r"\ud83d\ude00", r"\uD7FF", r"\u0061", r"\\", r"\/", r"\"", r"\n", "ud800", "a", "/", "é"]
)
escaped_text = st.lists(escape, max_size=4).map(lambda parts: f'"{"".join(parts)}"')


@quick
@given(st.dictionaries(st.sampled_from(sorted(LOGIN)), escaped_text), st.lists(st.tuples(escaped_text, escaped_text), max_size=2))
def test_half_of_a_surrogate_pair_is_found_where_pythons_own_decoder_shows_it(
    fields: dict[str, str], others: list[tuple[str, str]]
) -> None:
    pairs = [*((json.dumps(name), text) for name, text in fields.items()), *others]
    body = (login()[:-1].decode() + "".join(f",{key}:{text}" for key, text in pairs) + "}").encode()
    content = json.loads(body)
    expected = next((field.name for field in FIELDS if not is_text(content[field.name])), None)

    problem = decode_batch([body]).problems.get(0)

    if any(not is_text(json.loads(text)) for pair in pairs for text in pair):
        assert (problem and (problem.reason, problem.field)) == (Reason.LONE_SURROGATE, expected)
    else:
        assert problem is None


def is_text(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


@quick
@given(st.lists(bodies(), max_size=6), st.data())
def test_halves_hold_everything_once(bodies_: list[bytes | None], data: st.DataObject) -> None:
    gap = data.draw(st.integers(0, 3))
    batch = batch_of(records([login(), *bodies_, login()], 10 + gap), 10, 100)

    first, second = batch.split()

    assert first.row_offsets + second.row_offsets == batch.row_offsets
    assert abs(len(first.row_offsets) - len(second.row_offsets)) <= 1
    assert first.dead_letters + second.dead_letters == batch.dead_letters
    assert first.extra_key_offsets + second.extra_key_offsets == batch.extra_key_offsets
    assert joined_offsets([first, second]) == batch.reduced_offsets
    assert {name: first.columns[name] + second.columns[name] for name in batch.columns} == batch.columns
    assert (first.first_offset, second.next_offset) == (10, 100)
    assert first.next_offset == second.first_offset
    for half in (first, second):
        offsets = half.row_offsets + [letter.offset for letter in half.dead_letters]
        assert all(half.first_offset <= offset < half.next_offset for offset in offsets)
        assert half.records == len(offsets)


@quick
@given(bodies().filter(bool), address, st.sampled_from(["", "ip=hmac,device_id=hmac", "ip=truncate,device_id=redact"]))
def test_no_raw_value_is_left_in_the_clear(body: bytes, ip: str, methods: str) -> None:
    device_id = f"{CANARY}-{ip}"
    login_body = login(ip=ip, device_id=device_id, more={"ip": ip})
    broken = [
        login_body,
        login_body[:-1],
        login_body.replace(b'"user_id"', b'"user"'),
        login(ip=ip + "x", device_id=device_id),
        body,
    ]

    batch = build(broken, methods)

    clear = json.dumps(batch.columns) + str([(letter.message_id, letter.reason, letter.field) for letter in batch.dead_letters])
    assert CANARY not in clear
    assert ip not in batch.columns["masked_ip"]
    assert all(
        CANARY.encode() not in letter.sealed and ip.encode() not in letter.sealed for letter in batch.dead_letters if len(ip) > 5
    )


header_value = st.none() | st.binary(max_size=40) | st.integers(-(10**16), 10**16).map(lambda number: str(number).encode())
any_headers = st.lists(
    st.tuples(st.sampled_from(["message-id", "sent-at", "source", "traceparent"]), header_value | st.just(headers()[0][1])),
    max_size=5,
)


@quick
@given(st.lists(any_headers, max_size=4), st.integers(-1, 2**63 - 1))
def test_any_headers_end_as_one_row_or_one_dead_letter(headers_of: list[Any], timestamp: int) -> None:
    taken = [record(login(), offset, headers_=tuple(given_), timestamp=timestamp) for offset, given_ in enumerate(headers_of)]

    batch = batch_of(taken, 0, len(taken))

    assert sorted(batch.row_offsets + [letter.offset for letter in batch.dead_letters]) == list(range(len(taken)))
    for message_id, sent_at_ms in [
        *zip(batch.columns["message_id"], map(int, batch.columns["sent_at_ms"]), strict=True),
        *((letter.message_id, letter.sent_at_ms) for letter in batch.dead_letters),
    ]:
        assert len(message_id) == 36
        assert message_id == message_id.lower()
        assert 0 <= sent_at_ms <= 253_402_300_799_999
    assert all(letter.field in {"message-id", "sent-at"} for letter in batch.dead_letters)
