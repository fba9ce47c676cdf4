"""The settings that decide who sees what, as they are in force: for the one log line ``policy_in_force`` at each start.

Whoever reads it knows what was masked how, and over which lines it went, on that day; it holds no password and no key.
"""

import structlog

from pipeline.foreign_variables import names_shut_out
from pipeline.settings import KafkaSettings, service_links

log = structlog.stdlib.get_logger("pipeline.policy_in_force")


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


def tell_service_links(settings: type[KafkaSettings]) -> None:
    """One line for each setting that counts as not set, since Kubernetes put a service's address there."""
    for name in service_links(settings):
        service = name.removesuffix("_PORT").lower().replace("_", "-")
        log.info(
            "service_link_ignored",
            setting=name,
            problem=f"it holds Kubernetes' address of a service called {service}, and no port of ours: it counts as not set",
            remedy="enableServiceLinks: false in the pod, another name for the service, or the setting in the container's env",
        )
