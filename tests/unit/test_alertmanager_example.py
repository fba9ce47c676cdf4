"""One fault is one page: the rules' labels and prometheus/alertmanager.yml, held together by scenes."""

from typing import Any

import pytest
import yaml
from alert_scenes import CONFIGURATION, RULES, SCENES, Scene
from alertmanager_model import notifications

ALERTMANAGER = yaml.safe_load(CONFIGURATION.read_text())
KINDS = {"cause", "symptom", "lateness", "alone", "signal"}
EXPECTED_ALERTS: list[dict[str, Any]] = [
    {"alertname": expected["alertname"], **alert["exp_labels"]}
    for file in sorted((CONFIGURATION.parent / "tests").glob("*.yml"))
    for test in yaml.safe_load(file.read_text())["tests"]
    for expected in test.get("alert_rule_test", ())
    for alert in expected["exp_alerts"]
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_one_fault_is_one_page(scene: Scene) -> None:
    told = notifications(ALERTMANAGER, scene.firing)
    assert told == sorted((receiver, sorted(names)) for receiver, names in scene.told)


@pytest.mark.parametrize("alert", RULES, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_it_is_to_others(alert: dict[str, Any]) -> None:
    """CONTRIBUTING, "Add an alert": a cause and a symptom also say whose work it is, by the rule's labels or its expression."""
    kind = alert["labels"].get("kind")
    assert kind in KINDS, "labels: {kind: cause|symptom|lateness|alone}"
    assert (alert["labels"]["severity"] == "none") == (kind == "signal")
    fired = [labels for labels in EXPECTED_ALERTS if labels["alertname"] == alert["alert"]]
    assert {labels["kind"] for labels in fired} == {kind}
    if kind in {"cause", "symptom"}:
        assert {labels.get("job") for labels in fired} <= {"bridge", "worker", "monitor"}
        assert {"partition" in labels for labels in fired} in ({True}, {False}), "of one partition, or of all: by this it hides"


def test_what_hides_others_pages_and_tickets_hide_nothing() -> None:
    assert {alert["labels"]["severity"] for alert in RULES if alert["labels"]["kind"] == "cause"} == {"page"}


def test_alertmanager_names_no_alert_of_a_person() -> None:
    """Rules may be added and renamed without it: what an alert is to others stands in its labels."""
    text = CONFIGURATION.read_text()
    assert {alert["alert"] for alert in RULES if f'"{alert["alert"]}"' in text} == {"CauseIsKnown", "Watchdog"}


def test_without_inhibition_a_lock_on_the_table_is_three_pages() -> None:
    """The first scene rests on the rules of inhibition."""
    told = notifications({**ALERTMANAGER, "inhibit_rules": []}, SCENES[0].firing)
    assert [receiver for receiver, _ in told].count("on-call") == 3
