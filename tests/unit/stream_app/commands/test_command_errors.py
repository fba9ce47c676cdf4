"""The seam between our errors and the command line."""

from pathlib import Path

import click
import pytest
import structlog
from click.testing import CliRunner, Result

from pipeline.errors import RetryableError, SettingsError
from stream_app import commands
from stream_app.commands.command import Group, say, say_error, show_table

VALUE = "203.0.113.7"


def run(raised: BaseException | None) -> Result:
    @click.group(cls=Group)
    def group() -> None:
        pass

    @group.group()
    def inner() -> None:
        pass

    @inner.command()
    def fail() -> None:
        if raised is not None:
            raise raised
        click.echo("done")

    return CliRunner().invoke(group, ["inner", "fail"])


@pytest.mark.parametrize("raised", [RetryableError("the database is away"), SettingsError("the database is away")])
def test_our_errors_are_one_line(raised: Exception) -> None:
    result = run(raised)
    assert (result.exit_code, result.stderr, result.stdout) == (1, "Error: the database is away\n", "")


def test_wrong_use_is_exit_code_2() -> None:
    result = run(click.UsageError("add --yes"))
    assert result.exit_code == 2
    assert "Error: add --yes" in result.stderr


def test_defect_shows_where_and_not_what() -> None:
    """What an unforeseen exception says may quote a value."""
    result = run(KeyError(VALUE))
    assert result.exit_code == 1
    assert "test_command_errors.py" in result.stderr
    assert result.stderr.endswith("Error: unexpected KeyError: please report it with the lines above\n")
    assert VALUE not in result.output


@pytest.mark.parametrize(("raised", "exit_code"), [(None, 0), (click.exceptions.Exit(3), 3), (click.Abort(), 1)])
def test_other_ends_are_clicks_own(raised: Exception | None, exit_code: int) -> None:
    result = run(raised)
    assert result.exit_code == exit_code
    assert "unexpected" not in result.stderr


def test_table_is_as_wide_as_its_cells(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("name", "count"), [("a", 5), ("longer name", 12_345), (None, 0)])
    assert capsys.readouterr().out.splitlines() == [
        "name         count",
        "a                5",
        "longer name  12345",
        "-                0",
    ]


def test_an_error_is_one_line_that_no_terminal_obeys() -> None:
    result = run(RetryableError("the schema \x1b[2J\nok"))
    assert (result.exit_code, result.stderr) == (1, "Error: the schema \\x1b[2J\\nok\n")


def test_in_a_json_log_what_goes_to_standard_error_is_a_line_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What click itself says becomes one when the process begins: tests/integration/test_json_errors.py."""
    monkeypatch.setenv("LOG_FORMAT", "json")
    with structlog.testing.capture_logs() as lines:
        say("3 rows")
        say("a superuser should change it", to_stderr=True)
        say_error("POSTGRES_DSN: not set")
        defect = run(KeyError(VALUE))
        aborted = run(click.Abort())
    assert (defect.exit_code, aborted.exit_code) == (1, 1)
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("command_says", "warning"),
        ("command_failed", "error"),
        ("uncaught_error", "critical"),
        ("command_failed", "error"),
    ]
    assert lines[1]["settings"] == ["POSTGRES_DSN"]
    assert capsys.readouterr() == ("3 rows\n", "")
    assert defect.stderr == aborted.stderr == ""


def test_all_that_commands_print_goes_through_say() -> None:
    for module in Path(commands.__path__[0]).glob("*.py"):
        assert ("click.echo(" in module.read_text()) == (module.name == "command.py"), module.name
