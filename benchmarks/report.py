"""What benchmarks hand over: every single run, and what follows from all of them. Pure data; printed by :mod:`benchmarks.tables`.

Only runs are stored. Medians, spreads, ratios and whether a target was met are worked out from them when they are shown, so rounds
that were measured apart can be put together (:func:`merged`).
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from benchmarks.machine import Machine


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the rounds of one figure."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """At least one value."""
        return cls(statistics.median(values), min(values), max(values))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of the sorted values do not exceed: one that was measured, never one in between."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One column of a benchmark's table."""

    key: str
    title: str
    """With the unit at its end."""
    digits: int = 0


@dataclass(frozen=True, slots=True)
class Contender:
    """One row: a program, or a case that a program is put to."""

    name: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one contender in one round."""

    contender: str
    round: int
    figures: Mapping[str, float] = field(default_factory=dict)
    """By the quantity's key."""
    problem: str | None = None
    """Why there are no figures."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should be: at least, or at most, ``bound``."""

    what: str
    contender: str
    quantity: str
    bound: float
    at_least: bool = False
    against: str | None = None
    """Then it is the ratio to this contender's figure of the same round."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A target and what was measured; ``spread`` is None if nothing was."""

    target: Target
    spread: Spread | None

    @property
    def met(self) -> bool | None:
        """By the median; None if nothing was measured."""
        if self.spread is None:
            return None
        median = self.spread.median
        return median >= self.target.bound if self.target.at_least else median <= self.target.bound


@dataclass(frozen=True, slots=True)
class Report:
    """One benchmark."""

    benchmark: str
    question: str
    method: str
    """What was measured, how, and what not; Markdown."""
    contenders: Sequence[Contender]
    quantities: Sequence[Quantity]
    targets: Sequence[Target]
    runs: Sequence[Run] = ()

    def values(self, contender: str, quantity: str) -> dict[int, float]:
        """By round."""
        return {run.round: run.figures[quantity] for run in self.runs if run.contender == contender and quantity in run.figures}

    def spread(self, contender: str, quantity: str) -> Spread | None:
        """Over the rounds."""
        values = self.values(contender, quantity)
        return Spread.of(list(values.values())) if values else None

    def problems(self, contender: str) -> list[str]:
        """Of its runs without figures, each once."""
        return list(dict.fromkeys(run.problem for run in self.runs if run.contender == contender and run.problem is not None))

    def outcomes(self) -> list[Outcome]:
        """What became of each target."""
        return [Outcome(target, self._measured(target)) for target in self.targets]

    def _measured(self, target: Target) -> Spread | None:
        if target.against is None:
            return self.spread(target.contender, target.quantity)
        ours = self.values(target.contender, target.quantity)
        theirs = self.values(target.against, target.quantity)
        ratios = [value / theirs[number] for number, value in ours.items() if theirs.get(number)]
        return Spread.of(ratios) if ratios else None


@dataclass(frozen=True, slots=True)
class Results:
    """One session on one machine: what a results file holds."""

    machine: Machine
    started_at: str
    """UTC, ISO 8601."""
    commit: str
    versions: Mapping[str, str]
    reports: Sequence[Report]


def merged(reports: Iterable[Report]) -> list[Report]:
    """One report for each benchmark: rounds of later ones come after those of earlier ones; a round stays a round."""
    together: dict[str, Report] = {}
    for report in reports:
        before = together.get(report.benchmark)
        if before is None:
            together[report.benchmark] = report
            continue
        done = max((run.round for run in before.runs), default=0)
        runs = (*before.runs, *(replace(run, round=run.round + done) for run in report.runs))
        known = {contender.name for contender in report.contenders}
        earlier = [contender for contender in before.contenders if contender.name not in known]
        together[report.benchmark] = replace(report, runs=runs, contenders=(*earlier, *report.contenders))
    return list(together.values())


def write(results: Results, file: Path) -> None:
    """As JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def read(file: Path) -> Results:
    """What :func:`write` wrote. Raises :class:`msgspec.ValidationError` for another file."""
    return msgspec.json.decode(file.read_bytes(), type=Results)
