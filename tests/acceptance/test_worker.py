"""The worker as a process, on real Kafka and Postgres; records come straight from a producer."""

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from signal import Signals

import pytest
from acceptance.running_pipeline import RunningPipeline, fields_in_log, wait_until
from confluent_kafka import Producer
from psycopg2.extensions import parse_dsn
from record_batches import produce_packed, with_a_strange_header

from dev_servers.kafka import Kafka
from dev_servers.postgres import Postgres
from pipeline.ending import EXIT_REFUSED
from stream_app.masking.keysets import load_masking_keyset
from stream_app.masking.masker import Masker
from stream_app.masking.policy import parse_methods

NOW_MS = int(time.time()) * 1_000


def body(number: int, **changes: object) -> bytes:
    login = {
        "user_id": f"user-{number}",
        "app_version": f"2.{number % 10}.1",
        "device_type": "android" if number % 2 else "ios",
        "ip": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        "locale": None if number % 3 else "DE",
        "device_id": f"{number:09d}",
    }
    return json.dumps({**login, **changes}).encode()


def message_id(number: int) -> str:
    return str(uuid.UUID(int=number, version=4))


def headers(number: int) -> dict[str, bytes]:
    return {"message-id": message_id(number).encode(), "sent-at": str(NOW_MS + number).encode(), "source": b"login-queue"}


def logins(numbers: Iterator[int] | range) -> Iterator[tuple[bytes, bytes, dict[str, bytes]]]:
    return ((f"user-{number}".encode(), body(number), headers(number)) for number in numbers)


@pytest.fixture
def masker(keys_directory: Path) -> Masker:
    return Masker.load(parse_methods(""), keyset_file=keys_directory / "masking.keyset.json", hmac_keyset_file=None)


def test_a_filled_topic_becomes_rows_whose_tokens_open(pipeline: RunningPipeline, masker: Masker) -> None:
    pipeline.produce(logins(range(20_000)))
    pipeline.start_worker()
    pipeline.wait_drained()
    pipeline.assert_each_once(message_id(number) for number in range(20_000))
    rows = pipeline.query(
        "SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date::text, "
        "(extract(epoch FROM sent_at) * 1000)::bigint FROM user_logins"
    )
    for user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date, sent_at_ms in rows:
        number = int(user_id.removeprefix("user-"))
        login = json.loads(body(number))
        assert (device_type, locale, app_version) == (login["device_type"], login["locale"], 2_000_000 + number % 10 * 1_000 + 1)
        assert (create_date, sent_at_ms) == (time.strftime("%Y-%m-%d", time.gmtime((NOW_MS + number) / 1000)), NOW_MS + number)
        if number % 100 == 0:
            assert masker.reveal("ip", masked_ip) == login["ip"]
            assert masker.reveal("device_id", masked_device_id) == login["device_id"]
    assert pipeline.stop_worker() == 0


def test_it_needs_no_argument_and_is_quiet_when_all_is_well(pipeline: RunningPipeline) -> None:
    pipeline.produce(logins(range(1_000)))
    pipeline.start_worker()
    pipeline.wait_drained()
    pipeline.stop_worker()
    lines = [line for line in pipeline.log("worker").splitlines() if "partition_claimed" not in line]
    assert [line.split("] ")[1].split(" ")[0] for line in lines if "Coordinator" not in line and "coordinator" not in line] == [
        "policy_in_force",
        "postgres_session",
        "worker_started",
        "worker_stopped",
    ]


def test_logs_can_be_json(pipeline: RunningPipeline) -> None:
    pipeline.start_worker(LOG_FORMAT="json")
    pipeline.wait_ready("worker")
    wait_until(lambda: "partition_claimed" in pipeline.log("worker"), "it claims its partitions")
    pipeline.stop_worker()
    events = [json.loads(line)["event"] for line in pipeline.log("worker").splitlines()]
    assert {"worker_started", "partition_claimed", "worker_stopped"} <= set(events)


