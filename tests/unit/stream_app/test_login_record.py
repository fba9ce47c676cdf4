from typing import Annotated

import msgspec
import pytest

from stream_app.canonical_forms import Form
from stream_app.login_record import FIELDS, Content, Rule, fields_of
from stream_app.masking.methods import MaskingMethod
from stream_app.reductions import Reduction


def test_the_declaration_names_the_six_keys_their_columns_and_what_is_masked() -> None:
    assert [(field.name, field.column) for field in FIELDS] == [
        ("user_id", "user_id"),
        ("app_version", "app_version"),
        ("device_type", "device_type"),
        ("ip", "masked_ip"),
        ("locale", "locale"),
        ("device_id", "masked_device_id"),
    ]
    assert [field.name for field in FIELDS if not field.required] == ["locale"]
    assert [field.name for field in FIELDS if field.masking is MaskingMethod.AES_SIV] == ["ip", "device_id"]


class _NoLength(msgspec.Struct):
    name: Annotated[str, Rule("name")]


class _BareAddress(msgspec.Struct):
    ip: Annotated[str, Rule("ip", Content.IP_ADDRESS)]


class _OptionalMasked(msgspec.Struct):
    name: Annotated[str | None, Rule("name", length_max=9, masking=MaskingMethod.AES_SIV)]


class _TooWide(msgspec.Struct):
    name: Annotated[str, Rule("name", length_max=160, masking=MaskingMethod.AES_SIV)]


class _FormOfAnAddress(msgspec.Struct):
    ip: Annotated[str, Rule("ip", Content.IP_ADDRESS, masking=MaskingMethod.AES_SIV, forms=frozenset({Form.UUID}))]


class _NoValueOfAVersion(msgspec.Struct):
    version: Annotated[str, Rule("version", Content.APP_VERSION, no_value=frozenset({"0"}))]


class _NoValueNotCanonical(msgspec.Struct):
    name: Annotated[str, Rule("name", length_max=9, forms=frozenset({Form.NFC}), no_value=frozenset({"e\u0301"}))]


class _NoValueEmpty(msgspec.Struct):
    name: Annotated[str, Rule("name", length_max=9, no_value=frozenset({""}))]


class _PortOfAVersion(msgspec.Struct):
    version: Annotated[str, Rule("version", Content.APP_VERSION, reductions=frozenset({Reduction.PORT}))]


class _NoValueBySayingSo(msgspec.Struct):
    name: Annotated[str, Rule("name", length_max=9, reductions=frozenset({Reduction.NO_VALUE}))]


class _Widest(msgspec.Struct):
    name: Annotated[str, Rule("name", length_max=159, masking=MaskingMethod.AES_SIV)]


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (_NoLength, "length_max"),
        (_BareAddress, "always masked"),
        (_OptionalMasked, "is required"),
        (_TooWide, "does not fit"),
        (_FormOfAnAddress, "forms and no_value are for texts"),
        (_NoValueOfAVersion, "forms and no_value are for texts"),
        (_NoValueNotCanonical, "not in its canonical form"),
        (_NoValueEmpty, "not in its canonical form"),
        (_PortOfAVersion, "port can't be left off"),
        (_NoValueBySayingSo, "no_value can't be left off"),
    ],
)
def test_a_wrong_declaration_is_refused_at_import(record: type[msgspec.Struct], problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        fields_of(record)


def test_the_widest_masked_text_fits_its_column() -> None:
    assert fields_of(_Widest)[0].length_max == 159
