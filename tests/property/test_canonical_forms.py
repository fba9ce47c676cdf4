"""However a sender writes a value: what means the same has one token or integer, order is kept, what is left off is told."""

from ipaddress import IPv4Address, IPv6Address
from unicodedata import is_normalized, normalize

from hypothesis import given, settings
from hypothesis import strategies as st
from login_records import build, login, masker

from stream_app.app_version import INTEGER_MAX, MAJOR_MAX, joined, ordered
from stream_app.canonical_forms import Form, canonical, canonical_column
from stream_app.cleaning import NULL_BYTES, CleanedColumn, cleaner_of
from stream_app.ip_address import canonical_text, pack
from stream_app.login_record import FIELDS, NIL_UUID
from stream_app.reductions import Reduction

quick = settings(max_examples=200, deadline=None)

FORMS = frozenset(Form)
CLEANERS = {field.name: cleaner_of(field, "ordered") for field in FIELDS}

# Letters with accents in several orders, Hangul in parts, characters whose composed form is another one or is longer in UTF-8.
accented = st.text(st.sampled_from("aeAE\u0301\u0323\u0308\u00e9\u212b\u1100\u1161\uac00\u0958\u2126 -0"), max_size=12)
any_text = st.text(max_size=40) | accented
uuid = st.uuids().map(str) | st.just(NIL_UUID)
any_id = any_text | uuid | uuid.map(str.upper)


@st.composite
def in_any_case(draw: st.DrawFn, text: str) -> str:
    return "".join(draw(st.sampled_from([letter.lower(), letter.upper()])) for letter in text)


def clean(field: str, *texts: str) -> CleanedColumn:
    return CLEANERS[field].clean(texts)


# Texts


@quick
@given(any_id)
def test_a_canonical_form_is_its_own(text: str) -> None:
    for forms in (FORMS, {Form.NFC}, {Form.UUID}, frozenset[Form]()):
        assert canonical(canonical(text, forms), forms) == canonical(text, forms)
    assert canonical(text, ()) == text
    assert is_normalized("NFC", canonical(text, FORMS))


@quick
@given(st.lists(any_id.filter(lambda text: "\n" not in text), max_size=6))
def test_a_column_gets_the_forms_that_its_texts_get_alone(texts: list[str]) -> None:
    assert list(canonical_column(texts, "".join(texts), FORMS)) == [canonical(text, FORMS) for text in texts]


@quick
@given(st.uuids().map(str), st.data())
def test_a_uuid_has_one_token_in_any_case_and_comes_back_in_lower_case(text: str, data: st.DataObject) -> None:
    spelled = data.draw(in_any_case(text))
    tokens = masker().mask("device_id", clean("device_id", text, spelled).values)  # type: ignore[arg-type] # masked: bytes

    assert tokens[0] == tokens[1]
    assert masker().reveal("device_id", tokens[1]) == text


@quick
@given(any_text)
def test_what_is_no_uuid_keeps_its_case(text: str) -> None:
    assert canonical(text, {Form.UUID}) == text


@quick
@given(any_text)
def test_a_text_has_one_token_however_it_is_composed(text: str) -> None:
    column = clean("device_id", normalize("NFC", text), normalize("NFD", text), text)

    assert column.values[0] == column.values[1] == column.values[2]
    assert {index: problem.reason for index, problem in column.problems.items()} in (
        {},
        dict.fromkeys(range(3), next((problem.reason for problem in column.problems.values()), "")),
    )


@quick
@given(any_id)
def test_what_is_revealed_is_what_would_be_masked_again(text: str) -> None:
    column = clean("device_id", text)
    if not column.problems and column.values != [NULL_BYTES]:
        tokens = masker().mask("device_id", column.values)  # type: ignore[arg-type] # masked: bytes
        assert clean("device_id", masker().reveal("device_id", tokens[0])).values == column.values


@quick
@given(st.lists(any_id, max_size=6))
def test_null_stands_where_and_only_where_there_is_no_value(texts: list[str]) -> None:
    column = clean("device_id", *texts)

    without = [index for index, text in enumerate(texts) if text.strip() == NIL_UUID]
    assert column.reduced == ({Reduction.NO_VALUE: without} if without else {})
    assert [index for index, value in enumerate(column.values) if value == NULL_BYTES] == without
    rows = [index for index in range(len(texts)) if index not in column.problems]
    masked = build([login(device_id=text) for text in texts]).columns["masked_device_id"]
    assert [index for index, cell in zip(rows, masked, strict=True) if cell == "\x02"] == without


# Addresses


