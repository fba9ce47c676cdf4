"""The settings that decide who sees what, as they are in force: for the one log line ``policy_in_force`` at each start.

Whoever reads it knows what was masked how, and over which lines it went, on that day; it holds no password and no key.
"""

from pipeline.foreign_variables import names_shut_out
from pipeline.settings import KafkaSettings


def kafka_policy(settings: KafkaSettings) -> dict[str, str]:
    """What all three processes say."""
    policy = {
        "kafka": settings.kafka_bootstrap_servers,  # host and port; the setting takes nothing else
        "kafka_security": "plaintext",  # neither TLS nor a login: there is no setting for them yet
        "topic": settings.kafka_topic,
    }
    if shut_out := names_shut_out():
        policy["variables_not_read"] = ",".join(shut_out)
    return policy
