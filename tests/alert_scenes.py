"""What fires together when something breaks, and who hears of what: played through a model of Alertmanager, and a real one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PROMETHEUS = Path(__file__).resolve().parents[1] / "prometheus"
CONFIGURATION = PROMETHEUS / "alertmanager.yml"
PARTITIONS = 64

Alert = dict[str, str]


def rules() -> list[dict[str, Any]]:
    """The project's alerts."""
    groups = (
        group for file in sorted((PROMETHEUS / "rules").glob("*.yml")) for group in yaml.safe_load(file.read_text())["groups"]
    )
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


RULES = rules()


def fires(alertname: str, **labels: str) -> Alert:
    """An alert with its rule's labels and with those that its expression gives it."""
    (of_rule,) = (
        rule["labels"]
        for rule in RULES
        if rule["alert"] == alertname and all(labels.get(name, value) == value for name, value in rule["labels"].items())
    )
    return {"alertname": alertname, **labels, **of_rule}


def stand_still(partitions: int = PARTITIONS) -> list[Alert]:
    """So many partitions of which nothing is written."""
    return [fires("PartitionStandsStill", topic="logins", partition=str(number)) for number in range(partitions)]


KNOWN = fires("CauseIsKnown")
LATE = [fires(name) for name in ("DataIsLate", "DataIsOftenLate", "DataIsSometimesLate", "LagGrows", "NothingIsWritten")]
POSTGRES_AWAY = fires("DependencyIsAway", job="worker", dependency="postgres")
STOPPED = fires("PartitionIsStopped", topic="logins", partition="3")
OPEN = fires("TransactionIsOpen", topic="logins", partition="3")
LOSSES = [
    fires(name)
    for name in ("RecordsAreLost", "TopicCompacts", "TopicRetentionIsNear", "QueueRetentionIsNear", "MostAreDeadLetters")
]


@dataclass(frozen=True, slots=True)
class Scene:
    """``told``: each notification, by its receiver and the names of the alerts in it, one for each alert."""

    name: str
    firing: list[Alert]
    told: list[tuple[str, list[str]]]


def pages(*names: str) -> list[tuple[str, list[str]]]:
    """A page for each name."""
    return [("on-call", [name]) for name in names]


SCENES = (
    Scene(
        "a lock on the table: no worker gets an answer, all partitions stand still, everything is late",
        [POSTGRES_AWAY, *stand_still(), *LATE, KNOWN],
        pages("DependencyIsAway"),
    ),
    Scene(
        "Postgres answers again, and the windows of lateness still see what was",
        [*LATE[:3], KNOWN],
        [],
    ),
    Scene(
        "it is late, and nothing says why",
        [*LATE[:3]],
        [("on-call", ["DataIsLate", "DataIsOftenLate"]), ("tickets", ["DataIsSometimesLate"])],
    ),
    Scene(
        "partitions stand still, and nothing says why",
        [*stand_still(), *LATE, KNOWN],
        [("on-call", ["PartitionStandsStill"] * PARTITIONS)],
    ),
    Scene("one partition is stopped", [STOPPED, stand_still(4)[3], *LATE, KNOWN], pages("PartitionIsStopped")),
    Scene(
        "one partition is stopped, and another stands still for a reason of its own",
        [STOPPED, *stand_still(4)[2:], KNOWN],
        pages("PartitionIsStopped", "PartitionStandsStill"),
    ),
    Scene("a transaction is open", [OPEN, stand_still(4)[3], *LATE, KNOWN], pages("TransactionIsOpen")),
    Scene(
        "Kafka is away for all: it is one page for workers and bridges",
        [
            fires("DependencyIsAway", job="worker", dependency="kafka"),
            fires("DependencyIsAway", job="bridge", dependency="kafka"),
            *stand_still(),
            fires("GroupIsUnstable"),
            fires("ReceiptsExpire"),
            *LATE,
            KNOWN,
        ],
        [("on-call", ["DependencyIsAway", "DependencyIsAway"])],
    ),
    Scene(
        "SQS is away, which makes no partition stand still",
        [
            fires("DependencyIsAway", job="bridge", dependency="sqs"),
            *(fires("BridgeDoesNotReceive", instance=name) for name in ("bridge-1", "bridge-2")),
            fires("BridgeDoesNotDelete", instance="bridge-1"),
            stand_still(1)[0],
            KNOWN,
        ],
        pages("DependencyIsAway", "PartitionStandsStill"),
    ),
    Scene(
        "no worker runs",
        [
            fires("NoneRuns", job="worker"),
            *(fires("ProcessIsDown", job="worker", instance=name) for name in ("worker-1", "worker-2")),
            fires("ProcessIsDown", job="bridge", instance="bridge-2"),
            *stand_still(),
            *LATE,
            KNOWN,
        ],
        [*pages("NoneRuns"), ("tickets", ["ProcessIsDown"])],
    ),
    Scene(
        "no monitor runs, which makes nothing late", [fires("NoneRuns", job="monitor"), LATE[0]], pages("NoneRuns", "DataIsLate")
    ),
    Scene(
        "what is or will be lost is told whatever else is known",
        [POSTGRES_AWAY, *stand_still(), *LATE, KNOWN, *LOSSES],
        pages("DependencyIsAway", *(alert["alertname"] for alert in LOSSES)),
    ),
    Scene(
        "one of two bridges gets no answer: a ticket",
        [fires("DependencyIsAwayForSome", job="bridge", dependency="sqs"), fires("LoginOrCertificateIsRefused")],
        [("tickets", ["DependencyIsAwayForSome"]), ("tickets", ["LoginOrCertificateIsRefused"])],
    ),
    Scene("all is well", [fires("Watchdog")], [("dead-mans-switch", ["Watchdog"])]),
)
