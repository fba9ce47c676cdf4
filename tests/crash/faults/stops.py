"""SIGTERM to workers and bridge under load, while a server is away or silent. How long a stop takes: ``stops_grid.py``."""

import time
from collections.abc import Iterator

from crash.faults import fault
from crash.proxy import Proxy
from crash.system import Setup, System

STOPPED_SECONDS = 13.0
"""FLUSH_SECONDS and BRIDGE_SHUTDOWN_SECONDS are 5 and 8 by default; each may take 5 s beyond its own."""
OUTAGE_SECONDS = 1.0
"""Records gather in hand."""


def _stop_and_start(system: System, proxy: Proxy, *, silent: bool) -> str:
    """Stop all in order while the server is away, and start them when it is back."""
    system.moment()
    names = [*system.bridges, *system.workers]
    try:
        if silent:
            proxy.fall_silent()
            system.prove("something waits for an answer", lambda: proxy.held_bytes)
        else:
            connections = proxy.connections
            proxy.go_away()
            system.prove("connections were ended", lambda: proxy.connections < connections)
        system.rest(OUTAGE_SECONDS)
        began = time.monotonic()
        codes = system.processes.stop(*names)
        seconds = time.monotonic() - began
    finally:
        proxy.heal()
    assert set(codes.values()) == {0}, f"exit codes {codes}"
    assert seconds < STOPPED_SECONDS, f"the stop took {seconds:.1f} s"
    for name in names:
        (system.start_worker if name.startswith("worker") else system.start_bridge)(name)
    system.mended()
    system.processes.wait_ready()
    return f"SIGTERM to {len(names)} processes; each had ended with 0 within {seconds:.1f} s"


@fault(
    "stopped-while-kafka-is-away",
    "A stop while nobody listens at Kafka's address ends in order and within its bound; nothing is lost and nothing double.",
    recovery_seconds=30,
    setup=Setup(proxied=("kafka",)),
)
def kafka_away(system: System) -> Iterator[str]:
    """Connections are refused."""
    yield _stop_and_start(system, system.servers.kafka_proxy, silent=False)


@fault(
    "stopped-while-kafka-is-silent",
    "The same while Kafka takes connections and never answers.",
    recovery_seconds=30,
    setup=Setup(proxied=("kafka",)),
)
def kafka_silent(system: System) -> Iterator[str]:
    """Connections stay, nothing comes."""
    yield _stop_and_start(system, system.servers.kafka_proxy, silent=True)


@fault(
    "stopped-while-postgres-is-away",
    "The same while nobody listens at Postgres's address: what could not be written is read again.",
    recovery_seconds=30,
    setup=Setup(proxied=("postgres",)),
)
def postgres_away(system: System) -> Iterator[str]:
    """Connections are refused."""
    yield _stop_and_start(system, system.servers.postgres_proxy, silent=False)


@fault(
    "stopped-while-postgres-is-silent",
    "The same while Postgres takes connections and never answers.",
    recovery_seconds=30,
    setup=Setup(proxied=("postgres",)),
)
def postgres_silent(system: System) -> Iterator[str]:
    """Connections stay, nothing comes; what was sent is carried out when it is heard of."""
    yield _stop_and_start(system, system.servers.postgres_proxy, silent=True)


@fault(
    "stopped-while-sqs-is-away",
    "The same while nobody listens at SQS's address: what was not deleted comes again.",
    recovery_seconds=30,
)
def sqs_away(system: System) -> Iterator[str]:
    """Through a proxy of its own, which the bridges are started behind."""
    yield from _sqs(system, silent=False)


@fault(
    "stopped-while-sqs-is-silent",
    "The same while SQS takes connections and never answers.",
    recovery_seconds=30,
)
def sqs_silent(system: System) -> Iterator[str]:
    """Likewise."""
    yield from _sqs(system, silent=True)


def _sqs(system: System, *, silent: bool) -> Iterator[str]:
    with Proxy(system.servers.elasticmq.port) as proxy:
        bridges = system.bridges
        system.processes.stop(*bridges)
        system.processes.environment["AWS_ENDPOINT_URL_SQS"] = f"http://127.0.0.1:{proxy.port}"
        for name in bridges:
            system.start_bridge(name)
        system.processes.wait_ready()
        system.wait_flowing()
        yield _stop_and_start(system, proxy, silent=silent)
