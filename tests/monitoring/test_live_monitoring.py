"""Boards and alerts on a real Prometheus that scrapes a bridge, two workers and a monitor under load.

``make alerts`` breaks all of :data:`breakages.BREAKAGES` and prints what fired when; a run of all tests breaks one.
"""

import json
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from signal import Signals

import pytest
import yaml
from alertmanager_model import notifications
from monitoring.breakages import BREAKAGES, Breakage, within_seconds
from monitoring.monitored_pipeline import FACTOR, MonitoredPipeline, wait_until

PROJECT = Path(__file__).parents[2]
ALERTMANAGER = yaml.safe_load((PROJECT / "prometheus" / "alertmanager.yml").read_text())
BOARDS = sorted((PROJECT / "grafana" / "dashboards").glob("*.json"))
WHOLE = "ALERTS_WHOLE" in os.environ
RATE_SECONDS = 10
SHOWN_SECONDS = 120
STEP_SECONDS = 1.0
SILENT_SECONDS = 10.0 if WHOLE else 3.0
"""For so long it is watched that no other alert joins those that fire."""
END_SECONDS = 300.0
"""DataIsOftenLate looks at half an hour, which is three minutes here."""

METRIC = re.compile(r"(?<![\w:.])((?:bridge|stream|monitor|process)_[a-z_]+)\b(?![:(])({[^}]*})?")


@pytest.fixture(scope="module")
def monitored() -> Iterator[MonitoredPipeline]:
    """Under load, all well."""
    with tempfile.TemporaryDirectory(prefix="monitored-") as directory:
        it = MonitoredPipeline(Path(directory))
        try:
            it.start()
            yield it
        finally:
            it.stop()


# Alerts


def tell(line: str) -> None:
    """To whoever runs ``make alerts``."""
    print(f"\n{line} (durations / {FACTOR})", end="")  # noqa: T201 - a report


@pytest.mark.timeout(900)
@pytest.mark.parametrize("breakage", [each for each in BREAKAGES if WHOLE or each.in_ci], ids=lambda breakage: breakage.name)
def test_the_right_alert_fires_in_time_and_ends_after_the_repair(breakage: Breakage, monitored: MonitoredPipeline) -> None:
    monitored.prometheus.forget()  # windows look back on what was broken before: three starts in half an hour are an alert
    monitored.wait_well()
    waiting = {json.dumps(labels): (labels, within_seconds(minutes)) for labels, minutes in breakage.must}
    broken_at = time.monotonic()
    breakage.break_it(monitored)
    try:
        silent_until = broken_at + SILENT_SECONDS
        while waiting or time.monotonic() < silent_until:
            seconds = time.monotonic() - broken_at
            firing = monitored.firing()
            assert [alert for alert in firing if not breakage.allows(alert["alertname"])] == []
            for key, (labels, within) in tuple(waiting.items()):
                if any(labels.items() <= alert.items() for alert in firing):
                    del waiting[key]
                    silent_until = time.monotonic() + SILENT_SECONDS
                    tell(f"{breakage.name}: {key} fires after {seconds:.0f} s")
                else:
                    assert seconds < within, f"{labels} does not fire; {firing} do"
            time.sleep(0.2)
        told = notifications(ALERTMANAGER, monitored.prometheus.firing())
        assert [names[0] for receiver, names in told if receiver == "on-call"] == list(breakage.pages), "one fault is one page"
    finally:
        breakage.mend(monitored)
        mended_at = time.monotonic()
    while firing := monitored.firing():
        assert [alert for alert in firing if not breakage.allows(alert["alertname"])] == []
        assert time.monotonic() < mended_at + END_SECONDS, f"{firing} do not end"
        time.sleep(0.2)
    tell(f"{breakage.name}: all is silent {time.monotonic() - mended_at:.0f} s after the repair")


# Boards and rules


