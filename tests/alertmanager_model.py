"""Alertmanager's routing, grouping and inhibition as its documentation has them, for a machine that has none.

https://prometheus.io/docs/alerting/latest/configuration/: ``route``, ``inhibit_rule`` and ``matcher``. ``tests/monitoring`` plays
the same scenes through a real one where it is installed. Silences, time intervals and ``continue`` are not known here: a
configuration that has them is refused.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

Alert = Mapping[str, str]

ROUTE = {"receiver", "group_by", "group_wait", "group_interval", "repeat_interval", "routes", "matchers"}
INHIBIT_RULE = {"source_matchers", "target_matchers", "equal"}


def matches(matchers: Iterable[str], alert: Alert) -> bool:
    """Whether all hold; a label that is missing is empty, and a pattern is anchored."""
    for matcher in matchers:
        found = re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', matcher)
        assert found is not None, matcher
        name, operator, wanted = found.groups()
        value = alert.get(name, "")
        equal = re.fullmatch(wanted, value) is not None if "~" in operator else value == wanted
        if equal == operator.startswith("!"):
            return False
    return True


def is_hidden(rules: Iterable[Mapping[str, Any]], alert: Alert, firing: Iterable[Alert]) -> bool:
    """Whether a rule inhibits it. What is source and target of a rule at once is not hidden by another that is both."""
    for rule in rules:
        assert rule.keys() <= INHIBIT_RULE, rule
        if not matches(rule["target_matchers"], alert):
            continue
        is_both = matches(rule["source_matchers"], alert)
        for source in firing:
            if (
                matches(rule["source_matchers"], source)
                and all(source.get(name, "") == alert.get(name, "") for name in rule.get("equal", ()))
                and not (is_both and matches(rule["target_matchers"], source))
            ):
                return True
    return False


def route_of(route: Mapping[str, Any], alert: Alert) -> Mapping[str, Any]:
    """The deepest route on the first way that matches, with what it has from those above it."""
    assert route.keys() <= ROUTE, route
    for child in route.get("routes", ()):
        if matches(child["matchers"], alert):
            inherited = {name: value for name, value in route.items() if name not in {"routes", "matchers"}}
            return route_of({**inherited, **child}, alert)
    return route


def notifications(configuration: Mapping[str, Any], firing: list[dict[str, str]]) -> list[tuple[str, list[str]]]:
    """Each group that is not hidden as a whole: its receiver, and the names of its alerts; sorted.

    A receiver without an integration tells nobody, and is left out.
    """
    silent = {receiver["name"] for receiver in configuration["receivers"] if receiver.keys() == {"name"}}
    groups: dict[tuple[str, str], list[str]] = {}
    for alert in firing:
        route = route_of(configuration["route"], alert)
        if route["receiver"] not in silent and not is_hidden(configuration["inhibit_rules"], alert, firing):
            key = (route["receiver"], str([(name, alert.get(name, "")) for name in route["group_by"]]))
            groups.setdefault(key, []).append(alert["alertname"])
    return sorted((receiver, sorted(names)) for (receiver, _), names in groups.items())
