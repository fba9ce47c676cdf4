"""Messages that can't become rows, at every share."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from random import Random
from typing import Any

from crash.faults import fault
from crash.messages import BAD_KINDS, UNTIDY_SHARE, Ending, Message, bad, good, untidy
from crash.system import Setup, System
from crash.topic_producer import TopicProducer
from dev_servers.made_up_logins import MadeUpLogin, made_up_logins

MEBIBYTE = 1_048_576
BACKLOG_RECORDS = 20_000
HEAVY_RECORDS = 10
"""Of each kind that is heavy, on top."""

DRAIN_SECONDS = 90.0

Make = Callable[[MadeUpLogin], bytes]


def _user_id(instead: bytes) -> Make:
    """With these bytes in the place of the user id's value, quotes included."""
    return lambda login: replace(login, user_id="@@").body().encode().replace(b'"@@"', instead)


def _with(**changes: Any) -> Make:
    return lambda login: replace(login, **changes).body().encode()


OTHER_KINDS: Mapping[str, tuple[Make, str, str | None]] = {
    "tombstone": (lambda _: b"", "empty_body", None),
    "blank": (lambda _: b" \r\n\t", "empty_body", None),
    "latin-1": (_user_id(b'"Andr\xe9"'), "not_utf8", None),
    "surrogate-in-utf-8": (_user_id(b'"\xed\xa0\x80"'), "not_utf8", None),
    "raw-nul": (_user_id(b'"a\0b"'), "not_json", None),
    "raw-newline": (_user_id(b'"a\nb"'), "not_json", None),
    "not-a-number": (_user_id(b"NaN"), "not_json", None),
    "byte-order-mark": (lambda login: b"\xef\xbb\xbf" + login.body().encode(), "not_json", None),
    "trailing-comma": (lambda login: login.body().encode()[:-1] + b",}", "not_json", None),
    "twice": (lambda login: login.body().encode() * 2, "not_json", None),
    "text": (lambda login: json.dumps(login.body()).encode(), "not_an_object", None),
    "deep-in-a-field": (_user_id(b"[" * 5_000 + b"]" * 5_000), "too_deep", None),
    "boolean": (_user_id(b"true"), "wrong_type", "user_id"),
    "infinite": (_user_id(b"-1e999"), "wrong_type", "user_id"),
    "no-version": (_with(app_version=""), "empty_value", "app_version"),
    **{
        f"version {version}": (_with(app_version=version), "invalid_app_version", "app_version")
        for version in ("1.2.3.4.5", "2.3.0-rc.1", "-1.0", "1.0.x", "2.3 (beta)", "1.", "\u0663.1")
    },
    **{
        f"address {address}": (_with(ip=address), "invalid_ip", "ip")
        for address in ("localhost", "1.2.3", "01.2.3.4", "1.2.3.4/24", "2130706433", "::g", "unknown, 1.2.3.4")
    },
}
"""What SQS may not take, and more of what it does: by name the record's value, and the dead letter's reason and field."""

HEAVY_KINDS: Mapping[str, tuple[Make, str, str | None]] = {
    "100,000-arrays": (lambda _: b"[" * 100_000 + b"]" * 100_000, "too_deep", None),
    "100,000-digits": (_user_id(b"9" * 100_000), "wrong_type", "user_id"),
    "nonsense-of-1-mebibyte": (lambda _: (b"\x01nonsense" * MEBIBYTE)[:MEBIBYTE], "not_json", None),
}


def _of_kind(kinds: Mapping[str, tuple[Make, str, str | None]], kind: str, login: MadeUpLogin) -> Message:
    make, reason, field = kinds[kind]
    return Message("", Ending.DEAD_LETTER, (login.ip, login.device_id), reason=reason, field=field, other_value=make(login))


def _ip_twice(login: MadeUpLogin, other: MadeUpLogin) -> Message:
    """A good one with a duplicate key: the last one counts, and neither may be seen."""
    return replace(good(login), body=f'{{"ip": "{other.ip}", {login.body()[1:]}', raw_values=(other.ip, login.device_id))


def _mixed(chance: Random, count: int, bad_share: float) -> Iterator[Message]:
    """Of all kinds, good and bad."""
    names = (*BAD_KINDS, *OTHER_KINDS)
    last: MadeUpLogin | None = None
    for login in made_up_logins(count, chance.getrandbits(32)):
        if chance.random() < bad_share:
            name = chance.choice(names)
            yield bad(name, login) if name in BAD_KINDS else _of_kind(OTHER_KINDS, name, login)
        elif last is not None and chance.random() < UNTIDY_SHARE:
            yield chance.choice((untidy(login), _ip_twice(login, last)))
        else:
            yield good(login)
        last = login


