"""One run: a pipeline of its own under load, and the verbs by which a fault breaks it.

Everything is fresh but the servers: database, topic, queue, consumer group, logs. Bridges and workers are real processes.
"""

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from signal import Signals
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import psutil
import psycopg2
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from crash.checker import Sides, Verdict, check
from crash.ledger import Ledger
from crash.messages import BAD_KINDS, messages
from crash.servers import Servers, key_settings
from crash.workload import Queue, Workload, sqs_client
from dev_servers.elasticmq import MADE_UP_CREDENTIALS
from dev_servers.pipeline_processes import PipelineProcesses
from stream_app.commands.keys import DEAD_LETTER_PRIVATE, MASKING
from stream_app.dead_letters import Opener
from stream_app.masking.masker import Masker
from stream_app.masking.policy import parse_methods

POLL_SECONDS = 0.05
WAIT_SECONDS = 60.0
REST_POLL_SECONDS = 0.2
SAMPLE_SECONDS = 0.25
MEBIBYTE = 1_048_576
QUICK_SESSION_SECONDS = 6.0
"""The least that a worker takes; so that a lost worker's partitions are given to others soon."""

ValueT = TypeVar("ValueT")


class FaultDidNotTakePlaceError(Exception):
    """What the fault was to do has not happened: a run that shows nothing."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What runs before the fault."""

    workers: int = 2
    bridges: int = 1
    fifo: bool = False
    messages_per_second: float = 300.0
    bad_share: float = 0.01
    bad_kinds: tuple[str, ...] = tuple(BAD_KINDS)
    visibility_seconds: int = 6
    """Of the queue: how long a killed bridge's messages stay hidden."""
    receives_max: int | None = None
    """After so many receives SQS puts a message aside; None: never."""
    proxied: tuple[str, ...] = ()
    """Servers that bridge and workers reach through the proxy: ``kafka``, ``postgres``."""
    settings: dict[str, str] = field(default_factory=dict)
    """Environment of bridges and workers, on top."""


