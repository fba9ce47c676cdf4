"""``python -m dev_servers up`` and the servers' objects, on the real servers."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import boto3
import psutil
import psycopg2
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from dev_servers.__main__ import make_servers
from dev_servers.elasticmq import ElasticMq, LoginQueue
from dev_servers.kafka import Kafka
from dev_servers.moto_sqs import Moto
from dev_servers.postgres import Postgres
from dev_servers.process import DevServerError
from dev_servers.queue_filling import sqs_client
from dev_servers.server import Server, start_together, stop_together

UP_SECONDS = 60.0
GONE_SECONDS = 15.0


def eventually(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in processes if is_alive(each)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two questions
        return False


def shared_memory_of(processes: list[psutil.Process]) -> set[Path]:
    """The files of shared memory that these have mapped: others on this machine may have a Postgres, too."""
    mapped = {Path(entry.path) for process in processes for entry in process.memory_maps()}
    return {path for path in mapped if path.parent == Path("/dev/shm")}  # noqa: S108 - Postgres's, looked at


@contextmanager
def up(directory: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """``python -m dev_servers up``, from its start until it has ended; its env file need not be there yet."""
    env_file = directory / "addresses.env"
    places = ["--directory", str(directory / "data"), "--env-file", str(env_file)]
    command = [sys.executable, "-m", "dev_servers", "up", *places, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, env_file
        finally:
            process.kill()


def wait_for_addresses(process: subprocess.Popen[str], env_file: Path) -> dict[str, str]:
    """The variables that a shell gets by sourcing the env file."""
    eventually(lambda: env_file.exists() or process.poll() is not None, UP_SECONDS, "the env file is written")
    assert process.poll() is None, process.communicate()[1]
    script = f"set -a; . {shlex.quote(str(env_file))}; set +a; env -0"
    output = subprocess.run(["/bin/sh", "-c", script], env={}, capture_output=True, check=True, text=True).stdout
    variables = dict(line.split("=", 1) for line in output.split("\0") if line)
    return {name: value for name, value in variables.items() if name not in {"PWD", "SHLVL", "_", "OLDPWD"}}


def ask_postgres(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def end_offset_after_one_record(kafka: Kafka, topic: str) -> int:
    """Where a record landed: waits for its acknowledgement."""
    offsets: list[int | None] = []
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "acks": "all"})
    producer.produce(topic, b"value", on_delivery=lambda _, message: offsets.append(message.offset()))
    assert producer.flush(20) == 0
    (offset,) = offsets
    assert offset is not None
    return offset


def test_up_writes_addresses_at_which_all_three_answer_and_sigterm_ends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with up(tmp_path) as (process, env_file):
        addresses = wait_for_addresses(process, env_file)
        assert set(addresses) == {
            "AWS_ENDPOINT_URL_SQS", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "SQS_QUEUE_URL",
            "KAFKA_BOOTSTRAP_SERVERS", "POSTGRES_DSN",
        }  # fmt: skip
        assert env_file.stat().st_mode & 0o077 == 0, "there is a password in it"
        for name, value in addresses.items():
            monkeypatch.setenv(name, value)
        sqs = boto3.client("sqs")
        queue_url = addresses["SQS_QUEUE_URL"]
        sqs.send_message(QueueUrl=queue_url, MessageBody="x" * 1_048_576)
        assert len(sqs.receive_message(QueueUrl=queue_url)["Messages"]) == 1
        with pytest.raises(sqs.exceptions.ClientError):  # SQS's limits are on
            sqs.send_message(QueueUrl=queue_url, MessageBody="x" * 1_048_577)
        attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])["Attributes"]
        assert attributes["VisibilityTimeout"] == "30"
        assert "login-queue-dead-letters" in attributes["RedrivePolicy"]
        sqs.close()
        assert AdminClient({"bootstrap.servers": addresses["KAFKA_BOOTSTRAP_SERVERS"]}).list_topics(timeout=10).brokers
        assert ask_postgres(addresses["POSTGRES_DSN"], "SHOW fsync") == [("on",)]

        processes = psutil.Process(process.pid).children(recursive=True)
        assert len(alive(processes)) > 6, "three supervisors, their servers and Postgres's own processes"
        process.terminate()
        assert process.wait(GONE_SECONDS) == 0
        assert alive(processes) == []
        assert not env_file.exists(), "addresses at which nothing answers"


def test_nothing_is_left_when_up_is_killed(tmp_path: Path) -> None:
    with up(tmp_path) as (process, env_file):
        addresses = wait_for_addresses(process, env_file)
        with closing(psycopg2.connect(addresses["POSTGRES_DSN"], async_=True)) as connection:
            eventually(lambda: connection.poll() == psycopg2.extensions.POLL_OK, 10, "connected")
            connection.cursor().execute("SELECT pg_sleep(600)")  # a backend in the middle of its work
            processes = psutil.Process(process.pid).children(recursive=True)
            segments = shared_memory_of(processes)
            assert segments, "Postgres has some"
            process.kill()
            process.wait()
            eventually(lambda: alive(processes) == [], GONE_SECONDS, "all descendants are gone")
    assert [segment for segment in segments if segment.exists()] == []


def test_only_starts_the_named_ones(tmp_path: Path) -> None:
    with up(tmp_path, "--only", "postgres") as (process, env_file):
        assert set(wait_for_addresses(process, env_file)) == {"POSTGRES_DSN"}
        assert [each.name for each in (tmp_path / "data").iterdir()] == ["postgres"]


def test_a_message_waits_for_the_next_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for messages in ("0", "1"):
        with up(tmp_path, "--only", "elasticmq") as (process, env_file):
            for name, value in wait_for_addresses(process, env_file).items():
                monkeypatch.setenv(name, value)
            with closing(boto3.client("sqs")) as sqs:
                queue_url = os.environ["SQS_QUEUE_URL"]
                attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])["Attributes"]
                assert attributes["ApproximateNumberOfMessages"] == messages
                sqs.send_message(QueueUrl=queue_url, MessageBody="waits")
            process.send_signal(signal.SIGINT)
            assert process.wait(GONE_SECONDS) == 0


def test_only_refuses_an_unknown_name(tmp_path: Path) -> None:
    with up(tmp_path, "--only", "postgres,oracle") as (process, _):
        _, errors = process.communicate(timeout=UP_SECONDS)
    assert process.returncode == 2
    assert "elasticmq, kafka, postgres; not oracle" in errors


def test_up_says_which_server_failed_and_shows_the_end_of_its_log(tmp_path: Path) -> None:
    data = tmp_path / "data" / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    (data.parent / "password").write_text("made-up\n")
    with up(tmp_path, "--only", "elasticmq,postgres") as (process, env_file):
        processes: list[psutil.Process] = []
        while process.poll() is None:
            processes = list({*processes, *psutil.Process(process.pid).children(recursive=True)})
            time.sleep(0.05)
        errors = process.communicate()[1]
    assert process.returncode == 1
    assert "postgres: ended while starting, with exit code" in errors
    assert "postgresql.conf" in errors, "the end of its log"
    assert not env_file.exists()
    assert alive(processes) == [], "the other server was stopped"


def test_up_ends_with_an_error_when_a_server_dies(tmp_path: Path) -> None:
    with up(tmp_path, "--only", "postgres") as (process, env_file):
        wait_for_addresses(process, env_file)
        next(each for each in psutil.Process(process.pid).children(recursive=True) if each.name() == "postgres").kill()
        errors = process.communicate(timeout=GONE_SECONDS)[1]
    assert process.returncode == 1
    assert "postgres: ended early, by SIGKILL" in errors


def test_a_second_start_in_the_same_directory_waits_for_the_first_ones_end(tmp_path: Path) -> None:
    first = Postgres(tmp_path).start()
    first.child.send_signal(signal.SIGTERM)  # smart: waits for clients to leave
    second = Postgres(tmp_path).start()
    try:
        assert ask_postgres(second.dsn, "SELECT 1") == [(1,)]
        assert first.child.returncode == 0
    finally:
        first.stop()
        second.stop()


def kill_all(servers: Sequence[Server]) -> None:
    for server in servers:
        server.kill()


def test_data_and_ports_are_there_again_after_a_stop_and_after_a_kill(tmp_path: Path) -> None:
    servers = make_servers(tmp_path, keep_messages=True)
    elasticmq, kafka, postgres = servers
    assert isinstance(elasticmq, ElasticMq)
    assert isinstance(kafka, Kafka)
    assert isinstance(postgres, Postgres)
    try:
        start_together(servers)
        environment = {name: value for server in servers for name, value in server.environment.items()}
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(20)
        ask_postgres(postgres.dsn, "CREATE TABLE kept AS SELECT 7 AS seven")
        with closing(sqs_client(elasticmq)) as sqs:
            sqs.send_message(QueueUrl=elasticmq.queue_url, MessageBody="kept")
        assert end_offset_after_one_record(kafka, "kept") == 0
        for again, end in enumerate((stop_together, kill_all), start=1):
            end(servers)
            start_together(servers)
            assert {name: value for server in servers for name, value in server.environment.items()} == environment
            assert end_offset_after_one_record(kafka, "kept") == again
            assert ask_postgres(postgres.dsn, "SELECT seven FROM kept") == [(7,)]
            with closing(sqs_client(elasticmq)) as sqs:
                attributes = sqs.get_queue_attributes(QueueUrl=elasticmq.queue_url, AttributeNames=["All"])["Attributes"]
            assert attributes["ApproximateNumberOfMessages"] == "1"
    finally:
        stop_together(servers)


def test_a_taken_port_is_named_by_the_end_of_the_log(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(DevServerError) as error:
        Postgres(tmp_path, port=taken.getsockname()[1]).start()
    assert str(error.value).startswith("postgres: ")
    assert "Address already in use" in str(error.value)


@pytest.mark.parametrize("fine_is", ["making its data directory", "waiting for an answer"])
def test_when_one_of_several_fails_the_others_are_stopped(fine_is: str, tmp_path: Path) -> None:
    fails, fine = Postgres(tmp_path / "fails"), Postgres(tmp_path / "fine")
    made_before = fails if fine_is == "making its data directory" else fine  # the other one takes longer
    with made_before:
        pass
    with socket.create_server(("127.0.0.1", fails.port)), pytest.raises(DevServerError, match="Address already in use"):
        start_together([fine, fails])
    with pytest.raises(RuntimeError, match="not started"):
        _ = fine.child
    fine.start()  # its directory is free
    fine.stop()


def test_the_login_queue_is_made_as_asked_for(tmp_path: Path) -> None:
    queue = LoginQueue(name="asked-for", visibility_seconds=7, receives_max=1)
    with ElasticMq(tmp_path, queue=queue) as server, closing(sqs_client(server)) as sqs:
        attributes = sqs.get_queue_attributes(QueueUrl=server.queue_url, AttributeNames=["All"])["Attributes"]
        assert attributes["VisibilityTimeout"] == "7"
        sqs.send_message(QueueUrl=server.queue_url, MessageBody="never deleted")
        for _ in range(2):
            for message in sqs.receive_message(QueueUrl=server.queue_url).get("Messages", []):
                sqs.change_message_visibility(
                    QueueUrl=server.queue_url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
                )
        dead_letters = sqs.receive_message(QueueUrl=f"{server.queue_url}-dead-letters")["Messages"]
        assert [message["Body"] for message in dead_letters] == ["never deleted"]


def test_moto_takes_what_sqs_takes(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    with closing(boto3.client("sqs")) as sqs:
        queue_url = sqs.create_queue(QueueName="of-the-dev-servers-test")["QueueUrl"]
        assert queue_url.startswith(moto.endpoint_url)
        sqs.send_message(QueueUrl=queue_url, MessageBody="kept")
        assert sqs.receive_message(QueueUrl=queue_url)["Messages"][0]["Body"] == "kept"


def test_a_wrong_kafka_property_is_named_by_the_end_of_the_log(tmp_path: Path) -> None:
    with pytest.raises(DevServerError, match=r"kafka: .*formatted") as error:
        Kafka(tmp_path, properties={"log.retention.ms": "soon"}).start()
    assert "log.retention.ms" in str(error.value)


def test_databases_are_made_from_a_template_and_dropped_under_open_connections(postgres: Postgres) -> None:
    template = postgres.create_database()
    ask_postgres(template, "CREATE TABLE made AS SELECT 1 AS one")
    copy = postgres.create_database(template.rpartition("/")[2])
    assert ask_postgres(copy, "SELECT one FROM made") == [(1,)]
    with closing(psycopg2.connect(copy)):
        postgres.drop_database(copy)
    postgres.drop_database(template)
    names = [name for (name,) in ask_postgres(postgres.dsn, "SELECT datname FROM pg_database")]
    assert copy.rpartition("/")[2] not in names


def test_postgres_is_entered_by_password_only(postgres: Postgres) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(postgres.dsn_of("postgres", password="wrong"))


def test_postgres_never_runs_as_root(postgres: Postgres) -> None:
    assert psutil.Process(postgres.child.pid).uids().effective != 0
