"""The monitor's settings."""

from pydantic import Field

from pipeline.settings import KafkaSettings, LogSettings, Port
from stream_app.postgres.settings import PostgresSettings
from stream_app.settings import GroupSettings, SentAtSettings


class MonitorSettings(GroupSettings, SentAtSettings, KafkaSettings, PostgresSettings, LogSettings):
    """What `faust -A stream_app monitor` reads from the environment."""

    freshness_objective_seconds: float = Field(
        60, gt=0, le=86_400, description="A record that is not in Postgres this long after it was sent is late."
    )
    freshness_objective_ratio: float = Field(
        0.99,
        ge=0.5,
        le=0.9999,
        description="The share of time in which no record may be late; alerts measure how fast the rest is used up.",
    )
    monitor_web_bind: str = Field("127.0.0.1", min_length=1, description="Address of /metrics, /livez and /readyz.")
    monitor_web_port: Port = Field(6_090, description="Its port, or the next free one after it; 0: any free port.")