class System:
    """A pipeline under load. Verbs that wait raise when what they wait for does not come."""

    def __init__(self, servers: Servers, directory: Path, setup: Setup, chance: Random) -> None:
        self.servers = servers
        self.directory = directory
        self.keys_directory = directory / "keys"
        """The keysets of this run, a copy: a fault may spoil them. With these the checker opens what it finds."""
        self.setup = setup
        self.chance = chance
        """For every choice that a fault makes: the same seed makes the same ones."""
        self.name = f"crash-{secrets.token_hex(4)}"
        self.expected: dict[str, int] = {}
        """What the verdict must show though it is a problem, by its field: records that retention has removed are ``lost``."""
        self.dsn = ""
        self._open = ExitStack()
        self._peak_bytes: dict[str, int] = {}
        self._ended = threading.Event()

    # --- its life

    def __enter__(self) -> Self:
        servers, setup, name = self.servers, self.setup, self.name
        shutil.copytree(servers.keys_directory, self.keys_directory)
        with ExitStack() as opening:
            self.dsn = servers.new_database()
            opening.callback(servers.postgres.drop_database, self.dsn)
            self.sqs = sqs_client(servers.elasticmq)
            self.queue = Queue(
                self.sqs, name, fifo=setup.fifo, visibility_seconds=setup.visibility_seconds, receives_max=setup.receives_max
            )
            opening.callback(self.queue.delete)
            opening.callback(self._delete_topic)
            self.ledger = Ledger(self.directory / "ledger.sqlite")
            opening.callback(self.ledger.close)
            self.workload = Workload(
                self.queue,
                self.ledger,
                messages(self.chance, setup.bad_share, setup.bad_kinds),
                self.chance,
                setup.messages_per_second,
            )
            self.processes = PipelineProcesses(self.directory, self._environment())
            opening.callback(self._end_processes)
            self._postgres_log_from = servers.postgres.log_file.stat().st_size
            self._open = opening.pop_all()
        threading.Thread(target=self._sample, name="memory sampler", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        with ExitStack() as closing_down:
            closing_down.enter_context(self._open)
            closing_down.callback(self.workload.stop)

    def start(self) -> None:
        """Start bridges, workers and load; return when messages come out at the other end."""
        for number in range(1, self.setup.bridges + 1):
            self.processes.start_bridge(f"bridge-{number}")
        for number in range(1, self.setup.workers + 1):
            self.processes.start_worker(f"worker-{number}")
        self.processes.wait_ready()
        self.workload.start()
        self.wait_flowing()

    @property
    def workers(self) -> list[str]:
        """The names of those that run."""
        return [name for name in self.processes.running if name.startswith("worker")]

    @property
    def bridges(self) -> list[str]:
        """The names of those that run."""
        return [name for name in self.processes.running if name.startswith("bridge")]

    @property
    def worker(self) -> str:
        """One of the workers that run, by chance."""
        return self.chance.choice(self.workers)

    # --- verbs: processes

    def start_worker(self, name: str = "", **settings: str) -> str:
        """One more, not waited for; its name."""
        name = name or f"worker-{len(self.processes.ports) + 1}"
        self.processes.start_worker(name, **settings)
        return name

    def start_bridge(self, name: str = "", **settings: str) -> str:
        """One more, not waited for; its name."""
        name = name or f"bridge-{len(self.processes.ports) + 1}"
        self.processes.start_bridge(name, **settings)
        return name

    def kill(self, *names: str) -> None:
        """SIGKILL, all at once."""
        self.processes.kill(*names)

    def freeze(self, *names: str) -> None:
        """SIGSTOP: no instruction is carried out any more, connections stay."""
        self.processes.send_signal(Signals.SIGSTOP, *names)

    def thaw(self, *names: str) -> None:
        """SIGCONT."""
        self.processes.send_signal(Signals.SIGCONT, *names)

    def pid(self, name: str) -> int:
        """Its process id, for what signals don't do."""
        return self.processes.running[name].pid

    # --- verbs: waiting and looking

    def rest(self, seconds: float) -> None:
        """Let the load run on. Raises when something has ended that should not."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            time.sleep(min(REST_POLL_SECONDS, left))

    def moment(self, most_seconds: float = 1.0) -> None:
        """A moment by chance, so that each seed hits another one."""
        self.rest(self.chance.uniform(0, most_seconds))

    def wait(self, what: str, condition: Callable[[], ValueT], seconds: float = WAIT_SECONDS) -> ValueT:
        """Poll until the condition is true; its value."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            self.check()
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {what}")
            time.sleep(POLL_SECONDS)
        return value

    def prove(self, what: str, condition: Callable[[], ValueT], seconds: float = 20.0) -> ValueT:
        """Wait for the sign that the fault has taken place. Raises :class:`FaultDidNotTakePlaceError`."""
        try:
            return self.wait(what, condition, seconds)
        except AssertionError as error:
            raise FaultDidNotTakePlaceError(what) from error

    def check(self) -> None:
        """Raise when a process has ended that nobody told to, or the workload can't send."""
        self.processes.check()
        self.workload.check()

    def metric(self, name: str, metric: str, **labels: str) -> float:
        """Of one process; the sum over the series that have these labels."""
        return self.processes.metric(name, metric, **labels)

    def log(self, name: str) -> str:
        """Of one process."""
        return self.processes.log(name)

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """As the database's owner; each statement is committed."""
        with closing(psycopg2.connect(self.dsn)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters or None)
                return cursor.fetchall() if cursor.description else []

    def finished(self) -> int:
        """Rows and dead letters."""
        return int(self.query("SELECT (SELECT count(*) FROM user_logins) + (SELECT count(*) FROM dead_letters)")[0][0])

    def buffered(self, name: str) -> int:
        """Records that a worker has fetched and not yet written."""
        return int(self.metric(name, "stream_partition_buffered_records"))

    def wait_flowing(self, number: int = 50) -> None:
        """Until so many more messages have come to their end."""
        wanted = self.finished() + number
        self.wait(f"{number} more messages come to their end", lambda: self.finished() >= wanted)

    def log_ends(self) -> dict[int, int]:
        """The end of each partition's log; empty while there is no topic."""
        with closing(Consumer({"bootstrap.servers": self.servers.kafka.bootstrap_servers, "group.id": "none"})) as consumer:
            partitions = consumer.list_topics(self.name, timeout=10).topics[self.name].partitions
            return {p: consumer.get_watermark_offsets(TopicPartition(self.name, p), timeout=10)[1] for p in partitions}

    def positions(self) -> dict[int, int]:
        """The position of each partition."""
        return {partition: offset for partition, offset in self.query("SELECT partition, next_offset FROM stream_positions")}  # noqa: C416 - pairs

    def is_drained(self) -> bool:
        """Whether everything that was sent has left the queue and stands behind the position."""
        return self.queue.counts() == (0, 0) and self.positions() == self.log_ends()

    # --- the end

    def settle(self, seconds: float) -> bool:
        """End the load, then wait until all is drained; whether it is in time."""
        self.workload.stop()
        try:
            self.wait("all is drained", self.is_drained, seconds)
        except AssertionError:
            return False
        return True

    def stop_processes(self) -> dict[str, int]:
        """SIGTERM to all, bridges first; their exit codes. Their last metrics are kept beside their logs."""
        for name in self.processes.running:
            (self.directory / f"{name}.metrics").write_text(self.processes.scrape(name))
        return {**self.processes.stop(*self.bridges), **self.processes.stop(*self.workers)}

    def judge(self, fault_ended_at: float | None = None) -> Verdict:
        """What the checker finds; after :meth:`stop_processes`."""
        return check(self.sides(), fault_ended_at=fault_ended_at)

    def sides(self) -> Sides:
        """Where the checker looks."""
        servers = self.servers
        written = [(path, 0) for pattern in ("*.log", "*.metrics") for path in sorted(self.directory.glob(pattern))]
        return Sides(
            ledger=self.ledger,
            queues=[self.queue],
            bootstrap_servers=servers.kafka.bootstrap_servers,
            topic=self.name,
            consumer_group=self.name,
            dsn=self.dsn,
            masker=Masker.load(parse_methods(""), keyset_file=self.keys_directory / MASKING.name),
            opener=Opener.load(self.keys_directory / DEAD_LETTER_PRIVATE.name),
            written_files=[*written, (servers.postgres.log_file, self._postgres_log_from)],
        )

    def peak_mebibytes(self, kind: str) -> float:
        """The most memory that any process of a kind (``worker``, ``bridge``) has held."""
        return max((size for name, size in self._peak_bytes.items() if name.startswith(kind)), default=0) / MEBIBYTE

    def _environment(self) -> dict[str, str]:
        servers, setup = self.servers, self.setup
        environment = {
            **servers.elasticmq.environment,
            "SQS_QUEUE_URL": self.queue.url,
            **MADE_UP_CREDENTIALS,
            **key_settings(self.keys_directory),
            "KAFKA_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
            "KAFKA_TOPIC": self.name,
            "CONSUMER_GROUP": self.name,
            "KAFKA_SESSION_TIMEOUT_SECONDS": str(QUICK_SESSION_SECONDS),
            "POSTGRES_DSN": self.dsn,
            "BRIDGE_RECEIVE_WAIT_SECONDS": "1",
        }
        if "kafka" in setup.proxied:
            environment["KAFKA_BOOTSTRAP_SERVERS"] = f"127.0.0.1:{servers.kafka_proxy.port}"
        if "postgres" in setup.proxied:
            environment["POSTGRES_DSN"] = self.dsn.replace(f":{urlsplit(self.dsn).port}/", f":{servers.postgres_proxy.port}/")
        return {**environment, **setup.settings}

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            for name, child in list(self.processes.running.items()):
                try:
                    size = psutil.Process(child.pid).memory_info().rss
                except psutil.NoSuchProcess:
                    continue  # it has just ended
                self._peak_bytes[name] = max(size, self._peak_bytes.get(name, 0))

    def _end_processes(self) -> None:
        self.processes.kill(*self.processes.running)

    def _delete_topic(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.servers.kafka.bootstrap_servers, "log_level": 0})
        try:
            admin.delete_topics([self.name])[self.name].result()
        except KafkaException as error:
            if error.args[0].name() != "UNKNOWN_TOPIC_OR_PART":
                raise
