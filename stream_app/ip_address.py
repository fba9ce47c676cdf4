"""IP addresses as the 4 or 16 bytes that go over the wire: the canonical form, so that equal addresses mask equally.

Any valid address is taken, also multicast, reserved and loopback ones: real traffic has them. Not taken, because ``inet_pton`` does
not: leading zeros (010.0.0.1), short forms (127.1), prefixes.
An IPv4-mapped address (::ffff:203.0.113.9) is how a dual-stack server writes an IPv4 client (RFC 4291, 2.5.5.2): it becomes that
IPv4 address, or one phone would have two tokens.
What proxies write around an address comes off: the others of a list, a port, a zone id, the brackets (:func:`read`).
"""

import re
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from pipeline.errors import PoisonError
from stream_app.reasons import Reason
from stream_app.reductions import Reduction

IPV4_BYTES = 4
IPV6_BYTES = 16
PORT_MAX = 65_535
_IPV4_MAPPED = b"\0" * 10 + b"\xff\xff"

# 203.0.113.9:443, [2001:db8::1], [2001:db8::1]:443. Without brackets an IPv6 address has no port: 2001:db8::1:443 is an address.
_WITH_PORT = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:%[^\]]*)?)\]|(?P<ipv4>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?")
_ZONE = re.compile(r"[0-9A-Za-z._~%-]{1,64}")  # %25 before it, as RFC 6874 has it in a URI, is within


_NOTHING: frozenset[Reduction] = frozenset()
_OTHER_ADDRESSES, _PORT, _ZONE_ID = (frozenset({it}) for it in (Reduction.OTHER_ADDRESSES, Reduction.PORT, Reduction.ZONE))


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
    """The packed form of one address with nothing around it. Raises :class:`PoisonError`."""
    try:
        packed = inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, ValueError):
        raise PoisonError(Reason.INVALID_IP) from None
    return packed[12:] if packed.startswith(_IPV4_MAPPED) else packed


def is_plain(text: str) -> bool:
    """Whether there is nothing around an address of this text, if it is one. Quicker than to try."""
    return "," not in text and "]" not in text and "%" not in text and text.count(":") != 1


def read(text: str) -> tuple[bytes, frozenset[Reduction]]:
    """The packed form of a trimmed address as a proxy may write it, and what was left off. Raises :class:`PoisonError`.

    Of a list the first counts: X-Forwarded-For begins with the client, and each proxy adds whom it was asked by.
    """
    left_off = _NOTHING
    address, comma, _ = text.partition(",")
    if comma:
        left_off |= _OTHER_ADDRESSES
        address = address.rstrip()
    match = _WITH_PORT.fullmatch(address)
    if match is not None:
        ipv6, ipv4, port = match.groups()
        address = ipv4 or ipv6
        if port is not None:
            if int(port) > PORT_MAX:
                raise PoisonError(Reason.INVALID_IP)
            left_off |= _PORT
    address, percent, zone = address.partition("%")
    if percent:
        if ":" not in address or not _ZONE.fullmatch(zone):
            raise PoisonError(Reason.INVALID_IP)
        left_off |= _ZONE_ID
    return pack(address), left_off


def canonical_text(packed: bytes) -> str:
    """The address as people write it (IPv6 by RFC 5952). Raises ValueError when these are not 4 or 16 bytes."""
    return inet_ntop(AF_INET if len(packed) == IPV4_BYTES else AF_INET6, packed)


def network_text(packed: bytes) -> str:
    """The network that the address is in: IPv4 /24, IPv6 /48."""
    if len(packed) == IPV4_BYTES:
        return f"{canonical_text(packed[:3] + bytes(1))}/24"
    return f"{canonical_text(packed[:6] + bytes(10))}/48"
