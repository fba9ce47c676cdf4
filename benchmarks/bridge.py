"""How many messages a second one bridge moves from a full queue to Kafka, and what a message costs; beside it peers and the limit.

python -m benchmarks.bridge [--messages 60000] [--rounds 3] [--only WORD]…
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from benchmarks.limit_run import run_limit
from benchmarks.machine import PROJECT
from benchmarks.peer import Peer, Servers
from benchmarks.peers import QUEUE_PEERS
from benchmarks.queue_run import QUANTITIES, fill_queue, run_queue_peer
from benchmarks.report import Contender, Report, Target
from benchmarks.session import Entry, Progress, Update, finish, in_turn, only_option, rounds_option, save_option, wanted
from benchmarks.workbench import Workbench, workbench
from dev_servers.made_up_logins import made_up_logins
from dev_servers.process import Launch

OURS = "login-stream bridge"
DRAIN = "limit: receive and delete, do nothing"
MESSAGES = 60_000
RATE = QUANTITIES[0]

TARGETS = (
    Target("bridge, rate against boto3 with 16 threads", OURS, RATE.key, 3, at_least=True, against="boto3, 16 threads"),
    Target("bridge, CPU us a message", OURS, "cpu_us", 90),
)

METHOD = """
- One process of ours, one of each peer; ElasticMQ, Kafka and that process share the machine. The queue is full before the start,
  the topic is new. Kafka acknowledges with acks=all, then a message is deleted.
- The time is from the first record in the topic to the moment when the queue holds no message any more, neither visible nor hidden.
  CPU is that of the whole process tree over the same span. Start-up is not in it and stands apart.
- A run whose topic does not hold exactly the queue's messages, each once, has no figures.
- The limit is ElasticMQ's own, as a cheap client finds it: 8 connections, no signatures, receive and delete by tens.
- Not measured: the real SQS, whose requests take longer and cost no CPU of this machine; FIFO queues; large messages.
"""


def our_bridge(messages: int) -> Peer:
    """The bridge as its users start it."""

    def command(servers: Servers) -> Launch:
        return Launch([sys.executable, "-m", "bridges", "sqs"], servers.environment, PROJECT, stop_seconds=30.0)

    return Peer(OURS, "idempotent producer; holds a message hidden for as long as it needs", messages, command)


def entries(bench: Workbench, messages: int) -> list[Entry]:
    """Everything that can be measured."""
    bodies = [login.body() for login in made_up_logins(messages)]

    def peer_entry(peer: Peer) -> Entry:
        count = min(peer.records, messages)

        def measure(update: Update) -> Mapping[str, float]:
            return run_queue_peer(bench, peer, bodies[:count], update)

        note = peer.note if count == messages else f"{count:,} messages; {peer.note}"
        return Entry(Contender(peer.name, note), measure, peer.missing())

    def drain(_: Update) -> Mapping[str, float]:
        queue_url = bench.elasticmq.queue_url
        fill_queue(queue_url, bodies)
        limit, meter = run_limit(bench, ["queue", queue_url], messages)
        span = (limit.since, limit.until)
        return {
            "messages_per_second": messages / (limit.until - limit.since),
            "cpu_us": limit.cpu_seconds * 1e6 / messages,
            "elasticmq_cpu_us": meter.cpu("elasticmq", *span) * 1e6 / messages,
            "memory_mb": meter.resident_most("peer") / 1e6,
            "other_cores": meter.other_cores(*span),
        }

    return [Entry(Contender(DRAIN), drain), peer_entry(our_bridge(messages)), *map(peer_entry, QUEUE_PEERS)]


def measure(progress: Progress, *, messages: int = MESSAGES, rounds: int, only: Sequence[str] = ()) -> Report:
    """Run the benchmark."""
    with workbench(("kafka", "elasticmq"), progress.say) as bench:
        every = entries(bench, messages)
        with progress.step("filling and emptying the queue twice, so that ElasticMQ is warm") as update:
            for _ in range(2):
                every[0].measure(update)
        chosen = wanted(every, only)
        runs = in_turn(progress, chosen, rounds, [RATE])
    question = f"One bridge: {messages:,} messages from the queue to Kafka, then deleted"
    return Report("bridge", question, METHOD, [entry.contender for entry in chosen], QUANTITIES, TARGETS, runs)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--messages", type=click.IntRange(1_000, 100_000), default=MESSAGES, show_default=True)
@rounds_option
@only_option
@save_option
def main(*, messages: int, rounds: int, only: tuple[str, ...], save: Path | None) -> None:
    """Run it as a command."""
    progress = Progress()
    finish(progress, measure(progress, messages=messages, rounds=rounds, only=only), save)


if __name__ == "__main__":
    main()
