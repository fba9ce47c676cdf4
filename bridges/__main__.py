"""``python -m bridges sqs``: the composition root and command line of the bridge."""

import sys

import click
import structlog

from bridges.allocator import give_memory_back
from bridges.bridge import Bridge
from bridges.metrics import BridgeMetrics
from bridges.settings import BridgeSettings
from bridges.sqs_queue import SqsQueue
from bridges.step_threads import ThreadDiedError
from pipeline import __version__, json_errors, logs
from pipeline.ending import EXIT_REFUSED, Ending
from pipeline.errors import FatalError
from pipeline.operations import OperationsServer, Pages, read_token
from pipeline.policy_in_force import kafka_policy, tell_service_links
from pipeline.printable import printable
from pipeline.settings import load, settings_help
from pipeline.stop_signals import call_on_stop_signal

_log = structlog.stdlib.get_logger("bridges")

STOP_SECONDS = 5.0
"""How long a stop may take beside BRIDGE_SHUTDOWN_SECONDS, before it is ended: closing connections."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="login-stream bridge")
def main() -> None:
    """Move messages from a queue into the Kafka topic that the stream workers read."""


@main.command(
    epilog=f"Settings, from the environment:\n\n{settings_help(BridgeSettings)}\n\n"
    "\b\nRegion, endpoint and credentials of AWS are found as boto3 finds them:\n"
    "  AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_SQS, AWS_ACCESS_KEY_ID, AWS_PROFILE, a role, ..."
)
def sqs() -> None:
    """Forward an SQS queue, standard or FIFO, until stopped.

    A message is deleted from SQS only after Kafka has acknowledged its record. SIGTERM or SIGINT: receive no more, finish what is
    held, make the rest visible again, exit with 0. A second signal: exit at once; SQS shows what was held when its time runs out.
    """
    try:
        _run(load(BridgeSettings))
    except FatalError as error:
        refused = click.ClickException(printable(str(error)))
        if not isinstance(error, ThreadDiedError):  # the others are raised before it receives anything
            refused.exit_code = EXIT_REFUSED
        raise refused from error


def _run(settings: BridgeSettings) -> None:
    give_memory_back()
    logs.configure(settings)
    logs.log_uncaught_errors()
    _log.info("policy_in_force", queue=settings.sqs_queue_url, **kafka_policy(settings))
    tell_service_links(type(settings))
    metrics = BridgeMetrics()
    queue = SqsQueue(
        settings.sqs_queue_url,
        wait_seconds=settings.bridge_receive_wait_seconds,
        threads=settings.bridge_receivers,
        observe=metrics.observe_request,
    )
    bridge = Bridge(settings, queue, metrics)
    token = read_token(settings.bridge_web_token_file, "BRIDGE_WEB_TOKEN_FILE")
    ending = Ending(settings.bridge_shutdown_seconds + STOP_SECONDS, bridge.crash)
    pages = Pages(metrics.registry, ending.livez(bridge.livez), bridge.readyz, token)
    server = OperationsServer(settings.bridge_web_bind, settings.bridge_web_port, pages, settings="BRIDGE_WEB")
    ending.also_watch(server.crash)
    server.bind()

    def told_to_stop() -> None:
        ending.stopping()
        bridge.stop()

    call_on_stop_signal(told_to_stop)
    ending.start()
    server.start()
    _log.info("operations_served", bind=settings.bridge_web_bind, port=server.port, version=__version__)
    try:
        bridge.run()
    finally:
        ending.stopping(sys.exc_info()[1])
        server.stop()
        queue.close()


if __name__ == "__main__":
    json_errors.begin()
    main()
