"""What a demo that stays up tells, and does until Ctrl-C."""

import json
import os
import time
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from threading import Event

from rich.console import Console
from rich.table import Table

from dev_servers.demo_place import DemoPlace
from dev_servers.demo_progress import Counter, Counts, as_line
from dev_servers.demo_watch import Watch
from dev_servers.local_pipeline import LocalPipeline

POLL_SECONDS = 0.2
COUNT_SECONDS = 1.0
GRAFANA = "http://127.0.0.1:3000"
"""Where one is by itself."""


def keep_up(pipeline: LocalPipeline, console: Console, watch: Watch, stopping: Event, place: DemoPlace) -> None:
    """Say what can be done now; then tell what comes, and start again what ends, until ``stopping``."""
    place.write_environment(pipeline.processes.environment)
    pids = _pids(pipeline)
    place.write_processes(pids)
    _say_what_to_do(pipeline, console, place)
    shown: Counts | None = None
    count_at = 0.0
    with closing(Counter(pipeline)) as counter:
        while not stopping.wait(POLL_SECONDS):
            if not watch.look():
                continue
            if (now := _pids(pipeline)) != pids:
                pids = now
                place.write_processes(pids)
            if time.monotonic() < count_at:
                continue
            count_at = time.monotonic() + COUNT_SECONDS
            counts = counter.count(sent=None)
            if counts is not None and counts != shown:
                if shown is not None:
                    console.print(f"  {as_line(counts)}")
                shown = counts


def _pids(pipeline: LocalPipeline) -> dict[str, int]:
    return {name: pipeline.child(name).pid for name in pipeline.names}


def _say_what_to_do(pipeline: LocalPipeline, console: Console, place: DemoPlace) -> None:
    def say(line: str) -> None:
        console.print(line, markup=False)

    file = _shown(place.environment_file)
    console.print(
        "\n[bold]Everything stays up until Ctrl-C; what ends is started again.[/bold]\nIn another terminal, in this directory:\n"
    )
    commands = {
        f"set -a; . {file}; set +a": "the addresses, and psql on the PATH",
        "psql \"$POSTGRES_DSN\" -c 'SELECT count(*) FROM user_logins'": "Postgres",
        "faust -A stream_app dead-letters list": "what could not become a row",
        "faust -A stream_app positions": "how far each partition is",
        "make demo SEND=10000": "sends more logins",
        "make demo KILL=worker-1": "ends it with SIGKILL; or any other below",
    }
    longest = max(map(len, commands))
    for command, comment in commands.items():
        say(f"  {command.ljust(longest)}  # {comment}" if console.width >= longest + 44 else f"  # {comment}\n  {command}")
    console.print("\n[bold]Pages and logs[/bold]")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("", "process", "page"):
        table.add_column(title, no_wrap=True, overflow="fold")
    for name, pid in _pids(pipeline).items():
        table.add_row(f"  {name}", str(pid), _page(pipeline, name))
    console.print(table)
    say("  /readyz and /livez are beside /metrics")
    say(f"  logs: {pipeline.processes.directory}/*.log")
    say(f"        {pipeline.directory}/{{elasticmq,kafka,postgres}}/*.log")
    if pipeline.prometheus is not None:
        say(f"  boards: {_grafana(pipeline.prometheus.url)}")
    console.print()


def _page(pipeline: LocalPipeline, name: str) -> str:
    if pipeline.prometheus is not None and name == pipeline.prometheus.name:
        return f"{pipeline.prometheus.url}/graph"
    return pipeline.metrics_urls.get(name, "")


def _grafana(prometheus_url: str) -> str:
    """What to do for the boards; asks whether a Grafana runs on this machine."""
    try:
        with urllib.request.urlopen(f"{GRAFANA}/api/health", timeout=1) as answer:  # noqa: S310 - this machine, HTTP
            health = json.load(answer)
    except (OSError, ValueError):
        health = None
    if isinstance(health, Mapping) and "version" in health:
        return f"a Grafana runs at {GRAFANA}: add the data source {prometheus_url}, import grafana/dashboards/*.json"
    return f"any Grafana from 11.6 on, with the data source {prometheus_url} and grafana/dashboards/*.json"


def _shown(file: Path) -> str:
    """As short as it can be typed here."""
    return os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
