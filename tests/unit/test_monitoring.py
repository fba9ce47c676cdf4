"""What Prometheus scrapes, what boards show, what pages people: held to the code, to docker-compose.yml and to the runbook."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard, VariableRefresh
from grafana_types import type_faults
from partition_gauges import partition_gauges
from prometheus_client import CollectorRegistry

from bridges.metrics import BridgeMetrics
from stream_app.metrics import WorkerMetrics
from stream_app.monitor.metrics import MonitorMetrics
from stream_app.refusals import Refusal, RowsRefused
from tools.boards import __main__ as boards

PROJECT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
PROMETHEUS: dict[str, Any] = yaml.safe_load((PROJECT / "prometheus" / "prometheus.yml").read_text())
RULES: list[dict[str, Any]] = [
    rule
    for file in sorted((PROJECT / "prometheus" / "rules").glob("*.yml"))
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
ALERTS = [rule for rule in RULES if "alert" in rule]
RULE_TESTS = [
    test for file in sorted((PROJECT / "prometheus" / "tests").glob("*.yml")) for test in yaml.safe_load(file.read_text())["tests"]
]
BOARDS = sorted((PROJECT / "grafana" / "dashboards").glob("*.json"))
RUNBOOK = (PROJECT / "docs" / "runbook.md").read_text()

register_default_plugins()

OURS = r"(?:bridge|stream|monitor|process|python)_[a-z_]+"
OF_PROMETHEUS = {"up", "ALERTS"}

NOT_SHOWN = {
    "bridge_last_acknowledged_timestamp_seconds": "for a look at /metrics: the rate of what is forwarded shows it over time",
    "stream_partition_log_end_offset": "the worker's own view; boards show the monitor's",
    "stream_partition_last_stable_offset": "for a look at /metrics: boards show for how long a transaction has been open",
    "monitor_partition_last_stable_offset": "likewise",
    "process_virtual_memory_bytes": "says nothing on Linux: resident memory is shown",
    "python_info": "the version of Python, for a look at /metrics",
    "python_gc_objects_collected_total": "for whoever hunts a leak, with the next two",
    "python_gc_objects_uncollectable_total": "likewise",
    "python_gc_collections_total": "likewise",
}
"""Metrics of the code that no board and no rule asks for, and why."""


def registries() -> list[CollectorRegistry]:
    """Every process's metrics, with one partition, a key and what the monitor learns from Postgres."""
    worker = WorkerMetrics()
    refused = RowsRefused(Refusal("23502", table="user_logins", column="tenant"), 0, 99, 100)
    shown = partition_gauges(next_offset=1, log_end_offset=2, oldest_unwritten_seconds=1.0, refused=refused)
    worker.serve_partitions(lambda: [shown], lambda: 2.0)
    worker.use_keys([("MASKING_KEYSET_FILE", 1, True)])
    monitor = MonitorMetrics()
    monitor.reveals.by_field = {}
    monitor.skipped.by_topic = {"logins": 0}
    for gauge in (
        monitor.log_start_offset,
        monitor.log_end_offset,
        monitor.last_stable_offset,
        monitor.open_transaction_seconds,
        monitor.next_offset,
        monitor.lag_records,
        monitor.lag_seconds,
        monitor.kept_seconds,
    ):
        gauge.labels("logins", "0")
    monitor.table_bytes.labels("user_logins")
    return [BridgeMetrics().registry, worker.registry, monitor.registry]


@cache
def series() -> dict[str, list[dict[str, str]]]:
    """The label sets by name of every series that a scrape brings."""
    found: dict[str, list[dict[str, str]]] = {}
    for registry in registries():
        for metric in registry.collect():
            for sample in metric.samples:
                if not sample.name.endswith("_created"):
                    found.setdefault(sample.name, []).append({"job": "", "instance": "", **sample.labels})
    return found


def named(expression: str) -> list[tuple[str, str]]:
    """The metrics that an expression names, each with its matchers."""
    return re.findall(rf"(?<![\w:])({OURS})\b(?![:(])(?:{{([^}}]*)}})?", expression)


def content(board: Path) -> dict[str, Any]:
    return dict(json.loads(board.read_text()))


def panels(board: Path) -> list[dict[str, Any]]:
    """A board's panels that show something."""
    return [panel for panel in content(board)["panels"] if panel["type"] != "row"]


def board_queries(board: Path) -> list[str]:
    return [target["expr"] for panel in panels(board) for target in panel["targets"]]


def events(board: Path) -> list[dict[str, Any]]:
    """What is marked in a board's graphs."""
    return list(content(board)["annotations"]["list"])


