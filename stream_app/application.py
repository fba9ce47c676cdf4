"""The composition root: the App that `faust -A stream_app` finds. Only this module knows the concrete classes.

Importing it reads the settings and nothing else: no connection, no key. `worker` composes the rest before it starts, and says what
is wrong with them (:meth:`StreamApp.compose`): Faust imports this for every command.
"""

import asyncio
import os
import socket
from collections.abc import MutableSequence
from typing import TYPE_CHECKING, Any, cast

import faust
import faust.app.base
import structlog
from faust.app.base import BootStrategy
from faust.serializers.codecs import get_codec
from faust.streams import Stream
from faust.transport.drivers import TRANSPORTS
from faust.types import FixupT, StreamT
from mode import CrashingSupervisor

from pipeline import logs
from pipeline.ending import EXIT_REFUSED, Ending
from pipeline.errors import FatalError, PipelineError, RetryableError, SettingsError
from pipeline.kafka_reachability import Reachability
from pipeline.kafka_topic import ensure_topic
from pipeline.operations import OperationsServer, Pages, read_token
from pipeline.policy_in_force import tell_service_links
from pipeline.settings import load
from stream_app.batch import BatchBuilder
from stream_app.dead_letters import Sealer
from stream_app.group_check import check_group
from stream_app.health import WorkerHealth
from stream_app.kafka_wait import KafkaWait
from stream_app.masking.keysets import SETTING_DEAD_LETTER_PUBLIC
from stream_app.masking.masker import Masker
from stream_app.masking.policy import parse_methods
from stream_app.metrics import WorkerMetrics
from stream_app.partition_ports import Budget
from stream_app.partitions import Partitions
from stream_app.policy_in_force import worker_policy
from stream_app.positions import Partition
from stream_app.postgres.batch_writer import BatchWriter
from stream_app.postgres.connection import WRITER, connection_parameters
from stream_app.postgres.errors import CONFLICTS, retry_class
from stream_app.postgres.pool import ConnectionPool, StatementResult
from stream_app.postgres.preflight import DEAD_LETTER, WriterPreflight
from stream_app.preflight import WAIT_SECONDS, Check, WaitLog, look_at_all
from stream_app.settings import WorkerSettings
from stream_app.windows import WindowPolicy

if TYPE_CHECKING:  # Faust loads the transport by the name that is registered below
    from stream_app.transport.batch_transport import BatchConsumer

log = structlog.get_logger(__name__)

STOP_SECONDS = 20.0
"""How long a stop may take beside FLUSH_SECONDS, before it is ended: a last commit, leaving the group, closing connections and
event loops, each within its own bound, and then some. Together less than supervisors wait: 30 s in Kubernetes and compose."""

TRANSPORTS.aliases["batch"] = "stream_app.transport.batch_transport:BatchTransport"


class _ConsumerOnly(BootStrategy):
    """No Faust producer: nothing is sent. No Faust web server: its pages show internals; the operations server has its port."""

    enable_kafka_producer = False
    enable_web = False


