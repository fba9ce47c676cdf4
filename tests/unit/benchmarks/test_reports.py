"""What follows from runs: medians, ratios, targets, tables, files."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from benchmarks import bridge, worker
from benchmarks.__main__ import main
from benchmarks.machine import Machine, this_machine
from benchmarks.report import Contender, Outcome, Quantity, Report, Results, Run, Spread, Target, merged, percentile, read, write
from benchmarks.tables import figures_table, report_text, results_text, spread_text, targets_table

RATE = Quantity("rate", "rows/s")
CPU = Quantity("cpu", "CPU us a row", 1)


def report(*runs: Run, targets: tuple[Target, ...] = (), contenders: tuple[str, ...] = ("ours", "theirs")) -> Report:
    return Report("worker", "How fast?", "- As it is.", [Contender(name) for name in contenders], (RATE, CPU), targets, runs)


def outcome(target: Target, *runs: Run) -> Outcome:
    return report(*runs, targets=(target,)).outcomes()[0]


def results(*reports: Report) -> Results:
    return Results(Machine("a CPU", 2, 4096, "Linux"), "2026-11-24T01:02:03Z", "abc", {"Kafka": "4.1"}, reports)


def test_a_spread_is_median_least_and_most() -> None:
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100), (0.0, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert percentile(range(1, 101), share) == expected


def test_a_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.99) == 7.0


@pytest.mark.parametrize(("at_least", "bound", "met"), [(True, 5, True), (True, 5.1, False), (False, 5, True), (False, 4.9, False)])
def test_a_target_is_met_by_the_median_on_its_own_side(at_least: bool, bound: float, met: bool) -> None:  # noqa: FBT001
    runs = [Run("ours", number, {"rate": value}) for number, value in enumerate((1.0, 5.0, 9.0), start=1)]
    assert outcome(Target("speed", "ours", "rate", bound, at_least=at_least), *runs).met is met


def test_a_ratio_is_taken_round_by_round() -> None:
    """The second round was slow for both: a ratio of medians would be 3, and no round had it."""
    runs = [
        Run("ours", 1, {"rate": 20.0}),
        Run("theirs", 1, {"rate": 10.0}),
        Run("ours", 2, {"rate": 2.0}),
        Run("theirs", 2, {"rate": 1.0}),
        Run("ours", 3, {"rate": 30.0}),
        Run("theirs", 3, {"rate": 5.0}),
    ]
    found = outcome(Target("ratio", "ours", "rate", 2, at_least=True, against="theirs"), *runs)
    assert found.spread == Spread(2.0, 2.0, 6.0)


def test_a_round_in_which_one_has_no_figures_has_no_ratio() -> None:
    runs = [Run("ours", 1, {"rate": 20.0}), Run("theirs", 2, {"rate": 10.0}), Run("theirs", 1, problem="ended early")]
    found = outcome(Target("ratio", "ours", "rate", 2, at_least=True, against="theirs"), *runs)
    assert (found.spread, found.met) == (None, None)


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    text = targets_table([report(targets=(Target("speed", "ours", "rate", 5),))])
    assert text.splitlines()[-1].split("|")[2:5] == [" <= 5   ", " not measured ", " -   "]


def test_a_table_shows_each_figure_with_its_spread_and_each_problem_once() -> None:
    runs = [
        Run("ours", 1, {"rate": 1_000.4, "cpu": 8.25}),
        Run("ours", 2, {"rate": 3_000.0, "cpu": 8.25}),
        Run("theirs", 1, problem="999 rows instead of 1,000"),
        Run("theirs", 2, problem="999 rows instead of 1,000"),
    ]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in figures_table(report(*runs)).splitlines()]
    assert cells[0] == ["", "rows/s", "CPU us a row", "notes"]
    assert cells[2:] == [
        ["ours", "2,000 (1,000 to 3,000)", "8.2", ""],
        ["theirs", "-", "-", "999 rows instead of 1,000"],
    ]


def test_a_quantity_that_no_run_has_is_no_column() -> None:
    assert "CPU" not in figures_table(report(Run("ours", 1, {"rate": 1.0})))


def test_a_single_value_has_no_spread() -> None:
    assert spread_text(Spread(1.5, 1.5, 1.5), 1) == "1.5"


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    target = Target("ratio", "ours", "rate", 2, at_least=True, against="theirs")
    written = results(report(Run("ours", 1, {"rate": 1.5}), Run("theirs", 1, problem="ended early"), targets=(target,)))
    write(written, tmp_path / "new" / "results.json")
    found = read(tmp_path / "new" / "results.json")
    assert results_text(found) == results_text(written)
    assert found.reports[0].runs == list(written.reports[0].runs)


def test_another_file_is_no_results_file(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text('{"machine": 1}')
    with pytest.raises(msgspec.ValidationError):
        read(file)


def test_rounds_that_were_measured_apart_are_put_together_and_stay_rounds() -> None:
    first = report(Run("ours", 1, {"rate": 10.0}), Run("theirs", 1, {"rate": 5.0}))
    second = report(Run("ours", 1, {"rate": 40.0}), Run("theirs", 1, {"rate": 10.0}))
    together = merged([first, second])
    assert len(together) == 1
    assert together[0].values("ours", "rate") == {1: 10.0, 2: 40.0}
    assert together[0].values("theirs", "rate") == {1: 5.0, 2: 10.0}


def test_a_contender_of_one_session_alone_keeps_its_row() -> None:
    together = merged([report(contenders=("ours", "theirs")), report(contenders=("ours", "third"))])[0]
    assert [contender.name for contender in together.contenders] == ["theirs", "ours", "third"]


def test_a_results_page_has_machine_versions_targets_figures_and_method() -> None:
    target = Target("speed of ours", "ours", "rate", 5, at_least=True)
    text = results_text(results(report(Run("ours", 1, {"rate": 10.0}), targets=(target,))))
    assert text.startswith("# Benchmarks of 2026-11-24\n\na CPU, 2 cores, 4 GiB, Linux. Commit abc. Kafka 4.1.")
    assert text.count("speed of ours") == 2, "in the table of all targets and in its own benchmark's"
    assert "## How fast?" in text
    assert text.endswith("- As it is.")


def test_several_rounds_are_said_so() -> None:
    runs = [Run("ours", number, {"rate": 1.0}) for number in (1, 2, 3)]
    assert "Median of 3 rounds" in report_text(report(*runs))
    assert "One round." in report_text(report(runs[0]))


def test_this_machine_is_described() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.memory_mib > 100
    assert machine.cpu


def test_what_was_measured_before_a_benchmark_failed_is_kept_until_all_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(**_: object) -> Report:
        return report(Run("ours", 1, {"rate": 100.0}))

    def failed(**_: object) -> Report:
        raise LookupError("a defect")

    for module in (worker, bridge):
        monkeypatch.setattr(module, "measure", lambda _, **options: measured(**options))
    command = ["--only", "worker", "--only", "bridge", "--directory", str(tmp_path)]
    assert CliRunner().invoke(main, command).exit_code == 0
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".md"]
    (whole,) = tmp_path.glob("*.json")

    monkeypatch.setattr(bridge, "measure", lambda _, **options: failed(**options))
    assert isinstance(CliRunner().invoke(main, command).exception, LookupError)
    (unfinished,) = tmp_path.glob("*-unfinished.json")
    assert (len(read(whole).reports), len(read(unfinished).reports)) == (2, 1)
