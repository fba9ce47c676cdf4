"""``make demo``: the whole chain on made-up logins or on your own file, and what an analyst sees at its end."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from threading import Event

import click
from rich.console import Console

from dev_servers import jars
from dev_servers.__main__ import stop_signals_interrupt
from dev_servers.demo_keeping import keep_up
from dev_servers.demo_limits import CoreMeter, Waiting, what_limited
from dev_servers.demo_place import ENVIRONMENT_FILE, DemoPlace
from dev_servers.demo_progress import Counter, Counts, ProgressView
from dev_servers.demo_report import Report
from dev_servers.demo_watch import Watch
from dev_servers.elasticmq import LoginQueue
from dev_servers.local_pipeline import BRIDGE, MONITOR, LocalPipeline
from dev_servers.made_up_logins import OTHER_KIND, made_up_logins
from dev_servers.message_files import MessageFileError, read_bodies
from dev_servers.process import DevServerError, log_tail
from dev_servers.prometheus import Prometheus, program
from dev_servers.queue_filling import QueueFiller, batches
from pipeline.stop_signals import call_on_stop_signal

POLL_SECONDS = 0.2
STANDSTILL_SECONDS = 60.0
"""The demo gives up when no message comes any further for so long. Longer than a killed bridge's messages stay hidden."""
SCRAPE_SECONDS = 1.0
"""Quicker than in production: the demo's load is over in seconds."""
KILLS = 2
KILL_VISIBILITY_SECONDS = 10
PLAIN_WIDTH = 400
"""Where it is no terminal: no line is broken."""


class DemoError(Exception):
    """The demo did not end as it should."""


class StoppedError(Exception):
    """Somebody wants it to end: Ctrl-C, SIGTERM, or a closed terminal."""


