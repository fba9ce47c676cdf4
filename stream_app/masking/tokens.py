"""Tokens: what stands in a masked column, as text.

A token is base64url without padding, of bytes that begin with Tink's prefix: 0x01 and the key's id (4 bytes). So it says which key
made it, and it has no character that SQL, CSV, a URL or a shell would touch.
"""

from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from binascii import b2a_base64
from collections.abc import Sequence

from pipeline.errors import FatalError

COLUMN_CHARACTERS = 256
"""varchar(256), the width of each masked column."""

PREFIX_BYTES = 5
_PREFIX_START = b"\x01"
_SIV_BYTES = 16
PADDING_BLOCK_BYTES = 16

# ISO/IEC 7816-4: 0x80 and as many zeros as fill the block; at least the 0x80, so it comes off again without a doubt.
PADDINGS = tuple(b"\x80" + bytes(PADDING_BLOCK_BYTES - 1 - used) for used in range(PADDING_BLOCK_BYTES))

_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class TokenError(FatalError):
    """This text can't be turned back into a value."""


def encode_all(tokens: Sequence[bytes]) -> list[str]:
    """The texts of many tokens. One pass over all of them costs a third of a call each."""
    lines = b"".join(map(b2a_base64, tokens))  # each with a newline at its end
    return lines.translate(_URL_SAFE, b"=").decode("ascii").split("\n")[:-1]


def decode(text: str) -> bytes:
    """The bytes of a token. Raises :class:`TokenError`, which doesn't repeat the text: it may be a raw value, mistyped."""
    try:
        token = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (Base64Error, UnicodeEncodeError):
        raise TokenError("not a token: expected base64url text as it stands in a masked column") from None
    if len(token) <= PREFIX_BYTES or not token.startswith(_PREFIX_START) or encode_all([token]) != [text]:
        raise TokenError("not a token: expected base64url text as it stands in a masked column")
    return token


def key_id(token: bytes) -> int:
    """The id of the key that made a token."""
    return int.from_bytes(token[1:PREFIX_BYTES], "big")


def prefix(key: int) -> bytes:
    """The first bytes of a token that key number ``key`` makes."""
    return _PREFIX_START + key.to_bytes(4, "big")


def unpad(padded: bytes) -> bytes:
    """Take off what ``PADDINGS`` put on. Raises :class:`TokenError`."""
    plain, mark, zeros = padded.rpartition(b"\x80")
    if not mark or zeros.strip(b"\0") or len(padded) % PADDING_BLOCK_BYTES:
        raise TokenError("the token holds a value that was not padded as this version pads it")
    return plain


def encrypted_characters(plain_bytes: int) -> int:
    """How long the AES-SIV token of a padded value of so many bytes is."""
    token_bytes = PREFIX_BYTES + _SIV_BYTES + plain_bytes + len(PADDINGS[plain_bytes % PADDING_BLOCK_BYTES])
    return (token_bytes * 4 + 2) // 3
