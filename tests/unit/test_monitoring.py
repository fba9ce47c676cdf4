"""What Prometheus scrapes and what Grafana shows, held to the code and to docker-compose.yml."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from bridges.metrics import BridgeMetrics
from stream_app.metrics import PartitionGauges, WorkerMetrics

PROJECT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
PROMETHEUS: dict[str, Any] = yaml.safe_load((PROJECT / "prometheus" / "prometheus.yml").read_text())
BOARDS = sorted((PROJECT / "grafana" / "dashboards").glob("*.json"))


def registries() -> list[CollectorRegistry]:
    """Both processes' metrics, the worker's with one partition."""
    worker = WorkerMetrics()
    partition = PartitionGauges(
        topic="logins",
        partition=0,
        next_offset=1,
        log_end_offset=2,
        oldest_unwritten_seconds=1.0,
        buffered_records=1,
        buffered_bytes=1,
        stopped=False,
        paused=False,
    )
    worker.serve_partitions(lambda: [partition], lambda: 2.0)
    return [BridgeMetrics().registry, worker.registry]


def series() -> dict[str, list[dict[str, str]]]:
    """The label sets by name of every series that is there from the start."""
    found: dict[str, list[dict[str, str]]] = {"up": [{"job": job["job_name"]} for job in PROMETHEUS["scrape_configs"]]}
    for registry in registries():
        for metric in registry.collect():
            for sample in metric.samples:
                found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


def panels(board: Path) -> list[dict[str, Any]]:
    """A board's panels that show something."""
    return [panel for panel in json.loads(board.read_text())["panels"] if panel["type"] != "row"]


def queries(board: Path) -> list[str]:
    """Each PromQL expression of a board."""
    return [target["expr"] for panel in panels(board) for target in panel["targets"]]


def test_prometheus_scrapes_services_that_exist() -> None:
    assert {"bridge", "worker"} <= {job["job_name"] for job in PROMETHEUS["scrape_configs"]}
    for job in PROMETHEUS["scrape_configs"]:
        names = [name for discovery in job.get("dns_sd_configs", []) for name in discovery["names"]]
        targets = [target for static in job.get("static_configs", []) for target in static["targets"]]
        assert names or targets
        assert set(names) <= SERVICES.keys()
        assert targets in ([], ["127.0.0.1:9090"])


def test_there_is_a_board() -> None:
    assert [board.name for board in BOARDS] == ["overview.json"]
    assert (
        SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == "/etc/grafana/dashboards/overview.json"
    )


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_every_metric_of_a_board_exists_with_the_labels_that_it_asks_for(board: Path) -> None:
    known = series()
    for query in queries(board):
        named = re.findall(r"\b((?:bridge|stream)_[a-z_]+|up)\b(?:{([^}]*)})?", query)
        assert named, query
        for name, matchers in named:
            assert name in known, query
            wanted = dict(re.findall(r'(\w+)="([^"]*)"', matchers))
            assert any(wanted.items() <= labels.items() for labels in known[name]), query
        for grouping in re.findall(r"by \(([^)]+)\)", query):
            labels = {label for name, _ in named for entry in known[name] for label in entry}
            assert {label.strip() for label in grouping.split(",")} <= labels, query


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_rates_follow_the_scrape_interval_and_counters_are_never_shown_bare(board: Path) -> None:
    for query in queries(board):
        assert re.findall(r"\[([^\]]+)\]", query.replace("[$__rate_interval]", "").replace("[$__range]", "")) == []
        for counter in re.finditer(r"[a-z_]+(?:_total|_bucket)\b", query):
            assert re.search(r"(rate|increase)\($", query[: counter.start()]), query


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_every_panel_has_a_unit_a_description_and_the_chosen_data_source(board: Path) -> None:
    content = json.loads(board.read_text())
    assert content["uid"] == f"login-stream-{board.stem}"
    assert [variable["name"] for variable in content["templating"]["list"]] == ["datasource"]
    identities = [panel["id"] for panel in content["panels"]]
    assert len(identities) == len(set(identities))
    for panel in panels(board):
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_panels_do_not_cover_each_other(board: Path) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in json.loads(board.read_text())["panels"]:
        place = panel["gridPos"]
        here = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & here, panel["title"]
        cells |= here


def test_grafana_finds_its_data_source_and_boards_where_compose_puts_them() -> None:
    provisioning = PROJECT / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["uid"] == "prometheus"
    assert source["url"] == f"http://prometheus:{SERVICES['prometheus']['ports'][0].split(':')[2]}"
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "files.yml").read_text())["providers"]
    mounted = SERVICES["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounted
    assert "./grafana/provisioning:/etc/grafana/provisioning:ro" in mounted
