"""A topic's settings, altered as somebody would while all run."""

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

ANSWER_SECONDS = 60.0


def set_cleanup_policy(bootstrap_servers: str, topic: str, policy: str) -> None:
    """What Kafka removes of the topic by itself: ``delete`` by age, ``compact`` by key."""
    change = ConfigEntry("cleanup.policy", policy, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})  # held until it has its answer
    admin.incremental_alter_configs([resource])[resource].result(ANSWER_SECONDS)
