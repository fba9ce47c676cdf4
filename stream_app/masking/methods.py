"""The ways to mask a field."""

from enum import StrEnum


class MaskingMethod(StrEnum):
    """How a field's value becomes what is stored."""

    AES_SIV = "aes-siv"
    """Deterministic encryption (RFC 5297): equal values give equal tokens; `reveal` turns them back with the masking keyset."""
    HMAC = "hmac"
    """A keyed one-way function: equal values give equal tokens; nobody turns them back."""
    ROTATE = "rotate"
    """The text rotated left by half its length. No secret: anybody turns it back. Only to read or continue old tables."""
    TRUNCATE = "truncate"
    """The network that an IP address is in: IPv4 /24, IPv6 /48. Only for IP addresses."""
    REDACT = "redact"
    """NULL."""
