"""The project's own files: Makefile, locks, CI script, licence, changelog."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

import pipeline
from dev_servers.cache import cache_directory
from tools import locks

PROJECT = Path(__file__).parents[2]

PYPROJECT: dict[str, Any] = {
    "project": {"dependencies": ["alpha>=1", "Beta_Two==2.0"]},
    "dependency-groups": {"test": ["gamma>=3"], "dev": [{"include-group": "test"}]},
}
PIN = """\
{name}=={version} \\
    --hash=sha256:00 \\
    --hash=sha256:11
    # via {via}
"""


def lock(**pins: str) -> str:
    """A lock file's text; pins named in capitals came with another package."""
    return "".join(
        PIN.format(
            name=name.lower().replace("_", "-"), version=version, via="beta-two" if name.isupper() else "it (pyproject.toml)"
        )
        for name, version in pins.items()
    )


PRODUCT = lock(alpha="1.5", beta_two="2.0", DELTA="9")
DEVELOPMENT = lock(alpha="1.5", beta_two="2.0", gamma="3.1", DELTA="9")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "--no-print-directory", *arguments], cwd=PROJECT, capture_output=True, text=True, check=False)


def test_the_locks_in_the_repository_are_fresh() -> None:
    assert locks.main(["--check"]) == 0


def test_fresh_locks_have_no_problem() -> None:
    assert locks.problems(PYPROJECT, PRODUCT, DEVELOPMENT) == []


def test_a_dependency_that_was_added_is_missed_in_both_locks() -> None:
    pyproject = {**PYPROJECT, "project": {"dependencies": [*PYPROJECT["project"]["dependencies"], "delta"]}}
    assert locks.problems(pyproject, PRODUCT, DEVELOPMENT) == [
        "requirements.lock: delta is in pyproject.toml and not in the lock",
        "requirements-dev.lock: delta is in pyproject.toml and not in the lock",
    ]


def test_a_dependency_that_was_removed_is_noticed() -> None:
    pyproject = {**PYPROJECT, "dependency-groups": {"dev": []}}
    assert locks.problems(pyproject, PRODUCT, DEVELOPMENT) == ["requirements-dev.lock: gamma is no longer in pyproject.toml"]


def test_a_pin_outside_of_what_pyproject_allows_is_noticed() -> None:
    found = locks.problems(PYPROJECT, PRODUCT, DEVELOPMENT.replace("gamma==3.1", "gamma==2.9"))
    assert found == ["requirements-dev.lock: gamma is pinned at 2.9, pyproject.toml wants >=3"]


def test_locks_that_disagree_are_noticed() -> None:
    found = locks.problems(PYPROJECT, PRODUCT, DEVELOPMENT.replace("delta==9", "delta==8"))
    assert found == ["requirements-dev.lock: delta is not what requirements.lock has"]


def test_a_pin_without_hash_is_noticed() -> None:
    assert locks.problems(PYPROJECT, PRODUCT, DEVELOPMENT + "epsilon==1\n    # via gamma\n") == [
        "requirements-dev.lock: epsilon has no hash"
    ]


def test_a_download_address_is_noticed() -> None:
    found = locks.problems(PYPROJECT, "--index-url https://example.org\n" + PRODUCT, DEVELOPMENT)
    assert found == ["requirements.lock: holds a download address"]


def test_a_package_that_differs_by_python_is_one_pin_of_two_versions() -> None:
    twice = lock(networkx="3.6").replace("=3.6 ", "=3.6 ; python_full_version < '3.12' ") + lock(networkx="3.7")
    assert locks.read_lock(twice)["networkx"].versions == {"3.6", "3.7"}


def test_make_alone_lists_every_target() -> None:
    targets = set(re.findall(r"^\.PHONY: (\S+)$", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    listed = dict(line.removeprefix("make ").split(maxsplit=1) for line in make().stdout.splitlines())
    assert targets == set(listed)
    assert {"install", "check", "test", "test-fast", "demo", "bench-worker", "lock"} <= targets


def test_make_demo_passes_its_words_on() -> None:
    assert (
        make("-n", "demo", "INPUT=my logins.json.gz", "KEEP=1")
        .stdout.splitlines()[-1]
        .endswith("-m dev_servers.demo --input 'my logins.json.gz' --keep")
    )
    assert make("-n", "demo", "SEND=1000").stdout.splitlines()[-1].endswith("-m dev_servers.running_demo send '1000'")
    assert make("-n", "demo", "KILL=worker-1").stdout.splitlines()[-1].endswith("-m dev_servers.running_demo kill 'worker-1'")
    assert make("-n", "demo").stdout.splitlines()[-1].rstrip().endswith("-m dev_servers.demo")


def test_make_crash_names_the_faults_and_plays_one() -> None:
    names = make("crash", "LIST=1").stdout.splitlines()
    assert "worker-killed-mid-batch" in names
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z0-9-]+", name) for name in names)
    played = make("-n", "crash", "FAULT=worker-killed-mid-batch", "SEED=7").stdout.splitlines()[-1]
    assert played.startswith("CRASH_WHOLE=1 CRASH_FAULT='worker-killed-mid-batch' CRASH_SEED='7' ")


def test_make_without_a_python_that_fits_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((PROJECT / "Makefile").read_text())
    (tmp_path / "requirements-dev.lock").touch()
    result = subprocess.run(["make", "install", "PYTHON="], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "no Python from 3.11 to 3.14" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_test_without_a_prometheus_that_can_be_had_says_what_to_install(tmp_path: Path) -> None:
    program = shutil.which("make")
    assert program is not None
    command = [program, "--old-file=install", "test"]
    environment = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    (tmp_path / "cache" / "login-stream").mkdir(parents=True)
    (tmp_path / "cache" / "login-stream" / "jars").symlink_to(cache_directory() / "jars")  # as this machine has them
    result = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "apt-get install prometheus; macOS: brew install prometheus" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("lock_file", [locks.PRODUCT_LOCK, locks.DEVELOPMENT_LOCK])
def test_locks_are_installed_by_hash_only(lock_file: str) -> None:
    installer = PROJECT / ("Dockerfile" if lock_file == locks.PRODUCT_LOCK else "Makefile")
    commands = [line for line in installer.read_text().splitlines() if f"-r {lock_file}" in line]
    assert len(commands) == 1
    assert "--require-hashes" in commands[0]
    assert "--only-binary :all:" in commands[0]


def test_ci_runs_what_the_makefile_calls_check_and_test() -> None:
    script = (PROJECT / ".ci" / "run").read_text()
    assert script.startswith("#!/usr/bin/env bash\n")
    assert script.splitlines()[-1] == "make check test"
    assert subprocess.run(["bash", "-n", PROJECT / ".ci" / "run"], check=False).returncode == 0


def test_pythons_named_in_the_makefile_are_those_of_pyproject() -> None:
    supported = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["requires-python"]
    lowest, above = re.findall(r"3\.(\d+)", supported)
    assert f"(3, {lowest}) <= sys.version_info < (3, {above})" in (PROJECT / "Makefile").read_text()


def test_the_licence_is_the_one_that_pyproject_names() -> None:
    assert tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"
    text = (PROJECT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_tells_of_this_version_or_of_what_is_not_released_yet() -> None:
    changelog = (PROJECT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert headings
    assert headings[0] in {"Unreleased", pipeline.__version__}
