"""The monitor against real Kafka and Postgres: what it says of lag while nobody writes."""

import asyncio
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from signal import SIGTERM
from typing import Any

import psycopg2
import pytest
import structlog
from aiokafka.record.memory_records import MemoryRecords
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from login_records import SENT_AT_BOUNDS
from packed_bombs import CODECS, MEBIBYTE, bomb
from pydantic import SecretStr
from record_batches import produce_packed
from signal_masks import threads_that_take
from structlog.testing import capture_logs
from topic_settings import set_cleanup_policy

from dev_servers.kafka import Kafka
from dev_servers.pipeline_processes import PipelineProcesses
from pipeline.errors import RetryableError
from pipeline.kafka_reachability import Reachability
from pipeline.settings import load
from stream_app.monitor.database import Database
from stream_app.monitor.metrics import MonitorMetrics
from stream_app.monitor.monitor import Monitor
from stream_app.monitor.settings import MonitorSettings
from stream_app.monitor.topic_log import TopicLog
from stream_app.transport.first_records import FirstRecords

PARTITIONS = 2
HOUR = 3_600
BOMB_BYTES = 256 * MEBIBYTE
MEBIBYTES_MAX = 150


class Scene:
    """A monitor of a topic of its own and a fresh database."""

    def __init__(self, kafka: Kafka, dsn: str, topic: str) -> None:
        self.bootstrap_servers, self.dsn, self.topic = kafka.bootstrap_servers, dsn, topic
        self.log_directory = kafka.directory / "data"
        self.settings = load(
            MonitorSettings,
            kafka_bootstrap_servers=kafka.bootstrap_servers,
            kafka_topic=topic,
            consumer_group="g",
            postgres_dsn=SecretStr(dsn),
        )
        self.metrics = MonitorMetrics()
        self.topic_log = TopicLog(self.settings, self.settings.sent_at_bounds, FirstRecords(self.settings).at)
        self.database = Database(self.settings)
        self.clock_ahead = 0.0
        self.monitor = self._monitor()

    @property
    def environment(self) -> dict[str, str]:
        """For a monitor that is a process."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "KAFKA_TOPIC": self.topic,
            "POSTGRES_DSN": self.dsn,
            "LOG_FORMAT": "json",
        }

    def _monitor(self) -> Monitor:
        return Monitor(
            self.settings,
            self.metrics,
            topic_log=self.topic_log,
            database=self.database,
            wall_clock=lambda: time.time() + self.clock_ahead,
            monotonic=lambda: time.monotonic() + self.clock_ahead,
        )

    def restart(self) -> None:
        self.metrics = MonitorMetrics()
        self.monitor = self._monitor()

    def produce(
        self, count: int = 1, partition: int = 0, *, sent_ago: float | None = 0, transactional_id: str | None = None
    ) -> None:
        transactions = {} if transactional_id is None else {"transactional.id": transactional_id}
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, **transactions})
        if transactions:
            producer.init_transactions(30)
            producer.begin_transaction()
        headers: list[tuple[str, str | bytes | None]] = []
        if sent_ago is not None:
            headers.append(("sent-at", str(int((time.time() - sent_ago) * 1_000)).encode()))
        for _ in range(count):
            producer.produce(self.topic, b"{}", partition=partition, headers=headers)
        if transactions:
            producer.commit_transaction(30)
        assert producer.flush(30) == 0

    def begin_transaction(self, records: int) -> Producer:
        """One that stays open in the first partition; its producer."""
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "transactional.id": f"{self.topic}-open"})
        producer.init_transactions(30)
        producer.begin_transaction()
        for _ in range(records):
            producer.produce(self.topic, b"{}", partition=0)
        assert producer.flush(30) == 0
        return producer

    def producer_id_at(self, offset: int) -> int:
        """As the first partition's record batch there has it, in Kafka's own file."""
        batches = MemoryRecords((self.log_directory / f"{self.topic}-0" / "00000000000000000000.log").read_bytes())
        while (batch := batches.next_batch()).base_offset != offset:
            pass
        return int(batch.producer_id)

    def position(self, next_offset: int, partition: int = 0) -> None:
        self.run(
            "INSERT INTO stream_positions VALUES ('g', %s, %s, %s, 1, 'o', now())"
            " ON CONFLICT (consumer_group, topic, partition) DO UPDATE SET next_offset = excluded.next_offset",
            self.topic,
            partition,
            next_offset,
        )

    def run(self, statement: str, *parameters: Any) -> None:
        with closing(psycopg2.connect(self.dsn)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)

    def look(self) -> None:
        """Both are there: a topic that was just made may take a moment. The test's time limit is the bound."""
        self.monitor.look()
        while not self.monitor.readyz().ok:
            self.monitor.look()

    def shown(self, name: str, partition: int = 0) -> float:
        value = self.metrics.registry.get_sample_value(
            f"monitor_partition_{name}", {"topic": self.topic, "partition": str(partition)}
        )
        assert value is not None, name
        return value

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"monitor_{name}", labels)


