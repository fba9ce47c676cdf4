"""IP addresses as the 4 or 16 bytes that go over the wire: the canonical form, so that equal addresses mask equally.

Any valid address is taken, also multicast, reserved and loopback ones: real traffic has them. Not taken, because ``inet_pton`` does
not: zone ids (fe80::1%eth0), leading zeros (010.0.0.1), short forms (127.1), ports, prefixes.
An IPv4-mapped address (::ffff:203.0.113.9) is how a dual-stack server writes an IPv4 client (RFC 4291, 2.5.5.2): it becomes that
IPv4 address, or one phone would have two tokens.
"""

from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from pipeline.errors import PoisonError
from stream_app.reasons import Reason

IPV4_BYTES = 4
IPV6_BYTES = 16
_IPV4_MAPPED = b"\0" * 10 + b"\xff\xff"


def pack_all(texts: list[str]) -> list[bytes] | None:
    """The packed forms of a whole column of addresses, or None if one of them is none (white space around it included)."""
    try:
        packed = [inet_pton(AF_INET6 if ":" in text else AF_INET, text) for text in texts]
    except (OSError, ValueError):  # ValueError: an embedded NUL
        return None
    if _IPV4_MAPPED in b"".join(packed):  # rarely, and mostly where there is one
        return [address[12:] if address.startswith(_IPV4_MAPPED) else address for address in packed]
    return packed


def pack(text: str) -> bytes:
    """The packed form of one address. Raises :class:`PoisonError`."""
    packed = pack_all([text])
    if packed is None:
        raise PoisonError(Reason.INVALID_IP)
    return packed[0]


def canonical_text(packed: bytes) -> str:
    """The address as people write it (IPv6 by RFC 5952). Raises ValueError when these are not 4 or 16 bytes."""
    return inet_ntop(AF_INET if len(packed) == IPV4_BYTES else AF_INET6, packed)


def network_text(packed: bytes) -> str:
    """The network that the address is in: IPv4 /24, IPv6 /48."""
    if len(packed) == IPV4_BYTES:
        return f"{canonical_text(packed[:3] + bytes(1))}/24"
    return f"{canonical_text(packed[:6] + bytes(10))}/48"
