"""Three Kafka nodes, replication 3, two replicas to acknowledge: nodes are restarted, lost, too few."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from crash.faults import fault
from crash.kafka_admin import KafkaAdmin, admin_of
from crash.servers import Servers
from crash.system import Setup, System
from dev_servers.kafka import Kafka
from dev_servers.kafka_cluster import KafkaCluster

REPLICATED = Setup(
    messages_per_second=100,
    settings={"KAFKA_TOPIC_CREATE": "auto", "KAFKA_TOPIC_REPLICATION": "3", "KAFKA_TOPIC_MIN_INSYNC_REPLICAS": "2"},
)


def three_nodes(directory: Path) -> Servers:
    """Servers of its own, with a cluster in the place of Kafka."""
    return Servers(directory, kafka=KafkaCluster(directory / "kafka"))


def _nodes(system: System) -> Mapping[int, Kafka]:
    kafka = system.servers.kafka
    assert isinstance(kafka, KafkaCluster)
    return kafka.nodes


def _replicas(admin: KafkaAdmin) -> list[int]:
    """How many replicas of each partition are in sync."""
    return [len(partition.isrs) for partition in admin.partitions().values()]


def _is_whole(admin: KafkaAdmin) -> bool:
    return _replicas(admin) == [3, 3, 3, 3]


@fault(
    "kafka-rolling-restart",
    "Restarting one node after the other is not noticed: two replicas acknowledge, leaders and the group's coordinator move.",
    recovery_seconds=15,
    setup=REPLICATED,
    servers=three_nodes,
)
def rolling_restart(system: System) -> Iterator[str]:
    """As operators do it: the next one when all replicas are in sync again."""
    admin = admin_of(system)
    for node_id, node in _nodes(system).items():
        system.moment()
        node.stop()
        system.prove(f"node {node_id} is missed", lambda: max(_replicas(admin)) == 2)
        system.wait_flowing()
        node.start()
        system.mended()
        system.wait("all replicas are in sync", lambda: _is_whole(admin))
    yield "each of three nodes was missed for a while, and records flowed"


@fault(
    "kafka-node-lost",
    "A node that is lost for good takes nothing with it.",
    recovery_seconds=20,
    setup=REPLICATED,
    servers=three_nodes,
)
def node_lost(system: System) -> Iterator[str]:
    """SIGKILL, and it never comes back: the one that coordinates the group, which leads a partition too."""
    admin = admin_of(system)
    victim = admin.coordinator()
    led = [number for number, partition in admin.partitions().items() if partition.leader == victim]
    system.moment()
    _nodes(system)[victim].kill()
    system.mended()
    system.prove(
        "its partitions have other leaders",
        lambda: all(partition.leader not in (victim, -1) for partition in admin.partitions().values()),
    )
    yield f"node {victim} was killed; it led partitions {led} and coordinated the group"
    assert led
    assert _replicas(admin) == [2, 2, 2, 2]


@fault(
    "kafka-two-nodes-lost",
    "With one node of three nothing is acknowledged, so nothing is deleted from SQS; when a second is back all goes on.",
    recovery_seconds=45,
    setup=REPLICATED,
    servers=three_nodes,
)
def two_nodes_lost(system: System) -> Iterator[str]:
    """SIGKILL to two at once; one of them comes back."""
    (bridge,) = system.bridges
    nodes = _nodes(system)
    first, second = system.chance.sample(sorted(nodes), 2)
    system.moment()
    for victim in (first, second):
        nodes[victim].kill()
    try:
        system.prove("the bridge misses Kafka", lambda: system.metric(bridge, "bridge_ready", dependency="kafka") == 0)
        forwarded = system.metric(bridge, "bridge_messages_forwarded_total")
        system.rest(5)
        assert system.metric(bridge, "bridge_messages_forwarded_total") == forwarded, "something was acknowledged"
    finally:
        nodes[first].start()
    yield f"nothing was acknowledged while {first} and {second} were away; {first} came back"
