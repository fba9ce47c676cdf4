"""Bodies to login records, by one decoder (msgspec), so that every later step reads the same values.

A batch goes through the strict decoder. What it refuses is looked at again on its own: unknown keys are ignored and counted, and
what can't be a login gets its reason. Of duplicate keys the last one counts, everywhere. A raw control character in a string, NaN,
a trailing comma or a byte order mark is no JSON.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET, Raw, UnsetType

from pipeline.errors import PoisonError
from stream_app.login_record import FIELDS, LoginRecord
from stream_app.reasons import Reason


@dataclass(slots=True)
class Decoded:
    """What became of the bodies of a batch."""

    logins: list[LoginRecord]
    """Those that are login records, in order; their texts are not checked yet."""
    problems: dict[int, PoisonError] = field(default_factory=dict)
    """Why the others are none, by index in the batch."""
    extra_keys: set[int] = field(default_factory=set)
    """Indexes of the records that had keys which no field declares."""

    def columns(self) -> Sequence[tuple[str | None, ...]]:
        """The texts by field, in the order of the declaration."""
        return list(zip(*map(msgspec.structs.astuple, self.logins), strict=True)) or [()] * len(FIELDS)


class _Lenient(LoginRecord, gc=False, forbid_unknown_fields=False):
    pass


# The fields' JSON text, unread: shows which field is wrong, also where the body can't be decoded as a whole.
_RawRecord = msgspec.defstruct("_RawRecord", [(field.name, Raw | UnsetType, UNSET) for field in FIELDS])
_StrictRawRecord = msgspec.defstruct(
    "_StrictRawRecord", [(field.name, Raw | UnsetType, UNSET) for field in FIELDS], forbid_unknown_fields=True
)

_decode_strict = msgspec.json.Decoder(LoginRecord).decode
_decode_lenient = msgspec.json.Decoder(_Lenient).decode
_decode_raw = msgspec.json.Decoder(_RawRecord).decode
_decode_raw_strict = msgspec.json.Decoder(_StrictRawRecord).decode
_decode_any_json = msgspec.json.Decoder(Raw).decode
_decode_text = msgspec.json.Decoder(str).decode

# What msgspec 0.22 raises for a body that it can't decode: RecursionError is none of its own errors, bad UTF-8 is a plain
# ValueError, and None (a tombstone) a TypeError.
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError)

# Read from the left: a pair is stepped over, half of one is caught, any other escape (an escaped backslash!) is stepped over.
_SURROGATES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)


def decode_batch(bodies: Sequence[bytes | None]) -> Decoded:
    """Decode the bodies of a batch. Never raises for what a body holds."""
    try:
        return Decoded([_decode_strict(body) for body in bodies])  # type: ignore[arg-type] # None: see _UNDECODABLE
    except _UNDECODABLE:
        pass
    decoded = Decoded([])
    for index, body in enumerate(bodies):
        try:
            decoded.logins.append(_decode_strict(body))  # type: ignore[arg-type]
        except _UNDECODABLE:
            try:
                login, has_extra_keys = _decode_one(body)
            except PoisonError as problem:
                decoded.problems[index] = problem.as_found()
            else:
                decoded.logins.append(login)
                if has_extra_keys:
                    decoded.extra_keys.add(index)
    return decoded


def _decode_one(body: bytes | None) -> tuple[LoginRecord, bool]:
    """A record that the strict decoder refused, and whether it has unknown keys. Raises :class:`PoisonError`."""
    if body is None or not body.strip():
        raise PoisonError(Reason.EMPTY_BODY)
    try:
        body.decode()  # the decoder doesn't look at the bytes of strings that it skips
    except UnicodeDecodeError:
        raise PoisonError(Reason.NOT_UTF8) from None
    try:
        return _decode_lenient(body), True
    except _UNDECODABLE:
        return _decode_by_field(body)


def _decode_by_field(body: bytes) -> tuple[LoginRecord, bool]:
    raw, has_extra_keys, with_lone_surrogate = _raw_record(body)
    values = {field.name: _text(getattr(raw, field.name), field.name, field.required, with_lone_surrogate) for field in FIELDS}
    if with_lone_surrogate is not None:
        raise PoisonError(Reason.LONE_SURROGATE)
    return LoginRecord(**values), has_extra_keys  # type: ignore[arg-type] # _text has seen to it that required ones are texts


def _raw_record(body: bytes) -> tuple[msgspec.Struct, bool, set[str] | None]:
    """The fields unread, whether there are unknown keys, and the names of those with a lone surrogate (None: there is none)."""
    try:
        return _decode_raw_strict(body), False, None
    except _UNDECODABLE:
        pass
    try:
        return _decode_raw(body), True, None
    except RecursionError:
        raise PoisonError(Reason.TOO_DEEP) from None
    except msgspec.DecodeError:
        pass
    # No JSON, no object, or half of a surrogate pair? Two other letters in its place tell whether it is that, and where.
    one, other = _without_lone_surrogates(body)
    try:
        _decode_any_json(one)
    except RecursionError:
        raise PoisonError(Reason.TOO_DEEP) from None
    except msgspec.DecodeError:
        raise PoisonError(Reason.NOT_JSON) from None
    try:
        raw, raw_other = _decode_raw(one), _decode_raw(other)
    except msgspec.ValidationError:
        raise PoisonError(Reason.NOT_AN_OBJECT) from None
    return raw, False, {field.name for field in FIELDS if getattr(raw, field.name) != getattr(raw_other, field.name)}


def _without_lone_surrogates(body: bytes) -> tuple[bytes, bytes]:
    """The body with an ``a`` in the place of each lone surrogate, and with a ``b``."""
    if b"\\ud" not in body and b"\\uD" not in body:
        return body, body
    one, other = bytearray(body), bytearray(body)
    for match in _SURROGATES.finditer(body):
        if match.lastgroup == "lone":
            one[match.start() : match.end()] = b"\\u0061"
            other[match.start() : match.end()] = b"\\u0062"
    return bytes(one), bytes(other)


def _text(raw: Raw | UnsetType, name: str, required: bool, with_lone_surrogate: set[str] | None) -> str | None:  # noqa: FBT001 - the declaration's own flag
    if isinstance(raw, UnsetType):
        if required:
            raise PoisonError(Reason.MISSING_KEY, name)
        return None
    text = bytes(raw)
    if text == b"null":
        if required:
            raise PoisonError(Reason.NULL_VALUE, name)
        return None
    if not text.startswith(b'"'):
        raise PoisonError(Reason.WRONG_TYPE, name)
    if with_lone_surrogate is not None and name in with_lone_surrogate:
        raise PoisonError(Reason.LONE_SURROGATE, name)
    return _decode_text(text)
