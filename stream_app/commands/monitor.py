"""`faust -A stream_app monitor`: the process that tells lag when no worker lives."""

from threading import Event

import structlog

from pipeline import logs
from pipeline.operations import OperationsServer
from pipeline.settings import load
from pipeline.stop_signals import call_on_stop_signal
from stream_app.commands.command import Command, cli
from stream_app.monitor.database import Database
from stream_app.monitor.metrics import MonitorMetrics
from stream_app.monitor.monitor import Monitor
from stream_app.monitor.settings import MonitorSettings
from stream_app.monitor.topic_log import TopicLog
from stream_app.postgres.connection import MONITOR, connection_parameters

log = structlog.get_logger(__name__)


@cli.command(cls=Command)
def monitor() -> None:
    """Show lag, dead letters and reveals to Prometheus until stopped.

    Reads positions and counts from Postgres and the log's ends from Kafka, so that lag is seen when no worker lives. One is enough.
    Needs the role stream_monitor.
    """
    settings = load(MonitorSettings)
    logs.configure(settings)
    connection_parameters(settings, role=MONITOR, application_name="")  # what is wrong with them ends it here, with one line
    stopping = Event()
    call_on_stop_signal(stopping.set)
    metrics = MonitorMetrics()
    topic_log, database = TopicLog(settings, settings.sent_at_bounds), Database(settings)
    looking = Monitor(settings, metrics, topic_log=topic_log, database=database)
    server = OperationsServer(settings.monitor_web_bind, settings.monitor_web_port, metrics.registry, looking.livez, looking.readyz)
    server.start()
    log.info("monitor_started", web_port=server.port, topic=settings.kafka_topic, consumer_group=settings.consumer_group)
    try:
        looking.run(stopping)
    finally:
        server.stop()
        database.close()
        topic_log.close()
    log.info("monitor_stopped")