def panel_queries() -> Iterator[tuple[str, str, str, str]]:
    """Of each panel of each board: the board, the title, an expression and its legend."""
    for board in BOARDS:
        for panel in json.loads(board.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield board.stem, panel["title"], target["expr"], target["legendFormat"]


def events() -> Iterator[tuple[str, str]]:
    """What is marked in the graphs of every board: the expression, and the title of each event."""
    for board in BOARDS:
        for event in json.loads(board.read_text())["annotations"]["list"]:
            yield event["expr"], event["titleFormat"]


def choices() -> Iterator[tuple[str, str]]:
    """The expression of each of the boards' variables, with the label whose values it offers."""
    for board in BOARDS:
        for variable in json.loads(board.read_text())["templating"]["list"]:
            if variable["type"] == "query":
                found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
                assert found is not None
                yield found[1], found[2]


def filled_in(expression: str) -> str:
    """As Grafana asks it with all of each variable chosen."""
    expression = expression.replace("$__rate_interval", f"{RATE_SECONDS}s").replace("$__range", f"{SHOWN_SECONDS}s")
    expression = expression.replace("$__interval_ms", f"{STEP_SECONDS * 1_000:g}")
    return re.sub(r"\$[a-z]+", ".*", expression)


@pytest.fixture(scope="module")
def eventful(monitored: MonitoredPipeline) -> MonitoredPipeline:
    """Rare things that boards show have happened: many dead letters, a page, Postgres was away, then Kafka, partitions moved."""
    ask, processes = monitored.prometheus.query, monitored.processes
    monitored.load.poison = 9
    monitored.pipeline.postgres.stop()
    wait_until(lambda: ask("sum(stream_database_retries_total) > 0"), lambda: "workers try again")
    monitored.pipeline.postgres.start()
    kafka = monitored.pipeline.kafka.child
    kafka.send_signal(Signals.SIGSTOP)
    try:
        wait_until(
            lambda: ask('rate(bridge_visibility_extensions_total{result="ok"}[5s]) > 0'),
            lambda: "the bridge keeps messages hidden for longer",
        )
    finally:
        kafka.send_signal(Signals.SIGCONT)
    processes.stop("worker-2")
    monitored.restart("worker-2")
    for what in (
        'min(up{job!="prometheus"}) == 1',
        f"sum(rate(stream_rebalance_seconds_count[{RATE_SECONDS}s])) > 0",
        f"sum(rate(stream_rows_written_total[{RATE_SECONDS}s])) > 0",
        f"sum(rate(stream_dead_letters_total[{RATE_SECONDS}s])) > 0",
        "sum(monitor_open_dead_letters) > 0",
        "sum(monitor_table_bytes) > 0",
        'ALERTS{alertstate="firing",severity="page"}',
    ):
        wait_until(lambda what=what: ask(what), lambda what=what: what)  # type: ignore[misc]
    return monitored


@pytest.mark.parametrize(("board", "title", "expression", "legend"), list(panel_queries()))
def test_a_panel_shows_data(board: str, title: str, expression: str, legend: str, eventful: MonitoredPipeline) -> None:
    until = time.time() + STEP_SECONDS  # the last step comes after the newest sample
    found = eventful.prometheus.query_range(filled_in(expression), eventful.started_at, until, STEP_SECONDS)
    numbers = [float(number) for series in found for _, number in series["values"]]
    assert not all(map(math.isnan, numbers)), f"{board}, {title}: no data"
    for label in re.findall(r"{{(\w+)}}", legend):
        assert all(label in series["metric"] for series in found), f"{board}, {title}: no label {label} for the legend"


@pytest.mark.parametrize(("expression", "title"), sorted(set(events())))
def test_an_event_is_marked_when_it_is_and_not_all_the_time(expression: str, title: str, eventful: MonitoredPipeline) -> None:
    """Grafana marks where a value is above 0."""
    found = eventful.prometheus.query_range(filled_in(expression), eventful.started_at, time.time(), STEP_SECONDS)
    marked = [float(number) > 0 for series in found for _, number in series["values"]]
    assert any(marked), title
    assert sum(marked) < len(found) * (time.time() - eventful.started_at) / STEP_SECONDS, title
    for label in re.findall(r"{{(\w+)}}", title):
        assert all(series["metric"].get(label) for series in found), f"no label {label} for {title}"


@pytest.mark.parametrize(("expression", "label"), sorted(set(choices())))
def test_a_variable_has_something_to_choose_from(expression: str, label: str, eventful: MonitoredPipeline) -> None:
    assert {series["metric"].get(label, "") for series in eventful.prometheus.query(expression)} - {""}


def test_every_rule_is_evaluated_without_an_error(eventful: MonitoredPipeline) -> None:
    rules = eventful.prometheus.rules()
    assert len(rules) > 30
    assert [(rule["name"], rule["health"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []


def test_every_recorded_expression_has_a_value(eventful: MonitoredPipeline) -> None:
    recorded = {rule["name"] for rule in eventful.prometheus.rules() if rule["type"] == "recording"}
    assert len(recorded) > 10
    assert {name for name in recorded if not eventful.prometheus.query(name)} == set()


def test_alerts_are_silent_for_their_values_and_not_for_want_of_series(eventful: MonitoredPipeline) -> None:
    alerts = [rule["query"] for rule in eventful.prometheus.rules() if rule["type"] == "alerting"]
    asked = {name + matchers for query in alerts for name, matchers in METRIC.findall(query)}
    assert len(asked) > 20
    assert {selector for selector in asked if not eventful.prometheus.query(selector)} == set()


def test_sums_over_workers_count_each_partition_once(eventful: MonitoredPipeline) -> None:
    value = eventful.prometheus.value
    counted = ("count(topic_partition:lag_seconds:max)", "count(stream_partition_next_offset)")
    wait_until(lambda: [value(each) for each in counted] == [4, 4], lambda: "both workers have and show two of the four partitions")
