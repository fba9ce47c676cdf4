"""Records that no bridge of ours writes so: without its headers, of transactions, the same one again and again, all of one key."""

import time
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from itertools import islice
from typing import Any

from crash.faults import fault
from crash.messages import Ending, Message, bad, good, messages
from crash.system import Setup, System
from crash.topic_producer import Headers, TopicProducer
from dev_servers.made_up_logins import MadeUpLogin, made_up_logins
from pipeline.contract import HEADER_MESSAGE_ID, HEADER_SENT_AT

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
RECORDS_OF_EACH = 300
TIMES = 100
SAME_IN_BOTH = 3_000
HOT_RECORDS = 30_000
OTHERS_SECONDS_MAX = 5.0
"""From sent to committed, 99 % of what is in other partitions: a window and a write take less than one second; the rest is for a
machine on which others work."""
LEFT_OPEN_SECONDS = 45
"""The transaction's time: longer than it takes a worker to name one (30 s)."""
ABORTED_WITHIN_SECONDS = 20
"""Beyond that: the broker looks every 10 s, and a worker every 5 s."""
YEAR_9999_MS = 253_402_300_799_000
MINUTE_MS, DAY_MS = 60_000, 86_400_000


def _logins(system: System, count: int) -> list[MadeUpLogin]:
    return list(made_up_logins(count, system.chance.getrandbits(32)))


def _without_a_good_header(message: Message, header: str) -> Message:
    """What becomes of a good one whose header is not well formed."""
    return replace(message, ending=Ending.DEAD_LETTER, columns=None, reason="header_invalid", field=header)


