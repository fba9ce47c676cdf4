"""Masks whole columns, and turns single tokens back.

What is masked is a field's canonical bytes: an IP address packed (4 or 16 bytes), other fields as UTF-8. AES-SIV's output is as
long as its input and 21 bytes, so other fields are padded to a multiple of 16: a token tells little of its value's length. The
field's name is the associated data, so equal values in two fields have tokens that don't link.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import structlog
from tink import TinkError, prf

from stream_app.ip_address import IPV4_BYTES, IPV6_BYTES, canonical_text, network_text
from stream_app.login_record import FIELDS, Content, Field
from stream_app.masking import keysets, tokens
from stream_app.masking.methods import MaskingMethod
from stream_app.masking.policy import SETTING_METHODS, MaskingPolicy

log = structlog.get_logger(__name__)

NULL_TEXT = "\x02"
"""Stands for NULL in a column. No value can be mistaken for it: control characters are refused."""

_PRF_BYTES = 32

MaskColumn = Callable[[Sequence[bytes]], list[str]]


class Masker:
    """The masking of one policy with its keysets."""

    def __init__(
        self,
        policy: MaskingPolicy,
        *,
        keyset: keysets.MaskingKeyset | None = None,
        hmac_keyset: prf.PrfSet | None = None,
        fields: Sequence[Field] = FIELDS,
    ) -> None:
        self._policy = policy
        self._keyset = keyset
        self._hmac_keyset = hmac_keyset
        self._fields = {field.name: field for field in fields if field.masking is not None}
        self._columns = {name: self._column(field, policy.methods[name]) for name, field in self._fields.items()}

    @classmethod
    def load(cls, policy: MaskingPolicy, *, keyset_file: Path | None, hmac_keyset_file: Path | None = None) -> "Masker":
        """The masker of a policy, with the keysets that it needs and no others.

        Raises :class:`SettingsError` that names the setting: nothing is masked with a key that is not the configured one.
        """
        for name, method in policy.methods.items():
            if method is MaskingMethod.ROTATE:
                log.warning("field_masked_without_secret", field=name, method=method.value)
        return cls(
            policy,
            keyset=keysets.load_masking_keyset(keyset_file) if policy.uses(MaskingMethod.AES_SIV) else None,
            hmac_keyset=keysets.load_masking_hmac_keyset(hmac_keyset_file) if policy.uses(MaskingMethod.HMAC) else None,
        )

    def keys(self) -> Iterator[tuple[str, int, bool]]:
        """The setting of each keyset in use, each of its keys' ids, and whether that one is primary."""
        if self._keyset is not None:
            for key_id in sorted(self._keyset.key_ids):
                yield keysets.SETTING_MASKING, key_id, key_id == self._keyset.primary_id
        if self._hmac_keyset is not None:
            for key_id in sorted(self._hmac_keyset.all()):
                yield keysets.SETTING_MASKING_HMAC, key_id, key_id == self._hmac_keyset.primary_id()

    def keys_of(self, field: str) -> tuple[str, frozenset[int]]:
        """The setting that decides how a field is masked, and the ids of its keys: none where its method has no key."""
        method = self._policy.methods[field]
        if method is MaskingMethod.AES_SIV and self._keyset is not None:
            return keysets.SETTING_MASKING, self._keyset.key_ids
        if method is MaskingMethod.HMAC and self._hmac_keyset is not None:
            return keysets.SETTING_MASKING_HMAC, frozenset(self._hmac_keyset.all())
        return SETTING_METHODS, frozenset()

    def mask(self, field: str, values: Sequence[bytes]) -> list[str]:
        """The column's text for each of a field's canonical values."""
        return self._columns[field](values)

    def reveal(self, field: str, token: str) -> str:
        """The canonical text of the value behind a token. Raises :class:`TokenError`, whose message holds neither of them."""
        if field not in self._fields:
            raise tokens.TokenError(f"no such field is masked; the masked fields are {', '.join(self._fields)}")
        method = self._policy.methods[field]
        if method is MaskingMethod.ROTATE:
            half = len(token) // 2
            return token[-half:] + token[:-half] if half else token
        if method is not MaskingMethod.AES_SIV or self._keyset is None:
            raise tokens.TokenError(f"{field} is masked by {method}: there is no way back")
        plain = _decrypt(self._keyset, field, tokens.decode(token))
        if self._fields[field].content is not Content.IP_ADDRESS:
            return tokens.unpad(plain).decode()
        if len(plain) not in (IPV4_BYTES, IPV6_BYTES):
            raise tokens.TokenError(f"the token holds no {field} as this version masks it")
        return canonical_text(plain)

    def _column(self, field: Field, method: MaskingMethod) -> MaskColumn:
        packed = field.content is Content.IP_ADDRESS
        match method:
            case MaskingMethod.AES_SIV:
                return self._aes_siv(field, packed=packed)
            case MaskingMethod.HMAC:
                return self._hmac(field)
            case MaskingMethod.ROTATE:
                text = canonical_text if packed else bytes.decode
                return lambda values: [_rotated(text(value)) for value in values]
            case MaskingMethod.TRUNCATE:
                return lambda values: [network_text(value) for value in values]
            case MaskingMethod.REDACT:
                return lambda values: [NULL_TEXT] * len(values)

    def _aes_siv(self, field: Field, *, packed: bool) -> MaskColumn:
        if self._keyset is None:
            raise ValueError(f"{field.name}: aes-siv needs a keyset")
        prefix, encrypt = self._keyset.encryption()
        associated = field.name.encode()
        if packed:
            return lambda values: tokens.encode_all([prefix + encrypt(value, associated) for value in values])
        paddings = tokens.PADDINGS
        return lambda values: tokens.encode_all(
            [prefix + encrypt(value + paddings[len(value) & 15], associated) for value in values]
        )

    def _hmac(self, field: Field) -> MaskColumn:
        if self._hmac_keyset is None:
            raise ValueError(f"{field.name}: hmac needs a keyset")
        compute: Callable[[bytes, int], bytes] = self._hmac_keyset.primary().compute
        prefix = tokens.prefix(self._hmac_keyset.primary_id())
        domain = field.name.encode() + b"\0"  # no field's name has a NUL: equal values in two fields are different inputs
        return lambda values: tokens.encode_all([prefix + compute(domain + value, _PRF_BYTES) for value in values])


def _rotated(text: str) -> str:
    half = len(text) // 2
    return text[half:] + text[:half]


def _decrypt(keyset: keysets.MaskingKeyset, field: str, token: bytes) -> bytes:
    try:
        return bytes(keyset.aead.decrypt_deterministically(token, field.encode()))
    except TinkError:
        key = tokens.key_id(token)
        if key not in keyset.key_ids:
            message = f"the token was made with key {key}, which the keyset in {keysets.SETTING_MASKING} does not hold"
        else:
            message = f"the token does not open: it was changed, or it is of another field than {field}"
        raise tokens.TokenError(message) from None
