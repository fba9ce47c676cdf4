"""The real servers, one set a test session; only what a test asks for is started. A server that can't be started fails the test."""

import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev_servers.elasticmq import ElasticMq
from dev_servers.kafka import Kafka
from dev_servers.moto_sqs import Moto
from dev_servers.postgres import LOG_AS_SHIPPED, Postgres

pytest_plugins = ["crash.table"]  # here, since the process that prints a table reads the conftest.py of no folder below


@pytest.fixture
def without_garbage_collection() -> Iterator[None]:
    """What stands in cycles stays, as it does in a worker for minutes; what stood there before is gone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def servers_directory() -> Iterator[Path]:
    """Where the session's servers keep data and logs: gone at its end, unlike pytest's own temporary directories."""
    with tempfile.TemporaryDirectory(prefix="dev-servers-") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def kafka(servers_directory: Path) -> Iterator[Kafka]:
    """Kafka; ``.bootstrap_servers``. No topic is there but those that tests make: name yours so that no other test meets it."""
    with Kafka(servers_directory / "kafka") as server:
        yield server


@pytest.fixture(scope="session")
def elasticmq(servers_directory: Path) -> Iterator[ElasticMq]:
    """ElasticMQ; ``.endpoint_url``. The login queue is there; make queues of your own."""
    with ElasticMq(servers_directory / "elasticmq") as server:
        yield server


@pytest.fixture(scope="session")
def moto(servers_directory: Path) -> Iterator[Moto]:
    """Moto's SQS; ``.endpoint_url``. Without a queue."""
    with Moto(servers_directory / "moto") as server:
        yield server


@pytest.fixture(scope="session")
def postgres(servers_directory: Path) -> Iterator[Postgres]:
    """Postgres; ``.dsn`` of the superuser, ``.create_database(template=None)``. Roles are shared by all its databases."""
    with Postgres(servers_directory / "postgres", settings=LOG_AS_SHIPPED) as server:
        yield server


@pytest.fixture
def fresh_database(postgres: Postgres) -> Iterator[str]:
    """The superuser's DSN of a new, empty database, which is dropped after the test."""
    dsn = postgres.create_database()
    yield dsn
    postgres.drop_database(dsn)
