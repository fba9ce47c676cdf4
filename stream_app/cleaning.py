"""Checks a column of texts and brings it into the form that is masked or stored.

White space around a value is trimmed: what ``str.strip`` takes for white space, tab and newline among it. A control character that
is left refuses the value (Unicode's Cc: C0 with NUL, DEL, C1): the statement's separators are such, and so is what forges a log
line. Lengths count after trimming. Empty: NULL where the field may be null, else refused.

A column is checked as a whole, in a few passes of C code. Only if it holds something suspicious is each value looked at.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

from pipeline.errors import PoisonError
from stream_app import ip_address
from stream_app.app_version import AppVersionEncoding, AppVersionTexts
from stream_app.login_record import Content, Field
from stream_app.masking.masker import NULL_TEXT
from stream_app.reasons import Reason

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")

Cleaned = str | bytes
"""A field to be stored as it is: its text. One to be masked: its canonical bytes."""


class Cleaner(ABC):
    """Cleans one field's columns."""

    def __init__(self, field: Field) -> None:
        self._field = field

    def clean(self, texts: Sequence[str | None]) -> tuple[list[Cleaned], dict[int, PoisonError]]:
        """The cleaned column, and by index what is wrong with values that can't be cleaned ("" stands in their place)."""
        cleaned = self._clean_all(texts)
        if cleaned is not None:
            return cleaned, {}
        cleaned, problems = [], {}
        for index, text in enumerate(texts):
            try:
                cleaned.append(self._clean_one(text))
            except PoisonError as problem:
                cleaned.append("")
                problems[index] = PoisonError(problem.reason, self._field.name)
        return cleaned, problems

    @abstractmethod
    def _clean_all(self, texts: Sequence[str | None]) -> list[Cleaned] | None:
        """The cleaned column if nothing in it is suspicious."""

    def _clean_one(self, text: str | None) -> Cleaned:
        """Raises :class:`PoisonError`."""
        text = "" if text is None else text.strip()
        if not text:
            if self._field.required:
                raise PoisonError(Reason.EMPTY_VALUE)
            return NULL_TEXT
        if _CONTROL.search(text):
            raise PoisonError(Reason.CONTROL_CHARACTER)
        return self._clean_content(text)

    @abstractmethod
    def _clean_content(self, text: str) -> Cleaned:
        """For a trimmed text without control characters. Raises :class:`PoisonError`."""


class _TextCleaner(Cleaner):
    def __init__(self, field: Field, length_max: int) -> None:
        super().__init__(field)
        self._length_max = length_max
        self._masked = field.masking is not None

    def _clean_all(self, texts: Sequence[str | None]) -> list[Cleaned] | None:
        present = texts if self._field.required else [text or "" for text in texts]
        cleaned = cast("Sequence[str]", present)
        joined = "".join(cleaned)
        if not joined.isprintable() or " " in joined:  # else it holds neither white space nor a control character
            cleaned = [text.strip() for text in cleaned]
            if _CONTROL.search("".join(cleaned)):
                return None
        if self._field.required and not all(cleaned):
            return None
        if self._masked:
            encoded = [text.encode() for text in cleaned]
            return cast("list[Cleaned]", encoded) if self._fit(encoded) else None
        if not self._fit(cleaned):
            return None
        return list(cleaned) if self._field.required else [text or NULL_TEXT for text in cleaned]

    def _fit(self, values: Sequence[Cleaned]) -> bool:
        return max(map(len, values), default=0) <= self._length_max

    def _clean_content(self, text: str) -> Cleaned:
        value: Cleaned = text.encode() if self._masked else text
        if len(value) > self._length_max:
            raise PoisonError(Reason.TOO_LONG)
        return value


class _IpAddressCleaner(Cleaner):
    def _clean_all(self, texts: Sequence[str | None]) -> list[Cleaned] | None:
        return cast("list[Cleaned] | None", ip_address.pack_all(cast("list[str]", texts)))

    def _clean_content(self, text: str) -> Cleaned:
        return ip_address.pack(text)


class _AppVersionCleaner(Cleaner):
    def __init__(self, field: Field, encoding: AppVersionEncoding) -> None:
        super().__init__(field)
        self._integers = AppVersionTexts(encoding)

    def _clean_all(self, texts: Sequence[str | None]) -> list[Cleaned] | None:
        try:
            return list(map(self._integers.__getitem__, cast("Sequence[str]", texts)))
        except PoisonError:
            return None

    def _clean_content(self, text: str) -> Cleaned:
        return self._integers[text]


def cleaner_of(field: Field, app_version_encoding: AppVersionEncoding) -> Cleaner:
    """The cleaner of a declared field."""
    match field.content:
        case Content.TEXT:
            return _TextCleaner(field, cast("int", field.length_max))
        case Content.IP_ADDRESS:
            return _IpAddressCleaner(field)
        case Content.APP_VERSION:
            return _AppVersionCleaner(field, app_version_encoding)
