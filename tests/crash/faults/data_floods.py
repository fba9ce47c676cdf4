"""Very many bad messages at once, and giant ones."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from random import Random

from crash.faults import fault
from crash.faults.data import DRAIN_SECONDS, MEBIBYTE, behind, letters_by_reason, pace, write_backlog
from crash.messages import BAD_KINDS, Ending, Message, good, messages
from crash.system import Setup, System
from crash.topic_producer import TopicProducer
from dev_servers.made_up_logins import MadeUpLogin, made_up_logins

FLOOD_RECORDS = 40_000
FLOOD_RECORDS_PER_SECOND = 2_000
"""Of the steady flood: of what one bridge can bring on a machine of its own, more than half."""
FLOOD_SECONDS = 8
STEADY_SECONDS_MAX = 8.0
"""From sent to committed, 99 % of the good rows beside the steady flood: each second's bad ones come at once, take two cores a
second, and twice that where others work too; as much again for a rebalance or a slow write."""
SUDDEN_SECONDS_MAX = 20.0
"""The same while the sudden one is there: at most all of it stands before a good row, which is 40,000 at no less than 2,000/s."""
LIGHT_KINDS = tuple(kind for kind in BAD_KINDS if kind not in {"too-deep", "huge-number"})
GIANTS = 160
GIANTS_BY_QUEUE = 40


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
    letters = sum(letters_by_reason(system).values())
    producer.send(islice(flood, FLOOD_RECORDS))
    system.mended()
    sudden_to, ends = time.time(), system.log_ends()
    system.prove("a flood waits to be written", lambda: behind(system, ends))
    system.wait("the flood is written", lambda: not behind(system, ends), DRAIN_SECONDS)
    written_at = time.time()
    ((beside,),) = system.query(
        """SELECT count(*) FROM user_logins WHERE pg_xact_commit_timestamp(xmin) BETWEEN
            (SELECT min(pg_xact_commit_timestamp(xmin)) FROM dead_letters WHERE sent_at >= to_timestamp(%(from)s))
            AND (SELECT max(pg_xact_commit_timestamp(xmin)) FROM dead_letters WHERE sent_at >= to_timestamp(%(from)s))""",
        {"from": sudden_from},
    )
    system.prove("good rows were written while the flood was", lambda: beside > 0)
    assert sum(letters_by_reason(system).values()) >= letters + FLOOD_RECORDS
    beside_steady, behind_sudden = _delays(system, steady_from, sudden_from), _delays(system, sudden_from, written_at)
    yield (
        f"{FLOOD_RECORDS:,} dead letters at once: {pace(system, sudden_from, sudden_to)}; from sent to committed before:"
        f" {_delays(system, before_from, steady_from)}; beside {FLOOD_RECORDS_PER_SECOND:,} bad ones/s: {beside_steady};"
        f" while the flood was there: {behind_sudden}"
    )
    assert beside_steady.most < STEADY_SECONDS_MAX, "good rows wait for the bad ones beside them"
    assert behind_sudden.most < SUDDEN_SECONDS_MAX, "good rows wait for longer than the flood takes"


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
    filled = write_backlog(system, lambda: producer.send(giants))
    received = sum(system.metric(worker, "stream_fetch_bytes_sum") for worker in system.workers)
    system.prove("the workers have read them all", lambda: received > GIANTS * MEBIBYTE)
    system.workload.messages_per_second = system.setup.messages_per_second
    yield f"by the queue {pace(system, by_queue_from, by_queue_to)}; from a full topic {pace(system, *filled)}"