@pytest.fixture
def scene(kafka: Kafka, migrated_database: str) -> Iterator[Scene]:
    topic = f"monitored-{secrets.token_hex(4)}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1, config={"retention.ms": "7200000"})])[topic].result()
    it = Scene(kafka, migrated_database, topic)
    yield it
    it.database.close()
    admin.delete_topics([topic])[topic].result()


def test_an_empty_partition_has_no_lag_claimed_or_not(scene: Scene) -> None:
    scene.position(0, partition=1)
    scene.look()
    assert [(scene.shown("lag_records", p), scene.shown("lag_seconds", p)) for p in range(PARTITIONS)] == [(0, 0), (0, 0)]


def test_nobody_writes_and_the_lag_grows_from_when_the_oldest_record_was_sent(scene: Scene) -> None:
    scene.produce(3, sent_ago=100)
    scene.produce(2, sent_ago=5)
    scene.look()
    assert scene.shown("lag_records") == 5
    assert scene.shown("lag_seconds") == pytest.approx(100, abs=10)
    assert scene.shown("kept_seconds") < 10, "retention does not go by when it was sent"
    assert scene.shown("lag_seconds", 1) == 0
    scene.clock_ahead = HOUR
    scene.look()
    assert scene.shown("lag_seconds") == pytest.approx(100 + HOUR, abs=15)


def test_a_position_that_moves_takes_the_lag_to_the_next_record_and_to_none(scene: Scene) -> None:
    scene.produce(3, sent_ago=100)
    scene.produce(2, sent_ago=50)
    scene.look()
    scene.position(3)
    scene.look()
    assert (scene.shown("lag_records"), scene.shown("next_offset")) == (2, 3)
    assert scene.shown("lag_seconds") == pytest.approx(50, abs=10)
    scene.position(5)
    scene.look()
    assert (scene.shown("lag_records"), scene.shown("lag_seconds")) == (0, 0)


def test_after_a_restart_of_its_own_it_says_the_same(scene: Scene) -> None:
    scene.produce(3, sent_ago=100)
    scene.look()
    scene.restart()
    scene.look()
    assert scene.shown("lag_seconds") == pytest.approx(100, abs=10)


def test_a_record_of_another_producer_is_as_old_as_kafka_says(scene: Scene) -> None:
    scene.produce(1, sent_ago=None)
    scene.clock_ahead = HOUR
    scene.look()
    assert scene.shown("lag_seconds") == pytest.approx(HOUR, abs=15)


@pytest.mark.parametrize("sent_ago", [40 * 86_400, -2 * 86_400, 1.7e9], ids=["40 days", "ahead", "1970"])
def test_a_sent_at_that_the_worker_refuses_is_not_believed_here_either(scene: Scene, sent_ago: float) -> None:
    scene.produce(1, sent_ago=sent_ago)
    scene.clock_ahead = HOUR
    scene.look()
    assert scene.shown("lag_seconds") == pytest.approx(HOUR, abs=15)


def test_what_is_no_record_does_not_wait(scene: Scene) -> None:
    """The log ends with the control record of a transaction, which nobody is ever given."""
    scene.produce(3, transactional_id=scene.topic)
    scene.position(3)
    scene.look()
    while scene.shown("log_end_offset") < 4:  # the broker writes it after it has answered; the test's time limit is the bound
        scene.look()
    assert (scene.shown("lag_records"), scene.shown("lag_seconds")) == (0, 0)


