import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.printable import printable


@given(st.text())
def test_it_is_one_line_that_no_terminal_obeys(text: str) -> None:
    assert printable(text).isprintable()
    assert not text.isprintable() or printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\r\t\0", r"a\nb\r\t\x00"),
        ("\x9b1A", r"\x9b1A"),
        ("exe.\u202etxt", r"exe.\u202etxt"),
        ("zero\u200bwidth \U000e0001", r"zero\u200bwidth \U000e0001"),
        ("Größe 東京 🙂", "Größe 東京 🙂"),
    ],
)
def test_what_a_terminal_obeys_or_hides_is_shown_as_its_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
