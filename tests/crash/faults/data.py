"""Messages that can't become rows, at every share and all at once; giant ones; rows and dead letters that Postgres refuses."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from random import Random
from typing import Any

from crash.faults import fault
from crash.faults.postgres import over_partitions
from crash.messages import BAD_KINDS, UNTIDY_SHARE, Ending, Message, bad, good, messages, untidy
from crash.system import Setup, System
from crash.topic_producer import TopicProducer
from dev_servers.made_up_logins import MadeUpLogin, made_up_logins

MEBIBYTE = 1_048_576
BACKLOG_RECORDS = 20_000
HEAVY_RECORDS = 10
"""Of each kind that is heavy, on top."""

FLOOD_RECORDS = 40_000
FLOOD_RECORDS_PER_SECOND = 2_000
"""Of the steady flood: of what one bridge can bring on a machine of its own, more than half."""
FLOOD_SECONDS = 8
GIANTS = 160
GIANTS_BY_QUEUE = 40
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
        for version in ("1.2.3.4", "2.3.0-beta", "-1.0", "1.1000", "99999.1", "1.", "\u0663.1")
    },
    **{
        f"address {address}": (_with(ip=address), "invalid_ip", "ip")
        for address in ("localhost", "1.2.3", "01.2.3.4", "1.2.3.4/24", "2130706433", "::g", "fe80::1%eth0")
    },
}
"""What SQS may not take, and more of what it does: by name the record's value, and the dead letter's reason and field."""

HEAVY_KINDS: Mapping[str, tuple[Make, str, str | None]] = {
    "100,000-arrays": (lambda _: b"[" * 100_000 + b"]" * 100_000, "too_deep", None),
    "100,000-digits": (_user_id(b"9" * 100_000), "wrong_type", "user_id"),
    "nonsense-of-1-mebibyte": (lambda _: (b"\x01nonsense" * MEBIBYTE)[:MEBIBYTE], "not_json", None),
}
LIGHT_KINDS = tuple(kind for kind in BAD_KINDS if kind not in {"too-deep", "huge-number"})


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


@dataclass(frozen=True, slots=True)
class _Delays:
    """Of the rows whose messages were sent between two moments: seconds from sent to committed."""

    rows: int
    half: float
    most: float

    def __str__(self) -> str:
        return f"{self.half:.2f} s for half of {self.rows:,} rows, {self.most:.2f} s for 99 %"


def _delays(system: System, sent_from: float, sent_before: float) -> _Delays:
    ((rows, quantiles),) = system.query(
        """SELECT count(*), percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP
               (ORDER BY extract(epoch FROM pg_xact_commit_timestamp(xmin) - sent_at)::float8)
        FROM user_logins WHERE sent_at >= to_timestamp(%s) AND sent_at < to_timestamp(%s)""",
        [sent_from, sent_before],
    )
    return _Delays(rows, *(quantiles or (0.0, 0.0)))


def _letters(system: System, sent_from: float = 0.0) -> dict[str, int]:
    """Dead letters by reason; of messages that were sent from this second on."""
    return dict(
        system.query("SELECT reason, count(*)::int FROM dead_letters WHERE sent_at >= to_timestamp(%s) GROUP BY 1", [sent_from])
    )


def _pace(system: System, sent_from: float, sent_before: float) -> str:
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
    pace = f", {(rows + letters) / seconds:,.0f} records/s" if seconds else ""
    return f"{rows:,} rows and {letters:,} dead letters in {seconds or 0:.1f} s{pace}"


def _behind(system: System, ends: Mapping[int, int]) -> bool:
    """Whether a position is before one of these offsets."""
    positions = system.positions()
    return any(positions.get(partition, 0) < end for partition, end in ends.items())


def _write_backlog(system: System, fill: Callable[[], None]) -> tuple[float, float]:
    """Fill the topic while no worker runs, start them again, and wait until it is written; between when it was filled."""
    workers = system.workers
    assert set(system.processes.stop(*workers).values()) == {0}
    filled_from = time.time()
    fill()
    filled_to, ends = time.time(), system.log_ends()
    for worker in workers:
        system.start_worker(worker)
    system.wait("the backlog is written", lambda: not _behind(system, ends), DRAIN_SECONDS)
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

    filled = _write_backlog(system, fill)
    system.prove("there are dead letters of every reason", lambda: _letters(system, filled[0]).keys() >= reasons)
    return f"{share:.0%} bad, from a full topic: {_pace(system, *filled)}"


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
    recovery_seconds=20,
    setup=Setup(bad_share=0.5),
    soak=True,
)
def bad_input_50_percent(system: System) -> Iterator[str]:
    """Of every kind, every second one, at full speed."""
    yield _bad_input(system, 0.5)


@fault(
    "bad-input-only",
    "Workers go on although nothing that comes can be a row.",
    recovery_seconds=20,
    setup=Setup(bad_share=1.0),
)
def bad_input_only(system: System) -> Iterator[str]:
    """Nothing but bad ones, at full speed."""
    yield _bad_input(system, 1.0)


@fault(
    "dead-letter-flood",
    "Good rows flow on beside a steady flood; behind a sudden one they come when what stands before them in the topic is written."
    " Memory stays bounded.",
    recovery_seconds=30,
    setup=Setup(bad_share=0.0),
)
def dead_letter_flood(system: System) -> Iterator[str]:
    """Beside the good traffic come bad messages, first many times as many all the time, then very many at once."""
    producer = TopicProducer(system)
    flood = messages(system.chance, 1.0, LIGHT_KINDS)
    before_from = time.time()
    system.rest(4)
    steady_from = time.time()
    for second in range(FLOOD_SECONDS):
        producer.send(islice(flood, FLOOD_RECORDS_PER_SECOND))
        system.rest(max(0.0, steady_from + second + 1 - time.time()))
    sudden_from = time.time()
    letters = sum(_letters(system).values())
    producer.send(islice(flood, FLOOD_RECORDS))
    sudden_to, ends = time.time(), system.log_ends()
    system.prove("a flood waits to be written", lambda: _behind(system, ends))
    system.wait("the flood is written", lambda: not _behind(system, ends), DRAIN_SECONDS)
    written_at = time.time()
    ((beside,),) = system.query(
        """SELECT count(*) FROM user_logins WHERE pg_xact_commit_timestamp(xmin) BETWEEN
            (SELECT min(pg_xact_commit_timestamp(xmin)) FROM dead_letters WHERE sent_at >= to_timestamp(%(from)s))
            AND (SELECT max(pg_xact_commit_timestamp(xmin)) FROM dead_letters WHERE sent_at >= to_timestamp(%(from)s))""",
        {"from": sudden_from},
    )
    system.prove("good rows were written while the flood was", lambda: beside > 0)
    assert sum(_letters(system).values()) >= letters + FLOOD_RECORDS
    yield (
        f"{FLOOD_RECORDS:,} dead letters at once: {_pace(system, sudden_from, sudden_to)}; from sent to committed before:"
        f" {_delays(system, before_from, steady_from)}; beside {FLOOD_RECORDS_PER_SECOND:,} bad ones/s:"
        f" {_delays(system, steady_from, sudden_from)}; while the flood was there: {_delays(system, sudden_from, written_at)}"
    )


# --- giant messages


def _giant(chance: Random, login: MadeUpLogin) -> Message:
    """A body of 1 MiB, the most that SQS takes, hardly to be compressed: a row that comes with a huge unknown key, or nonsense."""
    if chance.random() < 0.5:
        text = chance.randbytes(MEBIBYTE // 2).hex()
        return Message(text, Ending.DEAD_LETTER, (login.ip, login.device_id), reason="not_json")
    start = f'{login.body()[:-1]}, "later": "'
    text = chance.randbytes(MEBIBYTE // 2).hex()[: MEBIBYTE - len(start) - 2]
    return replace(good(login), body=f'{start}{text}"}}')


@fault(
    "giant-messages",
    "Bodies of 1 MiB pass, as rows or as dead letters; memory stays bounded in bytes.",
    recovery_seconds=40,
)
def giant_messages(system: System) -> Iterator[str]:
    """For a while nothing else comes: first through the queue, then from a full topic."""
    giants = (_giant(system.chance, login) for login in made_up_logins(GIANTS_BY_QUEUE + GIANTS, system.chance.getrandbits(32)))
    producer = TopicProducer(system)
    system.moment()
    system.workload.messages_per_second = 0
    system.wait("all is written that came before", system.is_drained)
    by_queue_from = time.time()
    system.workload.send(list(islice(giants, GIANTS_BY_QUEUE)))
    system.wait("the giants of the queue are written", system.is_drained, DRAIN_SECONDS)
    by_queue_to = time.time()
    filled = _write_backlog(system, lambda: producer.send(giants))
    received = sum(system.metric(worker, "stream_fetch_bytes_sum") for worker in system.workers)
    system.prove("the workers have read them all", lambda: received > GIANTS * MEBIBYTE)
    system.workload.messages_per_second = system.setup.messages_per_second
    yield f"by the queue {_pace(system, by_queue_from, by_queue_to)}; from a full topic {_pace(system, *filled)}"


# --- what Postgres refuses


def _refused_by_constraint(login: MadeUpLogin) -> Message:
    """A good login, but for the constraint that somebody has added."""
    body = replace(login, device_type="refused").body()
    return Message(body, Ending.DEAD_LETTER, (login.ip, login.device_id), reason="row_refused")


def _some_refused(chance: Random, count: int, share: float) -> Iterator[Message]:
    for login in made_up_logins(count, chance.getrandbits(32)):
        yield _refused_by_constraint(login) if chance.random() < share else good(login)


def _rows_refused(system: System, share: float, records: int) -> str:
    producer = TopicProducer(system)
    system.moment()
    # Postgres logs all it can: the workers' statements hold no raw value, so its log holds none.
    database = system.dsn.rpartition("/")[2]
    for setting in ("log_statement = 'all'", "log_parameter_max_length_on_error = -1", "log_error_verbosity = 'verbose'"):
        system.query(f'ALTER DATABASE "{database}" SET {setting}')
    system.query("ALTER TABLE user_logins ADD CONSTRAINT no_such_device CHECK (device_type <> 'refused')")
    filled = _write_backlog(system, lambda: producer.send(_some_refused(system.chance, records, share)))
    splits = sum(system.metric(worker, "stream_batch_splits_total") for worker in system.workers)
    refused = system.prove("rows were refused", lambda: _letters(system).get("row_refused", 0))
    system.query("ALTER TABLE user_logins DROP CONSTRAINT no_such_device")
    return f"{refused:,} rows of {records:,} refused: {_pace(system, *filled)}, batches halved {splits:,.0f} times"


@fault(
    "rows-refused-1-percent",
    "A row that Postgres refuses (a constraint was added) is one dead letter; all others are written.",
    recovery_seconds=30,
)
def rows_refused_1_percent(system: System) -> Iterator[str]:
    """One row in a hundred, in full windows."""
    yield _rows_refused(system, 0.01, 10_000)


@fault(
    "rows-refused-50-percent",
    "A row that Postgres refuses (a constraint was added) is one dead letter; all others are written, at the pace of one by one.",
    recovery_seconds=60,
)
def rows_refused_50_percent(system: System) -> Iterator[str]:
    """Every second row, in full windows: the most that halving can cost."""
    yield _rows_refused(system, 0.5, 4_000)


@fault(
    "dead-letters-refused",
    "While Postgres takes no dead letter, a partition that has one stops before it and says so; nothing is skipped. It goes on by"
    " itself.",
    recovery_seconds=25,
    setup=Setup(bad_share=0.05),
    soak=True,
)
def dead_letters_refused(system: System) -> Iterator[str]:
    """The workers' role loses the right to store dead letters."""
    system.moment()
    system.query("REVOKE INSERT ON dead_letters FROM stream_writer")
    try:
        stopped = system.prove("a partition has stopped", lambda: over_partitions(system, "stream_partition_stopped"), 30)
        letters = sum(_letters(system).values())
        system.rest(3)
        assert sum(_letters(system).values()) == letters
    finally:
        system.query("GRANT INSERT ON dead_letters TO stream_writer")
    yield f"{stopped:.0f} partitions stood still"
