"""What ``policy_in_force`` says at the start of a worker and of a monitor; see :mod:`pipeline.policy_in_force`."""

from collections.abc import Mapping

from pipeline.policy_in_force import kafka_policy
from stream_app.masking.masker import Masker
from stream_app.masking.policy import MaskingPolicy
from stream_app.monitor.settings import MonitorSettings
from stream_app.postgres.connection import MONITOR, WRITER
from stream_app.settings import WorkerSettings

_SSLMODE_OF_LIBPQ = "prefer"


def worker_policy(
    settings: WorkerSettings, masking: MaskingPolicy, masker: Masker, parameters: Mapping[str, str]
) -> dict[str, str]:
    """``parameters``: what libpq is told, from :func:`stream_app.postgres.connection.connection_parameters`."""
    return {
        "masking": ",".join(f"{field}={method}" for field, method in masking.methods.items()),  # as MASKING_METHODS has it
        "masking_keys": ",".join(f"{setting}:{key_id}{'*' if primary else ''}" for setting, key_id, primary in masker.keys()),  # noqa: SIM118 - no dict
        "app_version_encoding": settings.app_version_encoding,
        "create_date_time_zone": settings.create_date_time_zone,
        "consumer_group": settings.consumer_group,
        **kafka_policy(settings),
        **_postgres_policy(WRITER, settings.postgres_schema, parameters),
    }


def monitor_policy(settings: MonitorSettings, parameters: Mapping[str, str]) -> dict[str, str]:
    """Likewise."""
    return {
        "consumer_group": settings.consumer_group,
        **kafka_policy(settings),
        **_postgres_policy(MONITOR, settings.postgres_schema, parameters),
    }


def _postgres_policy(role: str, schema: str, parameters: Mapping[str, str]) -> dict[str, str]:
    """Only what is named here: the parameters hold the password, too. What TLS there really is, ``postgres_session`` says."""
    return {
        "postgres": parameters.get("host", "local socket"),
        "postgres_database": parameters.get("dbname", ""),
        "postgres_login": parameters.get("user", ""),
        "postgres_role": role,
        "postgres_schema": schema,
        "postgres_sslmode": parameters.get("sslmode", _SSLMODE_OF_LIBPQ),
    }
