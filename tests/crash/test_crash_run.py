"""A run that shows nothing, or shows what must not be, fails."""

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import psycopg2
import pytest

from crash.checker import Verdict
from crash.faults import Fault, all_faults
from crash.run import Outcome, run_fault
from crash.servers import Servers
from crash.soak import Report, draws, fit_faults
from crash.soak_report import table
from crash.system import FaultDidNotTakePlaceError, Setup, System
from dev_servers.pipeline_processes import PROJECT

QUICK = Setup(workers=1, messages_per_second=100)


def nothing_happens(system: System) -> Iterator[str]:
    system.prove("the sky falls", lambda: False, 0.2)
    yield "never"


def a_row_is_lost(system: System) -> Iterator[str]:
    system.prove(
        "rows are there",
        lambda: system.query("DELETE FROM user_logins WHERE ctid = (SELECT min(ctid) FROM user_logins) RETURNING 1"),
    )
    yield "a row was removed by hand"


def slow_to_recover_and_late_to_yield(system: System) -> Iterator[str]:
    with closing(psycopg2.connect(system.dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE user_logins")
        sent = system.sent
        system.prove("what is sent now is not written", lambda: system.sent > sent)
        system.mended()
        system.rest(1.5)
    system.wait_flowing()
    yield "all was written again before this"


def made_up(inject: Any = nothing_happens, **changes: Any) -> Fault:
    fault = Fault("made-up", "Nothing.", inject, 10.0, QUICK, fast=False, soak=False, after_seconds=0.5, servers=None)
    return replace(fault, **changes)


def test_a_fault_that_can_not_prove_itself_fails(crash_servers: Servers, tmp_path: Path) -> None:
    with pytest.raises(FaultDidNotTakePlaceError, match="the sky falls"):
        run_fault(made_up(), crash_servers, tmp_path, 1)


def test_a_lost_row_fails_the_run_in_which_it_was_lost(crash_servers: Servers, tmp_path: Path) -> None:
    outcome = run_fault(made_up(a_row_is_lost), crash_servers, tmp_path, 1)
    assert outcome.verdict.problems == {"lost": 1}
    assert [failure.split(",")[0] for failure in outcome.failures] == ["1 messages that are nowhere"]
    assert "1 lost" in outcome.line


def test_recovery_is_measured_from_where_the_fault_was_mended(crash_servers: Servers, tmp_path: Path) -> None:
    outcome = run_fault(made_up(slow_to_recover_and_late_to_yield), crash_servers, tmp_path, 1)
    assert outcome.failures == []
    assert 1.4 < outcome.recovery_seconds < 5


def outcome(**changes: Any) -> Outcome:
    parts: dict[str, Any] = {
        "fault": made_up(),
        "evidence": "it was seen",
        "proved": 1,
        "drained": True,
        "expected": {},
        "exit_codes": {"worker-1": 0},
        "verdict": Verdict(sent=10, rows=10, records=10, recoveries_seconds=[1.0]),
        "seconds": 20.0,
        "mebibytes": {"worker": 150.0, "bridge": 90.0},
    }
    return Outcome(**{**parts, **changes})


def test_a_run_in_order_has_no_failure() -> None:
    assert outcome().failures == []
    assert outcome(expected={"lost": 2}, verdict=Verdict(lost=2, recoveries_seconds=[0.0])).failures == []
    assert outcome().line.startswith("made-up: ok: 10 sent, 10 rows, 0 dead letters, 0 lost, 0 doubled")


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({"proved": 0}, "nothing has proved"),
        ({"drained": False}, "not drained"),
        ({"exit_codes": {"bridge-1": 0, "worker-1": -9}}, "worker-1 ended with -9"),
        ({"verdict": Verdict(doubled=1, recoveries_seconds=[0.0])}, "1 messages that are there more than once"),
        ({"expected": {"lost": 2}, "verdict": Verdict(lost=1, recoveries_seconds=[0.0])}, "1 messages that are nowhere"),
        ({"expected": {"lost": 2}}, "expected: {'lost': 2}"),
        ({"verdict": Verdict(recoveries_seconds=[10.1])}, "recovered after 10.1 s; the bound is 10 s"),
        ({"mebibytes": {"worker": 240.0, "bridge": 90.0}}, "a worker took 240 MiB"),
        ({"mebibytes": {"worker": 150.0, "bridge": 170.0}}, "a bridge took 170 MiB"),
        ({"mebibytes": {"worker": 0.0, "bridge": 90.0}}, "nobody has seen how much memory a worker took"),
    ],
)
def test_each_thing_that_must_not_be_is_a_failure(changes: dict[str, Any], failure: str) -> None:
    (found,) = outcome(**changes).failures
    assert failure in found


def test_each_fault_says_what_it_promises_and_the_fast_ones_are_few() -> None:
    faults = all_faults()
    assert all(fault.promise.endswith(".") and fault.inject.__doc__ for fault in faults.values())
    assert all(fault.recovery_seconds <= 120 for fault in faults.values())
    assert len([fault for fault in faults.values() if fault.fast]) <= 7


def test_each_fault_has_a_row_in_the_documented_table_with_its_bound() -> None:
    text = (PROJECT / "docs/reliability.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \|.*, bound (\d+) s \|", text, re.MULTILINE))
    assert rows == {name: f"{fault.recovery_seconds:g}" for name, fault in all_faults().items()}


def test_the_soak_draws_each_of_its_faults_once_a_round_and_the_same_ones_with_the_same_seed() -> None:
    faults = fit_faults()
    assert {"worker-killed-mid-batch", "sqs-answers-503"} <= {fault.name for fault in faults}
    drawn = draws(faults, Random(1))  # noqa: S311 - to be repeatable is the point
    rounds = [[next(drawn).name for _ in faults] for _ in range(3)]
    assert all(sorted(each) == sorted(fault.name for fault in faults) for each in rounds)
    assert rounds[0] != rounds[1]
    again = draws(faults, Random(1))  # noqa: S311 - to be repeatable is the point
    assert [next(again).name for _ in faults] == rounds[0]


def test_the_table_of_a_soak_has_what_was_injected_and_what_came_of_it() -> None:
    name = "worker-killed-mid-batch"
    verdict = Verdict(sent=5_000, rows=4_990, dead_letters=9, lost=1, records=5_003, recoveries_seconds=[3.0, 7.5])
    report = Report(
        seed=4, minutes=60.0, injected=[(name, 1.0), (name, 2.0)], unproved=["sqs-slow"], checks=6,
        sent={"standard": 2_500, "FIFO": 2_500}, verdict=verdict, mebibytes={"worker": 190.0},
    )  # fmt: skip
    lines = table(report).splitlines()
    for line in (
        "| seed | 4 |",
        "| messages sent | 2,500 standard, 2,500 FIFO |",
        "| lost | 1 |",
        "| doubled | 0 |",
        "| anything else that must not be | nothing |",
        "| forwarded more than once, written once | 3 |",
        f"| worst recovery | 7.5 s, {name} |",
        "| peak memory of a worker | 190 MiB, bound 238 |",
        f"| `{name}` | 2 times, recovered after 7.5 s at most (alone: 15) |",
        "| `sqs-slow` | 0 times, 1 more not proved |",
    ):
        assert line in lines