class Demo:
    """One run: fill, watch, report."""

    def __init__(
        self, pipeline: LocalPipeline, console: Console, watch: Watch, stopping: Event, *, watched: bool, no_prometheus: str | None
    ) -> None:
        """``watched``: by a monitor and Prometheus, unless ``no_prometheus`` says why there is none."""
        self._pipeline = pipeline
        self._console = console
        self._watch = watch
        self._stopping = stopping
        self._watched = watched
        self._no_prometheus = no_prometheus

    def start(self) -> None:
        """Servers, keysets, tables, processes."""
        say = self._console.print
        say("[bold]Starting Kafka, SQS (ElasticMQ) and Postgres[/bold], the real ones, on free ports of this machine")
        self._pipeline.start_servers(lambda server, seconds: say(f"  {server.name} is ready after {seconds:.1f} s"))
        self._pipeline.make_ready()
        say("  faust -A stream_app keys create: made keysets for this demo only; yours are made once and kept")
        say("  faust -A stream_app migrate: made tables and roles")
        self._pipeline.start_processes()
        if self._watched:
            self._pipeline.processes.start_monitor(MONITOR)
        self._pipeline.processes.wait_ready()
        say(f"  python -m bridges sqs, and {len(self._pipeline.workers)} of faust -A stream_app worker: ready")
        if self._watched:
            self._watch_it()

    def _watch_it(self) -> None:
        say = self._console.print
        say("  faust -A stream_app monitor: ready")
        if self._no_prometheus is not None:
            say(f"  {self._no_prometheus}", markup=False)
            return
        prometheus = Prometheus(self._pipeline.directory / "prometheus", scrape_seconds=SCRAPE_SECONDS)
        self._pipeline.watch(prometheus)
        say("  prometheus scrapes all of them and evaluates the alerts")

    def move(self, bodies: Sequence[str], kills: int) -> tuple[Counts, list[str]]:
        """Send all and wait until each is a row or a dead letter; ``kills`` times everything of ours is killed on the way.

        Also what limited it, as lines to print.
        """
        self._console.print(f"\n[bold]Sending {len(bodies):,} messages[/bold], as fast as the queue takes them")
        filler = QueueFiller(self._pipeline.elasticmq.queue_url)
        with closing(Counter(self._pipeline)) as counter, ThreadPoolExecutor(1) as pool:
            view = ProgressView(self._console, len(bodies))
            moving = _Moving(counter, filler, view)
            try:
                with view.shown():
                    share = -(-len(bodies) // (kills + 1))
                    for number in range(kills):
                        sending = pool.submit(filler.send, bodies[number * share : (number + 1) * share])
                        self._until(moving, sending, finished=number * share + 1)
                        self._pipeline.processes.kill(BRIDGE, *self._pipeline.workers)
                        self._console.print("  killed the bridge and the workers with SIGKILL; starting them again")
                        self._pipeline.start_processes()
                        sending.result()
                    sending = pool.submit(filler.send, bodies[kills * share :])
                    counts = self._until(moving, sending, finished=len(bodies), empty=True)
            finally:
                filler.stop()
        return counts, what_limited(moving.cores.use(), moving.waiting, len(bodies))

    def _until(self, moving: "_Moving", sending: Future[None], finished: int, *, empty: bool = False) -> Counts:
        """Show progress until so many messages came to their end and, where wished, nothing is left in the queue."""
        last: Counts | None = None
        moved_at = time.monotonic()
        while True:
            all_there = self._watch.look()
            if sending.done():
                sending.result()
            counts = moving.look(self._pipeline) if all_there else None
            if counts is not None and counts.finished >= finished and not (empty and (counts.queued or not sending.done())):
                return counts
            if counts is None or counts != last:
                last, moved_at = counts or last, time.monotonic()
            elif time.monotonic() - moved_at > STANDSTILL_SECONDS:
                tails = "\n".join(f"the end of {file}:\n{log_tail(file)}" for file in self._pipeline.log_files)
                raise DemoError(f"nothing moved for {STANDSTILL_SECONDS:.0f} s: {counts}\n{tails}")
            if self._stopping.wait(POLL_SECONDS):
                raise StoppedError

    def report(self, counts: Counts, limit: Sequence[str]) -> None:
        """What is in Postgres now."""
        say = self._console.print
        with closing(Report(self._pipeline.postgres.dsn, self._console)) as report:
            report.show_rows()
            report.show_shared_devices()
            say("\n[bold]What could not become a row[/bold]\nfaust -A stream_app dead-letters list")
            say(self._pipeline.processes.run("dead-letters", "list").rstrip(), markup=False, no_wrap=True, overflow="ellipsis")
            letters = "dead letter" if counts.dead_letters == 1 else "dead letters"
            say(f"\n[bold]{counts.rows:,} rows and {counts.dead_letters:,} {letters} of {counts.sent:,} messages[/bold]")
            times = report.times()
        if times is not None:
            say(f"{times.rows / times.seconds:,.0f} rows/s from the first message sent to the last row committed")
            say(f"{times.median_seconds:.2f} s from sent to committed for half of the rows, {times.p99_seconds:.2f} s for 99 %")
            for line in limit:
                say(line)


class _Moving:
    """What is looked at while messages move."""

    def __init__(self, counter: Counter, filler: QueueFiller, view: ProgressView) -> None:
        self._counter = counter
        self._filler = filler
        self._view = view
        self.cores = CoreMeter()
        self.waiting = Waiting()

    def look(self, pipeline: LocalPipeline) -> Counts | None:
        """None while a server does not answer."""
        self.cores.look({name: pipeline.child(name).pid for name in pipeline.names})
        counts = self._counter.count(self._filler.sent)
        if counts is not None:
            self.waiting.add(counts)
            self._view.show(counts)
        return counts


def bodies_for(file: Path | None, logins: int) -> list[str]:
    """The messages: those of the file, or made-up logins with one message of another kind in their middle."""
    if file is not None:
        bodies = read_bodies(file)
        for _ in batches(bodies):
            pass  # it raises for a body that no queue takes, before anything is started
        return bodies
    bodies = [login.body() for login in made_up_logins(logins)]
    bodies.insert(len(bodies) // 2, OTHER_KIND)
    return bodies


def check_end(counts: Counts, expected: int, dead_letters: int | None) -> None:
    """Every message came to exactly one end."""
    if counts.finished != expected or (dead_letters is not None and counts.dead_letters != dead_letters):
        wanted = f"{expected:,} messages" + ("" if dead_letters is None else f", {dead_letters} of them dead letters")
        raise DemoError(f"expected the end of {wanted}; there are {counts.rows:,} rows and {counts.dead_letters:,} dead letters")


@contextmanager
def state_directory(chosen: Path | None) -> Iterator[Path]:
    """A temporary directory that is gone afterwards, or the chosen one, which has to be empty and stays."""
    if chosen is None:
        with tempfile.TemporaryDirectory(prefix="demo-") as directory:
            yield Path(directory)
        return
    chosen.mkdir(parents=True, exist_ok=True)
    if any(chosen.iterdir()):
        raise DemoError(f"{chosen} is not empty: the demo counts from nothing")
    yield chosen


@click.command()
@click.option("--input", "file", type=click.Path(path_type=Path), help="Messages: a JSON array or JSON lines, plain or .gz.")
@click.option(
    "--logins", type=click.IntRange(1, 1_000_000), default=20_000, show_default=True, help="Without --input: made-up ones."
)
@click.option("--workers", type=click.IntRange(1, 4), default=2, show_default=True)
@click.option("--keep", is_flag=True, help="Stay up at the end and say what to try next; with monitor and Prometheus.")
@click.option("--kill", is_flag=True, help="Kill the bridge and the workers with SIGKILL in the middle, and start them again.")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="Keep data and logs there.")
@click.option(
    "--env-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=ENVIRONMENT_FILE,
    show_default=True,
    help="With --keep: written for a shell, and how others find this demo.",
)
def main(*, file: Path | None, logins: int, workers: int, keep: bool, kill: bool, directory: Path | None, env_file: Path) -> None:
    """Run the whole chain on real servers of this machine: SQS, bridge, Kafka, workers, Postgres."""
    stop_signals_interrupt()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    began = time.monotonic()
    place = DemoPlace(env_file.resolve())
    try:
        bodies = bodies_for(file, logins)
        jars.download(list(jars.LOCKED))
        no_prometheus = _why_no_prometheus() if keep else None
        with state_directory(directory) as state, place.taken() if keep else nullcontext():
            stopping = _stop_signals_set_an_event()
            visibility_seconds = KILL_VISIBILITY_SECONDS if kill else LoginQueue().visibility_seconds
            pipeline = LocalPipeline(
                state, workers=workers, visibility_seconds=visibility_seconds, interrupt=lambda: _check(stopping)
            )
            watch = Watch(pipeline, lambda line: console.print(f"  {line}", markup=False))
            try:
                with watch.running():
                    demo = Demo(pipeline, console, watch, stopping, watched=keep, no_prometheus=no_prometheus)
                    demo.start()
                    counts, limit = demo.move(bodies, KILLS if kill else 0)
                    check_end(counts, len(bodies), dead_letters=1 if file is None else None)
                    demo.report(counts, limit)
                    if keep:
                        keep_up(pipeline, console, watch, stopping, place)
            except StoppedError:
                if directory is None:
                    pipeline.end_at_once()
                raise
            finally:
                pipeline.stop()
        console.print(f"stopped everything; {time.monotonic() - began:.0f} s in all")
    except (KeyboardInterrupt, StoppedError):
        console.print("\nstopped everything")
        sys.exit(128 + signal.SIGINT)
    except (DemoError, DevServerError, MessageFileError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def _why_no_prometheus() -> str | None:
    try:
        program("prometheus")
    except DevServerError as error:
        return str(error)
    return None


def _stop_signals_set_an_event() -> Event:
    """From now on, in place of a KeyboardInterrupt: see :func:`dev_servers.__main__.watch_until_stop_signal`."""
    stopping = Event()
    call_on_stop_signal(stopping.set)
    signal.signal(signal.SIGHUP, lambda _, __: os.kill(os.getpid(), signal.SIGTERM))
    return stopping


def _check(stopping: Event) -> None:
    if stopping.is_set():
        raise StoppedError


if __name__ == "__main__":
    main()
