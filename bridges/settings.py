"""The bridge's settings. AWS's own (region, endpoint, credentials) are boto3's: nothing of ours stands between."""

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from bridges.queue_url import check_queue_url
from pipeline.settings import TOKEN_FILE_HELP, KafkaSettings, LogSettings, Port

RELEASE_SECONDS = 1.5
"""The end of the shutdown time, which is for making visible what could not be finished."""

RECEIVE_MESSAGES_MAX = 10
"""What one ReceiveMessage, DeleteMessageBatch or ChangeMessageVisibilityBatch may carry; SQS's own bound."""


class BridgeSettings(KafkaSettings, LogSettings):
    """What ``python -m bridges sqs`` reads from the environment."""

    sqs_queue_url: str = Field(
        examples=["https://sqs.eu-central-1.amazonaws.com/123456789012/login-queue"],
        description="The queue to read, as its full URL; `.fifo` at its end makes it a FIFO queue.",
    )
    bridge_receivers: int = Field(8, ge=1, le=128, description="Threads that receive at the same time when the queue is busy.")
    bridge_receive_wait_seconds: int = Field(
        3,
        ge=1,
        le=20,
        description="How long SQS may hold a request open while the queue is empty. A stop waits for open requests to end, "
        "because what SQS hands to a closed connection stays hidden for the whole visibility timeout.",
    )
    bridge_in_flight_messages_max: int = Field(
        2_000,
        ge=RECEIVE_MESSAGES_MAX,
        le=20_000,
        description="Messages received and not yet deleted; receiving waits at this number. SQS allows 120,000 a queue, 20,000 "
        "for FIFO.",
    )
    bridge_in_flight_bytes_max: int = Field(
        67_108_864,
        ge=1_048_576,
        description="Memory that messages may take from SQS's answer to Kafka's acknowledgement, three times their bodies and more "
        "while an answer is decoded; receiving waits at it. One answer alone may take up to 108 MiB. An idle bridge takes 80 MiB, "
        "which come on top.",
    )
    bridge_produce_timeout_seconds: float = Field(
        10,
        ge=1,
        le=300,
        description="How long Kafka may take to acknowledge a record before it is tried anew (delivery.timeout.ms). Shortened to "
        "half the queue's visibility timeout where that is less.",
    )
    bridge_linger_seconds: float = Field(
        0.005, ge=0, le=1, description="How long the producer waits for more records to send together (linger.ms)."
    )
    bridge_shutdown_seconds: float = Field(
        8,
        ge=1,
        le=300,
        description="How long a stop may take to finish what is held; the rest is made visible again. More than "
        "BRIDGE_RECEIVE_WAIT_SECONDS by 2.5 at least, less than the supervisor waits before it kills.",
    )
    bridge_web_bind: str = Field("127.0.0.1", description="Address that serves /metrics, /livez and /readyz.")
    bridge_web_port: Port = Field(6060, description="Its port, or the next free one after it; 0: any free port.")
    bridge_web_token_file: Path | None = Field(None, description=TOKEN_FILE_HELP)

    @field_validator("sqs_queue_url")
    @classmethod
    def _is_a_queue_url(cls, url: str) -> str:
        check_queue_url(url)
        return url

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        if self.bridge_shutdown_seconds < self.bridge_receive_wait_seconds + RELEASE_SECONDS + 1:
            raise ValueError(
                "BRIDGE_SHUTDOWN_SECONDS must be 2.5 more than BRIDGE_RECEIVE_WAIT_SECONDS: a stop waits for open requests, and "
                "then gives back what it holds"
            )
        if self.bridge_linger_seconds * 2 > self.bridge_produce_timeout_seconds:
            raise ValueError("BRIDGE_LINGER_SECONDS must be at most half of BRIDGE_PRODUCE_TIMEOUT_SECONDS")
        return self

    @property
    def queue_name(self) -> str:
        """The last part of the queue's URL; the ``source`` header of each record."""
        return self.sqs_queue_url.rsplit("/", 1)[1]
