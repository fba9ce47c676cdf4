"""docs/reference/settings.md is made from the settings classes; .env.example is held to them."""

import re
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, FilePath, SecretStr

from bridges.settings import BridgeSettings
from pipeline.settings import Port, Settings, load
from stream_app.monitor.settings import MonitorSettings
from stream_app.settings import WorkerSettings
from tools import settings_reference

PROJECT = Path(__file__).parents[2]
BOTO3_VARIABLES = {"AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL_SQS"}


class ExampleSettings(Settings):
    """Where an example is."""

    example_dsn: SecretStr = Field(SecretStr("raw-default"), description="Where.")
    example_ca: FilePath | None = Field(None, description="A file.")
    example_mode: Literal["one", "other"] = Field("one", description="One | other.")
    example_port: Port = Field(8080, description="A port.")
    example_seconds: float = Field(0.5, gt=0, le=60, description="How long.")
    example_name: str = Field(min_length=1, description="A name.")


@pytest.fixture
def example_page(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(settings_reference, "PROCESSES", {"example": ExampleSettings, "other": ExampleSettings})
    return settings_reference.page()


def test_the_page_in_the_repository_is_fresh() -> None:
    assert settings_reference.PAGE.read_text() == settings_reference.page(), "run `make reference`"


@pytest.mark.parametrize("settings", [BridgeSettings, WorkerSettings, MonitorSettings])
def test_the_page_has_every_option_of_each_process_once(settings: type[Settings]) -> None:
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \|", settings_reference.page(), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert settings_reference.variables(settings) <= set(rows)


@pytest.mark.parametrize("settings", [BridgeSettings, WorkerSettings, MonitorSettings])
def test_every_option_has_a_line_of_help(settings: type[Settings]) -> None:
    assert [name for name, field in settings.model_fields.items() if not (field.description or "").strip().endswith(".")] == []


def test_a_row_tells_range_default_and_help(example_page: str) -> None:
    assert "| `EXAMPLE_PORT` | whole number, from 0 to 65535 | `8080` | A port. |" in example_page
    assert "| `EXAMPLE_SECONDS` | number, more than 0 to 60 | `0.5` | How long. |" in example_page
    assert "| `EXAMPLE_CA` | path of a file | not set | A file. |" in example_page
    assert "| `EXAMPLE_NAME` | text, not empty | required | A name. |" in example_page


def test_a_bar_in_a_cell_does_not_end_it(example_page: str) -> None:
    assert r"| `EXAMPLE_MODE` | `one`, `other` | `one` | One \| other. |" in example_page


def test_a_secret_is_named_as_one_and_its_default_never_shown(example_page: str) -> None:
    assert "| `EXAMPLE_DSN` | secret text | a secret | Where. |" in example_page
    assert "raw-default" not in example_page


def test_a_group_that_two_processes_read_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class OneSettings(ExampleSettings):
        """What one reads."""

        one: int = Field(1, description="One.")

    class OtherSettings(ExampleSettings):
        """What the other reads."""

        other: int = Field(2, description="Other.")

    monkeypatch.setattr(settings_reference, "PROCESSES", {"one": OneSettings, "other": OtherSettings})
    page = settings_reference.page()
    assert "## Example\n\nWhere an example is. Read by the one and the other.\n" in page
    assert "## One\n\nWhat one reads.\n" in page
    assert page.count("`EXAMPLE_PORT`") == 1


def test_check_fails_on_a_stale_page_and_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "settings.md"
    stale.write_text("# Settings\n")
    monkeypatch.setattr(settings_reference, "PAGE", stale)
    assert settings_reference.main(["--check"]) == 1
    assert "make reference" in capsys.readouterr().err
    assert stale.read_text() == "# Settings\n"
    assert settings_reference.main([]) == 0
    assert settings_reference.main(["--check"]) == 0


def example_environment() -> dict[str, str]:
    """The variables that .env.example sets, without those that it only mentions."""
    lines = (PROJECT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_env_example_names_only_variables_that_something_reads() -> None:
    named = set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", (PROJECT / ".env.example").read_text(), re.MULTILINE))
    assert named - settings_reference.variables(BridgeSettings, WorkerSettings) == BOTO3_VARIABLES


@pytest.mark.parametrize("settings", [BridgeSettings, WorkerSettings, MonitorSettings])
def test_env_example_starts_each_process(settings: type[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in settings_reference.variables(settings):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in example_environment().items():
        monkeypatch.setenv(variable, value)
    loaded = load(settings)
    given = {name: getattr(loaded, name) for name in settings.model_fields if name.upper() in example_environment()}
    assert all(given.values())


def test_what_env_example_shows_as_a_default_is_the_default() -> None:
    shown = re.findall(r"^#(KAFKA_[A-Z_]+|LOG_[A-Z_]+)=(.+)$", (PROJECT / ".env.example").read_text(), re.MULTILINE)
    assert shown
    fields = WorkerSettings.model_fields
    assert {name: value for name, value in shown if str(fields[name.lower()].default) != value} == {}
