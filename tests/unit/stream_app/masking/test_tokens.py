import pytest

from stream_app.masking import tokens
from stream_app.masking.tokens import TokenError


@pytest.mark.parametrize(
    "padded", [b"", b"\0" * 16, b"i" * 16, b"\x80", b"i" * 15 + b"\x80" + b"\x80" + b"i" * 15, b"\x80" + b"\0" * 14 + b"\x01"]
)
def test_what_was_not_padded_by_us_is_refused(padded: bytes) -> None:
    with pytest.raises(TokenError):
        tokens.unpad(padded)


def test_length_of_a_token_is_known_beforehand() -> None:
    for length in range(160):
        token = tokens.prefix(1) + bytes(16) + bytes(length) + tokens.PADDINGS[length % 16]
        assert tokens.encrypted_characters(length) == len(tokens.encode_all([token])[0])
    assert tokens.encrypted_characters(159) <= tokens.COLUMN_CHARACTERS < tokens.encrypted_characters(160)


@pytest.mark.parametrize("text", ["AQAAAAEB", "AQAAAAECAw", "AQAAAAECAwQ"])
def test_a_token_has_one_spelling(text: str) -> None:
    assert tokens.encode_all([tokens.decode(text)]) == [text]
    unused_bits_set = text[:-1] + "x" if len(text) % 4 else text[:3] + "+" + text[4:]
    for wrong in (text + "=", text + "\n", " " + text, unused_bits_set):
        with pytest.raises(TokenError):
            tokens.decode(wrong)


def test_a_token_says_which_key_made_it() -> None:
    assert tokens.key_id(tokens.prefix(4_294_967_295) + b"x") == 4_294_967_295