# --- looking


def letters_by_reason(system: System, sent_from: float = 0.0) -> dict[str, int]:
    """Dead letters by reason; of messages that were sent from this second on."""
    return dict(
        system.query("SELECT reason, count(*)::int FROM dead_letters WHERE sent_at >= to_timestamp(%s) GROUP BY 1", [sent_from])
    )


def pace(system: System, sent_from: float, sent_before: float) -> str:
    """What came of messages that were sent between two moments, and how fast it was committed."""
    ((rows, letters, seconds),) = system.query(
        """SELECT count(*) FILTER (WHERE is_row), count(*) FILTER (WHERE NOT is_row),
                  extract(epoch FROM max(committed_at) - min(committed_at))::float8
        FROM (
            SELECT true AS is_row, pg_xact_commit_timestamp(xmin) AS committed_at, sent_at FROM user_logins
            UNION ALL SELECT false, pg_xact_commit_timestamp(xmin), sent_at FROM dead_letters
        ) AS written WHERE sent_at >= to_timestamp(%s) AND sent_at < to_timestamp(%s)""",
        [sent_from, sent_before],
    )
    speed = f", {(rows + letters) / seconds:,.0f} records/s" if seconds else ""
    return f"{rows:,} rows and {letters:,} dead letters in {seconds or 0:.1f} s{speed}"


def behind(system: System, ends: Mapping[int, int]) -> bool:
    """Whether a position is before one of these offsets."""
    positions = system.positions()
    return any(positions.get(partition, 0) < end for partition, end in ends.items())


def write_backlog(system: System, fill: Callable[[], None]) -> tuple[float, float]:
    """Fill the topic while no worker runs, start them again, and wait until it is written; between when it was filled."""
    workers = system.workers
    assert set(system.processes.stop(*workers).values()) == {0}
    filled_from = time.time()
    fill()
    filled_to, ends = time.time(), system.log_ends()
    for worker in workers:
        system.start_worker(worker)
    system.mended()
    system.wait("the backlog is written", lambda: not behind(system, ends), DRAIN_SECONDS)
    return filled_from, filled_to


# --- bad messages


def _bad_input(system: System, share: float) -> str:
    reasons = {reason for _, reason, _ in (*BAD_KINDS.values(), *OTHER_KINDS.values(), *HEAVY_KINDS.values())}
    producer = TopicProducer(system)
    system.moment()

    def fill() -> None:
        producer.send(_mixed(system.chance, BACKLOG_RECORDS, share))
        for kind in HEAVY_KINDS:
            producer.send(
                _of_kind(HEAVY_KINDS, kind, login) for login in made_up_logins(HEAVY_RECORDS, system.chance.getrandbits(32))
            )
        system.workload.burst(1_000)

    filled = write_backlog(system, fill)
    system.prove("there are dead letters of every reason", lambda: letters_by_reason(system, filled[0]).keys() >= reasons)
    return f"{share:.0%} bad, from a full topic: {pace(system, *filled)}"


@fault(
    "bad-input-1-percent",
    "Each message that can't be a row is a dead letter with its reason and field; the others are rows.",
    recovery_seconds=20,
    soak=True,
)
def bad_input_1_percent(system: System) -> Iterator[str]:
    """Of every kind, one in a hundred, at full speed."""
    yield _bad_input(system, 0.01)


@fault(
    "bad-input-50-percent",
    "Each message that can't be a row is a dead letter with its reason and field; the others are rows.",
    recovery_seconds=40,  # half of the seconds that nothing but bad ones may take
    setup=Setup(bad_share=0.5),
    soak=True,
)
def bad_input_50_percent(system: System) -> Iterator[str]:
    """Of every kind, every second one, at full speed."""
    yield _bad_input(system, 0.5)


@fault(
    "bad-input-only",
    "Workers go on although nothing that comes can be a row.",
    recovery_seconds=60,  # each of 21,000 is sealed for itself, at 1,200/s and less where others work beside
    setup=Setup(bad_share=1.0),
)
def bad_input_only(system: System) -> Iterator[str]:
    """Nothing but bad ones, at full speed."""
    yield _bad_input(system, 1.0)
