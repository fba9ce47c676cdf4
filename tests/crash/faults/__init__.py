"""The faults, by name, and how one is added.

Adding a fault: write a generator in the module of the part that it breaks and decorate it with :func:`fault`::

    @fault("postgres-restarted", "Workers wait for Postgres and go on by themselves.", recovery_seconds=15)
    def restarted(system: System) -> Iterator[str]:
        system.moment()                                     # hit another moment with each seed
        system.servers.postgres.stop(mode="immediate")
        system.prove("a worker tries again", lambda: system.metric(system.worker, "stream_database_retries_total") > 0)
        system.servers.postgres.start()
        yield "a write was tried again"                     # the fault is over; here load runs on, and then all is drained
        assert "partition_stopped" not in system.log("worker-1")

It begins when messages flow from end to end. It breaks something by the verbs of :class:`crash.system.System`, proves that the
break took place (``system.prove``: a counter, a log line, a trap that sprang; without a proof the case fails), mends it, and
yields once: in words, how it is known that it took place. Recovery is measured from the yield; where something is still to be seen
between mending and yield, ``system.mended()`` says when it was mended, and recovery is measured from there. After the yield
everything has come to rest, and the processes still run; what is promised beyond the checker's verdict is asserted there. Whatever
it breaks of the shared servers it mends in a ``finally``; what can't be mended, or needs other settings, gets servers of its own:
``servers=lambda directory: Servers(directory, postgres=...)``. Where something must be lost (retention), it says how much before
its end: ``system.expected["lost"] = 12``. ``setup`` says what runs; ``proxied=("postgres",)`` leads through
``system.servers.postgres_proxy``, which can be slow, silent, away, or spring a trap. The promise is one line of the table in
``docs/reliability.md``. ``fast=True`` puts it among those that CI runs, which together may take little more than a minute.
``soak=True`` puts it among those that ``make soak`` draws: on the usual servers, mended before the yield (what stands after it is
left out there), its proof true for any number of other faults before it (``system.metric`` and ``system.log`` then show what has
been since this one began), its ``setup`` asking for nothing but what ``soak.SETUP`` has.

What the runner and checker then hold it to: nothing lost, double, unknown, altered, misplaced or in the clear; positions and
offsets at the log's end; the queue empty; every process alive and ended by SIGTERM with 0; memory and recovery within bounds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from crash.servers import Servers
from crash.system import Setup, System

Injection = Callable[[System], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One case."""

    name: str
    promise: str
    inject: Injection
    recovery_seconds: float
    """From the end of the fault until all that was sent before it is in Postgres; the bound."""
    setup: Setup
    fast: bool
    soak: bool
    after_seconds: float
    """How long the load runs on after the fault."""
    servers: Callable[[Path], Servers] | None
    """Makes servers of its own in a directory, where the shared ones won't do."""


_registry: dict[str, Fault] = {}


def fault(
    name: str,
    promise: str,
    *,
    recovery_seconds: float,
    setup: Setup | None = None,
    fast: bool = False,
    soak: bool = False,
    after_seconds: float = 2.0,
    servers: Callable[[Path], Servers] | None = None,
) -> Callable[[Injection], Injection]:
    """Put a case into the registry."""

    def register(inject: Injection) -> Injection:
        if name in _registry:
            raise ValueError(f"there are two faults of the name {name}")
        _registry[name] = Fault(name, promise, inject, recovery_seconds, setup or Setup(), fast, soak, after_seconds, servers)
        return inject

    return register


def all_faults() -> dict[str, Fault]:
    """Every case by name."""
    for module in sorted(module.name for module in iter_modules(__path__)):
        import_module(f"crash.faults.{module}")
    return dict(_registry)
