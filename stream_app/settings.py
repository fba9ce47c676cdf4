"""The worker's settings: each option once."""

from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from pipeline.errors import SettingsError
from pipeline.settings import TOKEN_FILE_HELP, KafkaSettings, LogSettings, Settings
from stream_app.app_version import AppVersionEncoding
from stream_app.masking.policy import SETTING_METHODS, parse_methods
from stream_app.postgres.settings import PostgresSettings
from stream_app.sent_at import SentAtBounds

MEBIBYTE = 1_048_576


class GroupSettings(Settings):
    """Whose positions are meant."""

    consumer_group: str = Field(
        "stream_app",
        pattern=r"^[A-Za-z0-9._-]{1,200}$",
        examples=["stream_app: letters, digits, and . _ -, up to 200"],
        description="Kafka consumer group; the positions in Postgres are kept under its name.",
    )


class SentAtSettings(Settings):
    """Which times of sending are believed."""

    sent_at_age_seconds_max: float = Field(
        31 * 86_400,
        ge=3_600,
        le=3_155_760_000,
        description="A record whose `sent-at` is longer before its Kafka timestamp becomes a dead letter. SQS keeps a message for"
        " 14 days at most, and as long again in a dead-letter queue; raise it before old logins are written into the topic.",
    )
    sent_at_ahead_seconds_max: float = Field(
        86_400,
        ge=60,
        le=3_155_760_000,
        description="Likewise, if it is longer after it: how far the clocks of the queue and of Kafka may be apart.",
    )

    @property
    def sent_at_bounds(self) -> SentAtBounds:
        """Both as a value."""
        return SentAtBounds.of_seconds(self.sent_at_age_seconds_max, self.sent_at_ahead_seconds_max)


class OperatorSettings(KafkaSettings, PostgresSettings):
    """What `faust -A stream_app dead-letters` reads from the environment."""

    dead_letter_private_keyset_file: Path | None = Field(
        None,
        description="The private keyset that opens dead letters, made by `faust -A stream_app keys create`. In the operator's hands"
        " alone: no worker reads it.",
    )


class MaskingSettings(Settings):
    """How fields are masked, and with which keys."""

    masking_keyset_file: Path | None = Field(
        None, description="The masking keyset, made by `faust -A stream_app keys create`; readable by its owner only."
    )
    masking_hmac_keyset_file: Path | None = Field(
        None, description="The keyset of the masking method `hmac`, where a field uses it."
    )
    masking_methods: str = Field(
        "", description="Masking by field where it is not the default, such as `ip=hmac,device_id=redact`."
    )

    @field_validator("masking_methods")
    @classmethod
    def _known_methods(cls, text: str) -> str:
        try:
            parse_methods(text)
        except SettingsError as error:
            raise ValueError(str(error).removeprefix(f"{SETTING_METHODS}: ")) from error
        return text


class RevealSettings(MaskingSettings, PostgresSettings):
    """What `faust -A stream_app reveal` reads from the environment."""


class WorkerSettings(MaskingSettings, GroupSettings, SentAtSettings, KafkaSettings, PostgresSettings, LogSettings):
    """What `faust -A stream_app worker` reads from the environment."""

    kafka_session_timeout_seconds: float = Field(
        10, ge=6, le=300, description="After this long without a sign of life a worker's partitions go to the others."
    )
    window_rows: int = Field(5_000, ge=1, le=100_000, description="A micro-batch closes at this many records.")
    window_bytes: int = Field(
        8 * MEBIBYTE,
        ge=65_536,
        le=256 * MEBIBYTE,
        description="A micro-batch closes at this much memory, half a KiB a record beside its body.",
    )
    window_seconds: float = Field(
        0.2, gt=0, le=60, description="A micro-batch closes this long after its first record, also when no other comes."
    )
    buffer_bytes_max: int = Field(
        48 * MEBIBYTE,
        ge=MEBIBYTE,
        le=16_384 * MEBIBYTE,
        description="Fetching pauses while this much waits to be written, over all partitions of the worker. Half of it is for"
        " records as Kafka packed them, half for micro-batches.",
    )
    flush_seconds: float = Field(
        5, gt=0, le=60, description="How long a worker that stops or loses partitions tries to write what it holds."
    )
    refused_rows_max: int = Field(
        100,
        ge=0,
        le=100_000,
        description="So many rows that Postgres refuses one after the other, for one reason, stop their partition, or a whole"
        " micro-batch of ten or more: then the table has changed. Beyond 100 those before the last hundred become dead letters; 0:"
        " all do, and none stops it.",
    )
    postgres_connections_max: int = Field(
        4,
        ge=1,
        le=64,
        description="Connections of one worker: so many partitions write at a time, and one more may build its micro-batch.",
    )
    dead_letter_public_keyset_file: Path | None = Field(
        None, description="The public keyset that seals dead letters, made by `faust -A stream_app keys create`."
    )
    keyset_mismatch: Literal["refuse", "accept"] = Field(
        "refuse",
        description="`accept` starts a worker although none of the newest rows, or of the newest open dead letters, was masked or"
        " sealed with a key that it has: for keys or methods that are changed on purpose. Equal values then have other tokens.",
    )
    app_version_encoding: AppVersionEncoding = Field(
        "ordered", description="app_version as integer: `ordered`, or `joined` (dots dropped) for tables filled that way before."
    )
    create_date_time_zone: str = Field("UTC", description="The time zone whose date of sent at is create_date.")
    web_bind: str = Field("127.0.0.1", min_length=1, description="Address of /metrics, /livez and /readyz.")
    web_port: int = Field(
        6_066,
        ge=1,  # Faust takes no 0
        le=65_535,
        description="Port of /metrics, /livez and /readyz; if taken, the next free one. `--web-port` goes before it.",
    )
    web_token_file: Path | None = Field(None, description=TOKEN_FILE_HELP)

    @field_validator("create_date_time_zone")
    @classmethod
    def _known_time_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError("expected an IANA time zone such as UTC or Europe/Berlin") from error
        return name

    @model_validator(mode="after")
    def _bounds_fit(self) -> "WorkerSettings":
        if self.window_bytes > self.buffer_bytes_max // 2:
            raise ValueError("WINDOW_BYTES must not exceed half of BUFFER_BYTES_MAX: such a window could never fill")
        return self
