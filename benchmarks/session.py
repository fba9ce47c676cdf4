"""What every benchmark's command does alike: options, lines while it runs, runs that fail, the result at its end."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from benchmarks.machine import commit, now, this_machine, versions
from benchmarks.report import Contender, Quantity, Report, Results, Run, write
from benchmarks.tables import number_text, report_text
from dev_servers.process import DevServerError

LINE_SECONDS = 15.0


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

    def _line(self, text: str) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        return f"{minutes:3}:{seconds:02}  {text}"


Update = Callable[[str], None]
"""Called with how far a run is."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender and how one run of it is measured."""

    contender: Contender
    measure: Callable[[Update], Mapping[str, float]]
    """The figures by quantity. May raise :class:`NoFiguresError`."""
    missing: str | None = None
    """Why it can't run here."""


def in_turn(progress: Progress, entries: Sequence[Entry], rounds: int, headline: Sequence[Quantity]) -> tuple[Run, ...]:
    """Every entry once in each round, in their order, so that a slow minute of the machine hits all alike.

    ``headline`` is what is said of each run at once.
    """
    runs = []
    for number in range(1, rounds + 1):
        for entry in entries:
            name = entry.contender.name
            if entry.missing is not None:
                if number == 1:
                    progress.say(f"{name}: not run, {entry.missing}")
                    runs.append(Run(name, number, problem=f"not run: {entry.missing}"))
                continue
            runs.append(_run(progress, entry, number, headline))
    return tuple(runs)


def _run(progress: Progress, entry: Entry, round_number: int, headline: Sequence[Quantity]) -> Run:
    name = entry.contender.name
    text = f"round {round_number}, {name}"
    try:
        with progress.step(text) as update:
            figures = entry.measure(update)
    except NoFiguresError as problem:
        progress.say(f"{text}: no figures, {problem}")
        if problem.detail:
            progress.show(problem.detail)
        return Run(name, round_number, problem=str(problem))
    except DevServerError as error:
        progress.say(f"{text}: no figures")
        progress.show(str(error))
        return Run(name, round_number, problem=f"{error.name}: {error.reason}")
    found = [f"{number_text(figures[one.key], one.digits)} {one.title}" for one in headline if one.key in figures]
    progress.say(f"{text}: {', '.join(found)}")
    return Run(name, round_number, figures)


def wanted(entries: Iterable[Entry], words: Sequence[str]) -> list[Entry]:
    """Those with one of the words in their name; all, without words."""
    return [entry for entry in entries if not words or any(word.lower() in entry.contender.name.lower() for word in words)]


rounds_option = click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="All in turn in each.")
only_option = click.option("--only", multiple=True, metavar="WORD", help="Only what has this word in its name; can be given again.")
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