def all_expressions() -> Iterator[str]:
    """Each PromQL expression that we have."""
    for board in BOARDS:
        yield from board_queries(board)
        yield from (event["expr"] for event in events(board))
        for variable in content(board)["templating"]["list"]:
            if variable["type"] == "query":
                yield variable["query"]["query"]
    for rule in RULES:
        yield rule["expr"]


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """Where ``after`` has not what ``before`` has; it may have more."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [place for key in before for place in lost(before[key], after.get(key), f"{path}/{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            place for n, (one, other) in enumerate(zip(before, after, strict=True)) for place in lost(one, other, f"{path}/{n}")
        ]
    return [] if before == after else [path]


# Names


@pytest.mark.parametrize("expression", sorted(set(all_expressions())))
def test_every_metric_that_is_asked_for_exists_with_its_labels(expression: str) -> None:
    known = series()
    for name, matchers in named(expression):
        assert name in known
        for label, operator, value in re.findall(r'(\w+)(=~|=|!=)"([^"]*)"', matchers):
            values = {labels.get(label) for labels in known[name]}
            assert None not in values, f"{name} has no label {label}"
            if operator == "=" and label not in {"job", "instance"}:
                assert value in values
            if operator == "=~" and "$" not in value and label not in {"job", "instance"}:
                assert set(value.split("|")) <= values
    for recorded in re.findall(r"\b(?:pipeline|topic_partition):[a-z_]+:[a-z0-9]+\b", expression):
        assert recorded in RECORDED


def test_every_metric_of_the_code_is_asked_for_or_has_a_reason_why_not() -> None:
    asked = {name for expression in all_expressions() for name, _ in named(expression)}
    families = {re.sub(r"_(?:bucket|sum|count)$", "", name) for name in asked}
    unasked = {name for name in series() if name not in asked and re.sub(r"_(?:bucket|sum|count)$", "", name) not in families}
    assert unasked == NOT_SHOWN.keys()


def test_every_recorded_expression_is_asked_for() -> None:
    expressions = "\n".join(all_expressions())
    assert {name for name in RECORDED if not re.search(rf"(?<![\w:]){name}(?![\w:])", expressions)} == set()


@pytest.mark.parametrize("expression", sorted(set(all_expressions())))
def test_what_other_jobs_have_too_is_asked_for_by_job(expression: str) -> None:
    """Our own names say whose they are; ``up`` and ``process_...`` any program has: dashboard-linter's target-job-rule."""
    for name, matchers in re.findall(r"(?<![\w:])(up|process_[a-z_]+|python_[a-z_]+)\b(?![:(])(?:{([^}]*)})?", expression):
        assert re.search(r'\bjob=~?"', matchers), name


# Boards


def test_boards_are_what_the_code_says() -> None:
    assert boards.main(["--check"]) == 0, "run `make boards`"


def test_a_board_that_was_edited_or_that_no_code_makes_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(boards, "DIRECTORY", tmp_path / "grafana" / "dashboards")
    boards.DIRECTORY.mkdir(parents=True)
    assert boards.main(["--check"]) == 1
    assert boards.main([]) == 0
    assert boards.main(["--check"]) == 0
    capsys.readouterr()
    (boards.DIRECTORY / "overview.json").write_text("{}")
    (boards.DIRECTORY / "another.json").write_text("{}")
    assert boards.main(["--check"]) == 1
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == [
        "grafana/dashboards/another.json",
        "grafana/dashboards/overview.json",
    ]


