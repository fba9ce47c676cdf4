"""Bridges are killed, stopped, paused and doubled; messages come twice, too late, or as what Kafka refuses."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType  # type: ignore[attr-defined] # not in its __all__

from crash.faults import fault
from crash.messages import Ending, Message
from crash.sqs_front import Thrice, each, error
from crash.system import Setup, System
from dev_servers.made_up_logins import made_up_logins

UNAVAILABLE = error(503, "ServiceUnavailable")
STOP_SECONDS = 10.0
"""BRIDGE_SHUTDOWN_SECONDS, and what a process needs to end."""

FIFO_MESSAGES_PER_SECOND = 100.0
"""What ElasticMQ gives out of a FIFO queue, with room to catch up."""
SMALL_RECORD_BYTES = 4_096
RECEIVES_MAX = 3
UNACKNOWLEDGED = "bridge_unacknowledged_messages"


@fault(
    "bridge-killed-between-produce-and-delete-fifo",
    "Of a FIFO queue too what a killed bridge had not deleted is forwarded again and written once; order within a group stands.",
    recovery_seconds=20,
    setup=Setup(fifo=True, messages_per_second=FIFO_MESSAGES_PER_SECOND, proxied=("sqs",)),
)
@fault(
    "bridge-killed-between-produce-and-delete",
    "What a killed bridge had forwarded and not deleted comes again, is forwarded again, and is written once.",
    recovery_seconds=20,
    setup=Setup(proxied=("sqs",)),
    fast=True,
    soak=True,
)
def killed_between_produce_and_delete(system: System) -> Iterator[str]:
    """The front before SQS refuses all deletes, so that the kill is sure to come before them."""
    front = system.servers.sqs_front
    (victim,) = system.bridges
    system.moment()
    front.rules.append(each(UNAVAILABLE, "DeleteMessageBatch"))
    forwarded, refused = system.metric(victim, "bridge_messages_forwarded_total"), front.interfered["DeleteMessageBatch"]
    system.prove("deletes are refused", lambda: front.interfered["DeleteMessageBatch"] >= refused + 2)
    system.wait("it forwards more", lambda: system.metric(victim, "bridge_messages_forwarded_total") > forwarded)
    held = system.metric(victim, "bridge_in_flight_messages")
    system.kill(victim)
    front.heal()
    system.start_bridge(victim)
    system.mended()
    system.prove("they come again", lambda: "bridge_started" in system.log(victim) and redelivered(system, victim))
    yield f"SIGKILL with {held:g} messages in hand; they came again"


def redelivered(system: System, bridge: str) -> float:
    """Messages that SQS has given out before; 0 while the bridge starts."""
    return system.metric(bridge, "bridge_messages_redelivered_total") if system.processes.is_ready(bridge) else 0.0


@fault(
    "bridge-killed-before-the-acknowledgement",
    "What a killed bridge held and Kafka had not acknowledged is still in SQS: it comes again.",
    recovery_seconds=25,
    setup=Setup(proxied=("kafka",)),
)
def killed_before_the_acknowledgement(system: System) -> Iterator[str]:
    """Nobody reaches Kafka when it dies, so what it held is nowhere else."""
    proxy = system.servers.kafka_proxy
    (victim,) = system.bridges
    system.moment()
    proxy.go_away()
    try:
        system.prove("it holds what Kafka has not", lambda: system.metric(victim, UNACKNOWLEDGED) >= 20)
        held = system.metric(victim, UNACKNOWLEDGED)
        system.kill(victim)
    finally:
        proxy.heal()
    system.start_bridge(victim)
    system.mended()
    system.prove("they come again", lambda: redelivered(system, victim))
    yield f"SIGKILL with {held:g} records that Kafka had not acknowledged; they came again"


@fault(
    "bridge-stopped-and-started",
    "SIGTERM under load: within its bound it finishes what it holds or makes it visible again; nothing is forwarded twice.",
    recovery_seconds=15,
    soak=True,
)
def stopped_and_started(system: System) -> Iterator[str]:
    """As in a deployment."""
    (name,) = system.bridges
    system.moment()
    began = time.monotonic()
    codes = system.processes.stop(name)
    seconds = time.monotonic() - began
    system.prove("it ended by itself", lambda: codes == {name: 0}, 0)
    assert "left_hidden=0" in system.log(name)
    system.start_bridge(name)
    yield f"SIGTERM; it ended after {seconds:.1f} s"
    assert seconds < STOP_SECONDS
    assert redelivered(system, name) == 0
    assert sum(system.log_ends().values()) == system.sent, "a message was forwarded twice"


@fault(
    "bridge-produce-hangs-past-visibility",
    "While Kafka does not answer, what the bridge holds stays hidden for as long as that takes: nobody else gets it.",
    recovery_seconds=20,
    setup=Setup(proxied=("kafka",), visibility_seconds=4),
)
def produce_hangs_past_visibility(system: System) -> Iterator[str]:
    """The way to Kafka swallows everything for three times the visibility timeout."""
    (bridge,) = system.bridges
    system.moment()
    system.servers.kafka_proxy.fall_silent()
    try:
        system.prove("produced bytes are held up", lambda: system.servers.kafka_proxy.held_bytes)
        system.rest(3 * system.setup.visibility_seconds)
        extended = system.prove(
            "they are extended", lambda: system.metric(bridge, "bridge_visibility_extensions_total", result="ok")
        )
    finally:
        system.servers.kafka_proxy.heal()
    yield f"Kafka was silent for 12 s; {extended:g} extensions of 4 s"
    assert system.metric(bridge, "bridge_receipts_expired_total") == 0
    assert system.metric(bridge, "bridge_messages_redelivered_total") == 0


@fault(
    "bridge-receipts-expire-fifo",
    "A message of a FIFO queue whose receipt expired holds its group back until it comes again; order stands.",
    recovery_seconds=20,
    setup=Setup(fifo=True, messages_per_second=FIFO_MESSAGES_PER_SECOND, proxied=("sqs",)),
)
@fault(
    "bridge-receipts-expire",
    "A message whose receipt expired before its delete comes again and is written once; the bridge counts it.",
    recovery_seconds=20,
    setup=Setup(proxied=("sqs",)),
    soak=True,
)
def receipts_expire(system: System) -> Iterator[str]:
    """SQS refuses deletes and extensions until it gives the messages out again; then deletes come with the old receipts."""
    front = system.servers.sqs_front
    (bridge,) = system.bridges
    for workload in system.workloads:
        workload.messages_per_second /= 10  # a bridge that holds all it may would not receive again
    system.moment()
    front.rules.append(each(UNAVAILABLE, "DeleteMessageBatch", "ChangeMessageVisibilityBatch"))
    try:
        system.prove("messages come again", lambda: system.metric(bridge, "bridge_messages_redelivered_total"), 30)
    finally:
        front.heal()
        system.mended()
    expired = system.prove("receipts have expired", lambda: system.metric(bridge, "bridge_receipts_expired_total"))
    yield f"{expired:g} receipts and more expired"


@fault(
    "bridges-two-on-one-queue-fifo",
    "Two bridges share a FIFO queue; the paused one's groups go on at the other, and its late deletes and records change no order.",
    recovery_seconds=15,
    setup=Setup(fifo=True, messages_per_second=FIFO_MESSAGES_PER_SECOND, bridges=2),
)
@fault(
    "bridges-two-on-one-queue",
    "Two bridges share a queue; one that is paused loses its messages to the other, and its late deletes change nothing.",
    recovery_seconds=15,
    setup=Setup(bridges=2),
)
def two_on_one_queue(system: System) -> Iterator[str]:
    """One is stopped in the middle of its work for longer than what it holds stays hidden."""
    victim, other = system.chance.sample(system.bridges, 2)
    system.prove("both forward", lambda: all(system.metric(name, "bridge_messages_forwarded_total") for name in (victim, other)))
    system.workload.burst(500)
    system.prove(f"{victim} holds messages", lambda: system.metric(victim, "bridge_in_flight_messages") >= 10)
    system.freeze(victim)
    try:
        system.prove("the other gets them", lambda: system.metric(other, "bridge_messages_redelivered_total"), 30)
    finally:
        system.thaw(victim)
        system.mended()
    late = system.prove(
        "SQS refuses the late ones", lambda: system.metric(victim, "bridge_messages_deleted_total", result="expired")
    )
    yield f"SIGSTOP to one of them until the other got its messages, then SIGCONT; {late:g} deletes and more came too late"


@fault(
    "sqs-delivers-three-times",
    "A message that SQS gives out three times is forwarded as often and written once.",
    recovery_seconds=15,
    setup=Setup(proxied=("sqs",)),
    soak=True,
)
def delivers_three_times(system: System) -> Iterator[str]:
    """What was received for the first or second time is visible again at once."""
    (bridge,) = system.bridges
    front = system.servers.sqs_front
    again_at_once = Thrice()
    front.rules.append(again_at_once)
    try:
        system.rest(5)
        again = system.prove("they come again", lambda: system.metric(bridge, "bridge_messages_redelivered_total"))
        thirds = system.prove("and a third time", lambda: again_at_once.thirds)
    finally:
        front.heal()
    yield f"{again:g} times a message came again, {thirds} of them the third time"


@fault(
    "fifo-group-with-refused-message",
    "A message that Kafka refuses for ever holds back its group until SQS puts it aside; other groups flow, order stands.",
    recovery_seconds=45,
    setup=Setup(fifo=True, receives_max=RECEIVES_MAX, visibility_seconds=4, messages_per_second=100),
)
def group_with_refused_message(system: System) -> Iterator[str]:
    """The topic's limit is lowered below one message's size."""
    (bridge,) = system.bridges
    admin = AdminClient({"bootstrap.servers": system.servers.kafka.bootstrap_servers})
    limit = ConfigEntry("max.message.bytes", str(SMALL_RECORD_BYTES), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, system.name, incremental_configs=[limit])
    admin.incremental_alter_configs([resource])[resource].result()
    system.moment()
    login = next(iter(made_up_logins(1, 1)))
    body = json.dumps({**asdict(login), "extra": system.chance.randbytes(2 * SMALL_RECORD_BYTES).hex()})
    (refused,) = system.workload.send([Message(body, Ending.QUEUE_DEAD_LETTER, (login.ip, login.device_id))])
    entry = system.ledger.find(refused)
    assert entry is not None

    def refusals() -> float:
        return system.metric(bridge, "bridge_messages_refused_total")

    def later_of_the_group() -> list[str]:
        return system.ledger.ids(f"message_group = '{entry.group}' AND number > {entry.number}", 10_000)

    system.prove("Kafka refuses it", refusals, 30)
    system.wait("later messages of its group are sent", lambda: len(later_of_the_group()) >= 10)
    system.wait_flowing(100)  # of other groups, sent as late as those
    written = _written(system, later_of_the_group())
    assert refusals() < RECEIVES_MAX, "it was given up before anybody looked"
    assert written == 0, "a later message of its group was not held back"
    system.prove("as often as SQS gives it out", lambda: refusals() == RECEIVES_MAX, 60)
    system.mended()  # SQS will not give it out again: those that the bridge holds go on at once
    held = system.prove("its group goes on", lambda: _written(system, later_of_the_group()), 30)
    system.prove("it is put aside", lambda: system.queue.put_aside() == 1, 30)
    yield f"one message was refused three times; then its group went on with {held} held ones, while others never stood still"


def _written(system: System, message_ids: list[str]) -> int:
    """How many of these have come to their end."""
    ((number,),) = system.query(
        """SELECT (SELECT count(*) FROM user_logins WHERE message_id = ANY(%(ids)s::uuid[]))
            + (SELECT count(*) FROM dead_letters WHERE message_id = ANY(%(ids)s::uuid[]))""",
        {"ids": message_ids},
    )
    return int(number)
