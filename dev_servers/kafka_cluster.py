"""Three real Kafka nodes that are one cluster: each record is on all three, and acknowledged when two have it."""

from collections.abc import Mapping
from pathlib import Path

from dev_servers.kafka import Kafka, Quorum
from dev_servers.ports import free_port

NODES = 3
HEAP_MEBIBYTES = 256

PROPERTIES: Mapping[str, str] = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    "leader.imbalance.check.interval.seconds": "2",  # a node that is back leads its partitions again soon
    "leader.imbalance.per.broker.percentage": "0",
}


class KafkaCluster:
    """Its ``nodes``, by id, are started together (one alone waits for another), then stopped, killed and started one by one."""

    def __init__(self, directory: Path, properties: Mapping[str, str] | None = None) -> None:
        """``properties``: of every node, on top of :data:`PROPERTIES`."""
        quorum = Quorum({node_id: free_port() for node_id in range(1, NODES + 1)})
        properties = {**PROPERTIES, **(properties or {})}
        self.nodes: Mapping[int, Kafka] = {
            node_id: Kafka(directory / f"node-{node_id}", properties, HEAP_MEBIBYTES, quorum=quorum, node_id=node_id)
            for node_id in quorum.controller_ports
        }

    @property
    def bootstrap_servers(self) -> str:
        """What clients are given: every node."""
        return ",".join(node.bootstrap_servers for node in self.nodes.values())


__all__ = ["PROPERTIES", "KafkaCluster"]