class StreamApp(faust.App):
    """The worker: reads whole fetches, hands them to the partitions, stops in order."""

    BootStrategy = _ConsumerOnly

    partitions: Partitions
    metrics: WorkerMetrics

    def __init__(self, settings: WorkerSettings) -> None:
        brokers = [f"batch://{server}" for server in settings.kafka_servers]
        super().__init__(
            settings.consumer_group,
            env={},  # Faust would let APP_VERSION, BROKER_URL and 80 others go over what stands here
            broker=brokers,
            store="memory://",
            table_standby_replicas=0,  # without tables this means aiokafka's round robin assignor instead of Faust's own
            topic_disable_leader=True,
            topic_allow_declare=False,  # ensure_topic() made it, with the settings that matter
            consumer_auto_offset_reset="earliest",  # never relied on: partition_writer.py checks what comes
            broker_session_timeout=settings.kafka_session_timeout_seconds,
            broker_heartbeat_interval=min(1.0, settings.kafka_session_timeout_seconds / 4),  # also how soon a rebalance is noticed
            # Faust wants this above the session timeout, and joining may wait for all who flush.
            broker_request_timeout=max(40.0, settings.kafka_session_timeout_seconds + 10, settings.flush_seconds + 40),
            broker_rebalance_timeout=settings.flush_seconds + 30,  # a worker that flushes is waited for
            broker_max_poll_interval=1e9,  # a worker without a partition, or whose partitions wait, fetches nothing, and stays
            broker_commit_interval=1.0,
            consumer_metadata_max_age_ms=30_000,  # partitions that are added are seen within half a minute
            stream_wait_empty=False,  # nothing is acknowledged event by event; release() writes what is in hand
            stream_recovery_delay=0.0,
            ConsumerScheduler="stream_app.transport.batch_scheduler:WholeFetches",
            Worker="stream_app.commands.worker:StreamWorker",
            worker_redirect_stdouts=False,
            logging_config=logs.logging_config(settings),
            web_host=settings.web_bind,
            web_bind=settings.web_bind,
            web_port=settings.web_port,
            web_transport="tcp://",  # these two are in Faust's defaults what F_WEB_TRANSPORT and F_DATADIR say
            datadir="stream_app-data",  # never made: see _create_directories
            autodiscover=False,
        )
        self.settings = settings
        self.settings_error: SettingsError | None = None
        """What is wrong with the worker's settings: told by the worker alone, other commands read their own."""
        self._is_refused = False
        self.finalize()  # there is no configuration to come; FAUST_STRICT forbids to look at it before this

    def _init_fixups(self) -> MutableSequence[FixupT]:
        """None: Faust has one for Django, which it would set up where DJANGO_SETTINGS_MODULE is in the environment."""
        return []

    def compose(self) -> None:
        """Make what the worker needs beyond the settings, and take its port. Raises :class:`FatalError`; opens no connection."""
        if self.settings_error is not None:
            raise self.settings_error
        settings = self.settings
        logs.configure(settings)
        logs.log_uncaught_errors()
        parameters = connection_parameters(settings, role=WRITER, application_name="")  # what is wrong with them ends it here
        self.metrics = WorkerMetrics()
        size = settings.postgres_connections_max
        self._pool = ConnectionPool(
            settings, role=WRITER, application_name="login-stream worker", size=size, on_statement=self._ran_statement
        )
        self.metrics.database_connections.set_function(lambda: self._pool.connections_open)
        self.metrics.database_connections_wanted.set_function(lambda: self._pool.connections_wanted)
        store = BatchWriter(
            self._pool,
            consumer_group=settings.consumer_group,
            owner=f"{socket.gethostname()}:{os.getpid()}",
            create_date_time_zone=settings.create_date_time_zone,
        )
        methods = parse_methods(settings.masking_methods)
        masker = Masker.load(
            methods,
            keyset_file=settings.masking_keyset_file,
            hmac_keyset_file=settings.masking_hmac_keyset_file,
        )
        self.metrics.use_keys(masker.keys())
        self._policy = worker_policy(settings, methods, masker, parameters)
        sealer = Sealer.load(settings.dead_letter_public_keyset_file)
        builder = BatchBuilder(
            masker,
            sealer,
            settings.sent_at_bounds,
            settings.app_version_encoding,
            self.metrics.took_step,
        )
        preflight = WriterPreflight(self._pool, store)
        self._checks = (
            Check("session", "postgres", preflight.session),
            Check("tables", "postgres", preflight.tables),
            Check("owner's changes", "postgres", lambda: _refuse_changes(store)),
            Check("statements", "postgres", lambda: preflight.statements(builder.begin(Partition(settings.kafka_topic, 0), 0))),
            Check(
                "group", "postgres", lambda: check_group(store, consumer_group=settings.consumer_group, topic=settings.kafka_topic)
            ),
            Check("keys", "postgres", lambda: self._look_at_keys(preflight, masker, sealer)),
            Check("topic", "kafka", self._look_at_topic),
        )
        self._wait_log = WaitLog()
        self._mismatch: str | None = None
        self.partitions = Partitions(
            store=store,
            builder=builder,
            policy=WindowPolicy(rows=settings.window_rows, bytes=settings.window_bytes, seconds=settings.window_seconds),
            refused_rows_max=settings.refused_rows_max,
            budget=Budget(settings.buffer_bytes_max, settings.postgres_connections_max + 1),
            flush_seconds=settings.flush_seconds,
            metrics=self.metrics,
        )
        self.health = WorkerHealth(self.partitions, self.metrics)
        self.kafka = KafkaWait(Reachability(settings), self.health)
        self.ending = Ending(settings.flush_seconds + STOP_SECONDS, self._what_has_crashed)
        self._operations: OperationsServer | None = None
        token = read_token(settings.web_token_file, "WEB_TOKEN_FILE")
        if self.conf.web_enabled:
            pages = Pages(self.metrics.registry, self.ending.livez(self.health.livez), self.health.readyz, token)
            self._operations = OperationsServer(self.conf.web_bind, self.conf.web_port, pages, settings="WEB")
            self._operations.bind()
        get_codec("raw")  # Faust looks for codecs of others at the first record, in files, and dies if it can open none then

    def _create_directories(self) -> None:
        """Nothing: Faust would make a data directory for tables, and there are none."""

    async def on_start(self) -> None:
        """Serve health and metrics, then wait until all is there that is needed to write: Faust joins the group after this."""
        log.info("policy_in_force", **self._policy)
        tell_service_links(type(self.settings))
        self.add_future(self.health.beat())
        if self._operations is not None:
            self._operations.start()
        await self._wait_until_it_can_write()
        if self.should_stop:
            return
        self.health.starting = False
        if self._mismatch is not None:
            log.warning("keyset_mismatch", problem=self._mismatch)
        log.info(
            "worker_started",
            consumer_group=self.settings.consumer_group,
            topic=self.settings.kafka_topic,
            web_port=None if self._operations is None else self._operations.port,
        )
        await super().on_start()

    async def on_stop(self) -> None:
        """Write what is in hand while the group still counts us in, then leave it."""
        if self._consumer is not None:
            await cast("BatchConsumer", self._consumer).give_up()
        await super().on_stop()

    async def on_shutdown(self) -> None:
        """Last of all: the connections, then the metrics, which showed the stop until its end."""
        await self._pool.close()
        if self._operations is not None:
            self._operations.stop()
        if not self._is_refused:  # then the last line is why
            log.info("worker_stopped")
        await super().on_shutdown()

    def _what_has_crashed(self) -> str | None:
        """Called from a thread of its own: what has crashed may be the event loop's own work."""
        if self.crashed:
            return type(self.crash_reason).__name__
        if self._consumer is not None and cast("BatchConsumer", self._consumer).thread_has_died:
            return "the consumer's thread has ended"
        return None if self._operations is None else self._operations.crash()

    def _ran_statement(self, result: StatementResult, seconds: float, error: PipelineError | None) -> None:
        self.metrics.ran_statement(result, seconds, error)
        if self.health.starting:  # the checks tell, all of them together
            return
        if error is None:
            self.health.answered("postgres")
        elif isinstance(error, RetryableError) and retry_class(error) not in CONFLICTS:
            self.health.did_not_answer("postgres", error)

    async def _wait_until_it_can_write(self) -> None:
        """End the process with a code where only a person can help."""
        try:
            while not self.should_stop and not await self._looked_at_all():
                await self.sleep(WAIT_SECONDS)
        except FatalError as error:
            self._is_refused = True
            log.critical("start_refused", problem=str(error), exit_code=EXIT_REFUSED)
            raise SystemExit(EXIT_REFUSED) from None  # Faust would show a traceback for any other exception

    async def _looked_at_all(self) -> bool:
        waits = {check.dependency: (check, error) for check, error in await look_at_all(self._checks)}
        if "postgres" in waits:
            check, error = waits["postgres"]
            self.health.did_not_answer("postgres", error)
            self._wait_log.waits(check, error)
        else:
            self.health.answered("postgres")
            self._wait_log.passed("postgres")
        if "kafka" in waits:
            await self.wait(self.kafka.failed(waits["kafka"][1]))
        else:
            self.kafka.answered()
        return not waits

    async def _look_at_keys(self, preflight: WriterPreflight, masker: Masker, sealer: Sealer) -> None:
        def keys_of(field: str) -> tuple[str, frozenset[int]]:
            return (SETTING_DEAD_LETTER_PUBLIC, sealer.key_ids) if field == DEAD_LETTER else masker.keys_of(field)

        self._mismatch = await preflight.keys(keys_of, accept=self.settings.keyset_mismatch == "accept")

    async def _look_at_topic(self) -> None:
        if await asyncio.get_running_loop().run_in_executor(None, ensure_topic, self.settings):
            log.info("topic_created", topic=self.settings.kafka_topic)