def test_what_an_open_transaction_hides_waits_and_the_transaction_is_named(scene: Scene) -> None:
    scene.produce(100)
    scene.position(100)
    other = scene.begin_transaction(records=1)
    scene.produce(700, sent_ago=50)
    with capture_logs() as events:
        scene.look()
        assert (scene.shown("lag_records"), scene.shown("open_transaction_seconds")) == (701, 0)
        assert (scene.shown("last_stable_offset"), scene.shown("log_end_offset")) == (100, 801)
        scene.clock_ahead = HOUR
        scene.look()
        scene.look()
    assert scene.shown("open_transaction_seconds") == pytest.approx(HOUR, abs=10)
    assert scene.shown("lag_seconds") == pytest.approx(HOUR, abs=15)
    assert scene.shown("kept_seconds") == pytest.approx(HOUR, abs=15), "retention removes it all the same"
    assert (scene.shown("lag_records", 1), scene.shown("open_transaction_seconds", 1)) == (0, 0)
    (event,) = (event for event in events if event["event"] == "transaction_open")
    assert (event["partition"], event["last_stable_offset"], event["log_end_offset"]) == (0, 100, 801)
    assert event["producer_id"] == scene.producer_id_at(100)
    readyz = scene.monitor.readyz()
    assert readyz.ok, "the monitor does not wait for it"
    assert list(readyz.details["open_transactions"]) == [f"{scene.topic}/0"]
    other.abort_transaction(30)
    while scene.shown("last_stable_offset") <= 100:  # the broker writes the end after it has answered
        scene.look()
    assert (scene.shown("open_transaction_seconds"), scene.monitor.readyz().details) == (0, {})
    assert scene.shown("lag_seconds") == pytest.approx(50 + HOUR, abs=15), "now by the record behind it"
    scene.position(801)
    scene.look()
    assert (scene.shown("lag_records"), scene.shown("lag_seconds")) == (0, 0)


def test_a_transaction_with_nothing_behind_it_waits_like_any_record_until_it_is_taken_back(scene: Scene) -> None:
    other = scene.begin_transaction(records=3)
    scene.look()
    assert scene.shown("lag_records") == 3
    other.abort_transaction(30)
    while scene.shown("last_stable_offset") < 4:
        scene.look()
    assert (scene.shown("lag_records"), scene.shown("lag_seconds"), scene.shown("kept_seconds")) == (0, 0, 0)


def test_what_is_in_front_of_an_open_transaction_tells_its_own_time(scene: Scene) -> None:
    scene.produce(3, sent_ago=100)
    other = scene.begin_transaction(records=1)
    scene.look()
    assert scene.shown("lag_records") == 4
    assert scene.shown("lag_seconds") == pytest.approx(100, abs=10)
    other.abort_transaction(30)


def lag_seconds(processes: PipelineProcesses) -> float:
    """Of the first partition; 0 before the first look, too."""
    try:
        return processes.metric("monitor", "monitor_partition_lag_seconds", partition="0")
    except LookupError:
        return 0


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_bomb_that_is_next_is_lag_and_is_not_unpacked_whole(scene: Scene, tmp_path: Path, codec: str) -> None:
    """Librdkafka took 614 MiB for half a megabyte that holds 512 MiB, found no record in time, and the lag was 0."""
    batch = bomb(CODECS[codec], [BOMB_BYTES])
    asyncio.run(produce_packed(scene.bootstrap_servers, scene.topic, 0, batch, seconds_ago=HOUR))
    processes = PipelineProcesses(tmp_path, scene.environment)
    child = processes.start_monitor()
    try:
        processes.wait_ready("monitor")
        while lag_seconds(processes) == 0:  # the test's time limit is the bound
            time.sleep(0.1)
        assert lag_seconds(processes) == pytest.approx(HOUR, abs=60)
        status = Path(f"/proc/{child.pid}/status").read_text()
    finally:
        child.kill()
    assert int(status.split("VmHWM:")[1].split()[0]) / 1_024 < MEBIBYTES_MAX


def test_many_partitions_with_nothing_to_read_take_no_time_each(scene: Scene) -> None:
    """Where a log ends with a control record there is none at each look; more wait than half a second each would let be asked."""
    topic = f"{scene.topic}-wide"
    admin = AdminClient({"bootstrap.servers": scene.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 24, 1)])[topic].result()
    first_records = FirstRecords(load(MonitorSettings, kafka_bootstrap_servers=scene.bootstrap_servers, kafka_topic=topic))
    found, problem = None, None
    while found is None and not isinstance(problem, TimeoutError):  # until all have a leader; the test's time limit is the bound
        try:
            found = first_records.at(dict.fromkeys(range(24), 0), committed=True)
        except RetryableError as error:
            problem = error.__cause__
    assert found == {}


def test_what_retention_removed_is_no_lag(scene: Scene, kafka: Kafka) -> None:
    scene.produce(5, sent_ago=100)
    scene.position(1)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for future in admin.delete_records([TopicPartition(scene.topic, 0, 4)]).values():
        future.result(10)
    scene.look()
    assert (scene.shown("log_start_offset"), scene.shown("next_offset"), scene.shown("lag_records")) == (4, 1, 1)


