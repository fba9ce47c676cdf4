"""Benchmarks on real servers, small: figures for what did its work, none for what did not."""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.bridge import our_bridge
from benchmarks.filling import SENT_AT_MS, fill_topic, login_messages
from benchmarks.growth import GrowthBenchmark
from benchmarks.latency import wait_for_rows
from benchmarks.limit_run import run_limit
from benchmarks.peer import Peer, Servers
from benchmarks.queue_run import fill_queue, run_queue_peer
from benchmarks.session import NoFiguresError, Progress
from benchmarks.topic_run import run_peer
from benchmarks.topics import log_ends
from benchmarks.visibility import SnapshotWatch, visible_at
from benchmarks.workbench import Workbench, workbench
from benchmarks.worker import our_worker
from dev_servers.made_up_logins import made_up_logins
from dev_servers.process import DevServerError, Launch

RECORDS = 20_000
PARTITIONS = 4
MESSAGES = 500


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    with workbench(("kafka", "postgres", "elasticmq"), print, tmp_path_factory.mktemp("workbench")) as started:
        yield started


@pytest.fixture(scope="module")
def topic(bench: Workbench) -> str:
    fill_topic(bench.kafka.bootstrap_servers, "full", PARTITIONS, login_messages(RECORDS), RECORDS, say=print)
    return "full"


@pytest.fixture
def bodies() -> Sequence[str]:
    return [login.body() for login in made_up_logins(MESSAGES)]


def script(text: str) -> Peer:
    """A peer of some lines of Python; after them it waits to be ended."""

    def command(servers: Servers) -> Launch:
        lines = f"import os, time, psycopg2\nfrom dev_servers.raw_queue import RawQueue\n{text}\ntime.sleep(600)"
        return Launch([sys.executable, "-c", lines], {**servers.environment, "TOPIC": servers.topic}, Path(__file__).parents[2])

    return Peer("script", "", RECORDS, command)


INSERT = """
connection = psycopg2.connect(os.environ["POSTGRES_DSN"])
connection.autocommit = True
statement = "INSERT INTO user_logins (masked_ip, masked_device_id) SELECT %s, 'AUeo' FROM generate_series(1, %s)"
for _ in range(TRANSACTIONS):
    connection.cursor().execute(statement, ["IP", ROWS // TRANSACTIONS])
"""


def inserts(rows: int, ip: str, transactions: int = 4) -> Peer:
    """A peer that writes this many rows, all with this address."""
    return script(INSERT.replace("ROWS", str(rows)).replace("IP", ip).replace("TRANSACTIONS", str(transactions)))


def test_our_worker_has_figures_and_its_rows_can_be_copied_again(bench: Workbench, topic: str) -> None:
    bench.empty_tables()
    figures = run_peer(bench, our_worker(RECORDS), topic, PARTITIONS, RECORDS)
    assert 100 < figures["rows_per_second"] < 1_000_000
    assert 1 < figures["cpu_us"] < 1_000
    assert 1 < figures["postgres_cpu_us"] < 1_000
    assert 50 < figures["memory_mb"] < 1_000
    assert 0 < figures["start_seconds"] < 60
    limit, meter = run_limit(bench, ["copy", bench.dsn, "5000"], RECORDS)
    assert meter.cpu("postgres", limit.since, limit.until) > 0
    assert bench.query("SELECT count(*) FROM user_logins") == [(RECORDS,)]


def test_two_workers_share_one_run(bench: Workbench, topic: str) -> None:
    bench.empty_tables()
    assert run_peer(bench, our_worker(RECORDS), topic, PARTITIONS, RECORDS, copies=2)["memory_mb"] > 150


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (inserts(2_000, "AUeo"), r"^2,000 rows instead of 1,000$"),
        (inserts(1_000, "192.0.2.1"), r"^1,000 rows are not masked$"),
        (inserts(1_000, "AUeo", transactions=1), r"^1 commits are too few for a rate$"),
        (script("raise SystemExit(3)"), r"^ended early after 0 rows$"),
    ],
    ids=["too many rows", "in the clear", "one transaction", "ended early"],
)
def test_a_peer_that_does_not_do_the_work_has_no_figures(bench: Workbench, topic: str, peer: Peer, reason: str) -> None:
    bench.empty_tables()
    with pytest.raises(NoFiguresError, match=reason):
        run_peer(bench, peer, topic, PARTITIONS, 1_000)