def test_a_start_tells_the_policy_in_force_and_no_secret(pipeline: RunningPipeline) -> None:
    environment = pipeline.environment
    login = parse_dsn(environment["POSTGRES_DSN"])
    pipeline.start_worker(
        LOG_FORMAT="json", MASKING_METHODS="device_id=redact", CREATE_DATE_TIME_ZONE="Asia/Tokyo", PGTZ="Europe/Berlin"
    )
    pipeline.wait_ready("worker")
    wait_until(lambda: "postgres_session" in pipeline.log("worker"), "a session of the worker's")
    pipeline.stop_worker()
    log = pipeline.log("worker")
    events = [json.loads(line) for line in log.splitlines()]
    (policy,) = (event for event in events if event["event"] == "policy_in_force")
    key_ids = load_masking_keyset(Path(environment["MASKING_KEYSET_FILE"])).key_ids
    expected = {
        "masking": "ip=aes-siv,device_id=redact",
        "masking_keys": f"MASKING_KEYSET_FILE:{min(key_ids)}*",
        "app_version_encoding": "ordered",
        "create_date_time_zone": "Asia/Tokyo",
        "consumer_group": environment["CONSUMER_GROUP"],
        "kafka": pipeline.bootstrap_servers,
        "kafka_security": "plaintext",
        "topic": pipeline.topic,
        "variables_not_read": "PGTZ",
        "postgres": login["host"],
        "postgres_database": login["dbname"],
        "postgres_login": login["user"],
        "postgres_role": "stream_writer",
        "postgres_schema": "public",
        "postgres_sslmode": "prefer",
    }
    assert {name: value for name, value in policy.items() if name not in {"event", "level", "logger", "timestamp"}} == expected
    (session,) = (event for event in events if event["event"] == "postgres_session")
    assert (session["tls"], session["role"]) == ("none", "stream_writer")
    assert login["password"] not in log
    assert Path(environment["MASKING_KEYSET_FILE"]).read_text() not in log


def test_a_few_records_are_written_without_waiting_for_a_full_window(pipeline: RunningPipeline) -> None:
    pipeline.start_worker()
    pipeline.wait_ready("worker")
    pipeline.produce(logins(range(3)))
    started = time.monotonic()
    wait_until(lambda: pipeline.count("user_logins") == 3, "three rows", 10)
    assert time.monotonic() - started < 3.0, "a window of 0.2 s took seconds"


def test_a_second_worker_starts_beside_the_first_and_takes_its_share(pipeline: RunningPipeline) -> None:
    pipeline.start_worker("first")
    pipeline.wait_ready("first")
    pipeline.start_worker("second", WEB_PORT=str(pipeline.ports["first"]))
    wait_until(lambda: fields_in_log(pipeline.log("second"), "partition_claimed"), "the second claims partitions")
    (started,) = fields_in_log(pipeline.log("second"), "worker_started")
    assert int(started["web_port"]) > pipeline.ports["first"]
    pipeline.produce(logins(range(2_000)))
    pipeline.wait_drained()
    pipeline.assert_each_once(message_id(number) for number in range(2_000))
    owners = {owner for (owner,) in pipeline.query("SELECT owner FROM stream_positions")}
    assert len(owners) == 2


def test_killed_workers_lose_nothing_and_write_nothing_twice(pipeline: RunningPipeline) -> None:
    pipeline.produce(logins(range(60_000)))

    def wait_for_rows(wanted: int) -> None:
        wait_until(lambda: pipeline.count("user_logins") >= wanted, f"{wanted} rows")

    for round_number in range(4):
        pipeline.start_worker()
        wait_for_rows(10_000 * (round_number + 1))
        pipeline.kill("worker")
    pipeline.start_worker()
    pipeline.wait_drained()
    pipeline.assert_each_once(message_id(number) for number in range(60_000))


def test_a_worker_that_slept_through_its_session_writes_nothing_more(pipeline: RunningPipeline) -> None:
    pipeline.start_worker("zombie", WINDOW_ROWS="500", WINDOW_SECONDS="30", BUFFER_BYTES_MAX="16777216")
    pipeline.wait_ready("zombie")
    pipeline.produce(logins(range(1_000)))
    wait_until(lambda: pipeline.metric("zombie", "stream_records_received_total") == 1_000, "the records wait in an open window")
    pipeline.running["zombie"].send_signal(Signals.SIGSTOP)
    pipeline.start_worker("heir")
    wait_until(lambda: pipeline.count("user_logins") == 1_000, "the heir writes them")
    pipeline.produce(logins(range(1_000, 2_000)))
    pipeline.running["zombie"].send_signal(Signals.SIGCONT)
    pipeline.wait_drained()
    wait_until(lambda: pipeline.metric("zombie", "stream_writes_fenced_total") >= 1, "the zombie's write is refused and counted")
    pipeline.assert_each_once(message_id(number) for number in range(2_000))


