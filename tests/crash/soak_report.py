"""What a soak shows: one line while it runs, one table at its end."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from crash.faults import all_faults
from crash.run import MEBIBYTES_MAX
from crash.soak import Report, Soak

LINE_SECONDS = 60.0
"""Where nobody watches, a line each minute is kept."""
REFRESH_SECONDS = 1.0


class Progress:
    """Says how far the soak is, on one line of a terminal or in a line a minute."""

    def __init__(self, console: Console, minutes: float) -> None:
        self._console = console
        self._minutes = minutes
        self._soak: Soak | None = None
        self._ended = threading.Event()

    def watch(self, soak: Soak) -> None:
        """Show this one."""
        self._soak = soak

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Until the block ends."""
        showing = threading.Thread(target=self._show, name="progress", daemon=True)
        showing.start()
        try:
            yield
        finally:
            self._ended.set()
            showing.join()

    def _show(self) -> None:
        began = time.monotonic()
        if self._console.is_terminal:
            with self._console.status("starting the servers") as status:
                while not self._ended.wait(REFRESH_SECONDS):
                    status.update(self._line(time.monotonic() - began))
        else:
            while not self._ended.wait(LINE_SECONDS):
                self._console.print(self._line(time.monotonic() - began), highlight=False, soft_wrap=True)

    def _line(self, seconds: float) -> str:
        if self._soak is None:
            return "starting the servers"
        report = self._soak.report
        return (
            f"{seconds // 60:.0f}:{seconds % 60:02.0f} of {self._minutes:g} minutes, {self._soak.system.sent:,} messages sent,"
            f" {len(report.injected)} faults, {report.checks} checks; now: {self._soak.now}"
        )


def table(report: Report) -> str:
    """The report as a Markdown table: what was done, what came of it, then each fault."""
    verdict = report.verdict
    names = Counter(name for name, _ in report.injected)
    recoveries: dict[str, list[float]] = defaultdict(list)
    for (name, _), seconds in zip(report.injected, verdict.recoveries_seconds if verdict else (), strict=False):
        recoveries[name].append(seconds)
    worst = max(((max(found), name) for name, found in recoveries.items()), default=(0.0, "none"))
    rows = [
        ("seed", f"{report.seed}"),
        ("minutes under load", f"{report.minutes:.1f}"),
        ("messages sent", ", ".join(f"{number:,} {kind}" for kind, number in report.sent.items())),
        ("faults injected", f"{len(report.injected):,}, of {len(names)} kinds"),
        ("not proved to have taken place", f"{len(report.unproved):,}"),
        ("checks of everything", f"{report.checks}"),
    ]
    if verdict is not None:
        rest = {name: number for name, number in verdict.problems.items() if name not in {"lost", "doubled"}}
        rows += [
            ("rows, dead letters", f"{verdict.rows:,}, {verdict.dead_letters:,}"),
            ("lost", f"{verdict.lost:,}"),
            ("doubled", f"{verdict.doubled:,}"),
            ("anything else that must not be", ", ".join(f"{number:,} {name}" for name, number in rest.items()) or "nothing"),
            ("forwarded more than once, written once", f"{verdict.redelivered:,}"),
            ("worst recovery", f"{worst[0]:.1f} s, {worst[1]}"),
        ]
    rows += [
        (f"peak memory of a {kind}", f"{size:.0f} MiB, bound {MEBIBYTES_MAX[kind]}") for kind, size in report.mebibytes.items()
    ]
    bounds = {name: fault.recovery_seconds for name, fault in all_faults().items()}
    for name in sorted({*names, *report.unproved}):
        recovered = f", recovered after {max(recoveries[name]):.1f} s at most (alone: {bounds[name]:g})" if recoveries[name] else ""
        missed = f", {report.unproved.count(name)} more not proved" if name in report.unproved else ""
        rows.append((f"`{name}`", f"{names[name]} times{recovered}{missed}"))
    return "\n".join(["| Soak | |", "|---|---|", *(f"| {what} | {came} |" for what, came in rows)])
