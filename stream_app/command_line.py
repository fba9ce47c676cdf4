"""``login-stream …``, the command that a wheel installs: those of ``faust -A stream_app``, and the bridge's, from any directory."""

import sys
from typing import Any

import click
from faust.cli.base import cli

import stream_app.commands  # noqa: F401 - puts them on the command line
from pipeline import json_errors
from stream_app.commands.faust_help import APP, PROGRAM, show_as_program


class _Bridge(click.Group):
    """``python -m bridges``, imported when it is asked for: a worker needs none of boto3's memory."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return _bridges().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _bridges().get_command(ctx, cmd_name)


def _bridges() -> click.Group:
    from bridges.__main__ import main as bridges  # noqa: PLC0415 - see above

    return bridges


def main() -> Any:
    """Run what the command line says."""
    json_errors.begin()
    show_as_program()
    cli.add_command(_Bridge("bridge", help="Move messages from a queue into the Kafka topic that the workers read."))
    return cli.main([*APP.split(), *sys.argv[1:]], prog_name=PROGRAM)
