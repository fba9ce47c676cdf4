"""How settings are declared and read: environment variables, each option once, checked whole before the first connection.

Each process has one class that inherits the groups it needs. An option is a field: name (upper-cased, it is the environment
variable), type, default, bound, one line of help. ``docs/reference/settings.md`` is made from these fields.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.errors import SettingsError
from pipeline.kafka_addresses import Address, parse_addresses

Port = Annotated[int, Field(ge=0, le=65_535)]
PositiveSeconds = Annotated[float, Field(gt=0, le=86_400)]


class Settings(BaseSettings):
    """The base of each settings class; see :func:`load`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # a wrong value may be a password
    )


class KafkaSettings(Settings):
    """Where Kafka is, and the topic between bridge and worker."""

    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092",
        min_length=1,
        description="Kafka brokers to start from, `host:port`, comma-separated; IPv6 as `[::1]:9092`. One that answers is enough.",
    )
    kafka_topic: str = Field(
        "logins",
        pattern=r"^[A-Za-z0-9._-]{1,249}$",
        description="The raw topic: the bridge writes it, workers read it.",
    )
    kafka_topic_partitions: int = Field(
        4,
        ge=1,
        le=10_000,
        description="Partitions of the topic if it has to be created; the most workers that can share it.",
    )
    kafka_topic_replication: int = Field(
        1, ge=1, le=16, description="Replication factor of the topic if it has to be created; 3 in production."
    )
    kafka_topic_min_insync_replicas: int = Field(
        1, ge=1, le=16, description="min.insync.replicas of the topic if it has to be created; 2 in production."
    )
    kafka_topic_retention_hours: float = Field(
        72,
        gt=0,
        le=87_600,
        description="Retention of the topic if it has to be created: how long Postgres may be away.",
    )

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _servers_are_addresses(cls, text: str) -> str:
        return ",".join(str(address) for address in parse_addresses(text))  # one spelling for all clients

    @property
    def kafka_servers(self) -> tuple[Address, ...]:
        """KAFKA_BOOTSTRAP_SERVERS, one by one."""
        return parse_addresses(self.kafka_bootstrap_servers)


class LogSettings(Settings):
    """How a process logs."""

    log_format: Literal["text", "json"] = Field("text", description="One line an event: `text` to read, `json` to collect.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least severe event that is logged.")


SettingsT = TypeVar("SettingsT", bound=Settings)


def load(cls: type[SettingsT], **overrides: Any) -> SettingsT:
    """Read the settings from the environment.

    Raises :class:`SettingsError`, one line an option, naming the environment variable and what was expected; never the value.
    """
    try:
        return cls(**overrides)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc']).upper() or 'settings'}: "
            f"{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise SettingsError("; ".join(problems)) from None


def read_secret_file(path: Path, setting: str) -> SecretStr:
    """The text of a secret's file without its trailing newline. Raises :class:`SettingsError` that names ``setting``."""
    try:
        return SecretStr(path.read_text().rstrip("\r\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{setting}: can't read the file it names ({type(error).__name__}); check path and rights") from error