async def _refuse_changes(store: BatchWriter) -> None:
    (await store.check_tables()).refuse()


StreamApp.logger = (
    faust.app.base.logger
)  # mode gives it one of our module's name; its starts and stops would look like events of ours


def make_app(settings: WorkerSettings) -> StreamApp:
    """The App with its one agent."""
    application = StreamApp(settings)
    topic = application.topic(settings.kafka_topic, value_type=bytes, value_serializer="raw", key_serializer="raw", acks=False)

    @application.agent(topic, name="write_logins", isolated_partitions=True, supervisor_strategy=CrashingSupervisor)
    async def write_logins(stream: StreamT[Any]) -> None:
        """One actor a partition: hands each fetch to the partition's writer, which never blocks it."""
        async for event in cast("Stream[Any]", stream).noack().events():
            message = event.message
            application.partitions.receive(Partition(message.topic, message.partition), message.value.pop())

    return application


def _app() -> StreamApp:
    try:
        return make_app(load(WorkerSettings))
    except SettingsError as error:
        application = make_app(WorkerSettings.model_construct())  # of defaults, for Faust's command line
        application.settings_error = error.with_traceback(None)
        return application


app = _app()

from stream_app import commands  # noqa: E402 - after the App: its commands register themselves with Faust's command line

__all__ = ["StreamApp", "app", "commands", "make_app"]
