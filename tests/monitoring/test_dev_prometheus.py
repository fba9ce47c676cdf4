"""The Prometheus that tests and the demo start."""

import subprocess
import time
import urllib.request
from http import HTTPStatus
from pathlib import Path

import pytest

from dev_servers.debian_packages import unpacked
from dev_servers.process import DevServerError
from dev_servers.prometheus import Prometheus, program

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


def test_where_there_is_none_it_is_fetched_without_being_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_installed(tmp_path / "bin", monkeypatch)
    monkeypatch.setenv("DEV_SERVERS_CACHE", str(tmp_path / "cache"))
    assert program("prometheus") == unpacked("prometheus") / "usr" / "bin" / "prometheus"
    with (
        Prometheus(tmp_path / "prometheus") as prometheus,
        urllib.request.urlopen(f"{prometheus.url}/graph", timeout=10) as page,  # noqa: S310 - our own server
    ):
        assert page.status == HTTPStatus.OK, "its pages are found, too"
    assert subprocess.run([program("promtool"), "--version"], capture_output=True, check=False).returncode == 0
    assert [file.name for file in (tmp_path / "cache" / "debian").iterdir()] == ["prometheus"], "no scratch is left"


def hide_installed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH with apt and dpkg, and what they start, and no Prometheus."""
    directory.mkdir()
    for file in Path("/usr/bin").iterdir():
        if file.name not in {"prometheus", "promtool"}:
            (directory / file.name).symlink_to(file)
    monkeypatch.setenv("PATH", str(directory))


def test_where_it_can_not_be_fetched_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEV_SERVERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("prometheus", "promtool"):
        with pytest.raises(DevServerError, match="apt-get install prometheus; macOS: brew install prometheus") as caught:
            program(name)
        assert str(caught.value).startswith(f"{name}: is not on the PATH; apt-get, which would fetch it, is not on this system.")
        assert "\n" not in str(caught.value)
