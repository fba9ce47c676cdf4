"""Faust's own command line without the environment: its options mean what the command says, or their defaults.

Faust reads FAUST_DEBUG, FAUST_WORKDIR, FAUST_DATADIR and the like (or F_…) when it is imported, which is before anything of ours,
and makes them the defaults of its options. A worker would change its directory or run Faust's debugger because of somebody else's
variable. So options that were not given are set back before Faust acts on them. Its choice of an event loop can't be taken back:
that is refused. Read against faust-streaming 0.15.3, ``faust/__init__.py``, ``faust/types/_env.py`` and ``faust/cli/base.py``.
"""

import os
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource
from faust.cli.base import DEFAULT_LOOP, cli

from stream_app.commands.faust_help import APP, PROGRAM

_DEFAULTS: dict[str, Any] = {"workdir": None, "datadir": None, "debug": False}


def shut_out_environment() -> None:
    """Let Faust's group callback see only what the command line says."""
    if not isinstance(cli.callback, _WithoutEnvironment):
        cli.callback = _WithoutEnvironment(cli.callback)


class _WithoutEnvironment:
    def __init__(self, prepare: Callable[..., Any] | None) -> None:
        self._prepare = prepare

    def __call__(self, *args: Any, **options: Any) -> Any:
        ctx = click.get_current_context()
        options |= {name: default for name, default in _DEFAULTS.items() if _not_given(ctx, name)}
        if _not_given(ctx, "loop") and os.environ.get("FAUST_LOOP", DEFAULT_LOOP) != DEFAULT_LOOP:  # Faust sets it from F_LOOP
            raise click.ClickException(
                "FAUST_LOOP or F_LOOP: unset it; Faust took an event loop from there, and ours is asyncio's own"
            )
        if not _not_given(ctx, "datadir"):
            raise click.UsageError("--datadir: there is none here; all state is in Kafka and Postgres")
        if ctx.info_name != PROGRAM:
            ctx.info_name = f"{ctx.info_name} {APP}"  # for the usage lines of commands
        if self._prepare is not None:
            return self._prepare(*args, **options)
        return None


def _not_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE
