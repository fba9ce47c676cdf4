"""One run: a pipeline of its own under load, and the verbs by which a fault breaks it.

Everything is fresh but the servers: database, topic, queue, consumer group, logs. Bridges and workers are real processes.
"""

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
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
from dev_servers.pipeline_processes import PipelineProcesses, metric_sum
from stream_app.commands.keys import DEAD_LETTER_PRIVATE, MASKING
from stream_app.dead_letters import Opener
from stream_app.masking.masker import Masker
from stream_app.masking.policy import parse_methods

POLL_SECONDS = 0.05
WAIT_SECONDS = 60.0
REST_POLL_SECONDS = 0.2
SAMPLE_SECONDS = 0.25
MEBIBYTE = 1_048_576
COUNTED = ("_total", "_count", "_sum", "_bucket")
"""How the names of samples end that only rise."""
ABSENCE_SECONDS = 60.0
"""How long a server is away in the faults that say so."""

FIFO_BRIDGE = "fifo-bridge"
"""How the names of those begin that read the second queue. A fault breaks one queue's bridges, the others are part of its load."""
SECOND_QUEUE_SHARE = 0.2
"""Of the first queue's rate. From a FIFO queue of 18,000 ElasticMQ gave out 24 messages a second, at 4 s a request: what gathers
in it while a part is away must stay short."""

FIFO_SHARE = 0.5
"""Of the faults that break a bridge, where there are two queues."""

QUICK_SESSION_SECONDS = 6.0
"""The least that a worker takes; so that a lost worker's partitions are given to others soon."""

LATE = 4_102_444_800.0
"""A time that no run sees: the year 2100."""

_FINISHED = """
SELECT (SELECT count(*) FROM user_logins WHERE sent_at >= to_timestamp(%(since)s) AND sent_at < to_timestamp(%(before)s))
    + (SELECT count(*) FROM dead_letters WHERE sent_at >= to_timestamp(%(since)s) AND sent_at < to_timestamp(%(before)s))"""

ValueT = TypeVar("ValueT")


class FaultDidNotTakePlaceError(Exception):
    """What the fault was to do has not happened: a run that shows nothing."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What runs before the fault."""

    workers: int = 2
    bridges: int = 1
    fifo: bool = False
    also_fifo: bool = False
    """A second queue, FIFO, with bridges and load of its own, into the same topic."""
    messages_per_second: float = 300.0
    """Into the queue; into a second one SECOND_QUEUE_SHARE of it."""
    bad_share: float = 0.01
    bad_kinds: tuple[str, ...] = tuple(BAD_KINDS)
    visibility_seconds: int = 6
    """Of the queue: how long a killed bridge's messages stay hidden."""
    receives_max: int | None = None
    """After so many receives SQS puts a message aside; None: never."""
    proxied: tuple[str, ...] = ()
    """Servers that bridges and workers reach through what can break the way: ``kafka``, ``postgres``, ``sqs``."""
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
        self.partitions_added = False
        """Whether a fault has added some: a message group may then be in two."""
        self.absence_seconds = ABSENCE_SECONDS
        self.keep = False
        """Leave database and topic as they are at the end, for whoever looks for what went wrong."""
        self.proved: list[str] = []
        """What :meth:`prove` has seen."""
        self.mended_at: float | None = None
        """When :meth:`mended` was called, in seconds since the epoch."""
        self.dsn = ""
        self.queues: list[Queue] = []
        self.workloads: list[Workload] = []
        """One for each queue."""
        self._breaks_fifo = False
        self._open = ExitStack()
        self._metrics_before: dict[int, str] = {}  # by process id
        self._log_from: dict[str, int] = {}
        self._peak_bytes: dict[str, int] = {}
        self._ended = threading.Event()

    # --- its life

    def __enter__(self) -> Self:
        servers, setup, name = self.servers, self.setup, self.name
        shutil.copytree(servers.keys_directory, self.keys_directory)
        with ExitStack() as opening:
            self.dsn = servers.new_database()
            opening.callback(self._drop_database)
            self.sqs = sqs_client(servers.elasticmq.endpoint_url)
            opening.callback(self._delete_topic)
            self.ledger = Ledger(self.directory / "ledger.sqlite")
            opening.callback(self.ledger.close)
            for fifo in (setup.fifo, *([True] if setup.also_fifo else [])):
                queue = Queue(
                    self.sqs, name, fifo=fifo, visibility_seconds=setup.visibility_seconds, receives_max=setup.receives_max
                )
                opening.callback(queue.delete)
                self.queues.append(queue)
                self.workloads.append(self._workload(queue))
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
            for workload in self.workloads:
                closing_down.callback(workload.stop)

    def _workload(self, queue: Queue) -> Workload:
        """With a chance of its own: what it draws when is not for the fault's choices to depend on."""
        setup, chance = self.setup, Random(self.chance.getrandbits(64))  # noqa: S311 - to be repeatable is the point
        source = messages(chance, setup.bad_share, setup.bad_kinds)
        return Workload(queue, self.ledger, source, chance, self._usual_rate(queue))

    def _usual_rate(self, queue: Queue) -> float:
        return self.setup.messages_per_second * (1.0 if queue is self.queue else SECOND_QUEUE_SHARE)

    def start(self) -> None:
        """Start bridges, workers and load; return when messages come out at the other end."""
        self._start_missing()
        for workload in self.workloads:
            workload.start()
        self.wait_flowing()

    def restore(self) -> None:
        """Have again what :meth:`start` started and nothing else, whatever a fault has left; return when messages flow."""
        self.servers.heal()
        usual = self._usual_processes()
        self.processes.stop(*(name for name in self.processes.running if name not in usual))
        self._start_missing()
        self.restore_load()

    def restore_load(self) -> None:
        """Send as fast as at the start; return when messages flow."""
        for workload in self.workloads:
            workload.messages_per_second = self._usual_rate(workload.queue)
        self.wait_flowing()

    def _usual_processes(self) -> list[str]:
        bridges = [f"bridge-{number}" for number in range(1, self.setup.bridges + 1)]
        fifo_bridges = [f"{FIFO_BRIDGE}-{number}" for number in range(1, self.setup.bridges + 1)] if self.setup.also_fifo else []
        return [*bridges, *fifo_bridges, *(f"worker-{number}" for number in range(1, self.setup.workers + 1))]

    def _start_missing(self) -> None:
        for name in self._usual_processes():
            if name not in self.processes.running:
                (self.start_worker if name.startswith("worker") else self.start_bridge)(name)
        self.processes.wait_ready()

    @property
    def queue(self) -> Queue:
        """The queue; the first of two."""
        return self.queues[0]

    @property
    def workload(self) -> Workload:
        """What sends to it."""
        return self.workloads[0]

    @property
    def sent(self) -> int:
        """Messages, into all queues and by other producers."""
        return self.ledger.sent

    @property
    def workers(self) -> list[str]:
        """The names of those that run."""
        return [name for name in self.processes.running if name.startswith("worker")]

    @property
    def bridges(self) -> list[str]:
        """The names of those that run; where there are two queues, of one of them: chance says which for each fault."""
        return [name for name in self.processes.running if name.startswith(FIFO_BRIDGE if self._breaks_fifo else "bridge")]

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
        if name.startswith(FIFO_BRIDGE):
            settings = {"SQS_QUEUE_URL": self.queues[-1].url, **settings}
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
            value = self.wait(what, condition, seconds)
        except AssertionError as error:
            raise FaultDidNotTakePlaceError(what) from error
        self.proved.append(what)
        return value

    def mended(self) -> None:
        """The fault ends here, though what proves it is still to be seen: recovery is measured from here, not from the yield."""
        self.mended_at = time.time()

    def begin_anew(self) -> None:
        """Show logs, and metrics that count, without what has been before: it proves nothing of the next fault."""
        self.proved.clear()
        self.mended_at = None
        self._breaks_fifo = self.setup.also_fifo and self.chance.random() < FIFO_SHARE
        for name, child in self.processes.running.items():
            self._metrics_before[child.pid] = self.processes.scrape(name)
            self._log_from[name] = child.log_file.stat().st_size

    def check(self) -> None:
        """Raise when a process has ended that nobody told to, or the workload can't send."""
        self.processes.check()
        for workload in self.workloads:
            workload.check()

    def metric(self, name: str, metric: str, **labels: str) -> float:
        """Of one process; the sum over the series that have these labels."""
        before = self._metrics_before.get(self.processes.running[name].pid)
        counted_before = 0.0 if before is None or not metric.endswith(COUNTED) else metric_sum(before, metric, labels)
        return self.processes.metric(name, metric, **labels) - counted_before

    def log(self, name: str) -> str:
        """Of one process."""
        return self.processes.log(name, self._log_from.get(name, 0))

    def query(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """As the database's owner; each statement is committed."""
        with closing(psycopg2.connect(self.dsn)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters or None)
                return cursor.fetchall() if cursor.description else []

    def finished(self, sent_from: float = 0.0, sent_before: float = LATE) -> int:
        """Rows and dead letters; of messages that were sent between these two, in seconds since the epoch."""
        return int(self.query(_FINISHED, {"since": sent_from, "before": sent_before})[0][0])

    def buffered(self, name: str) -> int:
        """Records that a worker has fetched and not yet written."""
        return int(self.metric(name, "stream_partition_buffered_records"))

    def wait_flowing(self, number: int = 50) -> None:
        """Until so many more messages have come to their end."""
        wanted = self.finished() + number
        self.wait(f"{number} more messages come to their end", lambda: self.finished() >= wanted)

    def log_ends(self) -> dict[int, int]:
        """The end of each partition's log, open transactions or not; empty while there is no topic."""
        settings = {
            "bootstrap.servers": self.servers.kafka.bootstrap_servers,
            "group.id": "none",
            "isolation.level": "read_uncommitted",
        }
        with closing(Consumer(settings)) as consumer:
            partitions = consumer.list_topics(self.name, timeout=10).topics[self.name].partitions
            return {p: consumer.get_watermark_offsets(TopicPartition(self.name, p), timeout=10)[1] for p in partitions}

    def positions(self) -> dict[int, int]:
        """The position of each partition."""
        return {partition: offset for partition, offset in self.query("SELECT partition, next_offset FROM stream_positions")}  # noqa: C416 - pairs

    def commits(self) -> dict[int, int]:
        """The offset of each partition that the group has committed to Kafka."""
        settings = {"bootstrap.servers": self.servers.kafka.bootstrap_servers, "group.id": self.name}
        with closing(Consumer(settings)) as consumer:
            asked = [TopicPartition(self.name, partition) for partition in self.log_ends()]
            return {each.partition: max(each.offset, 0) for each in consumer.committed(asked, timeout=10)}

    def is_drained(self) -> bool:
        """Whether everything that was sent has left the queue and stands behind the position."""
        return all(queue.counts() == (0, 0) for queue in self.queues) and self.positions() == self.log_ends()

    # --- the end

    def settle(self, seconds: float) -> bool:
        """End the load, then wait until all is drained; whether it is in time."""
        for workload in self.workloads:
            workload.stop()
        return self.drained_within(seconds)

    def drained_within(self, seconds: float) -> bool:
        """Wait until all is drained; whether it is in time. The load must have ended or pause."""
        try:
            self.wait("all is drained", self.is_drained, seconds)
        except AssertionError:
            return False
        return True

    def stop_processes(self) -> dict[str, int]:
        """SIGTERM to all, bridges first; their exit codes. Their last metrics are kept beside their logs."""
        for name in self.processes.running:
            (self.directory / f"{name}.metrics").write_text(self.processes.scrape(name))
        workers = self.workers
        codes = self.processes.stop(*(name for name in self.processes.running if name not in workers))
        return {**codes, **self.processes.stop(*workers)}

    def judge(self, faults_ended_at: Sequence[float] = ()) -> Verdict:
        """What the checker finds; after :meth:`stop_processes`."""
        return check(self.sides(), faults_ended_at=faults_ended_at)

    def sides(self) -> Sides:
        """Where the checker looks."""
        servers = self.servers
        written = [(path, 0) for pattern in ("*.log", "*.metrics") for path in sorted(self.directory.glob(pattern))]
        return Sides(
            ledger=self.ledger,
            queues=self.queues,
            bootstrap_servers=servers.kafka.bootstrap_servers,
            topic=self.name,
            consumer_group=self.name,
            dsn=self.dsn,
            masker=Masker.load(parse_methods(""), keyset_file=self.keys_directory / MASKING.name),
            opener=Opener.load(self.keys_directory / DEAD_LETTER_PRIVATE.name),
            written_files=[*written, (servers.postgres.log_file, self._postgres_log_from)],
            partitions_added=self.partitions_added,
        )

    def peak_mebibytes(self, kind: str) -> float:
        """The most memory that any process of a kind (``worker``, ``bridge``) has held."""
        return max((size for name, size in self._peak_bytes.items() if kind in name), default=0) / MEBIBYTE

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
        if "sqs" in setup.proxied:
            environment["AWS_ENDPOINT_URL_SQS"] = servers.sqs_front.endpoint_url
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

    def _drop_database(self) -> None:
        if not self.keep:
            self.servers.postgres.drop_database(self.dsn)

    def _delete_topic(self) -> None:
        if self.keep:
            return
        admin = AdminClient({"bootstrap.servers": self.servers.kafka.bootstrap_servers, "log_level": 0})
        try:
            admin.delete_topics([self.name])[self.name].result()
        except KafkaException as error:
            if error.args[0].name() != "UNKNOWN_TOPIC_OR_PART":
                raise
