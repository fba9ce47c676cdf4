"""What the pages name exists: commands, targets, metrics, log events, settings, files."""

import json
import re
from collections import defaultdict
from pathlib import Path

import click
import pytest
from login_records import build, login, masker
from partition_gauges import partition_gauges

from bridges.__main__ import main as bridge
from bridges.metrics import BridgeMetrics
from bridges.settings import BridgeSettings
from pipeline.setting_names import SETTING_NAMES
from pipeline.spelling import misspelt
from stream_app import commands
from stream_app.commands.command import cli
from stream_app.login_record import FIELDS
from stream_app.masking.masker import NULL_TEXT
from stream_app.metrics import WorkerMetrics
from stream_app.monitor.metrics import MonitorMetrics
from stream_app.monitor.settings import MonitorSettings
from stream_app.reasons import Reason
from stream_app.settings import WorkerSettings
from tools import settings_reference

PROJECT = Path(__file__).parents[2]
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
PAGES_FROM_CODE = {settings_reference.PAGE}
SETTING_PREFIXES = (
    "BRIDGE_",
    "BUFFER_",
    "FRESHNESS_",
    "KAFKA_",
    "LOG_",
    "MASKING_",
    "MONITOR_",
    "POSTGRES_",
    "SQS_",
    "WEB_",
    "WINDOW_",
)


def name(page: Path) -> str:
    return page.relative_to(PROJECT).as_posix()


def code(page: Path) -> str:
    """What stands between backticks or in an indented or fenced block, without its comments."""
    text = page.read_text()
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    .*$", rest, re.MULTILINE)
    return "\n".join([*re.findall(r"`([^`]+)`", rest), *(re.sub(r"(?m)(?:^|\s)#.*$", "", block) for block in [*fenced, *indented])])


def metrics() -> set[str]:
    worker = WorkerMetrics()
    worker.serve_partitions(lambda: [partition_gauges()], lambda: 0.0)
    worker.use_keys([("MASKING_KEYSET_FILE", 1, True)])
    monitor = MonitorMetrics()
    monitor.skipped.by_topic = {"logins": 0}
    return {
        name
        for registry in (worker.registry, BridgeMetrics().registry, monitor.registry)
        for metric in registry.collect()
        for name in (metric.name, *(sample.name for sample in metric.samples))  # a gauge by partition may have no sample yet
    }


def source() -> str:
    """The product's code."""
    return "\n".join(
        path.read_text() for package in ("pipeline", "bridges", "stream_app") for path in (PROJECT / package).rglob("*.py")
    )


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_exist(page: Path) -> None:
    assert commands.__doc__
    programs = {"faust -A stream_app": cli, "login-stream": click.Group(commands={**cli.commands, "bridge": bridge})}
    for program, words in re.findall(rf"(?<![\w/-])({'|'.join(programs)})(?: --json)?((?: [a-z-]+\b)+)", code(page)):
        command: click.Command = programs[program]
        for word in words.split():
            if not isinstance(command, click.Group) or word.startswith("-"):
                break
            found = command.commands.get(word)
            assert found is not None, program + words
            command = found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^\.PHONY: (\S+)$", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    named = {word for words in re.findall(r"\bmake((?: [a-z][a-z-]+)+)", code(page)) for word in words.split()}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_metrics_exist(page: Path) -> None:
    named = set(re.findall(r"\b(?:bridge|stream|monitor)_[a-z_]+_[a-z]+\b", page.read_text()))
    tables_roles_and_packages = set(re.findall(r"\b(?:stream_[a-z_]+|bridge_[a-z_]+)\b", sql())) | {"stream_app"}
    assert {word for word in named - metrics() if word not in source()} - tables_roles_and_packages == set()


def sql() -> str:
    """The statements that make tables and roles."""
    return "\n".join(path.read_text() for path in (PROJECT / "stream_app" / "postgres" / "sql").rglob("*.sql"))