def test_a_write_of_a_former_owner_is_fenced(pipeline: RunningPipeline) -> None:
    pipeline.start_worker(WINDOW_SECONDS="60", WINDOW_ROWS="100000")
    pipeline.wait_ready("worker")
    pipeline.produce(logins(range(100)))
    wait_until(lambda: pipeline.metric("worker", "stream_records_received_total") == 100, "the records wait in an open window")
    pipeline.query("UPDATE stream_positions SET epoch = epoch + 1, owner = 'another'")
    pipeline.produce(logins(range(100, 200)))
    pipeline.stop_worker()
    assert pipeline.count("user_logins") == 0
    assert "write_fenced" in pipeline.log("worker")
    pipeline.start_worker("heir")
    pipeline.wait_drained()
    pipeline.assert_each_once(message_id(number) for number in range(200))


def test_postgres_absent_for_20_seconds_under_load(pipeline: RunningPipeline, postgres: Postgres) -> None:
    pipeline.start_worker()
    pipeline.produce(logins(range(10_000)))
    wait_until(lambda: pipeline.count("user_logins") > 0, "rows")
    postgres.stop(mode="immediate")
    try:
        pipeline.produce(logins(range(10_000, 60_000)))
        time.sleep(20)
        rss = pipeline.metric("worker", "process_resident_memory_bytes")
        assert pipeline.metric("worker", "stream_database_retries_total") > 0
        assert not pipeline.log("worker").count("partition_stopped")
    finally:
        postgres.start()
    pipeline.wait_drained()
    pipeline.assert_each_once(message_id(number) for number in range(60_000))
    assert rss < 300 * 2**20
    assert len(fields_in_log(pipeline.log("worker"), "worker_started")) == 1


def test_kafka_killed_and_started_again(pipeline: RunningPipeline, kafka: Kafka) -> None:
    pipeline.start_worker()
    pipeline.produce(logins(range(20_000)))
    wait_until(lambda: pipeline.count("user_logins") > 0, "rows")
    kafka.kill()
    time.sleep(8)  # longer than the session timeout: the group has to be joined anew
    kafka.start()
    pipeline.produce(logins(range(20_000, 30_000)))
    pipeline.wait_drained()
    pipeline.assert_each_once(message_id(number) for number in range(30_000))
    assert len(fields_in_log(pipeline.log("worker"), "worker_started")) == 1


def test_a_row_that_postgres_refuses_is_one_dead_letter(pipeline: RunningPipeline) -> None:
    pipeline.query("ALTER TABLE user_logins ADD CONSTRAINT no_unlucky CHECK (user_id <> 'user-4711')")
    pipeline.produce(logins(range(6_000)))
    pipeline.start_worker()
    pipeline.wait_drained()
    assert pipeline.query("SELECT message_id::text, reason, field FROM dead_letters") == [(message_id(4711), "row_refused", None)]
    pipeline.assert_each_once(message_id(number) for number in range(6_000))


def test_replayed_dead_letters_are_rows_once_the_cause_is_mended_and_open_again_if_not(
    pipeline: RunningPipeline, keys_directory: Path
) -> None:
    """Twice over, so that the second replay of what stays bad is told apart from the first."""
    pipeline.query("ALTER TABLE user_logins ADD CONSTRAINT no_unlucky CHECK (user_id NOT LIKE 'user-13_')")
    pipeline.produce([*logins(range(200)), (b"user-999", b"not json", headers(999))])
    pipeline.start_worker()
    pipeline.wait_drained()
    assert pipeline.count("dead_letters") == 11
    pipeline.query("ALTER TABLE user_logins DROP CONSTRAINT no_unlucky")
    letters = "SELECT reason, resolution, replays, replays_failed, replay_ended, count(*) FROM dead_letters GROUP BY 1, 2, 3, 4, 5"
    private = {"DEAD_LETTER_PRIVATE_KEYSET_FILE": str(keys_directory / "dead-letter-private.keyset.json")}
    for replays in (1, 2):
        pipeline.run("dead-letters", "replay", "--reason", "the constraint is gone", "--yes", **private)
        pipeline.wait_drained()
        assert sorted(pipeline.query(letters)) == [
            ("not_json", None, replays, replays, "dead_letter", 1),
            ("row_refused", "replayed", 1, 0, "row", 10),
        ]
    assert pipeline.count("user_logins") == 200
    assert pipeline.metric("worker", "stream_duplicates_skipped_total") == 0


