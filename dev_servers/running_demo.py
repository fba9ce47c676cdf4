"""``make demo SEND=…`` and ``make demo KILL=…``: to try things on a demo that stays up (``make demo KEEP=1``)."""

import os
import shlex
import signal
import time
from pathlib import Path

import click

from dev_servers.demo_place import ENVIRONMENT_FILE, DemoPlace
from dev_servers.made_up_logins import made_up_logins
from dev_servers.process import DevServerError
from dev_servers.queue_filling import QueueFiller


@click.group()
@click.option(
    "--env-file", type=click.Path(dir_okay=False, path_type=Path), default=ENVIRONMENT_FILE, show_default=True, help="The demo's."
)
@click.pass_context
def main(ctx: click.Context, *, env_file: Path) -> None:
    """Try things on a demo that stays up."""
    ctx.obj = DemoPlace(env_file)


@main.command()
@click.argument("name")
@click.pass_obj
def kill(place: DemoPlace, *, name: str) -> None:
    """End one process or server with SIGKILL; the demo tells so and starts it again."""
    pids = _processes(place)
    if name not in pids:
        raise click.UsageError(f"there is no {name}; there are {', '.join(pids)}")
    try:
        os.kill(pids[name], signal.SIGKILL)
    except ProcessLookupError:
        raise click.ClickException(f"{name} has ended already") from None
    click.echo(f"ended {name}, process {pids[name]}, with SIGKILL")


@main.command()
@click.argument("logins", type=click.IntRange(1, 1_000_000))
@click.pass_obj
def send(place: DemoPlace, *, logins: int) -> None:
    """Send so many made-up logins to the demo's queue."""
    _processes(place)
    environment = dict(word.split("=", 1) for word in shlex.split(place.environment_file.read_text()))
    bodies = [login.body() for login in made_up_logins(logins)]
    began = time.monotonic()
    try:
        QueueFiller(environment["SQS_QUEUE_URL"]).send(bodies)
    except DevServerError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"sent {logins:,} logins to the queue in {time.monotonic() - began:.1f} s")


def _processes(place: DemoPlace) -> dict[str, int]:
    try:
        return place.processes()
    except DevServerError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
