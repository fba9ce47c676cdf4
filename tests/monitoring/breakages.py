"""What is broken on purpose, which alerts that must raise, and within which time; all others must stay silent."""

from collections.abc import Callable
from dataclasses import dataclass
from signal import Signals

from monitoring.monitored_pipeline import FACTOR, MonitoredPipeline

from dev_servers.local_pipeline import BRIDGE

UNSCALED_SECONDS = 40.0
"""What is no rule's duration and so not shorter: the objective, scrapes, the monitor's look, a client's timeout, a busy machine."""

LATE = frozenset({"DataIsLate", "DataIsOftenLate", "DataIsSometimesLate", "LagGrows"})
"""They are one symptom in several windows, and these windows hold only the few minutes since the test began."""


@dataclass(frozen=True, slots=True)
class Breakage:
    """``must``: labels of each alert that has to fire, with the minutes after which it does in production at the latest."""

    name: str
    break_it: Callable[[MonitoredPipeline], object]
    mend: Callable[[MonitoredPipeline], object]
    must: tuple[tuple[dict[str, str], float], ...]
    pages: tuple[str, ...] = ()
    """What Alertmanager tells the person on call while it is broken: names of alerts, one a page."""
    may: frozenset[str] = frozenset()
    in_ci: bool = False

    def allows(self, alertname: str) -> bool:
        """Whether it may fire."""
        return alertname in self.may or any(alertname == labels["alertname"] for labels, _ in self.must)


def within_seconds(minutes: float) -> float:
    """So many minutes of production are here so many seconds at the most."""
    return minutes * 60 / FACTOR + UNSCALED_SECONDS


def send_poison(monitored: MonitoredPipeline, of_ten: int) -> None:
    """Of ten messages so many are of another kind."""
    monitored.load.poison = of_ten


BREAKAGES = (
    Breakage(
        "one of two workers is killed",
        lambda monitored: monitored.kill("worker-2"),
        lambda monitored: monitored.restart("worker-2"),
        (({"alertname": "ProcessIsDown", "job": "worker", "instance": "worker-2"}, 1.5),),
        in_ci=True,
    ),
    Breakage(
        "both workers are killed",
        lambda monitored: monitored.kill("worker-1", "worker-2"),
        lambda monitored: monitored.restart("worker-1", "worker-2"),
        (
            ({"alertname": "NoneRuns", "job": "worker"}, 1.5),
            ({"alertname": "ProcessIsDown", "job": "worker", "instance": "worker-1"}, 1.5),
            ({"alertname": "ProcessIsDown", "job": "worker", "instance": "worker-2"}, 1.5),
            ({"alertname": "PartitionStandsStill", "topic": "logins"}, 3.5),
            ({"alertname": "DataIsLate"}, 9.6),
        ),
        pages=("NoneRuns",),
        may=LATE,
    ),
    Breakage(
        "the bridge is killed",
        lambda monitored: monitored.kill(BRIDGE),
        lambda monitored: monitored.restart(BRIDGE),
        (
            ({"alertname": "NoneRuns", "job": "bridge"}, 1.5),
            ({"alertname": "ProcessIsDown", "job": "bridge", "instance": BRIDGE}, 1.5),
        ),
        pages=("NoneRuns",),
        may=LATE,  # for a moment, when it runs again: what it receives then has waited in the queue
    ),
    Breakage(
        "SQS is away",
        lambda monitored: monitored.pipeline.elasticmq.child.send_signal(Signals.SIGSTOP),
        lambda monitored: monitored.pipeline.elasticmq.child.send_signal(Signals.SIGCONT),
        (
            ({"alertname": "BridgeDoesNotReceive", "job": "bridge", "instance": BRIDGE}, 6.5),
            ({"alertname": "DependencyIsAway", "dependency": "sqs"}, 2.5),
        ),
        pages=("DependencyIsAway",),
        # What it had received is not deleted; what waited is late when it answers again; the last it said of the queue may be that
        # messages wait.
        may=LATE | {"BridgeDoesNotDelete", "NothingIsWritten"},
    ),
    Breakage(
        "Postgres is stopped",
        lambda monitored: monitored.pipeline.postgres.stop(),
        lambda monitored: monitored.pipeline.postgres.start(),
        (
            ({"alertname": "DependencyIsAway", "dependency": "postgres", "job": "worker"}, 2.5),
            ({"alertname": "PartitionStandsStill", "topic": "logins"}, 3.5),
            ({"alertname": "DataIsLate"}, 9.6),
        ),
        pages=("DependencyIsAway",),
        may=LATE,
    ),
    Breakage(
        "somebody locks the table",
        lambda monitored: monitored.lock_table(),
        lambda monitored: monitored.unlock_table(),
        (
            ({"alertname": "DependencyIsAway", "dependency": "postgres", "job": "worker"}, 3.0),
            ({"alertname": "PartitionStandsStill", "topic": "logins"}, 3.5),
            ({"alertname": "DataIsLate"}, 9.6),
        ),
        pages=("DependencyIsAway",),
        may=LATE,
    ),
    Breakage(
        "a producer leaves a transaction open",
        lambda monitored: monitored.open_transaction(),
        lambda monitored: monitored.abort_transaction(),
        (({"alertname": "TransactionIsOpen", "topic": "logins", "partition": "0"}, 2.5),),
        pages=("TransactionIsOpen",),
        may=LATE,
    ),
    Breakage(
        "the table's owner adds a NOT NULL column",
        lambda monitored: monitored.run_sql(
            "ALTER TABLE user_logins ADD COLUMN tenant text NOT NULL DEFAULT 'a'",
            "ALTER TABLE user_logins ALTER COLUMN tenant DROP DEFAULT",
        ),
        lambda monitored: monitored.run_sql("ALTER TABLE user_logins DROP COLUMN tenant"),
        (
            ({"alertname": "RowsAreRefused", "topic": "logins", "sqlstate": "23502", "column": "tenant"}, 1.5),
            ({"alertname": "PartitionStandsStill", "topic": "logins"}, 3.5),
        ),
        pages=("RowsAreRefused",),
        may=LATE,
    ),
    Breakage(
        "somebody has the topic compacted",
        lambda monitored: monitored.set_cleanup_policy("compact,delete"),
        lambda monitored: monitored.set_cleanup_policy("delete"),
        (({"alertname": "TopicCompacts"}, 0.5),),
        pages=("TopicCompacts",),
    ),
    Breakage(
        "a dead letter is two days old",
        lambda monitored: monitored.run_sql("UPDATE dead_letters SET failed_at = now() - interval '2 days'"),
        lambda monitored: monitored.run_sql("UPDATE dead_letters SET resolution = 'discarded', resolved_at = now()"),
        (({"alertname": "DeadLettersWaitForAPerson"}, 1.0),),
    ),
    Breakage(
        "most messages are of another kind",
        lambda monitored: send_poison(monitored, 9),
        lambda monitored: send_poison(monitored, 0),
        (({"alertname": "MostAreDeadLetters"}, 5.0),),
        pages=("MostAreDeadLetters",),
        may=frozenset({"ManyDeadLetters"}),
    ),
)
