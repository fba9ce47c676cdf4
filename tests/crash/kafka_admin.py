"""What a Kafka operator does to the topic and the group, from outside of the pipeline."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any, cast

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # not in its __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from crash.system import System

SECONDS = 15.0


class KafkaAdmin:
    """One topic and its consumer group. Raises :class:`confluent_kafka.KafkaException`."""

    def __init__(self, bootstrap_servers: str, topic: str, group: str) -> None:
        self.topic = topic
        self.group = group
        self._bootstrap_servers = bootstrap_servers
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})

    def set(self, **settings: str) -> None:
        """Change settings of the topic; ``_`` stands for ``.``."""
        changes = [
            ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            for name, value in settings.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, self.topic, incremental_configs=changes)
        self._admin.incremental_alter_configs([resource])[resource].result(SECONDS)

    def add_partitions(self, total: int) -> None:
        """So that there are so many."""
        self._admin.create_partitions([NewPartitions(self.topic, total)])[self.topic].result(SECONDS)

    def delete(self) -> None:
        """Delete the topic."""
        self._admin.delete_topics([self.topic])[self.topic].result(SECONDS)

    def is_listed(self) -> bool:
        """Whether the node that answers knows of the topic."""
        return self.topic in self._admin.list_topics(timeout=SECONDS).topics

    def make(self, partitions: int) -> None:
        """Make the topic anew."""
        topic = NewTopic(self.topic, num_partitions=partitions, replication_factor=1)
        self._admin.create_topics([topic])[self.topic].result(SECONDS)

    def partitions(self) -> Mapping[int, Any]:
        """By number, with ``.leader``, a node's id, and ``.isrs``, those of the nodes in sync; from any node that lives."""
        return cast("Mapping[int, Any]", self._admin.list_topics(self.topic, timeout=SECONDS).topics[self.topic].partitions)

    def coordinator(self) -> int:
        """The id of the node that coordinates the group."""
        return int(self._admin.describe_consumer_groups([self.group])[self.group].result(SECONDS).coordinator.id)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Set the group's offsets. Only while nobody is in it."""
        places = [TopicPartition(self.topic, partition, offset) for partition, offset in offsets.items()]
        request = ConsumerGroupTopicPartitions(self.group, places)
        self._admin.alter_consumer_group_offsets([request])[self.group].result(SECONDS)

    def log_ranges(self) -> Mapping[int, tuple[int, int]]:
        """First offset and end of each partition's log, open transactions or not."""
        settings = {"bootstrap.servers": self._bootstrap_servers, "group.id": "none", "isolation.level": "read_uncommitted"}
        with closing(Consumer(settings)) as consumer:
            partitions = consumer.list_topics(self.topic, timeout=SECONDS).topics[self.topic].partitions
            return {p: consumer.get_watermark_offsets(TopicPartition(self.topic, p), timeout=SECONDS) for p in partitions}


def admin_of(system: System) -> KafkaAdmin:
    """Of a run's own topic and group."""
    return KafkaAdmin(system.servers.kafka.bootstrap_servers, system.name, system.name)
