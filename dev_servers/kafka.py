"""A real Kafka: nodes that are broker and controller at once (KRaft), usually one."""

import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dev_servers import jars
from dev_servers.ports import HOST, accepts_connections, free_port
from dev_servers.process import ChildProcess, DevServerError, Launch
from dev_servers.server import Server

FORMAT_SECONDS = 60.0
STARTED = b"Kafka Server started"
HOUR_MS = 3_600_000

LOGGING = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",  # says STARTED
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=error",
)

PROPERTIES: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",  # a topic that nobody made on purpose would have settings that nobody chose
    "num.partitions": "4",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",  # how long a restart after SIGKILL waits for the killed broker's session to end
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",  # tests wait for a lost worker's session to end
    "log.retention.ms": str(7 * 24 * HOUR_MS),
    "log.retention.bytes": "-1",
    "log.retention.check.interval.ms": "300000",
    "log.segment.bytes": str(256 * 1024 * 1024),
    "log.cleaner.backoff.ms": "500",  # a topic that compacts does so while a test waits
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    "delete.topic.enable": "true",
}


def _new_cluster_id() -> str:
    return urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")


def _one_node() -> Mapping[int, int]:
    return {1: free_port()}


@dataclass(frozen=True, slots=True)
class Quorum:
    """The nodes that make up one cluster."""

    controller_ports: Mapping[int, int] = field(default_factory=_one_node)
    """By node id."""
    cluster_id: str = field(default_factory=_new_cluster_id)


class Kafka(Server):
    """Kafka 4.1 on one port for clients and one for its controller. More than one: :mod:`dev_servers.kafka_cluster`."""

    name = "kafka"

    def __init__(
        self,
        directory: Path,
        properties: Mapping[str, str] | None = None,
        heap_mebibytes: int = 512,
        jvm_options: Sequence[str] = jars.QUICK_START,
        port: int | None = None,
        *,
        proxy_port: int | None = None,
        quorum: Quorum | None = None,
        node_id: int = 1,
    ) -> None:
        """``properties``: of server.properties, on top of :data:`PROPERTIES`. ``jvm_options``: ``()`` for a long benchmark.

        ``proxy_port``: where a proxy before it listens. Kafka tells its clients where to connect, so those of a proxy need a
        listener of their own: the proxy's other end is :attr:`port_behind_proxy`. ``quorum``, ``node_id``: of a node among others.
        """
        super().__init__(directory)
        self.port = free_port() if port is None else port
        self.proxy_port = proxy_port
        self.port_behind_proxy = free_port()
        self._quorum = quorum or Quorum()
        controller_port = self._quorum.controller_ports[node_id]
        self._jvm_options = (f"-Xms{heap_mebibytes // 2}m", f"-Xmx{heap_mebibytes}m", *jvm_options, *LOGGING)
        self._log_directory = self.directory / "data"
        self._properties_file = self.directory / "server.properties"
        self._properties = {
            **PROPERTIES,
            "node.id": str(node_id),
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "controller.quorum.voters": ",".join(f"{id_}@{HOST}:{port}" for id_, port in self._quorum.controller_ports.items()),
            "log.dirs": str(self._log_directory),
            **({} if proxy_port is None else self._proxied_listener(proxy_port, controller_port)),
            **(properties or {}),
        }

    @property
    def bootstrap_servers(self) -> str:
        """What clients are given."""
        return f"{HOST}:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that point bridge and worker here."""
        return {"KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers}

    def _proxied_listener(self, proxy_port: int, controller_port: int) -> Mapping[str, str]:
        own = f"PLAINTEXT://{HOST}:{self.port}"
        return {
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "listeners": f"{own},PROXIED://{HOST}:{self.port_behind_proxy},CONTROLLER://{HOST}:{controller_port}",
            "advertised.listeners": f"{own},PROXIED://{HOST}:{proxy_port}",
        }

    def _launch(self) -> Launch:
        class_path = jars.class_path(self.name)
        self._properties_file.write_text("".join(f"{name}={value}\n" for name, value in self._properties.items()))
        if not (self._log_directory / "meta.properties").exists():
            self._format(class_path)
        command: list[str | Path] = [jars.JAVA, *self._jvm_options, "-cp", class_path, "kafka.Kafka", self._properties_file]
        return Launch(command, directory=self.directory, stop_seconds=15.0)

    def _format(self, class_path: str) -> None:
        options = (*jars.QUICK_START, *LOGGING)
        cluster_id = f"--cluster-id={self._quorum.cluster_id}"  # one in 64 begins with "-"
        tool = ("kafka.tools.StorageTool", "format", cluster_id, "-c", self._properties_file)
        formatting = ChildProcess(self.name, Launch([jars.JAVA, *options, "-cp", class_path, *tool]), self.log_file)
        if formatting.wait(FORMAT_SECONDS) != 0:
            raise DevServerError(self.name, "its data directory could not be formatted", self.log_file, formatting.log_from)

    def _is_ready(self) -> bool:
        with self.log_file.open("rb") as log:
            log.seek(self._log_from)
            return STARTED in log.read() and accepts_connections(self.port)


__all__ = ["PROPERTIES", "Kafka", "Quorum"]
