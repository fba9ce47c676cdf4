"""Checks a column of texts and brings it into the form that is masked or stored.

White space around a value is trimmed: what ``str.strip`` takes for white space, tab and newline among it. A control character that
is left refuses the value (Unicode's Cc: C0 with NUL, DEL, C1): the statement's separators are such, and so is what forges a log
line. Then a text gets its canonical forms, and lengths count. Empty: NULL where the field may be null, else refused.

A column is checked as a whole, in a few passes of C code. Only if it holds something suspicious is each value looked at.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import cast

from pipeline.errors import PoisonError
from stream_app import ip_address
from stream_app.app_version import AppVersionEncoding, AppVersionTexts
from stream_app.canonical_forms import canonical, canonical_column
from stream_app.login_record import Content, Field
from stream_app.masking.masker import NULL_TEXT
from stream_app.reasons import Reason
from stream_app.reductions import Reduction

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")

Cleaned = str | bytes
"""A field to be stored as it is: its text. One to be masked: its canonical bytes, or ``NULL_BYTES``."""

NULL_BYTES = b""
"""Stands for NULL among values to be masked: none of them is empty. Their reduction is ``NO_VALUE``."""

_NONE_LEFT_OFF: frozenset[Reduction] = frozenset()


@dataclass(slots=True)
class CleanedColumn:
    """What became of a column of texts."""

    values: list[Cleaned]
    """By index; "" where there is a problem."""
    problems: dict[int, PoisonError] = field(default_factory=dict)
    """By index what is wrong with values that can't be cleaned."""
    reduced: dict[Reduction, list[int]] = field(default_factory=dict)
    """The indexes, ascending, of the values that something was left off."""

    def left_off(self, index: int, reductions: Collection[Reduction]) -> None:
        """Note what was left off a value; in the order of the values."""
        for reduction in reductions:
            self.reduced.setdefault(reduction, []).append(index)


class Cleaner(ABC):
    """Cleans one field's columns."""

    def __init__(self, field: Field) -> None:
        self._field = field

    def clean(self, texts: Sequence[str | None]) -> CleanedColumn:
        """The cleaned column. Never raises for what a text holds."""
        cleaned = self._clean_all(texts)
        if cleaned is not None:
            return cleaned
        cleaned = CleanedColumn([])
        for index, text in enumerate(texts):
            try:
                value, left_off = self._clean_one(text)
            except PoisonError as problem:
                cleaned.values.append("")
                cleaned.problems[index] = PoisonError(problem.reason, self._field.name)
            else:
                cleaned.values.append(value)
                cleaned.left_off(index, left_off)
        return cleaned

    @abstractmethod
    def _clean_all(self, texts: Sequence[str | None]) -> CleanedColumn | None:
        """The cleaned column if nothing in it is suspicious."""

    def _clean_one(self, text: str | None) -> tuple[Cleaned, frozenset[Reduction]]:
        """The cleaned value and what was left off. Raises :class:`PoisonError`."""
        text = "" if text is None else text.strip()
        if not text:
            if self._field.required:
                raise PoisonError(Reason.EMPTY_VALUE)
            return NULL_TEXT, _NONE_LEFT_OFF
        if not text.isprintable() and _CONTROL.search(text):
            raise PoisonError(Reason.CONTROL_CHARACTER)
        return self._clean_content(text)

    @abstractmethod
    def _clean_content(self, text: str) -> tuple[Cleaned, frozenset[Reduction]]:
        """For a trimmed text without control characters. Raises :class:`PoisonError`."""


class _TextCleaner(Cleaner):
    def __init__(self, field: Field, length_max: int) -> None:
        super().__init__(field)
        self._length_max = length_max
        self._masked = field.masking is not None
        self._forms = field.forms
        self._no_value = field.no_value
        self._null: Cleaned = NULL_BYTES if self._masked else NULL_TEXT

    def _clean_all(self, texts: Sequence[str | None]) -> CleanedColumn | None:
        cleaned: Sequence[str] = cast("Sequence[str]", texts) if self._field.required else [text or "" for text in texts]
        joined = "".join(cleaned)
        if not joined.isprintable() or " " in joined:  # else it holds neither white space nor a control character
            cleaned = [text.strip() for text in cleaned]
            joined = "".join(cleaned)
            if _CONTROL.search(joined):
                return None
        if self._field.required and not all(cleaned):
            return None
        if self._forms:
            came, cleaned = cleaned, canonical_column(cleaned, joined, self._forms)
            joined = joined if cleaned is came else "".join(cleaned)
        without_value: list[int] = []
        if any(text in joined for text in self._no_value):
            without_value = [index for index, text in enumerate(cleaned) if text in self._no_value]
            cleaned = ["" if text in self._no_value else text for text in cleaned]
        if self._masked:
            values: list[Cleaned] = [text.encode() for text in cleaned]
        elif self._field.required and not without_value:
            values = list(cleaned)
        else:
            values = [text or NULL_TEXT for text in cleaned]
        if max(map(len, values), default=0) > self._length_max:
            return None
        return CleanedColumn(values, reduced={Reduction.NO_VALUE: without_value} if without_value else {})

    def _clean_content(self, text: str) -> tuple[Cleaned, frozenset[Reduction]]:
        text = canonical(text, self._forms)
        if text in self._no_value:
            return self._null, frozenset({Reduction.NO_VALUE})
        value: Cleaned = text.encode() if self._masked else text
        if len(value) > self._length_max:
            raise PoisonError(Reason.TOO_LONG)
        return value, _NONE_LEFT_OFF


class _IpAddressCleaner(Cleaner):
    def _clean_all(self, texts: Sequence[str | None]) -> CleanedColumn | None:
        packed = ip_address.pack_all(cast("list[str]", texts))
        return None if packed is None else CleanedColumn(cast("list[Cleaned]", packed))

    def _clean_one(self, text: str | None) -> tuple[Cleaned, frozenset[Reduction]]:
        if not text or not ip_address.is_plain(text):
            return super()._clean_one(text)
        try:
            return ip_address.pack(text), _NONE_LEFT_OFF  # most are plain, where only some are odd
        except PoisonError:
            return super()._clean_one(text)

    def _clean_content(self, text: str) -> tuple[Cleaned, frozenset[Reduction]]:
        packed, left_off = ip_address.read(text)
        if not left_off <= self._field.reductions:
            raise PoisonError(Reason.INVALID_IP)
        return packed, left_off


class _AppVersionCleaner(Cleaner):
    def __init__(self, field: Field, encoding: AppVersionEncoding) -> None:
        super().__init__(field)
        self._integers = AppVersionTexts(encoding, field.reductions)

    def _clean_all(self, texts: Sequence[str | None]) -> CleanedColumn | None:
        try:
            cleaned = CleanedColumn(list(map(self._integers.__getitem__, cast("Sequence[str]", texts))))
        except PoisonError:
            return None
        reduced = self._integers.reduced
        if reduced:  # a version that is alive has a build, or is rounded
            for index, text in enumerate(texts):
                if text in reduced:
                    cleaned.left_off(index, reduced[text])
        return cleaned

    def _clean_content(self, text: str) -> tuple[Cleaned, frozenset[Reduction]]:
        return self._integers.read(text)


def cleaner_of(field: Field, app_version_encoding: AppVersionEncoding) -> Cleaner:
    """The cleaner of a declared field."""
    match field.content:
        case Content.TEXT:
            return _TextCleaner(field, cast("int", field.length_max))
        case Content.IP_ADDRESS:
            return _IpAddressCleaner(field)
        case Content.APP_VERSION:
            return _AppVersionCleaner(field, app_version_encoding)