def test_compose_shows_the_overview_first() -> None:
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).name in {board.name for board in BOARDS}
    assert Path(home).stem == "overview"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_a_board_is_provisioned_without_a_hand(board: Path) -> None:
    """A uid of its own, a data source by variable, nobody edits it in the browser, its siblings are links."""
    it = content(board)
    assert it["uid"] == f"login-stream-{board.stem}"
    assert it["editable"] is False
    assert it["tags"] == ["login-stream"]
    assert [link["tags"] for link in it["links"]] == [["login-stream"]]
    source, *choices = it["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert [variable["datasource"]["uid"] for variable in choices] == ["${datasource}"] * len(choices)
    assert [variable["refresh"] for variable in choices] == [VariableRefresh.ON_TIME_RANGE_CHANGED.value] * len(choices)
    assert [panel["id"] for panel in it["panels"]] == list(range(1, len(it["panels"]) + 1))
    used = set(re.findall(r"\$(\w+)", "\n".join(board_queries(board)))) - {"__rate_interval", "__range"}
    assert used == {variable["name"] for variable in choices}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_a_board_holds_nothing_that_grafanas_own_model_does_not_know(board: Path) -> None:
    """The SDK's types are made from Grafana's schema: what they can't hold is lost on the way through them.

    The title of an event is none of Grafana's own: it leaves that to the data source, and Prometheus's reads it.
    """
    kept = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(content(board))))
    assert lost(content(board), kept) == [f"/annotations/list/{place}/titleFormat" for place in range(len(events(board)))]
    made_up = content(board)
    del made_up["annotations"]
    made_up["panels"][1]["fieldConfig"]["madeUp"] = 1
    assert lost(made_up, json.loads(JSONEncoder().encode(Dashboard.from_json(made_up)))) == ["/panels/1/fieldConfig/madeUp"]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_every_value_of_a_board_is_of_the_type_that_grafanas_schema_gives_it(board: Path) -> None:
    assert type_faults(content(board)) == []


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ("editable", "false"),
        ("panels/0/gridPos/w", "wide"),
        ("panels/0/fieldConfig/defaults/unit", 5),
        ("panels/0/options/colorMode", "rainbow"),
        ("panels/0/targets/0/expr", ["up"]),
        ("panels/0/targets/0/format", "tabel"),
        ("panels/8/fieldConfig/defaults/custom/lineWidth", "thin"),
        ("panels/8/options/legend/placement", "left"),
        ("panels/13/transformations/0/id", 7),
        ("templating/list/0/hide", True),
    ],
)
def test_a_value_of_another_type_is_found(place: str, wrong: Any) -> None:
    spoilt = content(PROJECT / "grafana" / "dashboards" / "overview.json")
    *path, last = place.split("/")
    holder: Any = spoilt
    for step in path:
        holder = holder[int(step) if isinstance(holder, list) else step]
    holder[last] = wrong
    assert [repr(wrong) in fault for fault in type_faults(spoilt)] == [True]


def test_units_are_grafanas_own() -> None:
    """One that it does not know it shows as text behind the number: dashboard-linter's panel-units-rule."""
    known = {unit for unit in vars(units).values() if isinstance(unit, str)}
    assert {panel["fieldConfig"]["defaults"]["unit"] for board in BOARDS for panel in panels(board)} <= known


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_a_panel_says_what_it_shows_and_in_which_unit(board: Path) -> None:
    titles = [panel["title"] for panel in panels(board)]
    assert len(titles) == len(set(titles))
    for panel in panels(board):
        assert panel["targets"], panel["title"]
        assert re.fullmatch(r"[A-Z][^.!]*", panel["title"])
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
        assert {source["uid"] for source in [panel["datasource"], *(target["datasource"] for target in panel["targets"])]} == {
            "${datasource}"
        }
        if len(panel["targets"]) > 1:
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
        assert [target["refId"] for target in panel["targets"]] == [chr(ord("A") + n) for n in range(len(panel["targets"]))]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_rates_follow_the_scrape_interval_and_counters_are_never_shown_bare(board: Path) -> None:
    of_alerts = {window for alert in ALERTS for window in re.findall(r"increase\([^\[]+\[(\w+)\]", alert["expr"])}
    for query in board_queries(board):
        assert set(re.findall(r"\brate\([^\[]+\[([^\]]+)\]", query)) <= {"$__rate_interval"}
        assert set(re.findall(r"\[([^\]]+)\]", query)) <= {"$__rate_interval", "$__range", "30d", *of_alerts}
        for counter in re.finditer(r"[a-z_]+(?:_total|_bucket)\b", query):
            assert re.search(r"(rate|increase)\($", query[: counter.start()]), query


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_panels_do_not_cover_each_other(board: Path) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in content(board)["panels"]:
        place = panel["gridPos"]
        here = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & here, panel["title"]
        cells |= here


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_no_line_runs_through_a_number_and_no_table_is_the_largest_panel(board: Path) -> None:
    area = {panel["title"]: panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in panels(board)}
    for panel in panels(board):
        if panel["type"] == "stat":
            assert panel["options"]["graphMode"] == "none", panel["title"]
        elif panel["type"] == "table":
            assert area[panel["title"]] < max(area.values()), panel["title"]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_a_legend_is_words_and_not_a_set_of_labels(board: Path) -> None:
    """Without one Grafana writes all labels; a number by itself says nothing, so its kind stands before it."""
    for panel in panels(board):
        for target in panel["targets"]:
            legend = target["legendFormat"]
            if panel["type"] in {"timeseries", "state-timeline"}:
                assert legend, panel["title"]
            for before, label in re.findall(r"(\w*) ?{{(\w+)}}", legend):
                assert label not in {"partition", "sqlstate_class"} or label.endswith(before or "nothing"), legend


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_outages_and_starts_are_marked_and_each_is_told_by_its_title(board: Path) -> None:
    assert [event["name"] for event in events(board)] == ["Pages", "Servers away", "Starts"]
    for event in events(board):
        assert event["enable"] is True
        assert event["datasource"]["uid"] == "${datasource}"
        assert re.search(r"{{\w+}}", event["titleFormat"])
        assert re.search(r"\$__(?:rate_interval|interval_ms)\b", event["expr"]), "else it falls between two steps of a long range"


