"""Nothing but JSON lines in a JSON log, from the first to the last: errors of a command line, and what ends a process early.

Where LOG_FORMAT is `json` (or no value of its own: that is an error, and one that asked for lines for a collector), an error of a
command, a wrong use and a traceback of last resort are events on standard error. Else they stay as click and Python have them. Read
against click 8.3.3: all that click says of an error goes through the ``show`` of its exceptions.
"""

import re
from typing import Any, Final

import click
import structlog

from pipeline import logs
from pipeline.ending import EXIT_REFUSED
from pipeline.setting_names import SETTING_NAMES
from pipeline.settings import LogSettings, wants_json_log

log = structlog.stdlib.get_logger("pipeline.json_errors")

HELP: Final = "expected a command: --help shows them"


def begin() -> None:
    """To be called as early as can be, before settings are read; a process that knows its settings configures its log again."""
    if not wants_json_log():
        return
    logs.configure(LogSettings.model_construct(log_format="json"))
    logs.log_uncaught_errors()
    for kind in (click.ClickException, click.UsageError, click.exceptions.NoArgsIsHelpError):
        setattr(kind, "show", _show)  # noqa: B010 - a method that mypy would have stay as it is


def tell_error(problem: str, exit_code: int) -> None:
    """One event that says what is wrong, which settings it names, and with which code the process ends."""
    fields: dict[str, Any] = {"problem": problem, "exit_code": exit_code}
    if settings := settings_named(problem):
        fields["settings"] = settings
    if exit_code == EXIT_REFUSED:
        log.critical("start_refused", **fields)
    else:
        log.error("command_failed", **fields)


def settings_named(problem: str) -> list[str]:
    """Those that stand in an error of ours, which names what is wrong."""
    return [name for name in dict.fromkeys(re.findall(r"[A-Z][A-Z_]+[A-Z]", problem)) if name in SETTING_NAMES]


def _show(error: click.ClickException, file: Any = None) -> None:  # noqa: ARG001 - click's signature
    problem = HELP if isinstance(error, click.exceptions.NoArgsIsHelpError) else error.format_message()
    tell_error(problem, error.exit_code)