def test_a_limit_that_saw_other_records_has_no_figures(bench: Workbench, topic: str) -> None:
    with pytest.raises(NoFiguresError, match=r"instead of 30,000$"):
        run_limit(bench, ["drain", bench.kafka.bootstrap_servers, topic, "10000"], 30_000)


def test_a_full_topic_is_taken_as_it_is(bench: Workbench, topic: str) -> None:
    said: list[str] = []
    fill_topic(bench.kafka.bootstrap_servers, topic, PARTITIONS, login_messages(RECORDS), RECORDS, say=said.append)
    assert said == []
    assert sum(log_ends(bench.kafka.bootstrap_servers, topic).values()) == RECORDS


def test_our_bridge_has_figures(bench: Workbench, bodies: Sequence[str]) -> None:
    figures = run_queue_peer(bench, our_bridge(MESSAGES), bodies, lambda _: None)
    assert 10 < figures["messages_per_second"] < 100_000
    assert 1 < figures["cpu_us"] < 100_000


PRODUCE = """
from confluent_kafka import Producer
p = Producer({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]})
for body in BODIES: p.produce(os.environ["TOPIC"], body)
p.flush(30)
with RawQueue(os.environ["SQS_QUEUE_URL"]) as queue:
    while receipts := queue.receive(): queue.delete(receipts)
"""


def test_a_bridge_that_loses_and_repeats_has_no_figures(bench: Workbench, bodies: Sequence[str]) -> None:
    peer = script(PRODUCE.replace("BODIES", repr([*bodies[1:], bodies[7], bodies[7]])))
    with pytest.raises(NoFiguresError, match=r"^1 messages are not in the topic, 2 are there twice or were never sent$"):
        run_queue_peer(bench, peer, bodies, lambda _: None)


def test_a_queue_is_filled_with_just_these_messages(bench: Workbench, bodies: Sequence[str]) -> None:
    for _ in range(2):
        fill_queue(bench.elasticmq.queue_url, bodies)
    limit, _ = run_limit(bench, ["queue", bench.elasticmq.queue_url], MESSAGES)
    assert limit.cpu_seconds > 0


def test_a_commit_is_seen_when_it_happens_not_when_its_transaction_begins(bench: Workbench) -> None:
    with SnapshotWatch(bench.dsn) as watch, bench.session() as ask:
        ask("BEGIN")
        transaction: int = ask("SELECT pg_current_xact_id()::text::bigint")[0][0]
        ask("SELECT pg_sleep(0.3)")
        before = time.time()
        ask("COMMIT")
        deadline = time.monotonic() + 10
        while not watch.snapshots[-1].sees(transaction) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert before <= visible_at(watch.snapshots, transaction) < before + 2.0


def test_the_last_commit_is_seen_although_the_watch_ends_at_once(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.visibility.POLL_SECONDS", 30.0)
    with SnapshotWatch(bench.dsn) as watch, bench.session() as ask:
        transaction: int = ask("SELECT pg_current_xact_id()::text::bigint")[0][0]
    visible_at(watch.snapshots, transaction)


def test_rows_made_by_the_server_are_older_than_the_stream_and_stay(bench: Workbench) -> None:
    growth = GrowthBenchmark(bench, Progress(), RECORDS)
    for _ in range(2):
        full = growth.full_table(5_000, lambda _: None)
        found = full.query(
            "SELECT count(*), count(DISTINCT (sent_at, message_id)), max(extract(epoch FROM sent_at)) FROM user_logins"
        )
        assert found[0][:2] == (5_000, 5_000)
        assert found[0][2] < SENT_AT_MS / 1000
        first = full.query("SELECT min(message_id::text) FROM user_logins")
        full.query("INSERT INTO user_logins (sent_at, message_id) VALUES (now() + interval '99 years', gen_random_uuid())")
    assert full.query("SELECT min(message_id::text) FROM user_logins WHERE user_id IS NOT NULL") == first


def test_whoever_waits_for_rows_hears_of_a_process_that_has_ended(bench: Workbench) -> None:
    bench.empty_tables()
    child = bench.launch("short", Launch([sys.executable, "-c", "raise SystemExit(3)"], {}, Path(__file__).parents[2]))
    with pytest.raises(DevServerError, match="ended early, with exit code 3"):
        wait_for_rows(bench, [child], 1, print)
