"""docs/install.md: its blocks are run as they stand, with the wheel, in an empty environment and an empty directory.

Only the servers' addresses are others, and the TLS that the tests' Postgres does not have.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest
from acceptance.printed_blocks import STOP_ALL, blocks, in_bash
from mypy_boto3_sqs import SQSClient
from psycopg2.extensions import parse_dsn

from dev_servers.elasticmq import ElasticMq
from dev_servers.kafka import Kafka
from dev_servers.ports import free_port
from dev_servers.postgres import program
from stream_app.exports import PACKAGES

PROJECT = Path(__file__).parents[2]
INSTALL_SECONDS = 200.0
RUN_SECONDS = 120.0
LOGIN = (
    '{"user_id": "u-1", "app_version": "2.3.0", "device_type": "android", '
    '"ip": "203.0.113.7", "locale": "DE", "device_id": "593-47-5928"}'
)
WAIT_FOR_BOTH = """
until [ "$(psql 'postgresql://owner@db.example/login_stream' -Atc \
  'SELECT (SELECT count(*) FROM user_logins) + (SELECT count(*) FROM dead_letters)')" = 2 ]
do sleep 0.1; done
"""


def blocks_of_the_page() -> list[str]:
    return blocks((PROJECT / "docs" / "install.md").read_text())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty directory in which the page's second block was run."""
    make, install, *_ = blocks_of_the_page()
    assert make == "make wheel"
    directory = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", directory], cwd=PROJECT, check=True
    )
    shutil.copy(PROJECT / "requirements.lock", directory)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PIP_NO_COMPILE": "1"}
    in_bash(install, directory, environment, INSTALL_SECONDS)
    return directory


def test_the_wheel_does_what_the_page_says(
    installed: Path, kafka: Kafka, elasticmq: ElasticMq, sqs: SQSClient, fresh_database: str
) -> None:
    url = sqs.create_queue(QueueName="install")["QueueUrl"]
    for body in (LOGIN, '{"foo": 1}'):
        sqs.send_message(QueueUrl=url, MessageBody=body)
    owner = parse_dsn(fresh_database)
    address = f"{owner['host']}:{owner['port']}/{owner['dbname']}"
    ports = {port: str(free_port()) for port in ("6060", "6066", "6090")}
    theirs = {
        "owner@db.example/login_stream": f"{owner['user']}@{address}",
        "@db.example/login_stream": f"@{address}",
        "POSTGRES_SSLMODE=verify-full": "POSTGRES_SSLMODE=disable",
        "https://sqs.eu-central-1.amazonaws.com/123456789012/login-queue": url,
        "kafka-1.example:9092,kafka-2.example:9092": kafka.bootstrap_servers,
        **ports,
    }
    script = "\n".join([*blocks_of_the_page()[2:], STOP_ALL])
    rows = "psql 'postgresql://owner@db.example/login_stream' -c 'SELECT count(*)"
    assert rows in script
    script = script.replace(rows, WAIT_FOR_BOTH + rows)
    for example, real in theirs.items():
        assert example in script
        script = script.replace(example, real)
    environment = {
        "HOME": str(installed),
        "PATH": f"{installed}/login-stream/bin:{program('psql').parent}:/usr/bin:/bin",
        "KAFKA_TOPIC": "install",
        "CONSUMER_GROUP": "install",
        "LOG_FORMAT": "json",
        "WEB_PORT": ports["6066"],
        "BRIDGE_WEB_PORT": ports["6060"],
        "MONITOR_WEB_PORT": ports["6090"],
        **{name: value for name, value in elasticmq.environment.items() if name.startswith("AWS_")},
    }
    for name, secret in (("owner-password", owner["password"]), (".pgpass", f"*:*:*:{owner['user']}:{owner['password']}")):
        (installed / name).touch(mode=0o600)
        (installed / name).write_text(secret)
    try:
        output = in_bash(script, installed, environment, RUN_SECONDS)
    finally:
        with psycopg2.connect(fresh_database) as connection, connection.cursor() as cursor:
            cursor.execute("DROP ROLE IF EXISTS worker, monitor, operator")
        connection.close()
    assert "the database is up to date" in output
    assert re.search(r"^ *count *\n-+\n *1\n", output, re.MULTILINE)
    assert re.search(r"^missing_key +1$", output, re.MULTILINE)
    assert "a process ended" not in output
    boards = {file.relative_to(PROJECT / "grafana") for file in (PROJECT / "grafana").rglob("*.json")}
    assert {file.relative_to(installed / "boards") for file in (installed / "boards").rglob("*.json")} == boards
    assert (installed / "alerts" / "rules" / "login_stream.yml").read_bytes() == (
        PROJECT / "prometheus/rules/login_stream.yml"
    ).read_bytes()


def test_the_exported_containers_are_those_of_the_checkout(installed: Path, tmp_path: Path) -> None:
    """And whole: what docker-compose.yml and the Dockerfile name is there."""
    subprocess.run(
        [installed / "login-stream" / "bin" / "login-stream", "export", "compose", tmp_path / "chain"], cwd=tmp_path, check=True
    )
    chain = tmp_path / "chain"
    for file in sorted(path for path in chain.rglob("*") if path.is_file()):
        assert file.read_bytes() == (PROJECT / file.relative_to(chain)).read_bytes(), file
    mounted = re.findall(r"^ +- \./([^:]+):", (chain / "docker-compose.yml").read_text(), re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (chain / "Dockerfile").read_text(), re.MULTILINE)
    assert len(mounted) > 5
    for name in [*mounted, *" ".join(copied).split()]:
        assert (chain / name).exists(), name
    ours = {
        file.relative_to(PROJECT)
        for package in PACKAGES
        for file in (PROJECT / package).rglob("*")
        if file.suffix in {".py", ".sql"}
    }
    assert len(ours) > 100
    assert {path for path in ours if not (chain / path).exists()} == set()