def test_a_missing_table_stops_the_partition_until_it_is_there(pipeline: RunningPipeline) -> None:
    pipeline.start_worker()
    pipeline.wait_ready("worker")
    pipeline.query("ALTER TABLE user_logins RENAME TO elsewhere")
    pipeline.produce(logins(range(1_000)))
    wait_until(lambda: "partition_stopped" in pipeline.log("worker"), "the partition stops")
    assert "faust -A stream_app migrate" in pipeline.log("worker")
    assert pipeline.count("dead_letters") == 0
    pipeline.query("ALTER TABLE elsewhere RENAME TO user_logins")
    pipeline.wait_drained()
    pipeline.assert_each_once(message_id(number) for number in range(1_000))


def test_a_topic_made_anew_stops_the_partition_and_names_the_command(pipeline: RunningPipeline) -> None:
    pipeline.query(
        "INSERT INTO stream_positions SELECT %s, %s, p, 1000, 1, 'before', now() FROM generate_series(0, 3) p",
        [pipeline.topic, pipeline.topic],
    )
    pipeline.produce(logins(range(100)))
    pipeline.start_worker()
    wait_until(lambda: "positions reset" in pipeline.log("worker"), "the partition stops")
    assert pipeline.count("user_logins") == 0
    for partition in range(4):
        pipeline.run(
            "positions", "reset", "--topic", pipeline.topic, "--partition", str(partition), "--to", "0", "--reason", "test", "--yes"
        )
    pipeline.wait_drained()
    pipeline.assert_each_once(message_id(number) for number in range(100))


def test_a_group_beside_one_that_has_begun_is_refused_until_it_adopts_the_positions(pipeline: RunningPipeline) -> None:
    pipeline.query(
        "INSERT INTO stream_positions SELECT 'elder', %s, p, 0, 1, 'before', now() FROM generate_series(0, 3) p", [pipeline.topic]
    )
    pipeline.produce(logins(range(100)))
    assert pipeline.start_worker("refused").wait(30) == EXIT_REFUSED
    del pipeline.running["refused"]
    assert f"CONSUMER_GROUP: '{pipeline.topic}' has no position for {pipeline.topic}, and 'elder' has" in pipeline.log("refused")
    assert pipeline.count("user_logins") == 0
    pipeline.run(
        "positions", "adopt", "--topic", pipeline.topic, "--from", "elder", "--group", pipeline.topic, "--reason", "test", "--yes"
    )
    pipeline.start_worker()
    wait_until(lambda: pipeline.count("user_logins") == 100, "the adopted positions are gone on from")
    pipeline.assert_each_once(message_id(number) for number in range(100))


def test_a_record_that_cannot_be_unpacked_stops_its_partition_and_neither_the_worker_nor_what_is_before_it(
    pipeline: RunningPipeline,
) -> None:
    """Its checksum is right; the name of a header is no UTF-8, which Kafka does not mind. As the runbook says it goes on."""
    pipeline.start_worker()
    pipeline.wait_ready("worker")
    pipeline.produce(logins(range(100)))
    asyncio.run(produce_packed(pipeline.bootstrap_servers, pipeline.topic, 0, with_a_strange_header()))
    at = pipeline.log_ends()[0] - 1
    pipeline.produce(logins(range(100, 200)))
    wait_until(lambda: pipeline.metric("worker", "stream_partition_stopped", partition="0", topic=pipeline.topic), "it stops")
    ends = {**pipeline.log_ends(), 0: at}
    wait_until(lambda: pipeline.positions() == ends, "all before it and all of the other partitions is written")
    wait_until(lambda: pipeline.log("worker").count("partition_failed") >= 2, "it is tried again")
    assert {line["next_offset"] for line in fields_in_log(pipeline.log("worker"), "partition_failed")} == {str(at)}
    pipeline.run(
        "positions", "reset", "--topic", pipeline.topic, "--partition", "0", "--to", str(at + 1), "--reason", "test", "--yes"
    )
    pipeline.wait_drained()
    pipeline.assert_each_once(message_id(number) for number in range(200))
    assert pipeline.stop_worker() == 0


