"""How settings are declared and read: environment variables, each option once, checked whole before the first connection.

Each process has one class that inherits the groups it needs. An option is a field: name (upper-cased, it is the environment
variable), type, default, bound, one line of help. ``docs/reference/settings.md`` is made from these fields.
"""

import os
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline import foreign_variables
from pipeline.errors import SettingsError
from pipeline.kafka_addresses import Address, parse_addresses
from pipeline.setting_names import SETTING_NAMES
from pipeline.setting_words import expected
from pipeline.spelling import is_service_address, misspelt

Port = Annotated[int, Field(ge=0, le=65_535)]
TOKEN_FILE_HELP = (
    "File with a token of at least 16 characters, readable by its owner only. Who sends it "  # noqa: S105 - no token
    "(`Authorization: Bearer …`) reads at /readyz what servers say; unset, only clients on the same machine do. Read at the start."
)
PositiveSeconds = Annotated[float, Field(gt=0, le=86_400)]


class Settings(BaseSettings):
    """The base of each settings class; see :func:`load`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # a wrong value may be a password
    )

    @model_validator(mode="before")
    @classmethod
    def _without_service_addresses(cls, given: dict[str, Any]) -> dict[str, Any]:
        """WEB_PORT=tcp://10.0.0.1:80 is Kubernetes' word on a service called web, and no port of ours."""
        return {name: value for name, value in given.items() if not is_service_address(name.upper(), str(value))}


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
        examples=["logins: letters, digits, and . _ -, up to 249"],
        description="The raw topic: the bridge writes it, workers read it.",
    )
    kafka_topic_create: Literal["auto", "never"] | None = Field(
        None,
        description="Whether a missing topic is created: `auto` or `never`. Unset, it is where the cluster has one broker; with "
        "more of them a misspelt KAFKA_TOPIC stops the start.",
    )
    kafka_topic_compacted: Literal["refuse", "accept"] = Field(
        "refuse",
        description="Whether a topic with `compact` in its cleanup.policy is taken. Compaction removes records whose key came "
        "again, read or not: they are lost.",
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


def wants_json_log() -> bool:
    """Whether LOG_FORMAT asks for lines that a collector reads; a value that is none of its own does: `text` needs no setting."""
    return os.environ.get("LOG_FORMAT", "") not in ("", "text")


def service_links(settings: type[Settings]) -> list[str]:
    """The settings that are not in force, since Kubernetes has put a service's address in their place: not set, as it seems."""
    names = (name.upper() for name in settings.model_fields)
    return [name for name in names if is_service_address(name, os.environ.get(name, ""))]


SettingsT = TypeVar("SettingsT", bound=Settings)


def load(cls: type[SettingsT], **overrides: Any) -> SettingsT:
    """Read the settings from the environment, and shut out of it what libraries would read behind our back.

    Raises :class:`SettingsError` with all that is wrong: a variable that is missing, that is not what was expected, or that is a
    setting's name misspelt. It names variables and says what was expected; never a value.
    """
    foreign_variables.shut_out()
    problems = misspelt(os.environ, {*SETTING_NAMES, *(name.upper() for name in cls.model_fields)})
    try:
        settings = cls(**overrides)
    except ValidationError as error:
        raise SettingsError("; ".join([*problems, *_problems(cls, error)])) from None
    if problems:
        raise SettingsError("; ".join(problems))
    return settings


def _problems(cls: type[Settings], error: ValidationError) -> Iterator[str]:
    """In our words: pydantic's are for programmers, and some of them quote."""
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        message = problem["msg"].removeprefix("Value error, ")
        if name not in cls.model_fields:  # of a check of several fields, whose message begins with their names
            yield message
            continue
        match problem["type"]:
            case "value_error":
                said = message
            case "missing":
                said = f"not set; expected {expected(cls.model_fields[name])}"
            case "path_not_file":
                said = "expected the path of a file; there is none, or this process can't see it"
            case _:
                said = f"expected {expected(cls.model_fields[name])}"
        yield f"{name.upper()}: {said}"


def settings_help(settings: type[Settings]) -> str:
    """Each option with its default and its line of help, as click shows it without breaking lines."""
    lines = []
    for name, option in settings.model_fields.items():
        default = "required" if option.is_required() else "no default" if option.default is None else f"default {option.default}"
        lines.append(f"\b\n{name.upper()} ({default})\n  {option.description}")
    return "\n\n".join(lines)
