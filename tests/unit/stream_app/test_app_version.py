import pytest

from pipeline.errors import PoisonError
from stream_app.app_version import ENCODERS, INTEGER_MAX, AppVersionTexts, Encoder, joined, ordered
from stream_app.reductions import Reduction

BUILD, ROUNDED = Reduction.BUILD, Reduction.ROUNDED
ONLY_BUILD = frozenset({BUILD})


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
        ("v2.3", 2_003_000),
        ("V2.3.0", 2_003_000),
        ("14.2.1.0", 14_002_001),
        ("14.2.1.00", 14_002_001),
    ],
)
def test_ordered_weighs_each_part_and_loses_nothing(text: str, integer: int) -> None:
    assert ordered(text) == (integer, frozenset())


@pytest.mark.parametrize(
    ("text", "integer", "left_off"),
    [
        ("14.2.1.7", 14_002_001, {BUILD}),
        ("2.3 (451)", 2_003_000, {BUILD}),
        ("2.3(451)", 2_003_000, {BUILD}),
        ("v2.3.1 (1A432.b)", 2_003_001, {BUILD}),
        ("2.3.0 (0)", 2_003_000, {BUILD}),
        ("2.3.0+451", 2_003_000, {BUILD}),
        ("2.3.0+exp.sha-5114f85", 2_003_000, {BUILD}),
        ("2.3.999", 2_003_999, set()),
        ("2.3.1042", 2_003_999, {ROUNDED}),
        ("2.3.1042.7", 2_003_999, {ROUNDED, BUILD}),
        ("2.1042.5", 2_999_999, {ROUNDED}),
        ("2146.999.1000", 2_146_999_999, {ROUNDED}),
        ("2147", 2_146_999_999, {ROUNDED}),
        ("20260115", 2_146_999_999, {ROUNDED}),
        ("9" * 18, 2_146_999_999, {ROUNDED}),
    ],
)
def test_a_version_without_an_integer_of_its_own_gets_the_highest_below_it(
    text: str, integer: int, left_off: set[Reduction]
) -> None:
    assert ordered(text) == (integer, frozenset(left_off))


def test_ordered_ends_below_what_postgres_takes() -> None:
    assert ordered("2146.999.999") == (2_146_999_999, frozenset())
    assert INTEGER_MAX > 2_146_999_999


@pytest.mark.parametrize(
    ("text", "integer"),
    [
        ("2.3.0", 230),
        ("0.2.6", 26),
        ("2.6", 26),
        ("1.1000", 11_000),
        ("99999.1", 999_991),
        ("v2.3", 23),
        ("14.2.1.0", 14_210),
        ("14.2.1.7", 14_217),
    ],
)
def test_joined_drops_the_dots(text: str, integer: int) -> None:
    assert joined(text) == (integer, frozenset())


def test_joined_leaves_a_build_off() -> None:
    assert joined("2.3 (451)") == joined("2.3+451") == (23, ONLY_BUILD)


def test_joined_ends_at_what_postgres_takes() -> None:
    assert joined("2147483647") == (INTEGER_MAX, frozenset())
    with pytest.raises(PoisonError):
        joined("2147483648")


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS.keys())
@pytest.mark.parametrize(
    "text", ["", ".", "1.", ".1", "1..2", "1.2.3.4.5", "-1.0", "+1", "1_0", "1e3", "2.3.0-beta", "\u0663.1", "1.2\n", "9" * 5_000]
)
def test_what_is_no_version_is_refused_without_its_value(encode: Encoder, text: str) -> None:
    with pytest.raises(PoisonError) as caught:
        encode(text)
    assert str(caught.value) == "invalid_app_version"


def test_cache_is_bounded_in_entries_and_in_length() -> None:
    texts = AppVersionTexts("ordered", [BUILD])

    for number in range(3 * AppVersionTexts.ENTRIES_MAX):
        assert texts[f"{number // 1000}.{number % 1000}.0.{number % 2}"] == str(number // 1000 * 1_000_000 + number % 1000 * 1000)
        assert len(texts) <= AppVersionTexts.ENTRIES_MAX
        assert texts.reduced.keys() <= texts.keys()
    with pytest.raises(PoisonError):
        texts[" " * 100 + "1.0"]
    assert texts.read(" " * 100 + "1.0") == ("1000000", frozenset())
    assert texts.read("1.0 (451)" + " " * 100) == ("1000000", ONLY_BUILD)
    assert max(map(len, texts)) <= AppVersionTexts.KEY_LENGTH_MAX


def test_cache_says_what_is_left_off_each_time() -> None:
    texts = AppVersionTexts("ordered", [BUILD])

    for _ in range(2):
        assert texts["2.3 (451)"] == "2003000"
        assert texts.read("2.3 (451)") == ("2003000", ONLY_BUILD)
        assert texts.read("2.3") == ("2003000", frozenset())
    assert texts.reduced == {"2.3 (451)": {BUILD}}


def test_cache_keeps_no_refused_version() -> None:
    texts = AppVersionTexts("ordered", [BUILD])
    for _ in range(2):
        for refused in ("1.1000", "1.0-beta"):  # the first leaves off what is not taken here
            with pytest.raises(PoisonError):
                texts[refused]
    assert not texts
    assert not texts.reduced
