"""A pipeline of its own for each test, on the session's servers; the database is a copy of a migrated one."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from acceptance.running_pipeline import RunningPipeline
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from mypy_boto3_sqs import SQSClient

from dev_servers.elasticmq import MADE_UP_CREDENTIALS, ElasticMq
from dev_servers.kafka import Kafka
from dev_servers.pipeline_processes import PipelineProcesses
from dev_servers.postgres import Postgres
from pipeline.contract import RECORD_BYTES_MAX

PARTITIONS = 4


@pytest.fixture(scope="session")
def keys_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keysets made by the command that users have."""
    directory = tmp_path_factory.mktemp("keys")
    PipelineProcesses(directory, {}).run("keys", "create", "--directory", str(directory / "keysets"))
    return directory / "keysets"


@pytest.fixture(scope="session")
def migrated_template(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database that `migrate` made, to copy from."""
    dsn = postgres.create_database()
    PipelineProcesses(tmp_path_factory.mktemp("migrate"), {"POSTGRES_DSN": dsn}).run("migrate")
    return dsn.rpartition("/")[2]


@pytest.fixture
def sqs(elasticmq: ElasticMq) -> SQSClient:
    return boto3.client(
        "sqs",
        endpoint_url=elasticmq.endpoint_url,
        region_name=MADE_UP_CREDENTIALS["AWS_DEFAULT_REGION"],
        aws_access_key_id=MADE_UP_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=MADE_UP_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )


@pytest.fixture
def pipeline(
    kafka: Kafka, postgres: Postgres, migrated_template: str, keys_directory: Path, tmp_path: Path
) -> Iterator[RunningPipeline]:
    """Nothing runs yet; the topic is there."""
    name = f"test-{secrets.token_hex(4)}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.create_topics([NewTopic(name, PARTITIONS, 1, config={"max.message.bytes": str(RECORD_BYTES_MAX)})])[name].result()
    dsn = postgres.create_database(template=migrated_template)
    running = RunningPipeline(
        tmp_path,
        {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_TOPIC": name,
            "KAFKA_SESSION_TIMEOUT_SECONDS": "6",
            "CONSUMER_GROUP": name,
            "POSTGRES_DSN": dsn,
            "MASKING_KEYSET_FILE": str(keys_directory / "masking.keyset.json"),
            "DEAD_LETTER_PUBLIC_KEYSET_FILE": str(keys_directory / "dead-letter-public.keyset.json"),
        },
        bootstrap_servers=kafka.bootstrap_servers,
        dsn=dsn,
        topic=name,
    )
    yield running
    running.stop_all()
    postgres.drop_database(dsn)
    admin.delete_topics([name])[name].result()


@pytest.fixture
def queue_url(sqs: SQSClient, pipeline: RunningPipeline, elasticmq: ElasticMq) -> Iterator[str]:
    """A queue of the test's own, which its bridges read."""
    url = sqs.create_queue(QueueName=pipeline.topic, Attributes={"VisibilityTimeout": "10"})["QueueUrl"]
    pipeline.environment |= {"AWS_ENDPOINT_URL_SQS": elasticmq.endpoint_url, "SQS_QUEUE_URL": url, **MADE_UP_CREDENTIALS}
    yield url
    pipeline.stop_all()
    sqs.delete_queue(QueueUrl=url)
