"""Moto's SQS: a second implementation to test against. Nothing is kept across starts."""

import sys
from collections.abc import Mapping
from pathlib import Path

from dev_servers.elasticmq import MADE_UP_CREDENTIALS
from dev_servers.ports import HOST, accepts_connections, free_port
from dev_servers.process import Launch
from dev_servers.server import Server


class Moto(Server):
    """Moto's server; it starts without a queue."""

    name = "moto"

    def __init__(self, directory: Path, port: int | None = None) -> None:
        super().__init__(directory)
        self.port = free_port() if port is None else port

    @property
    def endpoint_url(self) -> str:
        """What boto3 is given."""
        return f"http://{HOST}:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that point boto3 here."""
        return {"AWS_ENDPOINT_URL_SQS": self.endpoint_url, **MADE_UP_CREDENTIALS}

    def _launch(self) -> Launch:
        return Launch(
            [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.port)], directory=self.directory, stop_seconds=5.0
        )

    def _is_ready(self) -> bool:
        return accepts_connections(self.port)
