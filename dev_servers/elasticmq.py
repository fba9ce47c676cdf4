"""A real SQS-compatible server: ElasticMQ with SQS's strict limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from dev_servers import jars
from dev_servers.ports import HOST, free_port
from dev_servers.process import Launch
from dev_servers.server import Server

REGION = "us-east-1"
ACCOUNT = "000000000000"
MADE_UP_CREDENTIALS: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "made-up",
    "AWS_SECRET_ACCESS_KEY": "made-up",
    "AWS_DEFAULT_REGION": REGION,
}


@dataclass(frozen=True, slots=True)
class LoginQueue:
    """The queue that is there from the start, with its own dead-letter queue."""

    name: str = "login-queue"
    visibility_seconds: int = 30
    receives_max: int = 10
    """After so many receives without a delete, a message goes to the dead-letter queue."""

    @property
    def dead_letter_name(self) -> str:
        """The name of its dead-letter queue."""
        return f"{self.name}-dead-letters"


class ElasticMq(Server):
    """ElasticMQ; queues and messages are kept across starts if ``keep`` is set, else they are in memory only."""

    name = "elasticmq"

    def __init__(
        self,
        directory: Path,
        *,
        keep: bool = False,
        queue: LoginQueue | None = None,
        heap_mebibytes: int = 512,
        jvm_options: Sequence[str] = jars.QUICK_START,
        port: int | None = None,
    ) -> None:
        """``jvm_options``: ``()`` for a long benchmark."""
        super().__init__(directory)
        self._jvm_options = (f"-Xms{heap_mebibytes // 4}m", f"-Xmx{heap_mebibytes}m", *jvm_options)
        self.port = free_port() if port is None else port
        self.queue = queue or LoginQueue()
        self._keep = keep

    @property
    def endpoint_url(self) -> str:
        """What boto3 is given."""
        return f"http://{HOST}:{self.port}"

    @property
    def queue_url(self) -> str:
        """The login queue."""
        return f"{self.endpoint_url}/{ACCOUNT}/{self.queue.name}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that point boto3 and the bridge here."""
        return {"AWS_ENDPOINT_URL_SQS": self.endpoint_url, **MADE_UP_CREDENTIALS, "SQS_QUEUE_URL": self.queue_url}

    def _launch(self) -> Launch:
        configuration = self.directory / "elasticmq.conf"
        configuration.write_text(self._configuration())
        return Launch(
            [
                jars.JAVA, *self._jvm_options, f"-Dconfig.file={configuration}",
                "-cp", jars.class_path(self.name), "org.elasticmq.server.Main",
            ],
            directory=self.directory,
        )  # fmt: skip

    def _configuration(self) -> str:
        keep = str(self._keep).lower()
        return f"""include classpath("application.conf")
node-address {{ protocol = http, host = "{HOST}", port = {self.port}, context-path = "" }}
rest-sqs {{ enabled = true, bind-hostname = "{HOST}", bind-port = {self.port}, sqs-limits = strict }}
rest-stats {{ enabled = false }}
aws {{ region = "{REGION}", accountId = "{ACCOUNT}" }}
queues-storage {{ enabled = {keep}, path = "{self.directory}/queues.conf" }}
messages-storage {{ enabled = {keep}, uri = "jdbc:h2:{self.directory}/messages" }}
queues {{
  {self.queue.dead_letter_name} {{ }}
  {self.queue.name} {{
    defaultVisibilityTimeout = {self.queue.visibility_seconds} seconds
    deadLettersQueue {{ name = "{self.queue.dead_letter_name}", maxReceiveCount = {self.queue.receives_max} }}
  }}
}}
"""

    def _is_ready(self) -> bool:
        connection = HTTPConnection(HOST, self.port, timeout=2)
        try:
            connection.request("GET", f"/{ACCOUNT}/{self.queue.name}?Action=GetQueueAttributes&Version=2012-11-05")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()
