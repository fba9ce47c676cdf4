"""Bodies to login records, by one decoder (msgspec), so that every later step reads the same values.

A batch goes through the strict decoder. What it refuses is looked at again on its own: unknown keys are ignored and counted, and
what can't be a login gets its reason. Of duplicate keys the last one counts, everywhere. A raw control character in a string, NaN,
a trailing comma or a byte order mark is no JSON.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET, Raw, UnsetType

from pipeline.errors import PoisonError
from stream_app.login_record import FIELDS, Field, LoginRecord
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
    raw, has_extra_keys = _raw_record(body)
    values = {field.name: None if (text := _text(raw, field)) is None else _decode_text(text) for field in FIELDS}
    return LoginRecord(**values), has_extra_keys  # type: ignore[arg-type] # _text has seen to it that required ones are texts


def _raw_record(body: bytes) -> tuple[msgspec.Struct, bool]:
    """The fields unread, and whether there are unknown keys. Raises :class:`PoisonError`."""
    try:
        return _decode_raw_strict(body), False
    except _UNDECODABLE:
        pass
    try:
        return _decode_raw(body), True
    except RecursionError:
        raise PoisonError(Reason.TOO_DEEP) from None
    except msgspec.DecodeError:
        raise _problem_as_a_whole(body) from None


def _problem_as_a_whole(body: bytes) -> PoisonError:
    """Why a body can't be decoded, not even unread: no JSON, no object, or half of a surrogate pair.

    Looks at copies without surrogates' escapes, made by ``bytes.replace``: in any body a few passes of C code. Escaped
    backslashes go first, so that each one left begins an escape, then escaped slashes, so that one can stand for a surrogate. No
    field's name holds any of these.
    """
    escapes = body.replace(rb"\\", b"~~").replace(rb"\/", b"/")
    try:
        _decode_any_json(escapes.replace(rb"\ud", rb"\u1").replace(rb"\uD", rb"\u1"))
    except RecursionError:
        return PoisonError(Reason.TOO_DEEP)
    except msgspec.DecodeError:
        return PoisonError(Reason.NOT_JSON)
    try:
        raw = _decode_raw(escapes.replace(rb"\ud", rb"\/d").replace(rb"\uD", rb"\/d"))
    except msgspec.ValidationError:
        return PoisonError(Reason.NOT_AN_OBJECT)
    for declared in FIELDS:
        try:
            if (text := _text(raw, declared)) is not None:
                _decode_text(text.replace(rb"\/", rb"\u"))
        except PoisonError as problem:
            return problem
        except msgspec.DecodeError:
            return PoisonError(Reason.LONE_SURROGATE, declared.name)
    return PoisonError(Reason.LONE_SURROGATE)


def _text(raw: msgspec.Struct, field: Field) -> bytes | None:
    """The field's JSON text, a string's; None where it may be null or absent and is. Raises :class:`PoisonError`."""
    value: Raw | UnsetType = getattr(raw, field.name)
    if not isinstance(value, UnsetType) and (text := bytes(value)) != b"null":
        if text.startswith(b'"'):
            return text
        raise PoisonError(Reason.WRONG_TYPE, field.name)
    if field.required:
        raise PoisonError(Reason.MISSING_KEY if isinstance(value, UnsetType) else Reason.NULL_VALUE, field.name)
    return None
