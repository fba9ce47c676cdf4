from collections.abc import Callable

import pytest

from pipeline.errors import PoisonError
from stream_app.app_version import ENCODERS, INTEGER_MAX, AppVersionTexts, joined, ordered


@pytest.mark.parametrize(
    ("text", "integer"),
    [
        ("2.3.0", 2_003_000),
        ("0.96", 96_000),
        ("2.00", 2_000_000),
        ("7", 7_000_000),
        ("0.2.6", 2_006),
        ("2.6", 2_006_000),
        ("007.010.1", 7_010_001),
    ],
)
def test_ordered_weighs_each_part(text: str, integer: int) -> None:
    assert ordered(text) == integer


def test_ordered_ends_below_what_postgres_takes() -> None:
    assert ordered("2146.999.999") == 2_146_999_999 <= INTEGER_MAX
    for text in ("2147", "2146.1000", "2146.999.1000"):
        with pytest.raises(PoisonError):
            ordered(text)


@pytest.mark.parametrize(
    ("text", "integer"), [("2.3.0", 230), ("0.2.6", 26), ("2.6", 26), ("1.1000", 11_000), ("99999.1", 999_991)]
)
def test_joined_drops_the_dots(text: str, integer: int) -> None:
    assert joined(text) == integer


def test_joined_ends_at_what_postgres_takes() -> None:
    assert joined("2147483647") == INTEGER_MAX
    with pytest.raises(PoisonError):
        joined("2147483648")


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS.keys())
@pytest.mark.parametrize(
    "text", ["", ".", "1.", ".1", "1..2", "1.2.3.4", "-1.0", "+1", "1_0", "1e3", "2.3.0-beta", "\u0663.1", "1.2\n", "9" * 5_000]
)
def test_what_is_no_version_is_refused_without_its_value(encode: Callable[[str], object], text: str) -> None:
    with pytest.raises(PoisonError) as caught:
        encode(text)
    assert str(caught.value) == "invalid_app_version"


def test_cache_is_bounded_in_entries_and_in_length() -> None:
    texts = AppVersionTexts("ordered")

    for number in range(3 * AppVersionTexts.ENTRIES_MAX):
        assert texts[f"{number // 1000}.{number % 1000}"] == str(number // 1000 * 1_000_000 + number % 1000 * 1000)
        assert len(texts) <= AppVersionTexts.ENTRIES_MAX
    assert texts[" " * 100 + "1.0"] == "1000000"
    assert max(map(len, texts)) <= AppVersionTexts.KEY_LENGTH_MAX


def test_cache_keeps_no_refused_version() -> None:
    texts = AppVersionTexts("ordered")
    for _ in range(2):
        with pytest.raises(PoisonError):
            texts["1.1000"]
    assert not texts
