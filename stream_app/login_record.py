"""The login record: one declaration from which its decoding, checks, columns and masking follow.

A new field is a line here, a column in the SQL with its migration, and a line in the docs.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Annotated, Any, get_type_hints

import msgspec

from stream_app.canonical_forms import Form, canonical
from stream_app.masking.methods import MaskingMethod
from stream_app.masking.tokens import COLUMN_CHARACTERS, encrypted_characters
from stream_app.reductions import Reduction


class Content(Enum):
    """What a field's text means, and so how it is checked and cleaned."""

    TEXT = auto()
    """Any text without control characters, up to a length."""
    IP_ADDRESS = auto()
    """See ``ip_address.py``. Always masked."""
    APP_VERSION = auto()
    """See ``app_version.py``."""


REDUCTIONS_OF_CONTENT = {
    Content.TEXT: frozenset[Reduction](),
    Content.IP_ADDRESS: frozenset({Reduction.OTHER_ADDRESSES, Reduction.PORT, Reduction.ZONE}),
    Content.APP_VERSION: frozenset({Reduction.BUILD, Reduction.ROUNDED}),
}
"""What a declaration may take of a field; ``NO_VALUE`` follows from ``no_value``."""

NIL_UUID = "00000000-0000-0000-0000-000000000000"
"""What iOS and Android give in the place of the advertising id of somebody who opted out."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is declared beside a field's name and type."""

    column: str
    """The column in ``user_logins``, also the name of the SQL parameter."""
    content: Content = Content.TEXT
    length_max: int | None = None
    """Of a text: in characters, as varchar counts; of a masked text: in bytes of UTF-8, from which the token's length follows."""
    masking: MaskingMethod | None = None
    """How the field is masked unless the setting says otherwise; None: not personal, stored as it is."""
    forms: frozenset[Form] = frozenset()
    """Of a text: the canonical forms that it gets, so that what means the same is equal."""
    no_value: frozenset[str] = frozenset()
    """Texts, in canonical form, that say that there is none: NULL, counted."""
    reductions: frozenset[Reduction] = frozenset()
    """What may be left off a value, counted. With anything else that its column has no room for it is a dead letter."""


class LoginRecord(msgspec.Struct, kw_only=True, gc=False, forbid_unknown_fields=True):
    """One login. ``str | None``: the field may be null or absent and is then NULL."""

    user_id: Annotated[str, Rule("user_id", length_max=128)]
    app_version: Annotated[str, Rule("app_version", Content.APP_VERSION, reductions=REDUCTIONS_OF_CONTENT[Content.APP_VERSION])]
    device_type: Annotated[str, Rule("device_type", length_max=32)]
    ip: Annotated[
        str,
        Rule(
            "masked_ip",
            Content.IP_ADDRESS,
            masking=MaskingMethod.AES_SIV,
            reductions=REDUCTIONS_OF_CONTENT[Content.IP_ADDRESS],
        ),
    ]
    locale: Annotated[str | None, Rule("locale", length_max=32)] = None
    device_id: Annotated[
        str,
        Rule(
            "masked_device_id",
            length_max=128,
            masking=MaskingMethod.AES_SIV,
            forms=frozenset({Form.NFC, Form.UUID}),
            no_value=frozenset({NIL_UUID}),
        ),
    ]


@dataclass(frozen=True, slots=True)
class Field:
    """A declared field, as the rest of the worker sees it."""

    name: str
    column: str
    content: Content
    length_max: int | None
    masking: MaskingMethod | None
    forms: frozenset[Form]
    no_value: frozenset[str]
    reductions: frozenset[Reduction]
    """All that may be left off, ``NO_VALUE`` among them."""
    required: bool


def fields_of(record: type[msgspec.Struct]) -> tuple[Field, ...]:
    """The declared fields of a kind of record, in order."""
    fields = tuple(_field(name, hint) for name, hint in get_type_hints(record, include_extras=True).items())
    for field in fields:
        if field.content is Content.TEXT and field.length_max is None:
            raise TypeError(f"{field.name}: a text needs a length_max")
        if field.content is Content.IP_ADDRESS and field.masking is None:
            raise TypeError(f"{field.name}: an IP address is always masked")
        if field.masking is not None and not field.required:
            raise TypeError(f"{field.name}: a masked field is required; NULL would say that nothing was there")
        if field.masking is not None and encrypted_characters(field.length_max or 0) > COLUMN_CHARACTERS:
            raise TypeError(f"{field.name}: a token of {field.length_max} bytes does not fit its column")
        if field.content is not Content.TEXT and (field.forms or field.no_value):
            raise TypeError(f"{field.name}: forms and no_value are for texts")
        if any(not text or canonical(text.strip(), field.forms) != text for text in field.no_value):
            raise TypeError(f"{field.name}: a text of no_value is empty, or not in its canonical form: no value would meet it")
        possible = REDUCTIONS_OF_CONTENT[field.content] | ({Reduction.NO_VALUE} if field.no_value else set())
        if not field.reductions <= possible:
            raise TypeError(f"{field.name}: {', '.join(field.reductions - possible)} can't be left off it")
    return fields


def _field(name: str, hint: Any) -> Field:
    rule: Rule = next(entry for entry in hint.__metadata__ if isinstance(entry, Rule))
    reductions = rule.reductions | {Reduction.NO_VALUE} if rule.no_value else rule.reductions
    return Field(
        name,
        rule.column,
        rule.content,
        rule.length_max,
        rule.masking,
        rule.forms,
        rule.no_value,
        reductions,
        required=hint.__origin__ is str,
    )


FIELDS = fields_of(LoginRecord)
"""The login record's fields in the order of the declaration."""

FIELD_BY_COLUMN = {field.column: field.name for field in FIELDS}
"""For what Postgres says about a column."""
