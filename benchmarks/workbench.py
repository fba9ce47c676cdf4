"""The servers under a benchmark, with keysets and tables, as a user's would be: the same for ours and for peers.

Kafka and ElasticMQ with the JVM's full compiler, Postgres with fsync and synchronous_commit on. Postgres notes the time of each
commit (``track_commit_timestamp``), so that a run is timed afterwards and nobody has to ask while it lasts.
"""

import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from copy import copy
from pathlib import Path
from typing import Any, Literal, Protocol

import psycopg2

from benchmarks.machine import PROJECT
from benchmarks.peer import Servers
from dev_servers import jars
from dev_servers.elasticmq import ElasticMq, LoginQueue
from dev_servers.kafka import Kafka
from dev_servers.postgres import Postgres
from dev_servers.process import ChildProcess, DevServerError, Launch
from dev_servers.server import Server, start_together, stop_together

POSTGRES_SETTINGS = {"max_wal_size": "4GB", "shared_buffers": "512MB", "track_commit_timestamp": "on"}
VISIBILITY_SECONDS = 120
COMMAND_SECONDS = 60.0
CENTURY_SECONDS = "3155760000"
FAUST = (sys.executable, "-m", "faust", "-A", "stream_app")
TABLES = "user_logins, dead_letters, stream_positions"

ServerName = Literal["kafka", "postgres", "elasticmq"]


class Ask(Protocol):
    """A session."""

    def __call__(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement; its rows."""


class Workbench:
    """Started by :func:`workbench`."""

    def __init__(self, directory: Path, names: Sequence[ServerName]) -> None:
        self.directory = directory
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.kafka = Kafka(directory / "kafka", jvm_options=())
        self.postgres = Postgres(directory / "postgres", settings=POSTGRES_SETTINGS)
        self.elasticmq = ElasticMq(
            directory / "elasticmq",
            queue=LoginQueue(visibility_seconds=VISIBILITY_SECONDS),
            heap_mebibytes=2048,
            jvm_options=(),
        )
        self._servers: dict[str, Server] = {name: getattr(self, name) for name in names}
        self._keys = directory / "keys"
        self._database = "postgres"
        self._runs = 0

    @property
    def pids(self) -> dict[str, int]:
        """Of the servers that run, by name."""
        return {name: server.child.pid for name, server in self._servers.items()}

    def start(self) -> None:
        """Servers, keysets, tables. What is there from another time is kept."""
        jars.download([name for name in self._servers if name in jars.LOCKED])
        start_together(list(self._servers.values()))
        if not self._keys.exists():
            self._run("keys", "create", "--directory", str(self._keys))
        if "postgres" in self._servers:
            self._run("migrate")

    def stop(self) -> None:
        """Stop all servers."""
        stop_together(list(self._servers.values()))

    def servers(self, topic: str, partitions: int, queue_url: str = "") -> Servers:
        """What one run is given; each run has a consumer group and a scratch directory of its own.

        ``queue_url`` is that of a queue of its own, else the login queue's.
        """
        self._runs += 1
        scratch = Path(tempfile.mkdtemp(prefix="run-", dir=self.directory))
        group = f"benchmark-{secrets.token_hex(4)}"
        queue = "elasticmq" in self._servers
        queue_url = queue_url or (self.elasticmq.queue_url if queue else "")
        return Servers(
            kafka_bootstrap_servers=self.kafka.bootstrap_servers,
            postgres_dsn=self.dsn if "postgres" in self._servers else "",
            sqs_endpoint_url=self.elasticmq.endpoint_url if queue else "",
            sqs_queue_url=queue_url,
            topic=topic,
            partitions=partitions,
            consumer_group=group,
            keys_directory=self._keys,
            scratch_directory=scratch,
            environment={
                **self._environment(),
                "KAFKA_TOPIC": topic,
                "KAFKA_TOPIC_PARTITIONS": str(partitions),
                "CONSUMER_GROUP": group,
                **({"SQS_QUEUE_URL": queue_url} if queue else {}),
            },
        )

    def with_database(self, name: str) -> "Workbench":
        """The same servers and another database, made if it is not there. Tables that were kept are brought up to date."""
        other = copy(self)
        other._database = name  # noqa: SLF001 - it is one of ours
        if not self.query("SELECT 1 FROM pg_database WHERE datname = %(name)s", {"name": name}):
            self.postgres.create_database(name=name)
        other._run("migrate")  # noqa: SLF001 - likewise
        return other

    @property
    def dsn(self) -> str:
        """A superuser's way into the database."""
        return self.postgres.dsn_of(self._database)

    def launch(self, name: str, launch: Launch) -> ChildProcess:
        """Start a process; its log is in ``logs``, one file for each start."""
        return ChildProcess(name, launch, self.logs / f"{self._runs}-{name.replace(' ', '-')}-{secrets.token_hex(8)}.log")

    def empty_tables(self) -> None:
        """As before the first record; with a checkpoint, so that no run pays for the one before."""
        self.query(f"TRUNCATE {TABLES}")
        self.query("CHECKPOINT")

    @contextmanager
    def session(self) -> Iterator[Ask]:
        """A superuser's connection: a statement in, its rows out."""
        with closing(psycopg2.connect(self.dsn)) as connection, connection.cursor() as cursor:
            connection.autocommit = True

            def ask(statement: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
                cursor.execute(statement, parameters)
                return cursor.fetchall() if cursor.description else []

            yield ask

    def query(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """One statement on a connection of its own; its rows."""
        with self.session() as ask:
            return ask(statement, parameters)

    def _environment(self) -> dict[str, str]:
        return {
            **{name: value for server in self._servers.values() for name, value in server.environment.items()},
            **({"POSTGRES_DSN": self.dsn} if "postgres" in self._servers else {}),
            "MASKING_KEYSET_FILE": str(self._keys / "masking.keyset.json"),
            "DEAD_LETTER_PUBLIC_KEYSET_FILE": str(self._keys / "dead-letter-public.keyset.json"),
            "PYTHONUNBUFFERED": "1",
            # Messages of a benchmark have the same times whenever it runs.
            "SENT_AT_AGE_SECONDS_MAX": CENTURY_SECONDS,
            "SENT_AT_AHEAD_SECONDS_MAX": CENTURY_SECONDS,
        }

    def _run(self, *arguments: str) -> None:
        child = self.launch(arguments[0], Launch([*FAUST, *arguments], self._environment(), PROJECT))
        if child.wait(COMMAND_SECONDS) != 0:
            raise DevServerError(child.name, "failed", child.log_file)


@contextmanager
def workbench(names: Sequence[ServerName], say: Callable[[str], None], keep: Path | None = None) -> Iterator[Workbench]:
    """Servers that are started and stopped; ``keep`` names a directory whose topics and tables stay for the next time."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        bench = Workbench((keep or Path(temporary)).resolve(), names)
        say(f"starting {', '.join(names)}")
        try:
            bench.start()
            yield bench
        finally:
            bench.stop()
