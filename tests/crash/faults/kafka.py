"""Kafka, one node on which everything depends: restarted, killed, away, frozen, slow, silent; its lines cut, its disk broken."""

from collections.abc import Callable, Iterator
from http import HTTPStatus
from signal import Signals

import psutil

from crash.faults import fault
from crash.proxy import Moment
from crash.system import Setup, System
from dev_servers.kafka import Kafka

PRODUCE = 0
"""The number of the kind of request, in bytes 4 and 5 of each; in bytes 8 to 11 is the request's own, which its answer repeats."""


def answer_to(request: bytes) -> Callable[[bytes], bool]:
    """For each chunk that Kafka sends after a request: whether the answer to it begins there. Others may come before."""
    number, unread = request[8:12], b""

    def begins_in(chunk: bytes) -> bool:
        nonlocal unread
        unread += chunk
        while len(unread) >= 8:
            if unread[4:8] == number:
                return True
            end = 4 + int.from_bytes(unread[:4])
            if len(unread) < end:
                return False
            unread = unread[end:]
        return False

    return begins_in


def _node(system: System) -> Kafka:
    """The one node; a fault here asks for no cluster."""
    kafka = system.servers.kafka
    assert isinstance(kafka, Kafka)
    return kafka


def bridge_notices(system: System) -> None:
    """Wait until the bridge says that Kafka is away."""
    (bridge,) = system.bridges
    system.prove("the bridge misses Kafka", lambda: system.metric(bridge, "bridge_ready", dependency="kafka") == 0)


def workers_notice(system: System) -> None:
    """Wait until each worker says so."""

    def notices(worker: str) -> None:
        system.prove(f"{worker} misses Kafka", lambda: system.metric(worker, "stream_ready", dependency="kafka") == 0, 40)

    for worker in system.workers:
        notices(worker)


def rebalances(system: System) -> float:
    """Assignments that the workers have received."""
    return sum(system.metric(worker, "stream_rebalances_total") for worker in system.workers)


def records_in_topic(system: System) -> int:
    """All that the topic ever got."""
    return sum(system.log_ends().values())


@fault(
    "kafka-restarted",
    "While Kafka restarts nothing is deleted from SQS; bridge and workers go on by themselves.",
    recovery_seconds=30,
    soak=True,
)
def restarted(system: System) -> Iterator[str]:
    """SIGTERM, then started again."""
    system.moment()
    _node(system).stop()
    try:
        bridge_notices(system)
    finally:
        _node(system).start()
    yield "the bridge missed Kafka"


@fault(
    "kafka-killed-fifo",
    "With a FIFO queue the same, and the order within each message group stands.",
    recovery_seconds=30,
    setup=Setup(fifo=True, messages_per_second=100),
)
@fault(
    "kafka-killed",
    "Of a killed Kafka bridge and workers think as of a restarted one: what was acknowledged is there, what was not comes again.",
    recovery_seconds=30,
    fast=True,
    soak=True,
)
def killed(system: System) -> Iterator[str]:
    """SIGKILL, then started again."""
    system.moment()
    _node(system).kill()
    try:
        bridge_notices(system)
    finally:
        _node(system).start()
    yield "SIGKILL, and the bridge missed Kafka"


@fault(
    "kafka-away",
    "The bridge receives no more than it may hold, workers stay alive; /readyz names Kafka, /livez asks for no restart.",
    recovery_seconds=45,
    setup=Setup(messages_per_second=100, settings={"BRIDGE_IN_FLIGHT_MESSAGES_MAX": "500"}),
    soak=True,
)
def away(system: System) -> Iterator[str]:
    """For a minute; in the soak for five."""
    (bridge,) = system.bridges
    for workload in system.workloads:
        workload.messages_per_second /= 5  # for minutes it all stays in SQS
    system.moment()
    _node(system).stop()
    try:
        bridge_notices(system)
        workers_notice(system)
        received = system.metric(bridge, "bridge_messages_received_total")
        system.rest(system.absence_seconds)
        held = system.metric(bridge, "bridge_in_flight_messages")
        more = system.metric(bridge, "bridge_messages_received_total") - received
        waiting, _ = system.queue.counts()
        for name in (bridge, *system.workers):
            assert not system.processes.is_ready(name), f"{name} says that it is ready"
            status, says = system.processes.livez(name)
            assert status == HTTPStatus.OK, f"{name} asks for a restart: {says}"
    finally:
        _node(system).start()
    yield f"every process missed Kafka for {system.absence_seconds:g} s; the bridge held {held:g} messages, {waiting} waited in SQS"
    assert held <= 500 + 8 * 10, "the bound, and what open requests may bring on top"
    assert more <= held, "it received what it can hold, and then no more"


@fault(
    "kafka-frozen",
    "A Kafka that stands still for longer than the session timeout costs time and a rebalance.",
    recovery_seconds=30,
    soak=True,
)
def frozen(system: System) -> Iterator[str]:
    """SIGSTOP: connections stay, nothing answers; then SIGCONT, with all timers over at once."""
    system.moment()
    _node(system).child.send_signal(Signals.SIGSTOP)
    try:
        bridge_notices(system)
        system.rest(10)
    finally:
        _node(system).child.send_signal(Signals.SIGCONT)
    yield "SIGSTOP; the bridge missed Kafka"


