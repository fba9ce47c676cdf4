"""KAFKA_BOOTSTRAP_SERVERS, read the same way for all processes: their clients differ in what they take.

librdkafka passes over what it does not understand and then has no broker; Faust takes ``http://x`` for a host of that name.
"""

import ipaddress
import re
from typing import Final, NamedTuple

FORM: Final = "expected host:port, comma-separated, such as kafka-1:9092,kafka-2:9092"

_PORT_MAX = 65_535
_HOST = re.compile(r"[\w.-]{1,253}")
_PLAINTEXT = "plaintext"


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    """A name or an IP address, that of IPv6 without brackets."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_addresses(text: str) -> tuple[Address, ...]:
    """The addresses of a comma-separated list. Raises ValueError, which says which entry is wrong and never quotes it."""
    entries = text.split(",")
    addresses = []
    for number, entry in enumerate(entries, start=1):
        try:
            addresses.append(_parse(entry.strip()))
        except ValueError as error:
            which = "it" if len(entries) == 1 else f"entry {number} of {len(entries)}"
            raise ValueError(f"{which} {error}; {FORM}") from None
    return tuple(addresses)


def _parse(entry: str) -> Address:
    if not entry:
        raise ValueError("is empty")
    if "@" in entry:
        raise ValueError("must hold no user and no password: connections to Kafka have no login")
    scheme, separator, _ = entry.partition("://")
    if separator and scheme.lower() == _PLAINTEXT:
        raise ValueError(f"begins with {_PLAINTEXT.upper()}://, as listeners do in Kafka's own settings: leave that out")
    if separator and scheme.lower() in {"ssl", "sasl_ssl", "sasl_plaintext"}:
        raise ValueError("names a listener with TLS or a login, and connections to Kafka have neither: name one of PLAINTEXT")
    if separator or "/" in entry:
        raise ValueError("is a URL or a path, not an address")
    if any(character.isspace() for character in entry):
        raise ValueError("has a space in it: addresses are separated by commas")
    host, port = _split(entry)
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= _PORT_MAX and len(port) <= len(str(_PORT_MAX))):
        raise ValueError(f"has no port from 1 to {_PORT_MAX}")
    return Address(host, int(port))


def _split(entry: str) -> tuple[str, str]:
    """Host and port as they are written; an IPv6 address is one."""
    if entry.startswith("["):
        host, bracket, port = entry[1:].partition("]")
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            bracket = ""
        if not bracket:
            raise ValueError("has no IPv6 address within its brackets")
        return host, port.removeprefix(":") if port.startswith(":") else ""
    if entry.count(":") > 1:
        raise ValueError("has more than one colon: an IPv6 address stands in brackets, as in [::1]:9092")
    host, _, port = entry.partition(":")
    if not _HOST.fullmatch(host):
        raise ValueError("has no host name")
    return host, port
