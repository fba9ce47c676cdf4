"""``make bench``: every benchmark, one table of all targets at its end, and a file of results.

python -m benchmarks [--rounds 3] [--only NAME]… [--directory benchmarks/results]
python -m benchmarks show FILE…       what is in results files, rounds of the same benchmark put together
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import click

from benchmarks import bridge, growth, handover, latency, memory, worker
from benchmarks.machine import PROJECT, now
from benchmarks.report import Report, Results, merged, read, write
from benchmarks.session import Progress, keep_option, only_option, results_of, rounds_option
from benchmarks.tables import report_text, results_text, targets_table

RESULTS = PROJECT / "benchmarks" / "results"


def put_together(files: Iterable[Path]) -> Results:
    """One session out of several of the same machine and commit. Raises :class:`click.UsageError` for others."""
    several = [read(file) for file in files]
    first = several[0]
    if any((results.machine, results.versions) != (first.machine, first.versions) for results in several):
        raise click.UsageError("these results are not of one machine with the same versions: their rounds don't go together")
    commits = dict.fromkeys(results.commit for results in several)
    reports = merged(report for results in several for report in results.reports)
    return replace(first, commit=", ".join(commits), reports=reports)


def save(results: Results, directory: Path, name_end: str = "") -> Path:
    """As JSON and as Markdown, by the day."""
    file = directory / f"{results.started_at[:10]}{name_end}.json"
    write(results, file)
    text = file.with_suffix(".md")
    text.write_text(results_text(results) + "\n")
    return text


@click.group(invoke_without_command=True, help=(__doc__ or "").partition("\n")[0])
@rounds_option
@only_option
@keep_option
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), default=RESULTS, show_default=True)
@click.pass_context
def main(context: click.Context, *, rounds: int, only: tuple[str, ...], keep: Path | None, directory: Path) -> None:
    """Run all, one after the other."""
    if context.invoked_subcommand is not None:
        return
    progress, started_at = Progress(), now()
    every: dict[str, Callable[[], Report]] = {
        "worker": lambda: worker.measure(progress, rounds=rounds, keep=keep),
        "bridge": lambda: bridge.measure(progress, rounds=rounds),
        "latency": lambda: latency.measure(progress, rounds=rounds),
        "growth": lambda: growth.measure(progress, rounds=rounds, keep=keep),
        "memory": lambda: memory.measure(progress, rounds=1, keep=keep),
        "handover": lambda: handover.measure(progress, rounds=rounds),
    }
    if unknown := set(only) - every.keys():
        raise click.UsageError(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    reports = []
    for name, measure in every.items():
        if not only or name in only:
            progress.say(f"benchmark {name}")
            reports.append(measure())
            progress.show("\n" + report_text(reports[-1]) + "\n")
            unfinished = save(results_of(reports, started_at), directory, "-unfinished")  # the next one may fail, after an hour
    text = save(results_of(reports, started_at), directory)
    for file in (unfinished, unfinished.with_suffix(".json")):
        file.unlink()
    progress.show("\n" + targets_table(reports) + "\n")
    progress.say(f"written to {text} and {text.with_suffix('.json').name}")


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="Write it there, too.")
def show(files: tuple[Path, ...], directory: Path | None) -> None:
    """Show results files; of rounds that were measured apart, one table."""
    results = put_together(files)
    Progress().show(results_text(results))
    if directory is not None:
        save(results, directory)


if __name__ == "__main__":
    main()
