from ipaddress import IPv6Address, ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from login_records import masker

from stream_app.app_version import MAJOR_MAX, joined, ordered
from stream_app.ip_address import canonical_text, pack
from stream_app.masking import tokens

value = st.text(max_size=128).filter(lambda text: len(text.encode()) <= 128)
part = st.integers(0, 999)
parts = st.tuples(st.integers(0, MAJOR_MAX), part, part)
quick = settings(max_examples=100, deadline=None)


@quick
@given(st.lists(value, max_size=5))
def test_reveal_gives_back_what_was_masked(values: list[str]) -> None:
    for methods in ("", "device_id=rotate"):
        column = masker(methods).mask("device_id", [text.encode() for text in values])

        assert [masker(methods).reveal("device_id", token) for token in column] == values
        assert all(len(token) <= tokens.COLUMN_CHARACTERS for token in column)


@quick
@given(value, value)
def test_tokens_are_equal_exactly_when_values_are(one: str, other: str) -> None:
    for methods in ("", "device_id=hmac"):
        first, second = masker(methods).mask("device_id", [one.encode(), other.encode()])

        assert (first == second) is (one == other)
        assert first not in (one, other)


@quick
@given(st.ip_addresses())
def test_any_address_is_masked_and_comes_back_in_canonical_form(address: object) -> None:
    parsed = ip_address(str(address))
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    (token,) = masker().mask("ip", [pack(parsed.exploded)])

    assert ip_address(masker().reveal("ip", token)) == (mapped or parsed)
    assert masker().mask("ip", [pack(parsed.compressed)]) == [token]


@quick
@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16))
def test_packing_and_text_are_inverse(packed: bytes) -> None:
    if not packed.startswith(b"\0" * 10 + b"\xff\xff"):
        assert pack(canonical_text(packed)) == packed


@quick
@given(st.lists(st.binary(max_size=200), max_size=5))
def test_token_texts_and_bytes_are_inverse(contents: list[bytes]) -> None:
    made = [tokens.prefix(7) + content + b"x" for content in contents]

    assert [tokens.decode(text) for text in tokens.encode_all(made)] == made
    for content in contents:
        padded = content + tokens.PADDINGS[len(content) % 16]
        assert len(padded) % 16 == 0
        assert tokens.unpad(padded) == content


@quick
@given(parts, parts)
def test_ordered_versions_keep_their_order_and_only_equals_meet(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    first, second = (ordered(".".join(map(str, version)))[0] for version in (one, other))

    assert (first < second, first == second) == (one < other, one == other)


@quick
@given(parts)
def test_missing_parts_are_zero_and_zeros_in_front_mean_nothing(version: tuple[int, int, int]) -> None:
    major, minor, patch = version

    assert ordered(f"{major}") == ordered(f"{major}.0") == ordered(f"v{major}.0.0") == ordered(f"{major}.0.0.0")
    assert ordered(f"{major}.{minor}") == ordered(f"{major}.{minor}.0")
    assert ordered(f"0{major}.{minor:03}.{patch:05}") == ordered(f"{major}.{minor}.{patch}")
    assert joined(f"{major}.{minor}") == (int(f"{major}{minor}"), frozenset())
