"""What the workload sends, and what must become of it: written down here apart from the product, so that a fault in it shows."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from ipaddress import IPv6Address
from random import Random
from typing import Any

from dev_servers.made_up_logins import MadeUpLogin, made_up_logins

LOGINS_A_ROUND = 3_000
UNTIDY_SHARE = 0.1


class Ending(StrEnum):
    """Where a message must end."""

    ROW = "row"
    DEAD_LETTER = "dead letter"
    QUEUE_DEAD_LETTER = "queue's dead letter"
    """In SQS's own dead-letter queue: Kafka refuses its record for ever."""


@dataclass(frozen=True, slots=True)
class Columns:
    """A row as it must be, the masked columns opened."""

    user_id: str
    device_type: str
    ip: str
    device_id: str
    locale: str | None
    app_version: int


@dataclass(frozen=True, slots=True)
class Message:
    """One message and its ending."""

    body: str
    ending: Ending
    raw_values: tuple[str, str]
    """An IP address and a device id in the body: these must be found nowhere in the clear."""
    columns: Columns | None = None
    """Of a row."""
    reason: str | None = None
    """Of a dead letter."""
    field: str | None = None
    other_value: bytes | None = None
    """The record's value where it does not come by SQS, which takes no such body."""

    @property
    def value(self) -> bytes:
        """What stands in the topic; of a record without a value: nothing."""
        return self.body.encode("utf-8", "surrogatepass") if self.other_value is None else self.other_value


def good(login: MadeUpLogin) -> Message:
    """A login as apps send it."""
    return Message(login.body(), Ending.ROW, (login.ip, login.device_id), _columns(login))


def untidy(login: MadeUpLogin) -> Message:
    """A login that needs cleaning: white space, an unknown key, a build, a list of addresses, IPv6 in its long form, no locale."""
    long_ip = IPv6Address(login.ip).exploded.upper() if ":" in login.ip else login.ip
    body = {
        **asdict(login),
        "user_id": f"  {login.user_id}\t",
        "ip": f" {long_ip}, 10.0.0.1",
        "app_version": f" v{login.app_version} (7) ",
        "locale": login.locale or " ",
        "later": {"than": ["this version"]},
    }
    return Message(json.dumps(body), Ending.ROW, (login.ip, login.device_id), _columns(login))


def _columns(login: MadeUpLogin) -> Columns:
    parts = [int(part) for part in login.app_version.split(".")] + [0, 0]
    app_version = parts[0] * 1_000_000 + parts[1] * 1_000 + parts[2]
    return Columns(login.user_id, login.device_type, login.ip, login.device_id, login.locale, app_version)


def _changed(**changes: Any) -> Callable[[MadeUpLogin], str]:
    return lambda login: json.dumps({**asdict(login), **changes})


def _without(key: str) -> Callable[[MadeUpLogin], str]:
    return lambda login: json.dumps({name: value for name, value in asdict(login).items() if name != key})


BAD_KINDS: Mapping[str, tuple[Callable[[MadeUpLogin], str], str, str | None]] = {
    "other-kind": (lambda login: json.dumps({"foo": login.ip, "bar": login.device_id}), "missing_key", "user_id"),
    "not-json": (lambda login: f"{login.ip} {login.device_id}", "not_json", None),
    "half-json": (lambda login: login.body()[:-1], "not_json", None),
    "list": (lambda login: json.dumps([login.ip, login.device_id]), "not_an_object", None),
    "number": (lambda _: "17", "not_an_object", None),
    "missing-key": (_without("device_id"), "missing_key", "device_id"),
    "null": (_changed(ip=None), "null_value", "ip"),
    "wrong-type": (_changed(user_id=17), "wrong_type", "user_id"),
    "object-in-field": (_changed(device_type={"a": 1}), "wrong_type", "device_type"),
    "empty": (_changed(user_id="  "), "empty_value", "user_id"),
    "too-long": (_changed(user_id="u" * 129), "too_long", "user_id"),
    "nul": (_changed(user_id="a\0b"), "control_character", "user_id"),
    "separator": (_changed(locale="D\x1fE"), "control_character", "locale"),
    "lone-surrogate": (_changed(device_type="\ud800"), "lone_surrogate", "device_type"),
    "invalid-ip": (_changed(ip="256.1.1.1"), "invalid_ip", "ip"),
    "invalid-version": (_changed(app_version="2.3.0-beta"), "invalid_app_version", "app_version"),
    "too-deep": (lambda _: "[" * 20_000 + "]" * 20_000, "too_deep", None),
    "huge-number": (lambda login: login.body()[:-1] + ', "user_id": ' + "9" * 20_000 + "}", "wrong_type", "user_id"),
}
"""By name: the body, made of a login, and the dead letter's reason and field."""


def bad(kind: str, login: MadeUpLogin) -> Message:
    """A message that can't become a row."""
    make, reason, field = BAD_KINDS[kind]
    return Message(make(login), Ending.DEAD_LETTER, (login.ip, login.device_id), reason=reason, field=field)


def messages(chance: Random, bad_share: float = 0.0, bad_kinds: tuple[str, ...] = tuple(BAD_KINDS)) -> Iterator[Message]:
    """Messages without end: this share bad ones, of the other some untidy."""
    while True:
        for login in made_up_logins(LOGINS_A_ROUND, chance.getrandbits(32)):
            if chance.random() < bad_share:
                yield bad(chance.choice(bad_kinds), login)
            else:
                yield untidy(login) if chance.random() < UNTIDY_SHARE else good(login)
