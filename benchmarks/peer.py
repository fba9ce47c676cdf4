"""What is measured: a program that does the work, ours or another that a user might pick, on the same servers, by the same clock.

A peer is a command and a line that says what it does less, or otherwise. It is started, watched from outside, ended with SIGTERM
when all that it was given is done: it need not count, print or end by itself. What it wrote is then counted; too much or too
little means no figure. Its CPU is that of its whole process tree.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dev_servers.process import Launch


@dataclass(frozen=True, slots=True)
class Servers:
    """What one run is given: addresses, and a consumer group that nobody used before."""

    kafka_bootstrap_servers: str
    postgres_dsn: str
    """A superuser's, as a URL. The table is ``user_logins`` as ``migrate`` makes it, emptied before each run."""
    sqs_endpoint_url: str
    """Empty, like ``sqs_queue_url``, where the run has no queue."""
    sqs_queue_url: str
    topic: str
    """It exists; holds exactly ``Peer.records`` records for a peer of the worker, none for a peer of the bridge."""
    partitions: int
    consumer_group: str
    keys_directory: Path
    """Holds ``masking.keyset.json`` and ``dead-letter-public.keyset.json``, as ``keys create`` makes them."""
    scratch_directory: Path
    """Empty, for this run only."""
    environment: Mapping[str, str]
    """What points our own processes, and boto3, here: every variable that they read. A peer may take it as it is."""


def nothing_missing() -> str | None:
    """For a peer that runs wherever we do."""
    return None


@dataclass(frozen=True, slots=True)
class Peer:
    """One program to measure."""

    name: str
    note: str
    """What it does less or otherwise than ours; one line of the table."""
    records: int
    """How many it is given, at most as many as ours: a slow one gets fewer, so that a round takes minutes."""
    command: Callable[[Servers], Launch]
    missing: Callable[[], str | None] = nothing_missing
    """Why it can't run on this machine, in words for the table; None if it can."""
    body: Callable[[str], str] | None = None
    """How a login's JSON text is rewritten for it, where it reads another form; it then has a topic of its own."""
