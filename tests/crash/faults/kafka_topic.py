"""The topic changes: more partitions, made anew, cut off by retention, too small for a message; and the group's offsets."""

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict

from crash.faults import fault
from crash.faults.worker_group import stop
from crash.kafka_admin import KafkaAdmin, admin_of
from crash.messages import Ending, Message, good
from crash.system import Setup, System
from dev_servers.made_up_logins import made_up_logins

NODE_SECONDS = 1.0
"""A node first knows that a topic is gone, then closes its logs."""

COMMAND = re.compile(r"faust -A stream_app (positions reset --topic \S+ --partition \d+ --to \d+ --reason WHY)")


def let_drain(system: System) -> None:
    """Pause the load until everything is behind the position."""
    system.workload.pause()
    system.wait("all is drained", system.is_drained)


def delete(system: System, admin: KafkaAdmin) -> None:
    """Delete the topic, and wait until the node has closed its logs: until then it acknowledges records that go with it."""
    admin.delete()
    system.wait("the node knows that the topic is gone", lambda: not admin.is_listed())
    system.rest(NODE_SECONDS)


def send_again(system: System) -> None:
    """As fast as at the start."""
    system.workload.messages_per_second = system.setup.messages_per_second


def start_two_workers(system: System) -> None:
    """Until they can be asked for metrics; a partition that is stopped does not let them be ready."""

    def wait_started(name: str) -> None:
        system.wait(f"{name} has started", lambda: "worker_started" in system.log(name))

    for name in [system.start_worker() for _ in range(2)]:
        wait_started(name)


def lost(system: System) -> float:
    """What the workers say that retention took."""
    return sum(system.metric(worker, "stream_records_lost_total") for worker in system.workers)


@fault(
    "kafka-partitions-added",
    "New partitions are read from their first record on; order within a message group holds on each side of the change.",
    recovery_seconds=45,  # workers look for new partitions every 30 s
    setup=Setup(fifo=True, messages_per_second=100),
)
def partitions_added(system: System) -> Iterator[str]:
    """From 4 to 6, under load."""
    system.moment()
    system.partitions_added = True
    admin_of(system).add_partitions(6)
    system.prove("the bridge writes to a new partition", lambda: sum(system.log_ends().get(p, 0) for p in (4, 5)), 45)
    before = system.positions()
    yield f"there are records in a new partition while positions stand for {len(before)}"
    assert set(system.positions()) == set(range(6))


def _stopped(system: System) -> float:
    """Partitions that wait for a person; of those that the group has given out."""
    stopped = 0.0
    for worker in system.workers:
        with suppress(LookupError):  # it has none
            stopped += system.metric(worker, "stream_partition_stopped")
    return stopped


def _reset_as_told(system: System, partitions: int) -> int:
    """Wait until so many partitions are stopped, then run the commands that the workers' logs name; how many."""
    found: set[str] = set()

    def told() -> bool:
        found.update(command for worker in system.workers for command in COMMAND.findall(system.log(worker)))
        return len(found) == partitions

    system.prove(f"{partitions} partitions name the command that makes them go on", told, 60)
    system.prove(f"{partitions} partitions are stopped", lambda: _stopped(system) == partitions)
    for command in sorted(found):
        system.processes.run(*command.split(), "--yes")
    return len(found)


@fault(
    "kafka-topic-made-anew",
    "A topic that was deleted and made anew stops its partitions, which name the command that makes them go on. No silent jump.",
    recovery_seconds=45,
    setup=Setup(messages_per_second=100),
)
def topic_made_anew(system: System) -> Iterator[str]:
    """Deleted when all of it was read, so that nothing is lost with it; made anew under load, and shorter than the position."""
    (bridge,) = system.bridges
    admin = admin_of(system)
    let_drain(system)
    delete(system, admin)
    send_again(system)
    system.prove("the bridge misses the topic", lambda: system.metric(bridge, "bridge_ready", dependency="kafka") == 0)
    admin.make(partitions=4)
    number = _reset_as_told(system, partitions=4)
    yield f"{number} partitions stopped, and went on after the command that they named"


@fault(
    "kafka-topic-made-anew-and-grown",
    "A topic made anew is noticed by Kafka's id of it also when it has grown past the position before a worker starts.",
    recovery_seconds=45,
)
def topic_made_anew_and_grown(system: System) -> Iterator[str]:
    """While no worker runs; each partition's log is longer than the former one's when they are back."""
    admin = admin_of(system)
    let_drain(system)
    stop(system, *system.workers)
    before = _made_anew_and_grown(system, admin)
    send_again(system)
    start_two_workers(system)
    number = _reset_as_told(system, partitions=4)
    yield f"logs grown past {max(before.values())} stopped {number} partitions until they were reset"


@fault(
    "kafka-topic-made-anew-under-load",
    "Workers that hold its partitions look every 5 s; what they read before they looked is read again from its beginning.",
    recovery_seconds=45,
    setup=Setup(settings={"KAFKA_SESSION_TIMEOUT_SECONDS": "30"}),  # the group notices nothing, and gives out no partition anew
)
def topic_made_anew_under_load(system: System) -> Iterator[str]:
    """While the workers are paused, so that they never see it gone: they go on fetching at an offset of the former one."""
    admin = admin_of(system)
    let_drain(system)
    workers = system.workers
    system.freeze(*workers)
    try:
        before = _made_anew_and_grown(system, admin)
    finally:
        system.thaw(*workers)
    send_again(system)
    system.prove(
        "a worker that holds a partition notices",
        lambda: any("the topic was made anew" in system.log(worker) for worker in workers),
    )
    number = _reset_as_told(system, partitions=4)
    yield f"logs grown past {max(before.values())} stopped {number} partitions until they were reset"


