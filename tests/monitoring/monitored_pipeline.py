"""The whole chain under a steady load, watched by a real Prometheus whose rules are ten times as quick as in production."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import cycle
from pathlib import Path

import psycopg2
from confluent_kafka import Producer
from monitoring.quicker_rules import write_quicker_rules
from topic_settings import set_cleanup_policy

from dev_servers.local_pipeline import BRIDGE, MONITOR, LocalPipeline
from dev_servers.made_up_logins import OTHER_KIND, made_up_logins
from dev_servers.process import DevServerError
from dev_servers.prometheus import Prometheus
from dev_servers.queue_filling import QueueFiller

FACTOR = 10
"""Every duration of a rule is a tenth of production's."""
SCRAPE_SECONDS = 1.0
OBJECTIVE_SECONDS = 30
"""FRESHNESS_OBJECTIVE_SECONDS, a number of seconds that no factor makes shorter. Half of production's: a tenth would be less than a
killed worker's session lasts."""
SESSION_SECONDS = 6
STATEMENT_SECONDS = 3
"""POSTGRES_STATEMENT_TIMEOUT_SECONDS, a tenth of production's."""
TRANSACTION_SECONDS = 600
"""Longer than anybody waits here: Kafka ends none of them by itself."""
VISIBILITY_SECONDS = 10
LOGINS_A_SECOND = 40
WAIT_SECONDS = 120.0


def wait_until(condition: Callable[[], object], what: Callable[[], str], seconds: float = WAIT_SECONDS) -> None:
    """Poll until ``condition`` holds. Fails the test with ``what`` when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what()}"
        time.sleep(0.2)


class Load:
    """Sends logins every second from a thread of its own, all with a build and a key that we don't know."""

    def __init__(self, pipeline: LocalPipeline) -> None:
        self._pipeline = pipeline
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self.poison = 0
        """Of ten messages so many are of another kind. The very first one is, too."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send no more. Nothing happens when it was not started."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        logins = cycle(
            [
                json.dumps({**json.loads(login.body()), "app_version": f"{login.app_version} (7)", "unknown": "key"})
                for login in made_up_logins(1_000)
            ]
        )
        filler = QueueFiller(self._pipeline.elasticmq.queue_url)
        filler.send([OTHER_KIND])
        while not self._stopping.wait(1.0):
            with suppress(DevServerError):  # the queue is stopped on purpose now and then
                filler.send([OTHER_KIND if number % 10 < self.poison else next(logins) for number in range(LOGINS_A_SECOND)])


class MonitoredPipeline:
    """A bridge, two workers, a monitor, a load, and Prometheus."""

    def __init__(self, directory: Path) -> None:
        self.pipeline = LocalPipeline(directory, visibility_seconds=VISIBILITY_SECONDS)
        self.processes = self.pipeline.processes
        rules = write_quicker_rules(directory / "rules", FACTOR)
        self.prometheus = Prometheus(directory / "prometheus", scrape_seconds=SCRAPE_SECONDS, rules=rules)
        self.load = Load(self.pipeline)
        self.started_at = 0.0

    def start(self) -> None:
        """All of it; returns when it flows and no alert fires."""
        self.pipeline.start_servers()
        self.pipeline.make_ready()
        self.processes.environment["KAFKA_SESSION_TIMEOUT_SECONDS"] = str(SESSION_SECONDS)
        self.processes.environment["POSTGRES_STATEMENT_TIMEOUT_SECONDS"] = str(STATEMENT_SECONDS)
        self.pipeline.start_processes()
        self.processes.start_monitor(MONITOR, FRESHNESS_OBJECTIVE_SECONDS=str(OBJECTIVE_SECONDS))
        self.pipeline.watch(self.prometheus)
        self.started_at = time.time()
        self.processes.wait_ready()
        self.load.start()
        self.wait_well()

    def stop(self) -> None:
        """What has to be stopped first, first."""
        self.load.stop()
        self.pipeline.stop()

    def kill(self, *names: str) -> None:
        """With SIGKILL."""
        self.processes.kill(*names)

    def restart(self, *names: str) -> None:
        """Start bridge or workers again, on other ports, as a new container would have another address."""
        for name in names:
            if name == BRIDGE:
                self.processes.start_bridge(name)
            else:
                self.processes.start_worker(name)
        self.pipeline.scrape()

    def open_transaction(self) -> None:
        """A producer begins one in the first partition, and does not end it."""
        servers = self.pipeline.kafka.bootstrap_servers
        self._other = Producer(
            {"bootstrap.servers": servers, "transactional.id": "other", "transaction.timeout.ms": TRANSACTION_SECONDS * 1_000}
        )
        self._other.init_transactions(WAIT_SECONDS)
        self._other.begin_transaction()
        self._other.produce("logins", b"taken back", partition=0)
        assert self._other.flush(WAIT_SECONDS) == 0

    def abort_transaction(self) -> None:
        """The producer takes back what it has begun."""
        self._other.abort_transaction(WAIT_SECONDS)

    def lock_table(self) -> None:
        """Somebody holds a lock on the table of logins, as a migration by hand does."""
        self._session = psycopg2.connect(self.pipeline.postgres.dsn)
        self._session.cursor().execute("LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE")

    def unlock_table(self) -> None:
        """Its session ends."""
        self._session.close()

    def run_sql(self, *statements: str) -> None:
        """As the owner of the tables, in one transaction."""
        with closing(psycopg2.connect(self.pipeline.postgres.dsn)) as session, session, session.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def set_cleanup_policy(self, policy: str) -> None:
        """Somebody alters the topic."""
        set_cleanup_policy(self.pipeline.kafka.bootstrap_servers, "logins", policy)

    def firing(self) -> list[dict[str, str]]:
        """The labels of the alerts that fire, but for signals to machines."""
        return [alert for alert in self.prometheus.firing() if alert["severity"] != "none"]

    def wait_well(self) -> None:
        """Until all answer, rows are written, little waits and no alert fires."""

        def is_well() -> bool:
            value = self.prometheus.value
            return (
                not self.firing()
                and (value('sum(up{job!="prometheus"})') or 0) == len(self.processes.running)
                and (value("sum(rate(stream_rows_written_total[5s]))") or 0) > 0
                and (value("pipeline:waiting_seconds:max") or 0) < OBJECTIVE_SECONDS
            )

        wait_until(is_well, lambda: f"all is well; {self.firing()} fire")
