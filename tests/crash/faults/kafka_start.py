"""Kafka is slow, silent or paused while a worker or a bridge starts."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from signal import Signals

import psutil
from bad_listeners import silent, swallowing

from crash.faults import fault
from crash.faults.kafka import bridge_notices
from crash.faults.worker import PARTITIONS, partitions_of
from crash.proxy import Proxy
from crash.system import System
from dev_servers.kafka import Kafka
from dev_servers.ports import HOST

BAD_SERVERS = 3
"""Beside a good one: clients that try them in an order by chance meet a bad one first, mostly."""

SLOW_SECONDS = 1.0
"""Each way."""

PAUSE_SECONDS = (7.0, 12.0)
"""Longer than the session of a group's member, and of Kafka's only node."""


def _kafka(system: System) -> Kafka:
    kafka = system.servers.kafka
    assert isinstance(kafka, Kafka)
    return kafka


def _started_anew(system: System, servers: str, took_place: Callable[[str, str], bool]) -> tuple[str, str]:
    """A worker and the bridge are killed, and others started with these bootstrap servers; their names, once they are ready.

    ``took_place``: asked with these names while they start.
    """
    system.moment()
    system.kill(system.worker, *system.bridges)
    worker = system.start_worker(KAFKA_BOOTSTRAP_SERVERS=servers)
    bridge = system.start_bridge(KAFKA_BOOTSTRAP_SERVERS=servers)
    system.mended()
    system.prove("a start meets a bad bootstrap server", lambda: took_place(worker, bridge))
    system.processes.wait_ready(worker, bridge)
    return worker, bridge


def _start_beside(system: System, listener: Callable[[], AbstractContextManager[str]], what: str) -> Iterator[str]:
    with ExitStack() as opened:
        bad_servers = [opened.enter_context(listener()) for _ in range(BAD_SERVERS)]

        def connections() -> set[tuple[str, str]]:
            """To one of them, seen from either end: at a listener that takes none, one stays also when its client has gone."""
            ends = (
                (f"{each.laddr.ip}:{each.laddr.port}", f"{each.raddr.ip}:{each.raddr.port}")
                for each in psutil.net_connections("tcp")
                if each.laddr and each.raddr
            )
            return {pair for pair in ends if not bad.isdisjoint(pair)}

        bad = set(bad_servers)
        before = connections()

        def meets_one(*_: str) -> bool:
            return bool(connections() - before)

        servers = ",".join([*bad_servers, _kafka(system).bootstrap_servers])
        worker, bridge = _started_anew(system, servers, meets_one)
        yield f"SIGKILL, then {worker} and {bridge} started with {BAD_SERVERS} bootstrap servers that {what}, and a good one"
        assert "kafka_failing" not in system.log(worker), "a good one was there all the time"
        assert "kafka_failing" not in system.log(bridge)


@fault(
    "kafka-silent-bootstrap-server",
    "Bootstrap servers that take connections and never answer cost a start nothing while another answers.",
    recovery_seconds=20,
)
def silent_bootstrap_server(system: System) -> Iterator[str]:
    """As of a broker that hangs."""
    return _start_beside(system, silent, "never answer")


@fault(
    "kafka-bootstrap-server-swallows",
    "Nor do those whose network swallows the first packet of a connection.",
    recovery_seconds=20,
)
def bootstrap_server_swallows(system: System) -> Iterator[str]:
    """As of a broker behind a firewall, or of a machine that is down."""
    return _start_beside(system, swallowing, "swallow connections")


@fault(
    "kafka-slow-bootstrap-server",
    "A bootstrap server whose answers take seconds delays a start by these, and nothing after it.",
    recovery_seconds=40,
)
def slow_bootstrap_server(system: System) -> Iterator[str]:
    """The only one; it names a node that is quick."""
    with Proxy(_kafka(system).port) as slow:
        slow.slow_down(delay_seconds=SLOW_SECONDS)
        worker, bridge = _started_anew(system, f"{HOST}:{slow.port}", lambda *_: slow.accepted > 0)
        yield f"SIGKILL, then {worker} and {bridge} started through a server whose answers take {2 * SLOW_SECONDS:g} s"


@fault(
    "kafka-paused-during-a-start",
    "A worker that starts while Kafka stands still waits for it, says so, and goes on by itself.",
    recovery_seconds=45,
    soak=True,
)
def paused_during_a_start(system: System) -> Iterator[str]:
    """SIGSTOP to Kafka while the worker connects, joins its group, or fetches first: by chance."""
    system.moment()
    system.kill(system.worker)
    worker = system.start_worker()
    system.prove("it has found the topic", lambda: "worker_started" in system.log(worker))
    system.moment(0.3)
    kafka = _kafka(system)
    kafka.child.send_signal(Signals.SIGSTOP)
    try:
        bridge_notices(system)
        seconds = system.chance.uniform(*PAUSE_SECONDS)
        system.rest(seconds)
    finally:
        kafka.child.send_signal(Signals.SIGCONT)
    yield f"SIGSTOP right after its start, for {seconds:.0f} s and until the bridge missed Kafka"
    owned = sorted(partition for name in system.workers for partition in partitions_of(system, name))
    assert owned == list(range(PARTITIONS)), f"partitions {owned} are claimed"
