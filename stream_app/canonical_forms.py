"""One text for all texts that mean the same, so that they get one token.

Nobody can bring a token into a form afterwards, so a masked text needs it before. A text that is stored as it is needs none:
whoever reads it has ``lower`` and ``normalize``. Each form keeps itself: applying it again changes nothing.
"""

from collections.abc import Collection, Sequence
from enum import Enum, auto
from unicodedata import is_normalized, normalize


class Form(Enum):
    """A canonical form that a text may be declared to have."""

    NFC = auto()
    """Unicode's composed form (UAX #15): é is one character, whether it came as one or as e with an accent after it."""
    UUID = auto()
    """A UUID of 8-4-4-4-12 hexadecimal digits in lower case, as RFC 9562 writes it. Any other text stays."""


_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789abcdefABCDEF", b"0" * 21)
_UUID_SHAPE = b"00000000-0000-0000-0000-000000000000"


def canonical_column(texts: Sequence[str], joined: str, forms: Collection[Form]) -> Sequence[str]:
    """The forms of a column of texts without control characters; ``joined`` is the column as one text.

    The column itself if nothing changes: what may need a change is found in the joined text, where looking costs next to nothing.
    """
    if Form.NFC in forms and not joined.isascii() and not is_normalized("NFC", joined):  # each part of NFC is NFC (UAX #15)
        texts = [normalize("NFC", text) for text in texts]
    if Form.UUID in forms and joined != joined.lower():
        lines = "\n".join(texts)
        shapes = lines.encode().translate(_DIGITS_AS_ZEROS)
        if shapes == b"\n".join([_UUID_SHAPE] * len(texts)):  # nothing but UUIDs, as most columns with one are
            texts = lines.lower().split("\n")
        elif _UUID_SHAPE in shapes:
            shape_by_text = zip(texts, shapes.split(b"\n"), strict=True)
            texts = [text.lower() if shape == _UUID_SHAPE else text for text, shape in shape_by_text]
    return texts


def canonical(text: str, forms: Collection[Form]) -> str:
    """The forms of one text without control characters."""
    return canonical_column([text], text, forms)[0]
