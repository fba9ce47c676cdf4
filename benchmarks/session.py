"""What every benchmark's command does alike: options, lines while it runs, runs that fail, the result at its end."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from benchmarks.machine import commit, now, this_machine, versions
from benchmarks.report import Quantity, Report, Results, Run, write
from benchmarks.tables import number, report_text
from dev_servers.process import DevServerError

LINE_SECONDS = 15.0
Command = TypeVar("Command", bound=Callable[..., Any])


class NoFiguresError(Exception):
    """A run that has no figures: why, in a few words, and what its log said last."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


class Progress:
    """Says what is going on: on a terminal also in place, elsewhere a line now and then."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, soft_wrap=True)
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """One line, with minutes and seconds since the start."""
        self._console.print(self._line(text))

    def show(self, text: str) -> None:
        """The result: as it is."""
        self._console.print(text)

    @contextmanager
    def step(self, text: str) -> Iterator[Callable[[str], None]]:
        """Something that takes long; call with how far it is."""
        if self._console.is_terminal:
            with self._console.status(text) as status:
                yield lambda far: status.update(f"{text}: {far}")
            return
        said_at = time.monotonic()

        def update(far: str) -> None:
            nonlocal said_at
            if time.monotonic() - said_at > LINE_SECONDS:
                said_at = time.monotonic()
                self.say(f"{text}: {far}")

        yield update

    def attempt(
        self, contender: str, round_number: int, headline: Quantity, measure: Callable[[Callable[[str], None]], Mapping[str, float]]
    ) -> Run:
        """Run ``measure``, which may raise :class:`NoFiguresError`; say what it found."""
        text = f"round {round_number}, {contender}"
        try:
            with self.step(text) as update:
                figures = measure(update)
        except NoFiguresError as problem:
            self.say(f"{text}: no figures, {problem}")
            if problem.detail:
                self.show(problem.detail)
            return Run(contender, round_number, problem=str(problem))
        except DevServerError as error:
            self.say(f"{text}: no figures")
            self.show(str(error))
            return Run(contender, round_number, problem=f"{error.name}: {error.reason}")
        self.say(f"{text}: {number(figures[headline.key], headline.digits)} {headline.title}")
        return Run(contender, round_number, figures)

    def _line(self, text: str) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        return f"{minutes:3}:{seconds:02}  {text}"


rounds_option = click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="All in turn in each.")
keep_option = click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Servers' data stay in this directory, so that the next time the topics are full already.",
)
save_option = click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write every run to this JSON file.")


def results_of(reports: Sequence[Report], started_at: str) -> Results:
    """With machine, commit and versions."""
    return Results(this_machine(), started_at, commit(), versions(), reports)


def finish(progress: Progress, report: Report, save: Path | None) -> None:
    """Show one benchmark's result; keep it if asked to."""
    progress.show("\n" + report_text(report))
    if save is not None:
        write(results_of([report], now()), save)
