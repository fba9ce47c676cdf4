"""Rows a second that one worker writes from a filled topic, with everything on this machine.

    python -m benchmarks.worker [--records 500000] [--rounds 3] [--partitions 4]

Real Kafka and Postgres (fsync and synchronous_commit on, the unique index in place), both masked fields AES-SIV. The topic is
filled once; each round starts a new consumer group on an emptied table. The rate is taken from the first position seen to move to
the last; start-up is not in it. CPU seconds are of the same span. Compare figures of one run only: the machine may be noisy.
"""

import argparse
import os
import secrets
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

import psutil
import psycopg2
from confluent_kafka import Producer

from dev_servers.kafka import Kafka
from dev_servers.made_up_logins import made_up_logins
from dev_servers.postgres import Postgres
from dev_servers.process import ChildProcess, Launch
from dev_servers.server import start_together, stop_together
from pipeline.kafka_topic import ensure_topic
from pipeline.settings import KafkaSettings, load

ROOT = Path(__file__).parents[1]
TOPIC = "logins"
RUN_SECONDS_MAX = 300.0
SENT_AT_MS = 1_795_000_000_000


@dataclass(frozen=True, slots=True)
class Round:
    """What one round measured; CPU in microseconds a row."""

    rows_per_second: float
    worker_cpu_us: float
    postgres_cpu_us: float
    kafka_cpu_us: float
    worker_rss_mib: float


def fill(bootstrap_servers: str, records: int, partitions: int) -> None:
    """Put made-up logins on the topic, with the headers that the bridge writes."""
    ensure_topic(load(KafkaSettings, kafka_bootstrap_servers=bootstrap_servers, kafka_topic_partitions=partitions))
    producer = Producer(
        {"bootstrap.servers": bootstrap_servers, "linger.ms": 50, "batch.size": 262_144, "compression.type": "lz4", "acks": "all"}
    )
    for number, login in enumerate(made_up_logins(records)):
        headers = [
            ("message-id", str(uuid.UUID(int=number << 64 | number, version=4)).encode()),
            ("sent-at", str(SENT_AT_MS + number // 10).encode()),
            ("source", b"login-queue"),
        ]
        while True:
            try:
                producer.produce(TOPIC, login.body().encode(), login.user_id.encode(), headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(60):
        raise SystemExit("the topic could not be filled")


def cpu_seconds(pid: int) -> float:
    """Of a process and all its children, ended ones included."""
    total = 0.0
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def run_round(kafka: Kafka, postgres: Postgres, directory: Path, records: int) -> Round:
    """One worker, from an empty table to the last record."""
    with closing(psycopg2.connect(postgres.dsn)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("TRUNCATE user_logins, dead_letters, stream_positions")
        cursor.execute("CHECKPOINT")
        worker = ChildProcess(
            "worker",
            Launch(
                [sys.executable, "-m", "faust", "-A", "stream_app", "worker", "--without-web"],
                environment(kafka, postgres, directory) | {"CONSUMER_GROUP": f"bench-{secrets.token_hex(4)}"},
                ROOT,
            ),
            directory / "worker.log",
        )
        try:
            pids = (worker.pid, postgres.child.pid, kafka.child.pid)
            first: tuple[float, int, list[float]] | None = None
            deadline = time.monotonic() + RUN_SECONDS_MAX
            while time.monotonic() < deadline:
                worker.check()
                cursor.execute("SELECT coalesce(sum(next_offset), 0)::bigint FROM stream_positions")
                row = cursor.fetchone()
                done, now = (row[0] if row else 0), time.monotonic()
                if done and first is None:
                    first = (now, done, [cpu_seconds(pid) for pid in pids])
                if done >= records and first is not None:
                    break
                time.sleep(0.02)
            else:
                raise SystemExit(f"not done within {RUN_SECONDS_MAX:g} s; see {worker.log_file}")
            rows, seconds = done - first[1], now - first[0]
            cpu = [(cpu_seconds(pid) - before) / rows * 1e6 for pid, before in zip(pids, first[2], strict=True)]
            rss = psutil.Process(worker.pid).memory_info().rss / 2**20
        finally:
            worker.stop(Signals.SIGTERM)
        cursor.execute("SELECT count(*) FROM user_logins")
        row = cursor.fetchone()
        if row is None or row[0] != records:
            raise SystemExit(f"{row} rows instead of {records}: no figure counts")
        return Round(rows / seconds, *cpu, rss)


def environment(kafka: Kafka, postgres: Postgres, directory: Path) -> dict[str, str]:
    """What the worker is told."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "POSTGRES_DSN": postgres.dsn,
        "MASKING_KEYSET_FILE": str(directory / "keys" / "masking.keyset.json"),
        "DEAD_LETTER_PUBLIC_KEYSET_FILE": str(directory / "keys" / "dead-letter-public.keyset.json"),
    }


def rounds_of(kafka: Kafka, postgres: Postgres, directory: Path, records: int, rounds: int) -> Iterator[Round]:
    """Set up, then measure round by round."""
    for number, command in enumerate((["keys", "create", "--directory", str(directory / "keys")], ["migrate"])):
        child = ChildProcess(
            f"command-{number}",
            Launch([sys.executable, "-m", "faust", "-A", "stream_app", *command], environment(kafka, postgres, directory), ROOT),
            directory / f"command-{number}.log",
        )
        if child.wait(60) != 0:
            raise SystemExit(child.log_file.read_text())
    for _ in range(rounds):
        yield run_round(kafka, postgres, directory, records)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--partitions", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        kafka, postgres = (
            Kafka(directory / "kafka", jvm_options=()),
            Postgres(directory / "postgres", settings={"max_wal_size": "4GB"}),
        )
        print("starting Kafka and Postgres", flush=True)
        start_together((kafka, postgres))
        try:
            print(f"filling the topic with {arguments.records:,} made-up logins in {arguments.partitions} partitions", flush=True)
            fill(kafka.bootstrap_servers, arguments.records, arguments.partitions)
            measured = []
            for one in rounds_of(kafka, postgres, directory, arguments.records, arguments.rounds):
                measured.append(one)
                print(
                    f"round {len(measured)}: {one.rows_per_second:,.0f} rows/s, load average {os.getloadavg()[0]:.1f}", flush=True
                )
        finally:
            stop_together((kafka, postgres))
    print("\n| | median | least | most |\n|---|---|---|---|")
    for title, field in (
        ("rows/s", "rows_per_second"),
        ("worker CPU, us a row", "worker_cpu_us"),
        ("Postgres CPU, us a row", "postgres_cpu_us"),
        ("Kafka CPU, us a row", "kafka_cpu_us"),
        ("worker memory, MiB", "worker_rss_mib"),
    ):
        values = [getattr(one, field) for one in measured]
        print(f"| {title} | {statistics.median(values):,.1f} | {min(values):,.1f} | {max(values):,.1f} |")


if __name__ == "__main__":
    main()
