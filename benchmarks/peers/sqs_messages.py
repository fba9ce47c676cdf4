"""What every Python peer of the bridge makes of an SQS message: the record that our bridge would write, without its checks."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Producer

RECEIVE: Mapping[str, Any] = {"MaxNumberOfMessages": 10, "WaitTimeSeconds": 5, "MessageSystemAttributeNames": ["SentTimestamp"]}


def producer(linger_seconds: float) -> Producer:
    """Nothing is lost or doubled between it and Kafka."""
    return Producer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": linger_seconds * 1_000,
        }
    )


def record(message: Mapping[str, Any], queue_url: str) -> dict[str, Any]:
    """What :meth:`Producer.produce` is given, but for the topic."""
    body = message["Body"]
    return {
        "value": body,
        "key": json.loads(body)["user_id"],
        "headers": [
            ("message-id", message["MessageId"]),
            ("sent-at", message["Attributes"]["SentTimestamp"]),
            ("source", queue_url.rpartition("/")[2]),
        ],
    }


def entries(messages: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What ``DeleteMessageBatch`` is given."""
    return [{"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]} for number, message in enumerate(messages)]
