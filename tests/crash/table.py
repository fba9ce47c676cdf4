"""The table at the end of a test run: what each fault did, how long it took, and whether all together took too long.

With tests beside each other (pytest-xdist) a test's process is not the one that prints, so each line travels as a property of the
test's report. A plugin of tests/conftest.py: the process that prints collects nothing and never sees crash/conftest.py.
"""

import os
from collections.abc import Iterable
from math import inf

import pytest

PROPERTY = "crash"
"""Of a test: seed, then the line of its fault."""

CASES = "tests/crash/test_crash.py::"
FAST_SECONDS_MAX = 4 * 60.0
"""For those that each run of the tests has, together."""
WHOLE_SECONDS_MAX = 40 * 60.0
"""For all."""


class Table:
    """What is known of the faults that ran, in this process or another."""

    def __init__(self, seconds_max: float) -> None:
        self.seconds_max = seconds_max
        self.seeds: set[int] = set()
        self.lines: list[str] = []
        self.names: set[str] = set()
        """Of the tests that ran."""
        self._began = inf
        self._ended = -inf

    def add(self, name: str, began: float, ended: float, properties: Iterable[tuple[str, object]]) -> None:
        """One phase of one test, from ``began`` to ``ended`` in seconds of the wall clock."""
        self.names.add(name)
        self._began, self._ended = min(self._began, began), max(self._ended, ended)
        for key, value in properties:
            if key == PROPERTY:
                seed, _, line = str(value).partition(" ")
                self.seeds.add(int(seed))
                self.lines.append(line)

    @property
    def seconds(self) -> float:
        """From the beginning of the first test to the end of the last one."""
        return self._ended - self._began

    @property
    def took_too_long(self) -> str:
        """In words; empty if it did not."""
        if self.seconds <= self.seconds_max:
            return ""
        return f"{self.seconds:.0f} s for all faults; the bound is {self.seconds_max:g} s"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called where the table is printed, too."""
        if report.nodeid.startswith(CASES):
            self.add(report.nodeid, report.start, report.stop, report.user_properties if report.when == "call" else ())

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run."""
        if self.took_too_long and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """One line a fault."""
        if not self.names:
            return
        terminalreporter.section(f"faults, seed {', '.join(map(str, sorted(self.seeds)))}")
        for line in self.lines:
            terminalreporter.line(line)
        terminalreporter.line(f"{len(self.names)} faults in {self.seconds:.0f} s")
        if self.took_too_long:
            terminalreporter.line(self.took_too_long, red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Be there."""
    config.pluginmanager.register(Table(WHOLE_SECONDS_MAX if os.environ.get("CRASH_WHOLE") else FAST_SECONDS_MAX))
