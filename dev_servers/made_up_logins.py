"""Made-up logins for the demo, tests and benchmarks: the form of real ones, nobody's data, the same ones for the same seed."""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address
from uuid import UUID

SEED = 20_240_229
LOGINS_PER_PERSON = 3
SHARED_DEVICE_RATE = 0.05
SHARED_HOME_RATE = 0.15
ON_THE_ROAD_RATE = 0.2
IPV6_RATE = 0.1
NO_LOCALE_RATE = 0.3
TWO_PART_VERSION_RATE = 0.2

LOCALES = ("BR", "CN", "DE", "FR", "ID", "IT", "JP", "KE", "KR", "MX", "PH", "PL", "PT", "RU", "TH", "US", "VN")
DEVICE_TYPES = ("android", "ios")
DOCUMENTATION_IPV6 = 0x20010DB8 << 96
"""2001:db8::/32, which is nobody's (RFC 3849)."""

OTHER_KIND = json.dumps({"kind": "made-up-heartbeat", "status": "ok"})
"""The body of a message of another kind, such as strays into the queue now and then."""


@dataclass(frozen=True, slots=True)
class MadeUpLogin:
    """One login record, fields as apps send them."""

    user_id: str
    app_version: str
    device_type: str
    ip: str
    locale: str | None
    device_id: str

    def body(self) -> str:
        """The message: one JSON object."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class _Person:
    user_id: str
    app_version: str
    device_type: str
    home_ip: str
    locale: str | None
    device_id: str


def made_up_logins(count: int, seed: int = SEED) -> Iterator[MadeUpLogin]:
    """``count`` logins of a third as many persons, of whom some share a device (a household's tablet) or an IP (a home).

    Most logins come from the person's home, some from on the road.
    """
    chance = random.Random(seed)  # noqa: S311 - to be repeatable is the point
    persons: list[_Person] = []
    for _ in range(max(count // LOGINS_PER_PERSON, 1)):
        persons.append(_person(chance, persons[-1] if persons else None))
    for number in range(count):
        # Each person once, so that all who share are seen; then whoever comes.
        person = persons[number] if number < len(persons) else chance.choice(persons)
        ip = _ip(chance) if chance.random() < ON_THE_ROAD_RATE else person.home_ip
        yield MadeUpLogin(person.user_id, person.app_version, person.device_type, ip, person.locale, person.device_id)


def _person(chance: random.Random, neighbour: _Person | None) -> _Person:
    shares_device = neighbour is not None and chance.random() < SHARED_DEVICE_RATE
    shares_home = neighbour is not None and (shares_device or chance.random() < SHARED_HOME_RATE)
    return _Person(
        user_id=str(UUID(int=chance.getrandbits(128), version=4)),
        app_version=neighbour.app_version if neighbour is not None and shares_device else _app_version(chance),
        device_type=neighbour.device_type if neighbour is not None and shares_device else chance.choice(DEVICE_TYPES),
        home_ip=neighbour.home_ip if neighbour is not None and shares_home else _ip(chance),
        locale=None if chance.random() < NO_LOCALE_RATE else chance.choice(LOCALES),
        device_id=neighbour.device_id if neighbour is not None and shares_device else _device_id(chance),
    )


def _app_version(chance: random.Random) -> str:
    parts = 2 if chance.random() < TWO_PART_VERSION_RATE else 3
    return ".".join(str(chance.randrange(10)) for _ in range(parts))


def _device_id(chance: random.Random) -> str:
    return f"{chance.randrange(1_000):03}-{chance.randrange(100):02}-{chance.randrange(10_000):04}"


def _ip(chance: random.Random) -> str:
    """Any address from 1.0.0.0 on, multicast and reserved ones too: real traffic has them."""
    if chance.random() < IPV6_RATE:
        return str(IPv6Address(DOCUMENTATION_IPV6 | chance.getrandbits(96)))
    return str(IPv4Address(chance.randrange(1 << 24, 1 << 32)))
