"""The Prometheus that tests and the demo start."""

import time
from pathlib import Path

import pytest

from dev_servers.process import DevServerError
from dev_servers.prometheus import Prometheus, installed

TARGETS_SECONDS = 30.0


def jobs(prometheus: Prometheus, wanted: dict[str, str]) -> dict[str, str]:
    """Each target's job by its instance, once they are the wanted ones."""
    deadline = time.monotonic() + TARGETS_SECONDS
    while True:
        found = {series["metric"]["instance"]: series["metric"]["job"] for series in prometheus.query('up{job!="prometheus"}')}
        if found == wanted or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def test_it_runs_the_projects_rules_and_scrapes_what_it_is_told_as_the_projects_jobs(tmp_path: Path) -> None:
    prometheus = Prometheus(tmp_path, scrape_seconds=0.5)
    prometheus.scrape({"bridge": prometheus.port, "worker-1": prometheus.port})
    with prometheus:
        first = {"bridge": "bridge", "worker-1": "worker"}
        assert jobs(prometheus, first) == first
        assert {rule["name"] for rule in prometheus.rules()} >= {"pipeline:waiting_seconds:max", "DataIsLate"}
        assert prometheus.firing() == [{"alertname": "Watchdog", "severity": "none", "kind": "signal"}]
        before = time.time()
        prometheus.stop()
        prometheus.start()
        assert prometheus.query_range('up{job="bridge"}', before - TARGETS_SECONDS, before, 1), "what it knew is still there"
        prometheus.forget()
        assert prometheus.query_range('up{job="bridge"}', before - TARGETS_SECONDS, before, 1) == []
        assert jobs(prometheus, first) == first


def test_what_is_wrong_with_a_query_is_said(tmp_path: Path) -> None:
    with Prometheus(tmp_path) as prometheus:
        with pytest.raises(DevServerError, match="unclosed left parenthesis"):
            prometheus.query("sum(")
        with pytest.raises(DevServerError, match="a scalar instead of a vector"):
            prometheus.query("1")


def test_a_machine_without_it_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not Prometheus.is_installed()
    with pytest.raises(DevServerError, match="apt-get install prometheus"):
        Prometheus(tmp_path).start()
    with pytest.raises(DevServerError, match="promtool: is not installed"):
        installed("promtool")