def test_log_events_and_metrics_of_the_runbook_exist() -> None:
    text, known = source(), metrics() | set(re.findall(r"\b[a-z_]+\b", sql()))
    words = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)[`{]", (PROJECT / "docs" / "runbook.md").read_text()))
    assert {"partition_stopped", "stream_partition_stopped"} <= words
    assert {word for word in words - known if f'"{word}"' not in text} == set()


MISSPELT_ON_PURPOSE = {"KAFKA_TOPIC_NAME", "MASKING_METHOD", "POSTGRES_SSL_MODE", "SQS_QUEUE"}
"""Pages show these as what is refused."""


@pytest.mark.parametrize("page", [page for page in PAGES if page not in PAGES_FROM_CODE], ids=name)
def test_settings_exist(page: Path) -> None:
    named = {word for word in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", code(page)) if word.startswith(SETTING_PREFIXES)}
    others = {word for word in named if f'"{word}"' in source()}  # such as the one that a single command reads
    assert named - others - MISSPELT_ON_PURPOSE <= settings_reference.variables(BridgeSettings, WorkerSettings, MonitorSettings)
    assert len(misspelt(dict.fromkeys(MISSPELT_ON_PURPOSE, "1"), SETTING_NAMES)) == len(MISSPELT_ON_PURPOSE)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


def test_tests_that_are_named_stand_in_the_file_that_is_named_before_them() -> None:
    files: dict[str, set[str]] = defaultdict(set)
    for path in (PROJECT / "tests").rglob("test_*.py"):
        files[path.name] |= set(re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))
    file, named = "", 0
    for word in re.findall(r"`(?:[\w/]*/)?(test_\w+(?:\.py)?)`", (PROJECT / "docs" / "delivery.md").read_text()):
        if word.endswith(".py"):
            file = word
            continue
        named += 1
        assert word in files[file], f"{file} has no {word}"
    assert named > 20


def test_the_form_of_a_message_is_that_of_the_code() -> None:
    """Each field with its column, whether it is required and its length; each reason; nothing else."""
    page = (PROJECT / "docs" / "messages.md").read_text()
    keys = re.findall(r"^\| `([a-z_]+)` \| (yes|no) \| (?:up to (\d+))?.* \| `([a-z_]+)` \|$", page, re.MULTILINE)
    assert keys == [(field.name, "yes" if field.required else "no", str(field.length_max or ""), field.column) for field in FIELDS]
    assert re.findall(r"^\| `([a-z_0-9]+)` \| [^|]+ \|$", page, re.MULTILINE) == list(Reason)


WRITTEN = re.findall(
    r"^\| `(\w+)` \| `([^`]+)` \| (?:`([^`]+)`|dead letter `(\w+)`|null) \| (.*?) ?\|$",
    (PROJECT / "docs" / "messages.md").read_text(),
    re.MULTILINE,
)


@pytest.mark.parametrize(("field", "sent", "becomes", "reason", "counted"), WRITTEN, ids=[row[1] for row in WRITTEN])
def test_a_value_becomes_what_the_page_says(field: str, sent: str, becomes: str, reason: str, counted: str) -> None:
    def text(cell: str) -> str:  # the page has escapes where one sees no difference
        return str(json.loads(f'"{cell}"'))

    batch = build([login(**{field: text(sent)})])

    assert [(letter.reason, letter.field) for letter in batch.dead_letters] == ([(reason, field)] if reason else [])
    assert {reduction for _, reduction in batch.reduced_offsets} == set(re.findall(r"`(\w+)`", counted))
    if not reason:
        column = next(each.column for each in FIELDS if each.name == field)
        (stored,) = batch.columns[column]
        expected = NULL_TEXT if not becomes else text(becomes)
        assert (stored if field == "app_version" or stored == NULL_TEXT else masker().reveal(field, stored)) == expected


def test_the_page_of_values_has_each_reduction_and_each_field_that_can_have_one() -> None:
    shown = {(field, reduction) for field, _, _, _, counted in WRITTEN for reduction in re.findall(r"`(\w+)`", counted)}
    assert shown == {(field.name, reduction.value) for field in FIELDS for reduction in field.reductions}