def test_without_postgres_what_waits_grows_older_and_it_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.produce(3, sent_ago=100)
    scene.look()
    scene.database.close()
    away = load(MonitorSettings, postgres_dsn=SecretStr("host=127.0.0.1 port=1 dbname=away"))
    monkeypatch.setattr(scene.database, "_settings", away)
    scene.clock_ahead = HOUR
    scene.produce(2)
    scene.monitor.look()
    assert (scene.value("ready", dependency="postgres"), scene.value("ready", dependency="kafka")) == (0, 1)
    assert "nobody listens" in scene.monitor.readyz().in_words["waiting_for"]["postgres"]
    assert scene.monitor.readyz().details == {"waiting_for": {"postgres": "OperationalError"}}
    assert scene.monitor.livez().ok
    assert scene.shown("lag_records") == 5
    assert scene.shown("lag_seconds") == pytest.approx(100 + HOUR, abs=15)


def test_a_session_that_postgres_ends_is_named_and_the_next_look_makes_another(scene: Scene) -> None:
    scene.look()
    scene.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'login-stream monitor'"
        " AND datname = current_database()"
    )
    scene.monitor.look()
    assert scene.value("ready", dependency="postgres") == 0
    assert list(scene.monitor.readyz().details["waiting_for"]) == ["postgres"]
    scene.monitor.look()
    assert scene.value("ready", dependency="postgres") == 1
    assert scene.monitor.readyz().ok


def test_without_kafka_what_waits_grows_older_and_it_is_named(scene: Scene) -> None:
    scene.produce(3, sent_ago=100)
    scene.look()
    away = load(MonitorSettings, kafka_bootstrap_servers="127.0.0.1:1", kafka_topic=scene.topic)
    nowhere = TopicLog(away, SENT_AT_BOUNDS, FirstRecords(away).at)
    scene.monitor._log, scene.monitor._reachability = nowhere, Reachability(away)
    scene.clock_ahead = HOUR
    with structlog.testing.capture_logs() as events:
        scene.monitor.look()
    assert (scene.value("ready", dependency="postgres"), scene.value("ready", dependency="kafka")) == (1, 0)
    why = "nobody listens at 127.0.0.1:1 (KAFKA_BOOTSTRAP_SERVERS)"
    assert scene.monitor.readyz().details["waiting_for"] == {"kafka": "_TRANSPORT"}
    assert scene.monitor.readyz().in_words["waiting_for"] == {"kafka": why}
    assert [(event["event"], event["problem"]) for event in events] == [("monitor_waits", why)]
    assert scene.shown("lag_seconds") == pytest.approx(100 + HOUR, abs=20)


def test_an_outage_of_kafka_is_told_once_a_minute_and_at_its_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise RetryableError("made up")

    scene.monitor.look()
    with structlog.testing.capture_logs() as events, monkeypatch.context() as patched:
        patched.setattr(scene.monitor._log, "ranges", away)
        for _ in range(5):
            scene.monitor.look()
            scene.clock_ahead += 20
        patched.undo()
        scene.monitor.look()
    assert [event["event"] for event in events] == ["monitor_waits", "monitor_waits", "monitor_goes_on"]
    assert [event["seconds"] for event in events] == pytest.approx([0, 60, 100], abs=15)
    assert events[0]["problem"] == "made up; a new connection to Kafka is answered"


def test_a_loop_that_stands_still_needs_a_restart(scene: Scene) -> None:
    scene.look()
    scene.clock_ahead = HOUR
    assert not scene.monitor.livez().ok


def test_it_counts_dead_letters_that_are_open_and_reveals(scene: Scene) -> None:
    assert scene.value("revealed_tokens_total", field="ip") is None
    scene.run(
        "INSERT INTO dead_letters SELECT 'g', 't', 0, n, gen_random_uuid(), now(), 'not_json', NULL, '', now(),"
        " CASE WHEN n > 2 THEN 'replayed' END FROM generate_series(1, 5) AS n"
    )
    scene.run("INSERT INTO reveal_audit (reason, field, tokens) VALUES ('ticket 1', 'ip', 3), ('ticket 2', 'ip', 4)")
    scene.look()
    assert (scene.value("open_dead_letters", reason="not_json"), scene.value("open_dead_letters", reason="too_long")) == (2, 0)
    assert (scene.value("reveals_total", field="ip"), scene.value("revealed_tokens_total", field="ip")) == (2, 7)
    assert scene.value("reveals_total", field="device_id") == 0
    assert (scene.value("database_sessions") or 0) >= 1
    assert (scene.value("table_bytes", table="dead_letters") or 0) > 0
    assert scene.value("topic_retention_seconds") == 7_200


