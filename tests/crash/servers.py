"""The servers that all runs share, each with a proxy before it; keysets and a migrated database to copy from."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from crash.proxy import Proxy
from crash.sqs_front import SqsFront
from dev_servers import jars
from dev_servers.elasticmq import ElasticMq
from dev_servers.kafka import Kafka
from dev_servers.kafka_cluster import KafkaCluster
from dev_servers.pipeline_processes import PipelineProcesses
from dev_servers.ports import free_port
from dev_servers.postgres import Postgres
from dev_servers.server import start_together, stop_together
from stream_app.commands.keys import DEAD_LETTER_PUBLIC, MASKING

POSTGRES_SETTINGS: Mapping[str, str] = {"track_commit_timestamp": "on"}
"""So that each row can tell when it was committed."""

KAFKA_SETTINGS: Mapping[str, str] = {"log.retention.check.interval.ms": "1000", "log.initial.task.delay.ms": "1000"}
"""So that what a topic no longer keeps is gone soon."""


def key_settings(directory: Path) -> dict[str, str]:
    """The settings of a worker whose keysets are in this directory."""
    return {file.setting: str(directory / file.name) for file in (MASKING, DEAD_LETTER_PUBLIC)}


class Servers:
    """Started when entered. A fault may stop, kill or break them; it leaves them running and whole."""

    def __init__(self, directory: Path, *, kafka: Kafka | KafkaCluster | None = None, postgres: Postgres | None = None) -> None:
        """``kafka`` and ``postgres``: in the place of the usual ones, not started. No proxy stands before a cluster."""
        self.directory = directory
        kafka_proxy_port = free_port()
        self.elasticmq = ElasticMq(directory / "elasticmq")
        self.kafka = kafka or Kafka(directory / "kafka", KAFKA_SETTINGS, proxy_port=kafka_proxy_port)
        self.postgres = postgres or Postgres(directory / "postgres", settings=POSTGRES_SETTINGS)
        self._kafka_nodes = list(self.kafka.nodes.values()) if isinstance(self.kafka, KafkaCluster) else [self.kafka]
        self.kafka_proxy = Proxy(self._kafka_nodes[0].port_behind_proxy, kafka_proxy_port)
        self.postgres_proxy = Proxy(self.postgres.port)
        self.sqs_front = SqsFront(self.elasticmq.endpoint_url)
        self.keys_directory = directory / "keys"
        self._template = ""
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opening:
            servers = (self.elasticmq, *self._kafka_nodes, self.postgres)
            jars.download([self.elasticmq.name, Kafka.name])
            opening.callback(stop_together, servers)
            start_together(servers)
            for proxy in (self.kafka_proxy, self.postgres_proxy, self.sqs_front):
                opening.enter_context(proxy)
            self._make_keys_and_template()
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def heal(self) -> None:
        """Make plain what stands before the servers."""
        for proxy in (self.kafka_proxy, self.postgres_proxy, self.sqs_front):
            proxy.heal()

    def new_database(self) -> str:
        """The superuser's DSN of a new database with the tables."""
        return self.postgres.create_database(template=self._template)

    def _make_keys_and_template(self) -> None:
        dsn = self.postgres.create_database()
        processes = PipelineProcesses(self.directory, {"POSTGRES_DSN": dsn})
        processes.run("keys", "create", "--directory", str(self.keys_directory))
        processes.run("migrate")
        self._template = dsn.rpartition("/")[2]