def test_the_overview_is_one_screen() -> None:
    """24 units of 38 pixels beside Grafana's own bars fill a screen of 1080; the list of alerts may be below."""
    bottoms = [
        panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels(PROJECT / "grafana" / "dashboards" / "overview.json")
    ]
    assert sorted(bottoms)[-2] <= 24


# Alerts and their runbook


def slug(heading: str) -> str:
    """As GitHub makes a link of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def sections() -> dict[str, str]:
    """The runbook's sections by the end of their links."""
    _, *parts = re.split(r"^## (.+)\n", RUNBOOK, flags=re.MULTILINE)
    return {slug(heading): text for heading, text in zip(parts[::2], parts[1::2], strict=True)}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on(alert: dict[str, Any]) -> None:
    notes = alert["annotations"]
    assert notes.keys() == {"summary", "description", "runbook_url", "dashboard"}
    assert alert["labels"]["severity"] in {"page", "ticket", "none"}
    assert not notes["summary"].endswith(".")
    assert notes["description"].endswith(".")
    assert "humanize }}" not in notes["description"], "0.8478 would be 847.8m: printf, humanizeDuration, humanizePercentage"
    assert notes["dashboard"] in {content(board)["uid"] for board in BOARDS}
    page, _, link = notes["runbook_url"].partition("#")
    assert page == "{{ or $externalLabels.runbook_url `docs/runbook.md` }}", "prometheus.yml says where people read it"
    section = sections()[link]
    assert f"`{alert['alert']}`" in section
    assert all(f"- **{word}**" in section for word in ("Means", "Do first", "Confirm", "Over"))
    if alert["labels"]["severity"] != "none":
        assert f"({alert['labels']['severity']}" in section


def test_every_alert_of_the_runbook_exists() -> None:
    in_runbook = {
        name for line in re.findall(r"^Alerts? (.*)$", RUNBOOK, re.MULTILINE) for name in re.findall(r"`([A-Za-z]+)`", line)
    }
    assert in_runbook == {alert["alert"] for alert in ALERTS}


