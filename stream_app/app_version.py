"""App versions ("2.3.0", "0.96", "2.00") as integers.

``ordered``, the default: major * 1,000,000 + minor * 1,000 + patch, a missing part is 0. It keeps order, and only versions that are
equal in meaning meet. ``joined`` drops the dots, so that 0.2.6 and 2.6 meet: only for tables that were filled that way before.
"""

import re
from collections.abc import Callable
from typing import Literal

from pipeline.errors import PoisonError
from stream_app.reasons import Reason

AppVersionEncoding = Literal["ordered", "joined"]

MAJOR_MAX = 2_146
MINOR_MAX = PATCH_MAX = 999
INTEGER_MAX = 2_147_483_647  # Postgres's integer; 2146.999.999 is the last version below it

# ASCII digits only: str.isdigit and int() take other scripts' digits, signs and underscores. 18 digits a part: what no app has,
# and cheap to convert.
_PARTS = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,18}))?(?:\.([0-9]{1,18}))?")


def ordered(text: str) -> int:
    """The integer that keeps order. Raises :class:`PoisonError`."""
    match = _PARTS.fullmatch(text)
    if match is not None:
        major, minor, patch = (int(part) for part in match.groups("0"))
        if major <= MAJOR_MAX and minor <= MINOR_MAX and patch <= PATCH_MAX:
            return major * 1_000_000 + minor * 1_000 + patch
    raise PoisonError(Reason.INVALID_APP_VERSION)


def joined(text: str) -> int:
    """The integer that is left without the dots. Raises :class:`PoisonError`."""
    match = _PARTS.fullmatch(text)
    if match is not None:
        number = int("".join(match.groups("")))
        if number <= INTEGER_MAX:
            return number
    raise PoisonError(Reason.INVALID_APP_VERSION)


ENCODERS: dict[AppVersionEncoding, Callable[[str], int]] = {"ordered": ordered, "joined": joined}


class AppVersionTexts(dict[str, str]):
    """Versions as they came -> integers as Postgres reads them. Few versions are alive at a time, so nearly every look-up is a hit.

    Bounded in entries and in their length. A version that can't be encoded raises :class:`PoisonError` and is not kept.
    """

    ENTRIES_MAX = 4_096
    KEY_LENGTH_MAX = 32

    def __init__(self, encoding: AppVersionEncoding) -> None:
        super().__init__()
        self._encode = ENCODERS[encoding]

    def __missing__(self, text: str) -> str:
        integer = str(self._encode(text.strip()))
        if len(text) <= self.KEY_LENGTH_MAX:
            if len(self) >= self.ENTRIES_MAX:
                self.clear()
            self[text] = integer
        return integer
