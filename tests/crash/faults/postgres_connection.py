"""The way to Postgres: cut before, while and after a statement is carried out, silent, or slow."""

from collections.abc import Iterator

from crash.faults import fault
from crash.faults.postgres import QUICK_TIMEOUTS, REBALANCES, RETRIES, prove_retries, total
from crash.proxy import Moment
from crash.system import Setup, System

PROXIED = Setup(proxied=("postgres",))
PROXIED_QUICK = Setup(proxied=("postgres",), settings=QUICK_TIMEOUTS)
CUTS = 5


def _is_write(chunk: bytes) -> bool:
    return b"WITH given AS MATERIALIZED" in chunk


def _cut(system: System, moment: Moment) -> None:
    """Cut the connection of some writes, one after the other."""
    system.moment()
    trap = system.servers.postgres_proxy.trap(_is_write, moment, CUTS)
    try:
        system.prove(f"{CUTS} writes were cut", lambda: trap.sprung == CUTS)
    finally:
        system.servers.postgres_proxy.heal()


@fault(
    "postgres-cut-before-the-write",
    "A write that did not reach Postgres is sent again.",
    recovery_seconds=15,
    setup=PROXIED,
    soak=True,
)
def cut_before(system: System) -> Iterator[str]:
    """The server never sees it."""
    _cut(system, Moment.BEFORE_FORWARDING)
    yield f"{CUTS} writes were cut off before the server had them"


@fault(
    "postgres-cut-during-the-write",
    "Whether a write was carried out is asked, not guessed.",
    recovery_seconds=15,
    setup=PROXIED,
    soak=True,
)
def cut_during(system: System) -> Iterator[str]:
    """The server has the statement, and nobody is there for its answer: it may commit now, or later, or not."""
    _cut(system, Moment.AFTER_FORWARDING)
    yield f"{CUTS} writes were cut off while the server had them"


@fault(
    "postgres-cut-after-the-commit",
    "A write whose answer was lost is found to be in, and not written again.",
    recovery_seconds=15,
    setup=PROXIED,
    fast=True,
    soak=True,
)
def cut_after(system: System) -> Iterator[str]:
    """The server has committed and said so; the worker does not hear it."""
    _cut(system, Moment.AFTER_THE_ANSWER)
    yield f"{CUTS} writes were cut off after the server had answered"
    assert total(system, "stream_duplicates_skipped_total") == 0, "the fence refuses the second write as a whole"


@fault(
    "postgres-connections-cut",
    "Connections that end at any moment are replaced.",
    recovery_seconds=15,
    setup=PROXIED,
    soak=True,
)
def connections_cut(system: System) -> Iterator[str]:
    """By reset and in order, ten times."""
    proxy = system.servers.postgres_proxy

    def cut(*, reset: bool) -> None:
        accepted = proxy.accepted
        system.wait("the workers are connected", lambda: proxy.connections > 0)
        proxy.cut_connections(reset=reset)
        system.mended()
        system.prove("a worker connected again", lambda: proxy.accepted > accepted)

    for number in range(10):
        system.moment(0.3)
        cut(reset=number % 2 == 0)
    yield "connections were cut ten times, and others came"


@fault(
    "postgres-silent",
    "A silent network is given up in time; a statement that arrives after its sender gave it up counts once.",
    recovery_seconds=20,
    setup=PROXIED_QUICK,
    soak=True,
)
def silent(system: System) -> Iterator[str]:
    """Nothing is passed on for longer than the worker waits. At the end everything arrives late, as TCP would have it."""
    proxy = system.servers.postgres_proxy
    rebalances = total(system, REBALANCES)
    before = total(system, RETRIES, sqlstate_class="none")
    system.moment()
    proxy.fall_silent()
    try:
        system.prove("a statement is held back", lambda: proxy.held_bytes > 0)
        prove_retries(system, before, sqlstate_class="none")
        system.rest(3)
    finally:
        proxy.heal()
    yield f"{proxy.held_bytes:,} bytes were held back, and no answer came in time"
    assert total(system, REBALANCES) == rebalances, "the workers stayed in their group"


@fault(
    "postgres-slow",
    "Slow answers make larger batches and no errors: nothing is tried again, nobody leaves the group.",
    recovery_seconds=15,
    setup=PROXIED,
    soak=True,
)
def slow(system: System) -> Iterator[str]:
    """Two seconds a round trip, through a thin line."""
    proxy = system.servers.postgres_proxy
    rebalances, retries = total(system, REBALANCES), total(system, RETRIES)
    system.moment()
    proxy.slow_down(delay_seconds=1.0, bytes_per_second=1_000_000)
    try:
        system.rest(4)
        before = _writes(system)
        system.rest(6)
        system.prove("a write takes more than 1.5 s", lambda: _write_seconds(system, before) > 1.5)
        seconds = _write_seconds(system, before)
    finally:
        proxy.heal()
    yield f"a write took {seconds:.1f} s"
    assert total(system, RETRIES) == retries
    assert total(system, REBALANCES) == rebalances


def _write_seconds(system: System, before: tuple[float, float]) -> float:
    """How long one took since, on average."""
    seconds, number = _writes(system)
    return (seconds - before[0]) / max(number - before[1], 1)


def _writes(system: System) -> tuple[float, float]:
    """How long all writes took, and how many there were."""
    return total(system, "stream_batch_write_seconds_sum"), total(system, "stream_batch_write_seconds_count")
