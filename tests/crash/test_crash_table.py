"""The table says what each fault did wherever its test ran, and a run that takes too long fails."""

import os
from pathlib import Path

import pytest

from crash.table import PROPERTY, Table

TESTS = Path(__file__).parent.parent
A_SUITE = """
import pytest

@pytest.mark.parametrize("name", ["one", "two"])
def test_made_up(name, record_property):
    record_property("crash", f"7 {name}: ok: made up")
"""

pytest_plugins = ["pytester"]


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Two cases that do nothing, in the place of the faults."""
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{pytester.path}")
    monkeypatch.delenv("CRASH_WHOLE", raising=False)
    pytester.makepyprojecttoml("")
    file = pytester.mkdir("tests").joinpath("crash")
    file.mkdir()
    (file / "test_crash.py").write_text(A_SUITE)
    return pytester


@pytest.mark.parametrize("beside_each_other", [[], ["-n2", "--dist=loadfile"]])
def test_a_run_in_order_shows_each_fault(suite: pytest.Pytester, beside_each_other: list[str]) -> None:
    result = suite.runpytest_subprocess("-p", "crash.table", *beside_each_other)
    result.stdout.fnmatch_lines(["*faults, seed 7*", "one: ok: made up", "two: ok: made up", "2 faults in * s"])
    assert result.ret == 0


def test_a_run_that_takes_too_long_fails(suite: pytest.Pytester) -> None:
    suite.makepyfile(slow="import crash.table\ncrash.table.FAST_SECONDS_MAX = 0.0\n")
    result = suite.runpytest_subprocess("-p", "slow", "-p", "crash.table", "-p", "no:xdist")
    result.stdout.fnmatch_lines(["*s for all faults; the bound is 0 s"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_time_goes_from_the_first_phase_to_the_last_wherever_they_ran() -> None:
    table = Table(3.0)
    table.add("a", 10.0, 11.0, ())
    table.add("a", 11.0, 12.5, [(PROPERTY, "7 a: ok"), ("other", 1)])
    table.add("b", 10.5, 13.0, ())
    assert (table.took_too_long, table.lines, table.seeds) == ("", ["a: ok"], {7})
    table.add("b", 13.0, 14.0, ())
    assert table.took_too_long == "4 s for all faults; the bound is 3 s"
