"""``python -m dev_servers up``: the servers in the foreground, for a person or a script that wants the real thing."""

import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event

import click

from dev_servers import jars
from dev_servers.elasticmq import ElasticMq
from dev_servers.kafka import Kafka
from dev_servers.postgres import Postgres
from dev_servers.process import DevServerError
from dev_servers.prometheus import program
from dev_servers.server import Server, start_together, stop_together
from pipeline.stop_signals import call_on_stop_signal

NAMES = ("elasticmq", "kafka", "postgres")
WATCH_SECONDS = 1.0


def stop_signals_interrupt() -> None:
    """Let SIGTERM and SIGHUP end the main thread as Ctrl-C does, so that servers are stopped in order."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def watch_until_stop_signal(servers: Sequence[Server]) -> None:
    """Return at SIGINT or SIGTERM. Raises :class:`DevServerError` when a server has ended by itself.

    Without KeyboardInterrupt, which comes between any two steps of the main thread: in the middle of ``Popen.poll`` it leaves a
    lock behind, and a ``wait`` for that process then never returns.
    """
    stopping = Event()
    call_on_stop_signal(stopping.set)
    while not stopping.wait(WATCH_SECONDS):
        for server in servers:
            server.child.check()


def make_servers(directory: Path, names: Sequence[str] = NAMES, *, keep_messages: bool = False) -> list[Server]:
    """The named servers, not started, each in its own directory below ``directory``."""
    servers: list[Server] = []
    if "elasticmq" in names:
        servers.append(ElasticMq(directory / "elasticmq", keep=keep_messages))
    if "kafka" in names:
        servers.append(Kafka(directory / "kafka"))
    if "postgres" in names:
        servers.append(Postgres(directory / "postgres"))
    return servers


def write_environment(file: Path, environment: Mapping[str, str]) -> None:
    """Write KEY=VALUE lines that a shell can source, whole or not at all; readable by the owner, for there is a password in it."""
    descriptor, scratch = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    with os.fdopen(descriptor, "w") as lines:
        lines.writelines(f"{name}={shlex.quote(value)}\n" for name, value in environment.items())
    Path(scratch).replace(file)


@click.group()
def main() -> None:
    """Real Kafka, SQS (ElasticMQ) and Postgres on this machine, without containers."""


@main.command()
def fetch() -> None:
    """Bring what all servers need onto this machine, once: jars, and Prometheus where there is none on the PATH."""
    try:
        jars.download(list(jars.LOCKED))
        for name in ("prometheus", "promtool"):
            program(name)
    except DevServerError as error:
        raise click.ClickException(str(error)) from error


def _names(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    names = [name.strip() for name in value.split(",") if name.strip()]
    unknown = sorted(set(names) - set(NAMES))
    if unknown or not names:
        raise click.BadParameter(f"there are {', '.join(NAMES)}; not {', '.join(unknown) or 'none of them'}")
    return names


@main.command()
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), required=True, help="Data and logs; found again.")
@click.option("--env-file", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Written when all are ready.")
@click.option("--only", callback=_names, default=",".join(NAMES), show_default=True, help="Which servers.")
def up(directory: Path, env_file: Path, only: list[str]) -> None:
    """Start the servers on free ports, write their addresses to the env file, and stay until SIGINT or SIGTERM."""
    stop_signals_interrupt()
    servers = make_servers(directory, only, keep_messages=True)
    try:
        jars.download([name for name in only if name in jars.LOCKED])
        env_file.parent.mkdir(parents=True, exist_ok=True)
        env_file.unlink(missing_ok=True)  # the addresses of an earlier start
        start_together(servers, lambda server, seconds: click.echo(f"{server.name} is ready after {seconds:.1f} s", err=True))
        write_environment(env_file, {name: value for server in servers for name, value in server.environment.items()})
        click.echo(f"their addresses are in {env_file}; Ctrl-C stops them", err=True)
        watch_until_stop_signal(servers)
    except KeyboardInterrupt:  # while they start
        pass
    except DevServerError as error:
        raise click.ClickException(str(error)) from error
    finally:
        click.echo("stopping", err=True)
        env_file.unlink(missing_ok=True)
        stop_together(servers)


if __name__ == "__main__":
    sys.exit(main())
