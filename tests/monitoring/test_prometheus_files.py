"""What Prometheus's own tool says of configuration and rules."""

import subprocess
from pathlib import Path

import pytest

from dev_servers.prometheus import CONFIGURATION, RULES, installed

RULE_TESTS = sorted((CONFIGURATION.parent / "tests").glob("*.yml"))


def promtool(*arguments: str | Path) -> str:
    """What it says; the test fails if it finds something."""
    result = subprocess.run([installed("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_configuration_finds_its_rules() -> None:
    assert f"SUCCESS: {CONFIGURATION} is valid" in promtool("check", "config", CONFIGURATION)


def test_rules_have_no_fault_and_no_twin() -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint=all", "--lint-fatal", *sorted(RULES.glob("*.yml")))


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.stem)
def test_alerts_fire_and_are_silent_with_the_words_that_people_will_read(file: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", file)
