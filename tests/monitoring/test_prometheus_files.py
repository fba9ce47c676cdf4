"""What Prometheus's own tool says of configuration and rules."""

import subprocess
from pathlib import Path

import pytest
from monitoring.quicker_rules import quicker, write_quicker_rules

from dev_servers.prometheus import CONFIGURATION, RULES, program

RULE_TESTS = sorted((CONFIGURATION.parent / "tests").glob("*.yml"))


def promtool(*arguments: str | Path) -> str:
    """What it says; the test fails if it finds something."""
    result = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_configuration_finds_its_rules() -> None:
    assert f"SUCCESS: {CONFIGURATION} is valid" in promtool("check", "config", CONFIGURATION)


def test_rules_have_no_fault_and_no_twin() -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint=all", "--lint-fatal", *sorted(RULES.glob("*.yml")))


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.stem)
def test_alerts_fire_and_are_silent_with_the_words_that_people_will_read(file: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", file)


def test_quicker_rules_differ_in_their_durations_alone(tmp_path: Path) -> None:
    rules = """groups:
- name: one
  rules:
  - alert: Late
    expr: rate(a_5m[15m]) > 2 unless a_5m offset 1h and b > 30 and c[3d:5m] and d:open_transaction_seconds:max > 60
    for: 2m
    annotations:
      summary: after 5m
"""
    expected = rules
    for long, short in (
        ("[15m]", "[90000ms]"),
        ("1h", "360000ms"),
        (" 2m", " 12000ms"),
        ("[3d:5m]", "[25920000ms:30000ms]"),
        ("> 60", "> 6"),
    ):
        expected = expected.replace(long, short)
    assert " ".join(quicker(rules, 10).split()) == " ".join(expected.split()), "but for where lines end"
    promtool("check", "rules", *write_quicker_rules(tmp_path / "rules", 10).iterdir())