def _made_anew_and_grown(system: System, admin: KafkaAdmin) -> dict[int, int]:
    """Delete the topic, make it, and fill it past each position; the positions."""
    before = system.positions()
    delete(system, admin)
    admin.make(partitions=4)
    system.workload.burst(6 * max(before.values()))
    system.prove("every log has grown past the position", lambda: all(system.log_ends()[p] > before[p] for p in before), 60)
    return before


@fault(
    "kafka-retention-overtakes-stopped-workers",
    "What retention removed before it was read is counted to the record and logged; reading goes on behind it.",
    recovery_seconds=20,
)
def retention_overtakes_stopped(system: System) -> Iterator[str]:
    """No worker runs for longer than the topic keeps records."""
    admin = admin_of(system)
    system.moment()
    system.kill(*system.workers)
    system.rest(2)
    system.workload.messages_per_second = 0
    system.wait("the bridge has forwarded all", lambda: system.queue.counts() == (0, 0))
    admin.set(retention_ms="1000")
    ranges = system.prove("retention has removed all", lambda: _all_gone(admin))
    admin.set(retention_ms="3600000")
    expected = sum(end - position for (_, end), position in zip(ranges, _in_order(system.positions()), strict=True))
    send_again(system)
    removed = sum(end for _, end in ranges)
    system.wait("records wait behind those that are gone", lambda: sum(system.log_ends().values()) > removed + 100)
    system.mended()
    start_two_workers(system)
    system.prove("the workers have counted a loss", lambda: lost(system) > 0, 40)
    yield f"retention removed {expected} records that nobody had read"
    system.expected["lost"] = expected
    assert lost(system) == expected, f"{lost(system):g} are counted as lost"
    assert any("records_lost_by_retention" in system.log(worker) for worker in system.workers)


def _all_gone(admin: KafkaAdmin) -> list[tuple[int, int]]:
    ranges = [place for _, place in sorted(admin.log_ranges().items())]
    return ranges if all(start == end > 0 for start, end in ranges) else []


def _in_order(positions: dict[int, int]) -> list[int]:
    return [position for _, position in sorted(positions.items())]


@fault(
    "kafka-retention-overtakes-running-workers",
    "The same while workers run and Postgres keeps them waiting: what they held is written, what retention took is counted.",
    recovery_seconds=30,
    setup=Setup(proxied=("postgres",), settings={"WINDOW_ROWS": "50"}),
)
def retention_overtakes_running(system: System) -> Iterator[str]:
    """Small windows, so that most of what comes in meanwhile stays in Kafka."""
    admin = admin_of(system)
    system.moment()
    system.servers.postgres_proxy.go_away()
    try:
        system.workload.send([good(login) for login in made_up_logins(3_000, system.chance.getrandbits(32))])
        system.workload.messages_per_second = 0
        system.wait("the bridge has forwarded all", lambda: system.queue.counts() == (0, 0))
        admin.set(retention_ms="1000")
        system.prove("retention has removed all", lambda: _all_gone(admin))
        admin.set(retention_ms="3600000")
        held = sum(system.buffered(worker) for worker in system.workers)
    finally:
        system.servers.postgres_proxy.heal()
        system.mended()
    send_again(system)
    system.prove("the workers have counted a loss", lambda: lost(system) > 0, 40)
    yield f"retention removed what they had not fetched; they held {held} records"
    missing = system.workload.sent - system.finished()
    system.expected["lost"] = missing
    assert missing > 0, "they had fetched everything"
    assert lost(system) == missing, f"{lost(system):g} are counted as lost; {missing} are missing"


def _large(login_bytes: int, system: System) -> Message:
    (login,) = made_up_logins(1, system.chance.getrandbits(32))
    plain = good(login)
    body = json.dumps({**asdict(login), "later": secrets.token_hex(login_bytes // 2)})  # nothing that packing makes small
    return Message(body, Ending.QUEUE_DEAD_LETTER, plain.raw_values)


@fault(
    "kafka-refuses-a-large-message",
    "A message larger than the topic takes is refused alone; it goes to the queue's own dead-letter queue and the others flow.",
    recovery_seconds=25,  # it is received three times, and hidden for 6 s each time
    setup=Setup(receives_max=3),
)
def refuses_large(system: System) -> Iterator[str]:
    """The topic's limit is lowered below one body in a thousand."""
    (bridge,) = system.bridges
    system.moment()
    admin_of(system).set(max_message_bytes="100000")
    system.workload.send([_large(200_000, system)])
    system.prove("Kafka refuses it", lambda: system.metric(bridge, "bridge_messages_refused_total") >= 1)
    system.wait_flowing()
    system.prove("it is received again", lambda: system.metric(bridge, "bridge_messages_refused_total") >= 3, 40)
    yield "Kafka refused one message three times"
    assert system.metric(bridge, "bridge_messages_refused_total") == 3, "no other message was refused with it"


@fault(
    "kafka-group-offsets-changed",
    "The group's offsets in Kafka decide nothing: the position is in Postgres.",
    recovery_seconds=20,
)
def group_offsets_changed(system: System) -> Iterator[str]:
    """While no worker runs they are set to the log's end, past records that nobody has read."""
    admin = admin_of(system)
    system.moment()
    stop(system, *system.workers)
    system.rest(2)
    ends = system.log_ends()
    admin.commit(ends)
    unread = system.prove("records are unread", lambda: max(0, sum(ends.values()) - sum(system.positions().values())))
    system.mended()
    start_two_workers(system)
    yield f"{unread} records that nobody had read were behind the group's offsets"
