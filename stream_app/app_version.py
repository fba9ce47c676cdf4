"""App versions ("2.3.0", "v0.96", "14.2.1.0", "2.3 (451)") as integers.

One to four parts of digits; a ``v`` before them means nothing, a build may follow in parentheses or after a plus sign.

``ordered``, the default: major * 1,000,000 + minor * 1,000 + patch, a missing part is 0. A version that has no integer of its own
gets that of the highest one below it that has: 2.3.1042 that of 2.3.999, 2.3.0.7 that of 2.3.0. So a later version never has a
lower integer. ``joined`` drops the dots, so that 0.2.6 and 2.6 meet: only for tables that were filled that way before.
"""

import re
from collections.abc import Callable, Collection
from typing import Literal

from pipeline.errors import PoisonError
from stream_app.reasons import Reason
from stream_app.reductions import Reduction

AppVersionEncoding = Literal["ordered", "joined"]

MAJOR_MAX = 2_146
MINOR_MAX = PATCH_MAX = 999
INTEGER_MAX = 2_147_483_647  # Postgres's integer; 2146.999.999 is the last version below it

# ASCII digits only: str.isdigit and int() take other scripts' digits, signs and underscores. 18 digits a part: what no app has,
# and cheap to convert. A build begins with a digit in parentheses: "2.3 (beta)" comes before 2.3. After a plus sign anything does:
# it has no part in the order (Semantic Versioning 2.0, 10).
_VERSION = re.compile(
    r"[vV]?(?P<major>[0-9]{1,18})(?:\.(?P<minor>[0-9]{1,18}))?(?:\.(?P<patch>[0-9]{1,18}))?(?:\.(?P<fourth>[0-9]{1,18}))?"
    r"(?P<build> ?\([0-9][0-9A-Za-z.]{0,31}\)|\+[0-9A-Za-z.-]{1,64})?"
)


def ordered(text: str) -> tuple[int, frozenset[Reduction]]:
    """The integer that keeps order, and what it says less than the text. Raises :class:`PoisonError`."""
    parts = _parsed(text).groupdict("0")
    version = major, minor, _ = int(parts["major"]), int(parts["minor"]), int(parts["patch"])
    rounded = min(version, (major, minor, PATCH_MAX), (major, MINOR_MAX, PATCH_MAX), (MAJOR_MAX, MINOR_MAX, PATCH_MAX))
    left_off = set()
    if rounded != version:
        left_off.add(Reduction.ROUNDED)
    if int(parts["fourth"]) or parts["build"] != "0":
        left_off.add(Reduction.BUILD)
    return rounded[0] * 1_000_000 + rounded[1] * 1_000 + rounded[2], frozenset(left_off)


def joined(text: str) -> tuple[int, frozenset[Reduction]]:
    """The integer that is left without the dots, and what it says less than the text. Raises :class:`PoisonError`."""
    parts = _parsed(text).groupdict("")
    number = int(parts["major"] + parts["minor"] + parts["patch"] + parts["fourth"])
    if number > INTEGER_MAX:
        raise PoisonError(Reason.INVALID_APP_VERSION)
    return number, frozenset({Reduction.BUILD} if parts["build"] else ())


def _parsed(text: str) -> re.Match[str]:
    match = _VERSION.fullmatch(text)
    if match is None:
        raise PoisonError(Reason.INVALID_APP_VERSION)
    return match


Encoder = Callable[[str], tuple[int, frozenset[Reduction]]]

ENCODERS: dict[AppVersionEncoding, Encoder] = {"ordered": ordered, "joined": joined}


class AppVersionTexts(dict[str, str]):
    """Versions as they came -> integers as Postgres reads them. Few versions are alive at a time, so nearly every look-up is a hit.

    Bounded in entries and in their length: one that is too long to keep raises :class:`PoisonError` like one that is no version;
    :meth:`read` tells them apart.
    """

    ENTRIES_MAX = 4_096
    KEY_LENGTH_MAX = 32

    def __init__(self, encoding: AppVersionEncoding, reductions: Collection[Reduction]) -> None:
        """``reductions``: those that are taken; a version with another one is refused."""
        super().__init__()
        self._encode = ENCODERS[encoding]
        self._taken = frozenset(reductions)
        self.reduced: dict[str, frozenset[Reduction]] = {}
        """What is left off, of those versions that are kept here and have it."""

    def read(self, text: str) -> tuple[str, frozenset[Reduction]]:
        """The integer of one version, and what is left off. Raises :class:`PoisonError`."""
        if text in self:
            return self[text], self.reduced.get(text, frozenset())
        integer, left_off = self._encode(text.strip())
        if not left_off <= self._taken:
            raise PoisonError(Reason.INVALID_APP_VERSION)
        if len(text) <= self.KEY_LENGTH_MAX:
            self._keep(text, str(integer), left_off)
        return str(integer), left_off

    def _keep(self, text: str, integer: str, left_off: frozenset[Reduction]) -> None:
        if len(self) >= self.ENTRIES_MAX:
            self.clear()
            self.reduced.clear()
        self[text] = integer
        if left_off:
            self.reduced[text] = left_off

    def __missing__(self, text: str) -> str:
        if len(text) > self.KEY_LENGTH_MAX:
            raise PoisonError(Reason.INVALID_APP_VERSION)
        return self.read(text)[0]
