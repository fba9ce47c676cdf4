"""How to reach Postgres: the settings of every process and command that does."""

import re
from typing import Literal

from pydantic import Field, FilePath, SecretStr, field_validator

from pipeline.settings import PositiveSeconds, Settings
from stream_app.postgres import dsn

_SCHEMA = re.compile(r"[^\W\d][\w$-]*")
"""What stands in a quoted name, in a literal and in psycopg2's statements as it is."""

_SCHEMA_BYTES_MAX = 63
"""Postgres cuts a longer name off without an error."""


class PostgresSettings(Settings):
    """Where Postgres is, and how a connection is made, watched and kept private."""

    postgres_dsn: SecretStr | None = Field(
        None,
        description="Postgres as libpq takes it: `postgresql://user@host/database` or `host=… dbname=… user=…`. Has no default.",
    )
    postgres_password_file: FilePath | None = Field(
        None,
        description="File with the password; it has the last word over the DSN. Read for each connection, so a rotated one works.",
    )
    postgres_schema: str = Field(
        "public",
        description="The schema of our tables, the same for all processes. `migrate` makes it where it is missing, closed to other"
        " logins. No session looks for names anywhere but there and in `pg_catalog`.",
    )
    postgres_sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = Field(
        None, description="TLS to Postgres, as libpq names it; `verify-full` in production. Unset: as the DSN says, else `prefer`."
    )
    postgres_sslrootcert: FilePath | None = Field(
        None, description="CA certificates that Postgres's own must chain to, PEM; `verify-ca` and `verify-full` need them."
    )
    postgres_sslcert: FilePath | None = Field(None, description="Certificate to log in with, PEM.")
    postgres_sslkey: FilePath | None = Field(None, description="Private key of that certificate, PEM; readable by its owner only.")
    postgres_connect_timeout_seconds: int = Field(
        10, ge=2, le=300, description="A Postgres host that doesn't answer within this counts as away; libpq's least is 2."
    )
    postgres_statement_timeout_seconds: PositiveSeconds = Field(
        30, description="Postgres ends a statement that runs longer; it is then tried again. Migrations have no such end."
    )
    postgres_silence_seconds: int = Field(
        15,
        ge=3,
        le=3_600,
        description="A connection whose other end vanished without a word is given up after about this long (TCP's own timeouts).",
    )

    @field_validator("postgres_schema")
    @classmethod
    def _a_schema_for_tables(cls, name: str) -> str:
        if _SCHEMA.fullmatch(name) is None or len(name.encode()) > _SCHEMA_BYTES_MAX:
            raise ValueError(f"expected letters, digits, _, $ and -, not a digit first, {_SCHEMA_BYTES_MAX} bytes at most")
        if name.startswith("pg_") or name == "information_schema":
            raise ValueError("expected a schema for tables; this one is Postgres's own")
        return name

    @field_validator("postgres_dsn")
    @classmethod
    def _libpq_can_read_it(cls, text: SecretStr | None) -> SecretStr | None:
        if text is not None:
            dsn.parse(text.get_secret_value())
        return text