@fault(
    "kafka-slow",
    "With answers that take 2 s records go on flowing, later, and the group stays as it is.",
    recovery_seconds=15,
    setup=Setup(proxied=("kafka",), visibility_seconds=12),
    soak=True,
)
def slow(system: System) -> Iterator[str]:
    """A second each way, for long enough to see that it lasts."""
    (bridge,) = system.bridges

    def slow_acknowledgements() -> float:
        total, quick = (system.metric(bridge, "bridge_produce_acknowledge_seconds_bucket", le=bound) for bound in ("+Inf", "1.0"))
        return total - quick

    system.moment()
    before, slow_before = rebalances(system), slow_acknowledgements()
    system.servers.kafka_proxy.slow_down(delay_seconds=1.0)
    try:
        system.prove("acknowledgements take more than a second", lambda: slow_acknowledgements() > slow_before)
        system.wait_flowing()
        system.rest(8)
        system.wait_flowing()
        number = slow_acknowledgements() - slow_before
    finally:
        system.servers.kafka_proxy.heal()
    yield f"{number:g} batches were acknowledged after more than a second"
    assert rebalances(system) == before, "nobody was thought dead"
    assert records_in_topic(system) == system.workload.sent, "nothing was sent twice"


@fault(
    "kafka-silent",
    "A network that swallows everything between them and Kafka is noticed by timeouts; what was swallowed is sent again.",
    recovery_seconds=45,
    setup=Setup(proxied=("kafka",)),
    soak=True,
)
def silent(system: System) -> Iterator[str]:
    """A black hole, until everybody has noticed; then TCP delivers what it held."""
    system.moment()
    system.servers.kafka_proxy.fall_silent()
    try:
        bridge_notices(system)
        workers_notice(system)
        held = system.servers.kafka_proxy.held_bytes
    finally:
        system.servers.kafka_proxy.heal()
    yield f"every process missed Kafka; {held:,} bytes were held back"


@fault(
    "kafka-connections-reset",
    "Connections that break again and again cost nothing but time.",
    recovery_seconds=15,
    setup=Setup(proxied=("kafka",)),
    soak=True,
)
def connections_reset(system: System) -> Iterator[str]:
    """Ten times, all at once."""
    cut, accepted = 0, system.servers.kafka_proxy.accepted
    for _ in range(10):
        system.moment()
        cut += system.servers.kafka_proxy.cut_connections()
    system.mended()
    made = system.prove("connections are made anew", lambda: max(0, system.servers.kafka_proxy.accepted - accepted - 30))
    yield f"{cut} connections were reset, and {made + 30} made anew"


def _cut_produce(system: System, moment: Moment) -> Iterator[str]:
    system.moment()
    trap = system.servers.kafka_proxy.trap(lambda chunk: chunk[4:6] == PRODUCE.to_bytes(2), moment, 3, answer_to)
    try:
        system.prove("three produce requests were caught", lambda: trap.sprung == 3)
        if moment is Moment.AFTER_THE_ANSWER:
            system.prove("Kafka had answered all three: it has the records", lambda: trap.answered == 3)
    finally:
        system.servers.kafka_proxy.heal()
    yield f"three produce requests were cut, {trap.answered} of them when Kafka had answered"
    assert records_in_topic(system) == system.workload.sent, "each record is there once: the producer is idempotent"


@fault(
    "kafka-cut-before-a-produce",
    "A produce request that Kafka never got is sent again; nothing is deleted from SQS before its answer.",
    recovery_seconds=10,
    setup=Setup(proxied=("kafka",)),
    soak=True,
)
def cut_before_produce(system: System) -> Iterator[str]:
    """The connection breaks before the request reaches Kafka."""
    return _cut_produce(system, Moment.BEFORE_FORWARDING)


@fault(
    "kafka-cut-before-the-acknowledgement",
    "A produce request whose answer is lost is sent again, and Kafka knows it: the record is not there twice.",
    recovery_seconds=10,
    setup=Setup(proxied=("kafka",)),
    soak=True,
)
def cut_before_acknowledgement(system: System) -> Iterator[str]:
    """The connection breaks when Kafka has stored the records and answers."""
    return _cut_produce(system, Moment.AFTER_THE_ANSWER)


@fault(
    "kafka-disk-fails",
    "A Kafka that can't write any more acknowledges nothing and ends itself; started anew it has all that it had acknowledged.",
    recovery_seconds=30,
)
def disk_fails(system: System) -> Iterator[str]:
    """No file may grow any more: what a full disk does to it."""
    kafka = _node(system)
    system.moment()
    broker = psutil.Process(kafka.child.pid)
    _, hard = broker.rlimit(psutil.RLIMIT_FSIZE)
    broker.rlimit(psutil.RLIMIT_FSIZE, (1, hard))
    try:
        system.prove("Kafka has ended itself", lambda: kafka.child.returncode is not None)
        code = kafka.child.returncode
        bridge_notices(system)
    finally:
        kafka.stop()
        kafka.start()
    yield f"Kafka could not write and ended with {code}"