def test_the_runbooks_table_has_every_alert_with_its_severity_its_section_and_what_to_do_first() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| \[(.+)\]\(#([\w-]+)\) \| (.{5,80}) \|$", RUNBOOK, re.MULTILINE)
    table = sections()["which-alert-which-section"]
    assert len(rows) == len(re.findall(r"^\|", table, re.MULTILINE)) - 2
    assert [(name, severity, link) for name, severity, _, link, _ in rows] == sorted(
        {(alert["alert"], alert["labels"]["severity"], alert["annotations"]["runbook_url"].partition("#")[2]) for alert in ALERTS}
    )
    assert [title for _, _, title, link, _ in rows if slug(title) != link] == []


def test_the_runbook_begins_with_links_to_all_of_its_sections() -> None:
    contents = RUNBOOK.partition("\n## ")[0]
    assert sorted(re.findall(r"\]\(#([\w-]+)\)", contents)) == sorted(sections())


WITHOUT_A_REMEDY = {
    "which-alert-which-section",
    "where-to-look-and-as-whom",
    "what-an-exit-code-says",
    "what-was-tried-by-breaking",
}
"""Sections of the runbook that are read beside the others."""


@pytest.mark.parametrize("section", sorted(sections().keys() - WITHOUT_A_REMEDY))
def test_the_first_remedy_stands_within_the_first_five_lines_of_a_section(section: str) -> None:
    first = sections()[section].lstrip("\n").splitlines()[:5]
    assert any(line.startswith("- **Do first**") for line in first)


def test_a_command_of_the_runbook_stands_in_a_block_that_names_its_login() -> None:
    blocks = re.findall(r"^\n((?: {4,}\S.*\n)+)", RUNBOOK, re.MULTILINE)
    commands = [block for block in blocks if re.search(r"^ +(?:login-stream|kafka-[a-z]+\.sh|curl) ", block, re.MULTILINE)]
    logins = [re.match(r" +# as (.+)\n", block) for block in commands]
    assert [block for block, login in zip(commands, logins, strict=True) if login is None] == []
    assert {login[1] for login in logins if login} == {"anybody", "stream_operator", "the owner", "an administrator of Kafka"}
    assert "faust -A" not in RUNBOOK.replace("`docker compose run --rm migrate faust -A stream_app …`", "")


def test_links_within_the_runbook_lead_to_headings() -> None:
    links = re.findall(r"\]\(#([\w-]+)\)", re.sub(r"\s*\n\s*", " ", RUNBOOK))
    assert links
    assert set(links) <= sections().keys()


def test_panels_that_the_runbook_names_exist() -> None:
    titles = {panel["title"] for board in BOARDS for panel in panels(board)}
    questions = {re.sub(r"\s+", " ", name) for name in re.findall(r"\*([A-Z][^*]+\?)\*", RUNBOOK)}
    assert len(questions) > 5
    assert questions <= titles


@pytest.mark.parametrize("name", sorted({alert["alert"] for alert in ALERTS}))
def test_every_alert_has_a_series_that_fires_and_one_that_is_silent(name: str) -> None:
    expectations = [
        bool(expected["exp_alerts"])
        for test in RULE_TESTS
        for expected in test.get("alert_rule_test", ())
        if expected["alertname"] == name
    ]
    assert True in expectations
    assert False in expectations or name == "Watchdog"


def test_lateness_is_measured_by_the_setting_and_where_nobody_tells_it_by_its_default() -> None:
    """No panel has a number of seconds of its own: FRESHNESS_OBJECTIVE_SECONDS may be another."""
    from stream_app.monitor.settings import MonitorSettings  # noqa: PLC0415

    steps = [
        step["value"]
        for board in BOARDS
        for panel in panels(board)
        if panel["fieldConfig"]["defaults"]["unit"] == "s"
        for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    ]
    assert set(steps) <= {None}
    (objective,) = (rule["expr"] for rule in RULES if rule.get("record") == "pipeline:freshness_objective:seconds")
    assert objective.endswith(f" or vector({MonitorSettings.model_fields['freshness_objective_seconds'].default})")


def around(expression: str, place: int) -> list[str]:
    """The functions and aggregations that this place of an expression stands in."""
    opened: list[str] = []
    for index, character in enumerate(expression[:place]):
        if character == "(":
            word = re.search(r"(\w+)(?:\s+by\s*\([^()]*\))?\s*$", expression[:index])
            opened.append(word[1] if word else "")
        elif character == ")":
            opened.pop()
    return opened


def test_two_monitors_show_what_one_shows() -> None:
    """Each tells the same of Kafka and Postgres: of their series the greatest is taken before anything counts or sums them."""
    assert around("sum(max by (field) (increase(a[1h])) + b)", 30) == ["sum", "max", "increase"]
    of_each_one = {"monitor_ready", "monitor_build_info", "monitor_look_timestamp_seconds"}
    for expression in set(all_expressions()):
        for found in re.finditer(r"\bmonitor_[a-z_]+", expression):
            if found[0] not in of_each_one:
                assert {"max", "label_values"} & set(around(expression, found.start())), expression


# How it is wired


def test_prometheus_scrapes_services_that_exist() -> None:
    assert {"bridge", "worker", "monitor"} <= {job["job_name"] for job in PROMETHEUS["scrape_configs"]}
    for job in PROMETHEUS["scrape_configs"]:
        names = [name for discovery in job.get("dns_sd_configs", []) for name in discovery["names"]]
        targets = [target for static in job.get("static_configs", []) for target in static["targets"]]
        assert names or targets
        assert set(names) <= SERVICES.keys()
        assert targets in ([], ["127.0.0.1:9090"])


def test_the_address_of_the_runbook_is_no_label_of_an_alert() -> None:
    """It is a label from outside for the links' sake; as a label of each alert it would stand in each page."""
    assert list(PROMETHEUS["global"]["external_labels"]) == ["runbook_url"]
    assert PROMETHEUS["alerting"]["alert_relabel_configs"] == [{"action": "labeldrop", "regex": "runbook_url"}]


def test_prometheus_finds_its_rules_where_compose_puts_them() -> None:
    assert PROMETHEUS["rule_files"] == ["rules/*.yml"]
    assert "./prometheus/rules:/etc/prometheus/rules:ro" in SERVICES["prometheus"]["volumes"]


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
