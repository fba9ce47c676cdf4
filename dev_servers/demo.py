"""``make demo``: the whole chain on made-up logins or on your own file, and what an analyst sees at its end."""

import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import click
from rich.console import Console

from dev_servers.__main__ import stop_signals_interrupt
from dev_servers.demo_progress import Counter, Counts, ProgressView
from dev_servers.demo_report import Report
from dev_servers.elasticmq import LoginQueue
from dev_servers.local_pipeline import BRIDGE, MONITOR, LocalPipeline
from dev_servers.made_up_logins import OTHER_KIND, made_up_logins
from dev_servers.message_files import MessageFileError, read_bodies
from dev_servers.process import DevServerError, log_tail
from dev_servers.prometheus import Prometheus
from dev_servers.queue_filling import QueueFiller, batches, sqs_client

POLL_SECONDS = 0.2
STANDSTILL_SECONDS = 60.0
"""The demo gives up when no message comes any further for so long. Longer than a killed bridge's messages stay hidden."""
SCRAPE_SECONDS = 1.0
"""Quicker than in production: the demo's load is over in seconds."""
KILLS = 2
KILL_VISIBILITY_SECONDS = 10
PLAIN_WIDTH = 140


class DemoError(Exception):
    """The demo did not end as it should."""


class Demo:
    """One run: fill, watch, report."""

    def __init__(self, pipeline: LocalPipeline, console: Console, *, watched: bool) -> None:
        """``watched``: by a monitor and, where it is installed, Prometheus."""
        self._pipeline = pipeline
        self._console = console
        self._watched = watched

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
        if Prometheus.is_installed():
            prometheus = Prometheus(self._pipeline.directory / "prometheus", scrape_seconds=SCRAPE_SECONDS)
            self._pipeline.watch(prometheus)
            say(f"  prometheus scrapes all of them and evaluates the alerts: {prometheus.url}", soft_wrap=True)
        else:
            say("  prometheus is not installed (Debian: apt-get install prometheus), so nothing keeps what they show")

    def move(self, bodies: Sequence[str], kills: int) -> Counts:
        """Send all and wait until each is a row or a dead letter; ``kills`` times everything of ours is killed on the way."""
        self._console.print(f"\n[bold]Sending {len(bodies):,} messages[/bold]")
        with closing(sqs_client(self._pipeline.elasticmq)) as sqs, closing(Counter(self._pipeline, sqs)) as counter:
            filler = QueueFiller(sqs, self._pipeline.elasticmq.queue_url)
            view = ProgressView(self._console, len(bodies))
            with view.shown(), ThreadPoolExecutor(1) as pool:
                share = -(-len(bodies) // (kills + 1))
                for number in range(kills):
                    sending = pool.submit(filler.send, bodies[number * share : (number + 1) * share])
                    self._watch(counter, filler, view, sending, until_finished=number * share + 1)
                    self._pipeline.processes.kill(BRIDGE, *self._pipeline.workers)
                    self._console.print("  killed the bridge and the workers with SIGKILL; starting them again")
                    self._pipeline.start_processes()
                    sending.result()
                sending = pool.submit(filler.send, bodies[kills * share :])
                return self._watch(counter, filler, view, sending, until_finished=len(bodies), empty=True)

    def _watch(
        self,
        counter: Counter,
        filler: QueueFiller,
        view: ProgressView,
        sending: Future[None],
        until_finished: int,
        *,
        empty: bool = False,
    ) -> Counts:
        """Show progress until so many messages came to their end and, where wished, nothing is left in the queue."""
        last: Counts | None = None
        moved_at = time.monotonic()
        while True:
            self._pipeline.check()
            if sending.done():
                sending.result()
            counts = counter.count(filler.sent)
            view.show(counts)
            if counts.finished >= until_finished and not (empty and (counts.queued or not sending.done())):
                return counts
            if counts != last:
                last, moved_at = counts, time.monotonic()
            elif time.monotonic() - moved_at > STANDSTILL_SECONDS:
                tails = "\n".join(f"the end of {file}:\n{log_tail(file)}" for file in self._pipeline.log_files)
                raise DemoError(f"nothing moved for {STANDSTILL_SECONDS:.0f} s: {counts}\n{tails}")
            time.sleep(POLL_SECONDS)

    def report(self, counts: Counts) -> None:
        """What is in Postgres now."""
        say = self._console.print
        with closing(Report(self._pipeline.postgres.dsn, self._console)) as report:
            report.show_rows()
            report.show_shared_devices()
            say("\n[bold]What could not become a row[/bold]\nfaust -A stream_app dead-letters list")
            say(self._pipeline.processes.run("dead-letters", "list").rstrip(), markup=False, soft_wrap=True)
            letters = "dead letter" if counts.dead_letters == 1 else "dead letters"
            say(f"\n[bold]{counts.rows:,} rows and {counts.dead_letters:,} {letters} of {counts.sent:,} messages[/bold]")
            times = report.times()
        if times is not None:
            say(
                f"{times.rows / times.seconds:,.0f} rows/s from the first message sent to the last row committed\n"
                f"{times.median_seconds:.2f} s from sent to committed for half of the rows, {times.p99_seconds:.2f} s for 99 %",
            )

    def keep(self) -> None:
        """Stay up until Ctrl-C."""
        say = self._console.print
        say("\n[bold]Everything stays up until Ctrl-C.[/bold] Addresses:")
        for name, value in self._pipeline.processes.environment.items():
            say(f"  {name}={value}", markup=False, soft_wrap=True)
        for name, url in self._pipeline.metrics_urls.items():
            say(f"  {name}: {url}", markup=False, soft_wrap=True)
        if self._pipeline.prometheus is not None:
            say(f"  prometheus: {self._pipeline.prometheus.url}", markup=False, soft_wrap=True)
        while True:
            self._pipeline.check()
            time.sleep(POLL_SECONDS)


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
    "--logins", type=click.IntRange(1, 1_000_000), default=5_000, show_default=True, help="Without --input: made-up ones."
)
@click.option("--workers", type=click.IntRange(1, 4), default=2, show_default=True)
@click.option("--keep", is_flag=True, help="Stay up at the end and show the addresses; with monitor and Prometheus.")
@click.option("--kill", is_flag=True, help="Kill the bridge and the workers with SIGKILL in the middle, and start them again.")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="Keep data and logs there.")
def main(*, file: Path | None, logins: int, workers: int, keep: bool, kill: bool, directory: Path | None) -> None:
    """Run the whole chain on real servers of this machine: SQS, bridge, Kafka, workers, Postgres."""
    stop_signals_interrupt()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    began = time.monotonic()
    try:
        bodies = bodies_for(file, logins)
        with state_directory(directory) as state:
            visibility_seconds = KILL_VISIBILITY_SECONDS if kill else LoginQueue().visibility_seconds
            pipeline = LocalPipeline(state, workers=workers, visibility_seconds=visibility_seconds)
            try:
                demo = Demo(pipeline, console, watched=keep)
                demo.start()
                counts = demo.move(bodies, KILLS if kill else 0)
                check_end(counts, len(bodies), dead_letters=1 if file is None else None)
                demo.report(counts)
                if keep:
                    demo.keep()
            finally:
                pipeline.stop()
        console.print(f"stopped everything; {time.monotonic() - began:.0f} s in all")
    except KeyboardInterrupt:
        console.print("\nstopped everything")
        sys.exit(128 + signal.SIGINT if not keep else 0)
    except (DemoError, DevServerError, MessageFileError, ValueError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
