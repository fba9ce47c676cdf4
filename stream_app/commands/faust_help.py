"""What `faust -A stream_app --help` shows: our commands, the options that mean something here, and a command's settings.

Faust has commands and options of its own on the same command line. Some do harm (`send` writes into the topic that workers read),
some end in a traceback, the others are about tables and schemas that we don't have. They are taken off when our App is imported,
which is before Faust looks for the command. Read against faust-streaming 0.15.3, ``faust/cli/base.py`` and ``faust/cli/faust.py``.
"""

from collections.abc import Iterable, Mapping

import click
from faust.cli.base import cli

from pipeline import __version__
from pipeline.settings import Settings, settings_help
from stream_app.monitor.settings import MonitorSettings
from stream_app.postgres.settings import PostgresSettings
from stream_app.settings import RevealSettings, WorkerSettings

NOT_OURS = ("agents", "clean-versions", "completion", "livecheck", "model", "models", "reset", "send", "tables")
PROGRAM = "login-stream"
"""Our own command: the same commands without ``-A stream_app``."""
APP = "-A stream_app"

SETTINGS: Mapping[str, type[Settings]] = {
    "dead-letters": PostgresSettings,
    "migrate": PostgresSettings,
    "monitor": MonitorSettings,
    "positions": PostgresSettings,
    "reveal": RevealSettings,
    "reveals": PostgresSettings,
    "worker": WorkerSettings,
}
"""The class of settings that a command reads."""

_SHOWN_OPTIONS: Mapping[str, str | None] = {
    "app": "Always stream_app: which program this is.",
    "json": "For a program to read, where a command prints a table; also after the command.",
    "version": "Faust's own version; ours is at the top of this help.",
    "help": None,
}
_SHOWN_WORKER_OPTIONS: Mapping[str, str | None] = {
    "with_web": "Serve /metrics, /livez and /readyz, or don't.",
    "web_port": "Instead of WEB_PORT.",
    "web_bind": "Instead of WEB_BIND.",
}


def show_our_own() -> None:
    """Take off what is not ours, and say the rest in our words."""
    for name in NOT_OURS:
        cli.commands.pop(name, None)
    cli.help = f"login-stream {__version__}: logins from Kafka to Postgres, masked, each exactly once."
    cli.options_metavar = f"{APP} [OPTIONS]"
    _show_only(cli.params, _SHOWN_OPTIONS)
    _show_only(cli.commands["worker"].params, _SHOWN_WORKER_OPTIONS)
    for name, settings in SETTINGS.items():
        cli.commands[name].epilog = f"Settings, from the environment:\n\n{settings_help(settings)}"


def show_as_program() -> None:
    """As :data:`PROGRAM`, which says ``-A stream_app`` by itself, and whose version is ours."""
    cli.options_metavar = "[OPTIONS]"
    cli.params = [option for option in cli.params if option.name != "version"]
    _show_only(cli.params, {"json": _SHOWN_OPTIONS["json"]})
    click.version_option(__version__, prog_name=PROGRAM)(cli)


def _show_only(options: Iterable[click.Parameter], shown: Mapping[str, str | None]) -> None:
    for option in options:
        if isinstance(option, click.Option) and option.name is not None:
            option.hidden = option.name not in shown
            option.help = shown.get(option.name) or option.help