@st.composite
def written_by_proxies(draw: st.DrawFn) -> tuple[str, bytes, set[Reduction]]:
    """A text with its address and what is around it."""
    left_off = set()
    if draw(st.booleans()):
        ipv4 = str(draw(st.ip_addresses(v=4)))
        text = draw(st.sampled_from([ipv4, f"::ffff:{ipv4}", IPv6Address(f"::ffff:{ipv4}").exploded]))
        expected = IPv4Address(ipv4).packed
    else:
        ipv6 = IPv6Address(str(draw(st.ip_addresses(v=6))))
        text = draw(st.sampled_from([ipv6.compressed, ipv6.exploded]).flatmap(in_any_case))
        expected = (ipv6.ipv4_mapped or ipv6).packed
    if ":" in text and draw(st.booleans()):
        text += draw(st.sampled_from(["%en0", "%25en0", "%1", "%wlan0.1"]))
        left_off.add(Reduction.ZONE)
    with_port = draw(st.booleans())
    if ":" in text and (with_port or draw(st.booleans())):
        text = f"[{text}]"
    if with_port:
        text += f":{draw(st.integers(0, 65_535))}"
        left_off.add(Reduction.PORT)
    if draw(st.booleans()):
        text += draw(st.sampled_from([", 10.0.0.1", ",10.0.0.1,10.0.0.2", " , unknown", ","]))
        left_off.add(Reduction.OTHER_ADDRESSES)
    return draw(st.sampled_from(["", " "])) + text, expected, left_off


@quick
@given(st.lists(written_by_proxies(), min_size=1, max_size=5))
def test_an_address_has_one_form_whatever_is_written_around_it(written: list[tuple[str, bytes, set[Reduction]]]) -> None:
    column = clean("ip", *(text for text, _, _ in written))

    assert column.values == [packed for _, packed, _ in written]
    assert column.problems == {}
    for reduction in Reduction:
        assert column.reduced.get(reduction, []) == [index for index, (_, _, left) in enumerate(written) if reduction in left]


@quick
@given(st.text(st.sampled_from("0123456789abcdef:.%[], /\u00e9"), max_size=40))
def test_what_is_taken_for_an_address_is_one(text: str) -> None:
    column = clean("ip", text)

    if not column.problems:
        (packed,) = column.values
        assert isinstance(packed, bytes)
        assert clean("ip", canonical_text(packed)).values == [packed] == [pack(canonical_text(packed))]


# Versions


@st.composite
def versions(draw: st.DrawFn) -> tuple[str, tuple[int, ...]]:
    """A version's text and its four parts."""
    part = st.integers(0, 3) | st.integers(997, 1_002) | st.integers(2_144, 2_149) | st.integers(0, 10**17)
    parts = draw(st.lists(part, min_size=1, max_size=4))
    build = draw(st.sampled_from(["", "", " (451)", "(1A432)", "+451", "+exp.sha-1"]))
    text = draw(st.sampled_from(["", "", "v", "V"])) + ".".join(map(str, parts)) + build
    return text, (*parts, 0, 0, 0)[:4]


@quick
@given(versions(), versions())
def test_a_later_version_never_has_a_lower_integer(one: tuple[str, tuple[int, ...]], other: tuple[str, tuple[int, ...]]) -> None:
    (first, first_left_off), (second, second_left_off) = ordered(one[0]), ordered(other[0])

    assert 0 <= first <= INTEGER_MAX
    if one[1] <= other[1]:
        assert first <= second
    if first == second and one[1] != other[1]:
        assert first_left_off or second_left_off  # only what is told makes two versions one


@quick
@given(versions())
def test_an_integer_is_that_of_the_highest_version_that_is_not_above(version: tuple[str, tuple[int, ...]]) -> None:
    text, parts = version
    integer, left_off = ordered(text)

    def parts_of(number: int) -> tuple[int, ...]:
        return number // 1_000_000, number // 1_000 % 1_000, number % 1_000, 0

    assert parts_of(integer) <= parts
    assert integer == 2_146_999_999 or parts < parts_of(integer + 1)
    assert parts_of(integer) == parts or left_off
    assert (Reduction.ROUNDED in left_off) is (parts[0] > MAJOR_MAX or parts[1] > 999 or parts[2] > 999)


@quick
@given(versions())
def test_joined_has_the_digits_of_every_part(version: tuple[str, tuple[int, ...]]) -> None:
    column = cleaner_of(next(field for field in FIELDS if field.name == "app_version"), "joined").clean([version[0]])

    if not column.problems:
        assert int(column.values[0]) == joined(version[0])[0] <= INTEGER_MAX
        assert str(joined(version[0])[0]).lstrip("0") in "".join(map(str, version[1]))


@quick
@given(st.sampled_from(sorted(CLEANERS)), st.lists(st.text(max_size=60) | written_by_proxies().map(lambda one: one[0]), max_size=5))
def test_any_text_is_a_value_or_a_problem(field: str, texts: list[str]) -> None:
    column = clean(field, *texts)

    assert len(column.values) == len(texts)
    assert all((column.values[index] == "") is (index in column.problems) for index in range(len(texts)))
    assert all(indexes == sorted(indexes) for indexes in column.reduced.values())
    assert column.problems.keys().isdisjoint(index for indexes in column.reduced.values() for index in indexes)
