"""`faust -A stream_app monitor`: the process that tells lag when no worker lives."""

import logging
import os
from threading import Event, Thread

import structlog

from pipeline import logs
from pipeline.ending import Ending
from pipeline.operations import OperationsServer, Pages, read_token
from pipeline.policy_in_force import tell_service_links
from pipeline.settings import load
from pipeline.stop_signals import call_on_stop_signal
from stream_app.commands.command import ProcessCommand, cli
from stream_app.monitor.database import Database
from stream_app.monitor.metrics import MonitorMetrics
from stream_app.monitor.monitor import Monitor
from stream_app.monitor.settings import MonitorSettings
from stream_app.monitor.topic_log import TopicLog
from stream_app.policy_in_force import monitor_policy
from stream_app.postgres.connection import MONITOR, connection_parameters
from stream_app.transport.first_records import FirstRecords

log = structlog.get_logger(__name__)

LAST_LOOK_SECONDS = 1.0
"""What a look may still take that is under way when it is to stop; then it is left alone. It holds nothing, and only reads."""

STOP_SECONDS = 8.0
"""For the rest of a stop. Less than a supervisor waits, 10 s in compose."""


class _Looks(Thread):
    """Looks until stopped, in a thread of its own: one that waits for a silent server can't be interrupted."""

    def __init__(self, looking: Monitor, stopping: Event) -> None:
        super().__init__(name="looks", daemon=True)
        self._looking = looking
        self._stopping = stopping
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._looking.run(self._stopping)
        except Exception as error:  # noqa: BLE001 - raised again where the process ends
            self.error = error
        finally:
            self._stopping.set()


@cli.command(cls=ProcessCommand)
def monitor() -> None:
    """Show lag, dead letters and reveals to Prometheus until stopped.

    Reads positions and counts from Postgres and the log's ends from Kafka, so that lag is seen when no worker lives. One is enough.
    Needs the role stream_monitor.
    """
    settings = load(MonitorSettings)
    logs.configure(settings)
    logs.log_uncaught_errors()
    parameters = connection_parameters(settings, role=MONITOR, application_name="")  # what is wrong with them ends it here
    log.info("policy_in_force", **monitor_policy(settings, parameters))
    tell_service_links(type(settings))
    stopping, ending = Event(), Ending(STOP_SECONDS)

    def told_to_stop() -> None:
        ending.stopping()
        stopping.set()

    call_on_stop_signal(told_to_stop)
    metrics = MonitorMetrics()
    topic_log = TopicLog(settings, settings.sent_at_bounds, FirstRecords(settings).at)
    database = Database(settings)
    looking = Monitor(settings, metrics, topic_log=topic_log, database=database)
    token = read_token(settings.monitor_web_token_file, "MONITOR_WEB_TOKEN_FILE")
    pages = Pages(metrics.registry, ending.livez(looking.livez), looking.readyz, token)
    server = OperationsServer(settings.monitor_web_bind, settings.monitor_web_port, pages, settings="MONITOR_WEB")
    ending.also_watch(server.crash)
    server.bind()
    ending.start()
    server.start()
    log.info("monitor_started", web_port=server.port, topic=settings.kafka_topic, consumer_group=settings.consumer_group)
    looks = _Looks(looking, stopping)
    looks.start()
    stopping.wait()
    looks.join(LAST_LOOK_SECONDS)
    if looks.error is not None:
        ending.stopping(looks.error)
        log.error("monitor_crashed", exc_info=looks.error)
    server.stop()
    if looks.is_alive():
        log.info("monitor_stopped", look="abandoned")
        logging.shutdown()
        os._exit(0)  # its connections are in use
    database.close()
    if looks.error is not None:
        raise SystemExit(1) from looks.error  # not as a command's defect, which is shown past the log
    log.info("monitor_stopped")
