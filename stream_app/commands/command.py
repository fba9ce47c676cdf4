"""What our commands have in common: they hang below Faust's own command line, and an error is one line, without a traceback.

Use ``@cli.command(cls=Command)`` or ``@cli.group(cls=Group)``. Raise our own errors or click's; the exit code is 1, and 2 for a
wrong use. Any other exception is a defect: it is shown as where it came from, not what it says, which may quote a value.

What is printed goes through :func:`say` or :func:`show_table`, which leave nothing in it that a terminal would obey: names, reasons
and owners come from a database that others write.
"""

import json
import traceback
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import structlog
from faust.cli.base import State, cli

from pipeline import json_errors
from pipeline.ending import EXIT_REFUSED
from pipeline.errors import PipelineError
from pipeline.foreign_variables import names_shut_out
from pipeline.printable import printable
from pipeline.settings import wants_json_log

__all__ = [
    "Command", "Group", "ProcessCommand", "QuietCommand",
    "cli", "json_option", "named", "refused", "say", "say_error", "show_json", "show_table", "wants_json",
]  # fmt: skip

log = structlog.stdlib.get_logger(__name__)


class Command(click.Command):
    """A command whose errors are one line."""

    tells = True
    """Whether it says which variables of libpq it does not see. What runs until stopped says so in its log."""

    exit_code_of_errors = 1

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        if self.tells and (names := names_shut_out()):
            say(f"{', '.join(names)}: not read; POSTGRES_DSN and POSTGRES_… say how to connect", to_stderr=True)
        try:
            return super().invoke(ctx)
        except PipelineError as error:
            raise refused(error, self.exit_code_of_errors) from error
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except (click.Abort, EOFError, KeyboardInterrupt) as error:
            if not wants_json_log():
                raise
            say_error("aborted")
            raise click.exceptions.Exit(1) from error
        except Exception as error:
            if wants_json_log():
                log.critical("uncaught_error", exc_info=error)
                raise click.exceptions.Exit(1) from error
            click.echo("".join(traceback.format_tb(error.__traceback__)), err=True, nl=False)
            raise click.ClickException(f"unexpected {type(error).__name__}: please report it with the lines above") from error


class QuietCommand(Command):
    """A command that asks Postgres nothing, or runs until it is stopped."""

    tells = False


class ProcessCommand(QuietCommand):
    """One that runs until it is stopped: what it raises of our own was found before it began."""

    exit_code_of_errors = EXIT_REFUSED


class Group(click.Group, Command):
    """A command with subcommands of that kind."""

    tells = False

    command_class = Command
    group_class = type


def _note_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if value:
        ctx.ensure_object(State).json = True


json_option = click.option("--json", "_json", is_flag=True, expose_value=False, callback=_note_json, help="For a program to read.")
"""For commands that ask :func:`wants_json`: `--json` after the command, too."""


def wants_json() -> bool:
    """Whether ``--json`` was given, before the command (Faust's) or after it (:data:`json_option`)."""
    state = click.get_current_context().find_object(State)
    return state is not None and bool(state.json)


def refused(error: PipelineError, exit_code: int) -> click.ClickException:
    """An error of ours, as click shows it and ends the process with it."""
    shown = click.ClickException(printable(str(error)))
    shown.exit_code = exit_code
    return shown


def say(line: str = "", *, to_stderr: bool = False) -> None:
    """Print one line for a person to read; in a JSON log, what goes to standard error is a line of it."""
    if to_stderr and wants_json_log():
        log.warning("command_says", text=line)
    else:
        click.echo(printable(line), err=to_stderr)


def say_error(problem: str) -> None:
    """Say what is wrong, and go on: the exit code will be 1."""
    if wants_json_log():
        json_errors.tell_error(problem, 1)
    else:
        say(f"Error: {problem}", to_stderr=True)


def show_json(content: Any) -> None:
    """Print for a program to read. JSON escapes what is not ASCII, and control characters."""
    click.echo(json.dumps(content, default=_text))


def show_table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print columns for a person to read: as wide as their longest cell, numbers to the right."""
    content = [tuple(row) for row in rows]
    lines = [tuple(titles), *(tuple(_text(cell) for cell in row) for row in content)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(titles))]
    numeric = [bool(content) and all(isinstance(row[place], int) for row in content) for place in range(len(titles))]
    for line in lines:
        aligned = [
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(line, widths, numeric, strict=True)
        ]
        say("  ".join(aligned).rstrip())


def named(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[Mapping[str, Any]]:
    """Each row as a mapping, for :func:`show_json`."""
    return [dict(zip(titles, row, strict=True)) for row in rows]


def _text(cell: Any) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, datetime):
        return cell.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return printable(str(cell))
