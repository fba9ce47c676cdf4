"""Reports as people read them: the same text on a terminal and in a results file, in Markdown."""

from collections.abc import Iterable, Sequence

from benchmarks.report import Outcome, Quantity, Report, Results, Spread


def number_text(value: float, digits: int) -> str:
    """With separators between thousands."""
    return f"{value:,.{digits}f}"


def spread_text(spread: Spread, digits: int) -> str:
    """The median, and the least and most where there are several."""
    median, least, most = (number_text(value, digits) for value in (spread.median, spread.least, spread.most))
    return median if least == most else f"{median} ({least} to {most})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown, columns aligned for those who read it as text."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def text(line: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"

    return "\n".join([text(lines[0]), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(text, lines[1:])])


def figures_table(report: Report) -> str:
    """One line a contender."""
    quantities = [quantity for quantity in report.quantities if any(quantity.key in run.figures for run in report.runs)]
    rows = []
    for contender in report.contenders:
        cells = [_cell(report, contender.name, quantity) for quantity in quantities]
        notes = "; ".join(part for part in (contender.note, *report.problems(contender.name)) if part)
        rows.append([contender.name, *cells, notes])
    return table(["", *(quantity.title for quantity in quantities), "notes"], rows)


def _cell(report: Report, contender: str, quantity: Quantity) -> str:
    spread = report.spread(contender, quantity.key)
    return "-" if spread is None else spread_text(spread, quantity.digits)


def targets_table(reports: Iterable[Report]) -> str:
    """One line a target: what was wanted, what was measured, whether it was met."""
    return table(
        ["target", "wanted", "measured", "met"],
        [_target_row(outcome) for report in reports for outcome in report.outcomes()],
    )


def _target_row(outcome: Outcome) -> list[str]:
    target = outcome.target
    unit = "x" if target.against is not None else ""
    wanted = f"{'>=' if target.at_least else '<='} {target.bound:,g}{unit}"
    measured = "not measured" if outcome.spread is None else spread_text(outcome.spread, _digits(target.bound))
    met = {True: "yes", False: "no", None: "-"}[outcome.met]
    return [target.what, wanted, measured, met]


def _digits(bound: float) -> int:
    """Enough to see on which side of the bound a figure is."""
    return 0 if bound >= 100 else 1 if bound >= 10 else 2  # noqa: PLR2004 - two or three figures in all


def report_text(report: Report) -> str:
    """One benchmark whole."""
    rounds = max((run.round for run in report.runs), default=0)
    parts = [
        f"## {report.question}",
        f"Median of {rounds} rounds (least to most)." if rounds > 1 else "One round.",
        figures_table(report),
        *([targets_table([report])] if report.targets else []),
        report.method.strip(),
    ]
    return "\n\n".join(parts)


def results_text(results: Results) -> str:
    """A whole session: first all targets, then benchmark by benchmark."""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return "\n\n".join(
        [
            f"# Benchmarks of {results.started_at[:10]}",
            f"{results.machine}. Commit {results.commit}. {versions}.",
            "All processes share this machine, so compare figures of one run; ratios count.",
            targets_table(results.reports),
            *map(report_text, results.reports),
        ]
    )
