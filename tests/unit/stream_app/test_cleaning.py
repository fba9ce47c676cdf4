"""What a declaration takes and what it does not. Each way to write a login's values is in docs/messages.md, and run from there."""

from typing import Annotated, Any

import msgspec
import pytest
from login_records import build, login, masker

from stream_app.canonical_forms import Form
from stream_app.cleaning import NULL_BYTES, Cleaner, cleaner_of
from stream_app.login_record import FIELDS, NIL_UUID, Content, Rule, fields_of
from stream_app.masking.masker import NULL_TEXT
from stream_app.masking.methods import MaskingMethod
from stream_app.reasons import Reason
from stream_app.reductions import Reduction

SIV = MaskingMethod.AES_SIV
DEVICE_ID = next(field for field in FIELDS if field.name == "device_id")
UUID = "f3a1b2c4-0000-4000-8000-00000000abcd"


class Strict(msgspec.Struct):
    """Declares nothing that may be left off, and no form."""

    version: Annotated[str, Rule("version", Content.APP_VERSION)]
    address: Annotated[str, Rule("address", Content.IP_ADDRESS, masking=SIV)]
    text: Annotated[str, Rule("text", length_max=40, masking=SIV)]
    ported: Annotated[str, Rule("ported", Content.IP_ADDRESS, masking=SIV, reductions=frozenset({Reduction.PORT}))]
    stored: Annotated[str, Rule("stored", length_max=40, forms=frozenset({Form.UUID}), no_value=frozenset({"-", UUID}))]
    maybe: Annotated[str | None, Rule("maybe", length_max=40, no_value=frozenset({"-"}))] = None


STRICT: dict[str, Cleaner] = {field.name: cleaner_of(field, "ordered") for field in fields_of(Strict)}


@pytest.mark.parametrize(
    ("field", "text", "reason"),
    [
        ("version", "2.3.1042", Reason.INVALID_APP_VERSION),
        ("version", "2.3 (451)", Reason.INVALID_APP_VERSION),
        ("version", "2.3.0.7", Reason.INVALID_APP_VERSION),
        ("address", "203.0.113.9, 10.0.0.1", Reason.INVALID_IP),
        ("address", "203.0.113.9:80", Reason.INVALID_IP),
        ("address", "fe80::1%en0", Reason.INVALID_IP),
        ("ported", "[fe80::1%en0]:80", Reason.INVALID_IP),
    ],
)
def test_what_a_declaration_does_not_let_go_is_refused(field: str, text: str, reason: Reason) -> None:
    column = STRICT[field].clean(["1.2.3.4", text] if field != "version" else ["2.3", text])

    assert {index: (problem.reason, problem.field) for index, problem in column.problems.items()} == {1: (reason, field)}
    assert column.reduced == {}


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("version", "v2.3.0.0", "2003000"),
        ("address", "[::1]", bytes(15) + b"\x01"),
        ("text", UUID.upper(), UUID.upper().encode()),
        ("text", NIL_UUID, NIL_UUID.encode()),
        ("text", "e\u0301", b"e\xcc\x81"),
    ],
)
def test_what_loses_nothing_needs_no_declaration_and_a_form_does(field: str, text: str, value: Any) -> None:
    column = STRICT[field].clean([text])

    assert (column.values, column.problems, column.reduced) == ([value], {}, {})


def test_a_declaration_may_let_go_one_thing_only() -> None:
    column = STRICT["ported"].clean(["203.0.113.9:80", "203.0.113.9"])

    assert column.values == [bytes([203, 0, 113, 9])] * 2
    assert column.reduced == {Reduction.PORT: [0]}


def test_a_stored_text_may_have_forms_and_say_that_there_is_no_value() -> None:
    column = STRICT["stored"].clean(["A", "-", UUID.upper(), NIL_UUID[:-1] + "A", " - ", "--"])

    assert column.values == ["A", NULL_TEXT, NULL_TEXT, NIL_UUID[:-1] + "a", NULL_TEXT, "--"]
    assert column.reduced == {Reduction.NO_VALUE: [1, 2, 4]}


def test_of_a_field_that_may_be_null_only_what_says_so_is_counted() -> None:
    column = STRICT["maybe"].clean([None, "", "-", "x"])

    assert column.values == [NULL_TEXT, NULL_TEXT, NULL_TEXT, "x"]
    assert column.reduced == {Reduction.NO_VALUE: [2]}


def test_a_value_beside_a_bad_one_is_cleaned_as_it_is_beside_good_ones() -> None:
    texts = [UUID.upper(), NIL_UUID, "e\u0301", "593-47-5928"]
    good, beside = cleaner_of(DEVICE_ID, "ordered").clean(texts), cleaner_of(DEVICE_ID, "ordered").clean([*texts, "a\0b"])

    assert good.values == [UUID.encode(), NULL_BYTES, "\u00e9".encode(), b"593-47-5928"]
    assert (beside.values[:-1], beside.reduced) == (good.values, good.reduced)
    assert list(beside.problems) == [4]


def test_the_length_of_the_canonical_form_counts() -> None:
    """U+0958 has no composed form: NFC takes it apart, from three bytes to six."""
    column = cleaner_of(DEVICE_ID, "ordered").clean(["\u0958" * 21, "\u0958" * 22, "e\u0301" * 64])

    assert column.values[0] == "\u0915\u093c".encode() * 21
    assert column.values[2] == "\u00e9".encode() * 64
    assert {index: problem.reason for index, problem in column.problems.items()} == {1: Reason.TOO_LONG}


@pytest.mark.parametrize("methods", ["", "device_id=hmac", "device_id=rotate", "device_id=redact"])
def test_who_opted_out_has_null_by_any_method(methods: str) -> None:
    batch = build([login(device_id=NIL_UUID), login(device_id="d"), login(device_id=f" {NIL_UUID} ")], methods)

    assert batch.dead_letters == []
    assert batch.columns["masked_device_id"] == [NULL_TEXT, *masker(methods).mask("device_id", [b"d"]), NULL_TEXT]
    assert batch.reduced_offsets == {("device_id", Reduction.NO_VALUE): [0, 2]}


def test_a_record_that_becomes_no_row_counts_as_no_reduction() -> None:
    odd = {"app_version": "2.3 (451)", "ip": "203.0.113.9:80", "device_id": NIL_UUID}

    batch = build([login(**odd, user_id=""), login(**odd), login(**odd, locale=5)])

    assert batch.row_offsets == [1]
    assert batch.reduced_offsets == {
        ("app_version", Reduction.BUILD): [1],
        ("ip", Reduction.PORT): [1],
        ("device_id", Reduction.NO_VALUE): [1],
    }