def test_what_an_open_transaction_hides_is_lag_and_becomes_rows_when_it_ends(pipeline: RunningPipeline) -> None:
    def shown(gauge: str) -> float:
        return pipeline.metric("worker", f"stream_partition_{gauge}", partition="0", topic=pipeline.topic)

    pipeline.start_worker()
    pipeline.wait_ready("worker")
    pipeline.produce(logins(range(100)), partition=0)
    pipeline.wait_drained()
    other = Producer(
        {"bootstrap.servers": pipeline.bootstrap_servers, "transactional.id": pipeline.topic, "transaction.timeout.ms": 300_000}
    )
    other.init_transactions(30)
    other.begin_transaction()
    other.produce(pipeline.topic, b"taken back", partition=0)
    assert other.flush(30) == 0
    pipeline.produce(logins(range(100, 800)), partition=0)
    wait_until(lambda: shown("lag_records") == 701, "all that is behind it counts")
    wait_until(lambda: shown("open_transaction_seconds") > 0, "it is seen open at two looks")
    assert (shown("last_stable_offset"), shown("log_end_offset"), shown("next_offset")) == (100, 801, 100)
    assert shown("lag_seconds") > 0
    assert pipeline.count("user_logins") == 100
    other.abort_transaction(30)
    wait_until(lambda: pipeline.count("user_logins") == 800, "what was behind it is written")
    wait_until(lambda: shown("open_transaction_seconds") == 0, "none is open")
    pipeline.produce(logins(range(800, 801)), partition=0)  # behind the control record of its end, which nobody is given
    pipeline.wait_drained()
    wait_until(lambda: shown("lag_records") == 0, "nothing waits")
    pipeline.assert_each_once(message_id(number) for number in range(801))
    assert "partition_read_again" not in pipeline.log("worker")
    assert pipeline.stop_worker() == 0


def test_a_redelivered_message_adds_no_row(pipeline: RunningPipeline) -> None:
    pipeline.produce(logins(range(500)))
    pipeline.produce(logins(range(500)))
    pipeline.produce([(b"k", b"nonsense", headers(500))] * 3)
    pipeline.start_worker()
    pipeline.wait_drained()
    pipeline.assert_each_once(message_id(number) for number in range(501))
    assert pipeline.metric("worker", "stream_duplicates_skipped_total") == 502


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_it_reads_every_codec(pipeline: RunningPipeline, compression: str) -> None:
    pipeline.produce(logins(range(200)), compression)
    pipeline.start_worker()
    pipeline.wait_drained()
    pipeline.assert_each_once(message_id(number) for number in range(200))


def test_it_stops_within_its_bound_and_writes_what_it_held(pipeline: RunningPipeline) -> None:
    pipeline.start_worker(WINDOW_SECONDS="60", WINDOW_ROWS="100000")
    pipeline.wait_ready("worker")
    pipeline.produce(logins(range(100)))
    wait_until(lambda: pipeline.metric("worker", "stream_records_received_total") == 100, "the records wait in an open window")
    started = time.monotonic()
    assert pipeline.stop_worker() == 0
    assert time.monotonic() - started < 5
    assert pipeline.count("user_logins") == 100


def test_it_stops_within_a_bound_although_kafka_is_silent(pipeline: RunningPipeline, kafka: Kafka) -> None:
    pipeline.start_worker(WINDOW_SECONDS="60", WINDOW_ROWS="100000")
    pipeline.wait_ready("worker")
    pipeline.produce(logins(range(100)))
    wait_until(lambda: pipeline.metric("worker", "stream_records_received_total") == 100, "the records wait in an open window")
    kafka.child.send_signal(Signals.SIGSTOP)
    try:
        started = time.monotonic()
        assert pipeline.stop_worker() == 0
        assert time.monotonic() - started < 25
    finally:
        kafka.child.send_signal(Signals.SIGCONT)
    assert pipeline.count("user_logins") == 100


def test_it_waits_for_kafka_and_says_so(pipeline: RunningPipeline) -> None:
    pipeline.start_worker(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    wait_until(lambda: "kafka_failing" in pipeline.log("worker"), "it says what it waits for")
    why = "nobody listens at 127.0.0.1:1 (KAFKA_BOOTSTRAP_SERVERS)"
    assert why in pipeline.log("worker")
    assert why in pipeline._readiness("worker")
    assert pipeline.running["worker"].returncode is None
    assert pipeline.stop_worker() == 0


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("MASKING_KEYSET_FILE", "/nowhere/keyset.json"),
        ("MASKING_KEYSET_FILE", ""),
        ("DEAD_LETTER_PUBLIC_KEYSET_FILE", ""),
        ("POSTGRES_DSN", ""),
        ("MASKING_METHODS", "ip=rot13"),
        ("WINDOW_ROWS", "0"),
    ],
)
def test_a_start_without_what_it_needs_is_refused_in_one_line(pipeline: RunningPipeline, setting: str, value: str) -> None:
    worker = pipeline.start_worker(**{setting: value})
    assert worker.wait(30) == EXIT_REFUSED
    del pipeline.running["worker"]
    (line,) = pipeline.log("worker").splitlines()
    assert line.startswith(f"Error: {setting}: ")
