"""Workers are killed at each step of a batch, several at once, and starved of file descriptors."""

from collections.abc import Iterator
from contextlib import closing
from resource import RLIMIT_NOFILE, prlimit

import psycopg2
from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from crash.faults import fault
from crash.system import Setup, System

PARTITIONS = 4
"""Of the topic, as the bridge makes it."""

STANDARD_STREAMS = 3
"""With no more file descriptors than these none can be opened."""

_WRITES_THAT_WAIT = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'WITH given AS%' AND pid <> pg_backend_pid()"""


def partitions_of(system: System, worker: str) -> list[int]:
    """Those that a worker has claimed."""
    return [p for p in range(PARTITIONS) if system.metric(worker, "stream_partition_next_offset", partition=str(p))]


def skipped(system: System) -> float:
    """Records that workers have read a second time and left out."""
    return sum(system.metric(worker, "stream_duplicates_skipped_total") for worker in system.workers)


@fault(
    "worker-killed-mid-batch",
    "What a killed worker held is read again by the others, from the position that its last write left.",
    recovery_seconds=15,
    setup=Setup(settings={"WINDOW_SECONDS": "1"}),
    fast=True,
    soak=True,
)
def killed_mid_batch(system: System) -> Iterator[str]:
    """Killed while records wait in an open window."""
    victim = system.worker
    system.moment()
    held = system.prove(f"{victim} holds records", lambda: system.buffered(victim))
    system.kill(victim)
    yield f"SIGKILL with {held} records in hand"
    survivor = system.workers[0]
    assert system.metric(survivor, "stream_rebalances_total") >= 2, "the survivor was given the killed one's partitions"


@fault(
    "worker-killed-during-write",
    "A write that Postgres carries out after its worker is dead counts; whoever comes next begins behind it.",
    recovery_seconds=15,
    soak=True,
)
def killed_during_write(system: System) -> Iterator[str]:
    """Another session's lock holds the statement up inside Postgres, so that the kill is sure to come before the commit."""
    victim = system.worker
    mine = partitions_of(system, victim)
    system.moment()
    with closing(psycopg2.connect(system.dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE user_logins IN SHARE MODE")
        system.prove("a write of each partition waits", lambda: system.query(_WRITES_THAT_WAIT)[0][0] >= PARTITIONS)
        before = system.positions()
        system.kill(victim)
        connection.rollback()
    system.mended()

    def moved() -> int:
        return sum(system.positions()[partition] - before[partition] for partition in mine)

    records = system.prove("Postgres carries its write out", moved, 2)  # before the group gives its partitions away
    yield f"SIGKILL, then {records} of its records were written"


@fault(
    "worker-killed-before-commit",
    "The position in Postgres counts: what was written and not yet committed to Kafka is not read again.",
    recovery_seconds=15,
    soak=True,
)
def killed_before_commit(system: System) -> Iterator[str]:
    """Paused to look, and killed if Kafka's offset is behind the position."""
    victim = system.worker
    mine = partitions_of(system, victim)
    system.moment()

    def behind() -> int:
        system.freeze(victim)
        positions, commits = system.positions(), system.commits()
        records = sum(positions[partition] - commits[partition] for partition in mine)
        if records == 0:
            system.thaw(victim)
        return records

    records = system.prove("Kafka's offset is behind the position", behind)
    system.kill(victim)
    yield f"SIGKILL with {records} records written and not committed to Kafka"
    assert skipped(system) == 0, "records were read again"


@fault(
    "worker-killed-during-rebalance",
    "A worker that dies while the group takes in another holds the others up for its session timeout, no longer.",
    recovery_seconds=20,
    soak=True,
)
def killed_during_rebalance(system: System) -> Iterator[str]:
    """A third worker joins; the group waits for all to join again when one is killed."""
    victim = system.worker
    admin = AdminClient({"bootstrap.servers": system.servers.kafka.bootstrap_servers})
    states = {ConsumerGroupState.PREPARING_REBALANCING, ConsumerGroupState.COMPLETING_REBALANCING}
    system.start_worker()
    system.prove(
        "the group rebalances", lambda: admin.describe_consumer_groups([system.name])[system.name].result().state in states, 40
    )
    system.kill(victim)
    yield "SIGKILL while the group waited for all to join"
    owned = sorted(partition for worker in system.workers for partition in partitions_of(system, worker))
    assert owned == list(range(PARTITIONS)), f"partitions {owned} are claimed by those who live"


@fault(
    "workers-killed-three-at-once",
    "The one that is left takes all partitions.",
    recovery_seconds=20,
    setup=Setup(workers=4, settings={"WINDOW_SECONDS": "1"}),
)
def three_killed_at_once(system: System) -> Iterator[str]:
    """Of four, with a partition each."""
    system.prove("each has a partition", lambda: all(len(partitions_of(system, worker)) == 1 for worker in system.workers))
    victims = system.chance.sample(system.workers, 3)
    system.moment()
    held = system.prove("all three hold records", lambda: min(system.buffered(victim) for victim in victims))
    system.kill(*victims)
    yield f"SIGKILL to three, each with {held} records and more in hand"
    assert partitions_of(system, system.workers[0]) == list(range(PARTITIONS))


@fault(
    "worker-out-of-file-descriptors",
    "A worker that can open no connection tries again and again, and goes on when it can.",
    recovery_seconds=20,
    setup=Setup(workers=1, proxied=("kafka", "postgres")),
)
def out_of_file_descriptors(system: System) -> Iterator[str]:
    """Its limit is lowered below what it has open, which it keeps, then all its connections are cut."""
    victim = system.worker
    pid = system.pid(victim)
    system.moment()
    usual = prlimit(pid, RLIMIT_NOFILE)
    prlimit(pid, RLIMIT_NOFILE, (STANDARD_STREAMS, usual[1]))
    try:
        cut = system.servers.postgres_proxy.cut_connections()
        system.prove("it cannot reach Postgres", lambda: "retrying" in system.log(victim))  # while Kafka still brings records
        cut += system.servers.kafka_proxy.cut_connections()
        system.prove("it can open no file", lambda: "Too many open files" in system.log(victim))
        system.rest(5)
    finally:
        prlimit(pid, RLIMIT_NOFILE, usual)
    yield f"{cut} connections were cut and none could be opened for 5 s"