def _strange_ones(producer: TopicProducer, logins: Iterator[MadeUpLogin]) -> int:
    """Records with headers as other producers write them; how many."""
    message_id = producer.new_id
    now = time.time_ns() // 1_000_000

    def headers(message_id: str | bytes | None, sent_at: Any) -> Headers:
        as_bytes = message_id.encode() if isinstance(message_id, str) else message_id
        return [(HEADER_MESSAGE_ID, as_bytes), (HEADER_SENT_AT, sent_at if sent_at is None else str(sent_at).encode())]

    fine: list[tuple[Headers, int | None]] = [
        ([], None),
        ([("traceparent", b"x"), ("a", None)], None),
        (headers(message_id(), now)[::-1], now),
        (headers(message_id().upper(), now), now),
        ([*headers(message_id(), now), *headers(message_id(), "not the first")], now),
        (headers(message_id(), now)[:1], None),
        (headers(None, now)[1:], now),
        (headers(message_id(), now - DAY_MS), now - DAY_MS),
        (headers(message_id(), now + MINUTE_MS), now + MINUTE_MS),
    ]
    for strange, sent_at in fine:
        producer.send_strange(good(next(logins)), strange, sent_at)
    wrong: list[tuple[str, Headers, int | None]] = [
        (HEADER_MESSAGE_ID, headers("17", now), now),
        (HEADER_MESSAGE_ID, headers(None, now), now),
        (HEADER_MESSAGE_ID, headers(b"\xff\0", now), now),
        (HEADER_MESSAGE_ID, headers(message_id().replace("-", ""), now), now),
        (HEADER_MESSAGE_ID, headers("{" + message_id() + "}", now), now),
        (HEADER_SENT_AT, headers(message_id(), None), None),
        (HEADER_SENT_AT, headers(message_id(), "yesterday"), None),
        (HEADER_SENT_AT, headers(message_id(), -1), None),
        (HEADER_SENT_AT, headers(message_id(), YEAR_9999_MS * 10), None),
        (HEADER_SENT_AT, headers(message_id(), f" {now}"), None),
    ]
    for header, strange, sent_at in wrong:
        producer.send_strange(_without_a_good_header(good(next(logins)), header), strange, sent_at)
    implausible = (0, now // 1_000, now - 365 * DAY_MS, now + 2 * DAY_MS, YEAR_9999_MS)
    for time_ms in implausible:
        letter = _without_a_good_header(good(next(logins)), HEADER_SENT_AT)
        producer.send_strange(replace(letter, reason="sent_at_implausible"), headers(message_id(), time_ms), None)
    producer.send_strange(Message("", Ending.DEAD_LETTER, ("", ""), reason="empty_body"), [], None)
    producer.send_strange(bad("null", next(logins)), [], None)
    return len(fine) + len(wrong) + len(implausible) + 2


@fault(
    "records-of-other-producers",
    "Whoever wrote a record, with whatever codec and headers: it ends as one row or one dead letter. What a transaction took back"
    " was never there.",
    recovery_seconds=15,
)
def other_producers(system: System) -> Iterator[str]:
    """Every codec; headers missing, strange, wrong; tombstones; transactions that are committed, and some that are aborted."""
    system.moment()
    source = messages(system.chance, 0.05)
    for codec in CODECS:
        TopicProducer(system, {"compression.type": codec}).send(islice(source, RECORDS_OF_EACH))
    strange = _strange_ones(TopicProducer(system), iter(_logins(system, 100)))
    for number, aborted in enumerate((False, True, True, False)):
        producer = TopicProducer(system, {"transactional.id": f"{system.name}-{number}"})
        producer.send_in_transaction(list(islice(source, RECORDS_OF_EACH)), aborted=aborted)
    system.mended()
    system.wait_flowing(300)  # behind the transactions' ends, in every partition
    skipped = system.prove(
        "the ends of transactions were passed",
        lambda: sum(system.metric(worker, "stream_offsets_skipped_total") for worker in system.workers),
    )
    yield f"{len(CODECS)} codecs, {strange} records with strange headers, 4 transactions; {skipped:.0f} offsets of no record passed"


@fault(
    "transaction-left-open",
    "What is behind a transaction that a dead producer left open waits, and is shown as lag, named, and no cause for a restart;"
    " other partitions flow on. When the broker has aborted it, all that is behind it is written.",
    recovery_seconds=20,
    setup=Setup(messages_per_second=100),
)
def transaction_left_open(system: System) -> Iterator[str]:
    """In one partition; the broker aborts it when the producer's time is over."""
    partition = system.chance.randrange(len(system.log_ends()))
    left_open = list(islice(messages(system.chance, 0.05), RECORDS_OF_EACH))
    system.moment()

    def shown(gauge: str) -> float:
        """Of that partition, by the worker that has it."""
        return sum(system.metric(worker, f"stream_partition_{gauge}", partition=str(partition)) for worker in system.workers)

    def told(event: str) -> bool:
        lines = [line for worker in system.workers for line in system.log(worker).splitlines()]
        return any(f" {event} " in line and f" partition={partition} " in line for line in lines)

    settings: dict[str, str | int] = {
        "transactional.id": f"{system.name}-dead",
        "transaction.timeout.ms": LEFT_OPEN_SECONDS * 1_000,
    }
    TopicProducer(system, settings).leave_transaction_open(left_open, partition)
    system.prove("records wait behind it", lambda: shown("lag_records") > RECORDS_OF_EACH + 100, 30)
    system.prove("the log names it", lambda: told("transaction_open"), LEFT_OPEN_SECONDS)
    at = system.positions()[partition]
    answers = [system.processes.readyz(worker) for worker in system.workers]
    assert [status for status, says in answers if f"/{partition}" in says] == [HTTPStatus.SERVICE_UNAVAILABLE]
    assert {system.processes.livez(worker)[0] for worker in system.workers} == {HTTPStatus.OK}
    system.wait_flowing()  # in the other partitions
    lag_records, lag_seconds = shown("lag_records"), shown("lag_seconds")
    assert system.positions()[partition] == at
    system.prove("the broker has aborted it", lambda: told("transaction_over"), LEFT_OPEN_SECONDS + ABORTED_WITHIN_SECONDS)
    system.mended()
    system.wait("its partition moves", lambda: system.positions()[partition] > at + RECORDS_OF_EACH)
    system.wait_flowing(200)  # behind the control record of its end
    yield f"{lag_records:,.0f} records, {len(left_open)} of them taken back, waited for {lag_seconds:.0f} s at least"
    assert shown("open_transaction_seconds") == 0
    assert not any("partition_read_again" in system.log(worker) for worker in system.workers)


@fault(
    "duplicates",
    "A message that comes a hundred times is one row or one dead letter, in whichever partitions and order its records are.",
    recovery_seconds=20,
    soak=True,
)
def duplicates(system: System) -> Iterator[str]:
    """Some a hundred times in a row; thousands once in each partition, in opposite orders, so that writes wait for each other."""
    producer = TopicProducer(system)
    logins = _logins(system, SAME_IN_BOTH + 20)
    again = [(producer.new_id(), good(login)) for login in logins[:10]]
    again += [(producer.new_id(), bad("null", login)) for login in logins[10:20]]
    everywhere = [(producer.new_id(), good(login)) for login in logins[20:]]
    system.moment()
    workers = system.workers
    assert set(system.processes.stop(*workers).values()) == {0}
    producer.send_as(again, times=TIMES)
    sent_at_ms = producer.send_as(everywhere, partition=0)
    for partition in range(1, len(system.log_ends())):
        producer.repeat(everywhere[::-1] if partition % 2 else everywhere, sent_at_ms, partition=partition)
    for worker in workers:
        system.start_worker(worker)
    system.mended()
    system.processes.wait_ready(*workers)
    superfluous = len(again) * (TIMES - 1) + len(everywhere) * (len(system.log_ends()) - 1)
    system.prove(
        "all the superfluous ones were skipped",
        lambda: sum(system.metric(worker, "stream_duplicates_skipped_total") for worker in workers) >= superfluous,
        60,
    )
    deadlocks = sum(system.metric(worker, "stream_database_retries_total", sqlstate_class="40") for worker in workers)
    yield f"{superfluous:,} superfluous records were skipped; {deadlocks:.0f} writes met in a deadlock and were made again"


@fault(
    "one-partition-hot",
    "Nearly all messages are of one user, and so in one partition: the other partitions flow on.",
    recovery_seconds=20,
    soak=True,
    setup=Setup(workers=2),
)
def one_partition_hot(system: System) -> Iterator[str]:
    """Very many records of one key at once."""
    (user,) = _logins(system, 1)
    hot = (good(replace(login, user_id=user.user_id)) for login in _logins(system, HOT_RECORDS))
    producer = TopicProducer(system)
    system.moment()
    began, before = time.time(), system.log_ends()
    producer.send(hot)
    system.mended()
    ends = system.log_ends()
    (partition,) = (number for number, end in ends.items() if end - before[number] >= HOT_RECORDS)
    system.prove("it is behind", lambda: system.positions()[partition] < ends[partition])
    system.wait("it is written", lambda: system.positions()[partition] >= ends[partition])
    ((hot_rows, hot_seconds, others, other_seconds),) = system.query(
        """SELECT count(*) FILTER (WHERE hot), max(delay) FILTER (WHERE hot), count(*) FILTER (WHERE NOT hot),
            percentile_cont(0.99) WITHIN GROUP (ORDER BY delay) FILTER (WHERE NOT hot)
        FROM (
            SELECT user_id = %(user)s AS hot, extract(epoch FROM pg_xact_commit_timestamp(xmin) - sent_at)::float8 AS delay
            FROM user_logins WHERE sent_at >= to_timestamp(%(began)s)
        ) AS rows""",
        {"user": user.user_id, "began": began},
    )
    assert hot_rows == HOT_RECORDS
    yield (
        f"{hot_rows:,} rows of one user, the last after {hot_seconds:.1f} s; meanwhile {others:,} others, 99 % within"
        f" {other_seconds:.1f} s"
    )
    assert other_seconds < OTHERS_SECONDS_MAX, "the other partitions wait for the one that is hot"