def test_it_tells_how_long_a_dead_letter_has_been_open(scene: Scene) -> None:
    def oldest(reason: str) -> float:
        scene.clock_ahead += HOUR  # so that it looks at the tables again
        scene.look()
        return scene.value("oldest_open_dead_letter_seconds", reason=reason) or 0.0

    assert oldest("not_json") == 0
    scene.run(
        "INSERT INTO dead_letters SELECT 'g', 't', 0, n, gen_random_uuid(), now(), 'not_json', NULL, '',"
        " now() - n * interval '1 day', CASE WHEN n > 2 THEN 'replayed' END FROM generate_series(1, 5) AS n"
    )
    assert oldest("not_json") == pytest.approx(2 * 86_400, abs=60)
    assert oldest("too_long") == 0
    scene.run("UPDATE dead_letters SET resolution = 'discarded'")
    assert oldest("not_json") == 0


def test_it_tells_what_was_skipped_of_its_own_group_and_topic(scene: Scene) -> None:
    assert scene.value("records_skipped_total", topic=scene.topic) is None, (
        "a 0 at each start would look like a counter that began anew"
    )
    scene.look()
    assert scene.value("records_skipped_total", topic=scene.topic) == 0
    for action, target, details in (
        ("positions reset", f"{scene.topic}/0 of g", '{"from": 5, "to": 12, "skipped": 7}'),
        ("positions reset", f"{scene.topic}/1 of g", '{"from": 5, "to": 1, "skipped": 0}'),
        ("positions reset", f"{scene.topic}/11 of g", '{"skipped": 4}'),
        ("positions reset", f"{scene.topic}/0 of another", '{"skipped": 100}'),
        ("positions reset", f"{scene.topic}-2/0 of g", '{"skipped": 100}'),
        ("positions reset", f"{scene.topic}/0 of g", '{"skipped": "by hand"}'),
        ("positions reset", f"{scene.topic}/0 of g", '{"skipped": -1e400}'),
        *[("positions reset", f"{scene.topic}/0 of g", '{"skipped": 9e131071}')] * 2,
        ("positions reset", f"{scene.topic}/0 of g", "{}"),
        ("positions adopt", f"{scene.topic} of g by other", '{"0": 100}'),
    ):
        scene.run(
            "INSERT INTO operator_actions (action, target, details, reason) VALUES (%s, %s, %s, 'ticket 1')",
            action,
            target,
            details,
        )
    scene.clock_ahead = HOUR
    scene.look()
    assert scene.value("records_skipped_total", topic=scene.topic) == 11


def test_a_topic_that_somebody_alters_is_told(scene: Scene) -> None:
    scene.look()
    assert (scene.value("topic_compacts"), scene.value("topic_compaction_accepted")) == (0, 0)
    for policy, told in (("compact", 1), ("delete,compact", 1), ("delete", 0)):
        set_cleanup_policy(scene.bootstrap_servers, scene.topic, policy)
        while scene.value("topic_compacts") != told:  # the test's time limit is the bound
            scene.look()


def test_it_waits_for_a_topic_that_is_not_there_yet(kafka: Kafka, migrated_database: str) -> None:
    scene = Scene(kafka, migrated_database, "nobody-made-it")
    scene.look()
    assert scene.value("ready", dependency="kafka") == 1


def test_as_a_process_it_ends_in_order_by_the_one_thread_that_waits_for_the_signal(scene: Scene, tmp_path: Path) -> None:
    processes = PipelineProcesses(tmp_path, scene.environment)
    child = processes.start_monitor()
    try:
        processes.wait_ready("monitor")
        assert threads_that_take(child.pid, SIGTERM) == 1
        child.send_signal(SIGTERM)
        assert child.wait(10) == 0
    finally:
        child.kill()
    events = [json.loads(line) for line in processes.log("monitor").splitlines()]
    assert [event["event"] for event in events] == ["policy_in_force", "monitor_started", "postgres_session", "monitor_stopped"]
    assert (events[0]["postgres_role"], events[0]["postgres_sslmode"]) == ("stream_monitor", "prefer")
    assert (events[0]["topic"], events[0]["kafka_security"]) == (scene.topic, "plaintext")
    assert events[2]["tls"] == "none"
