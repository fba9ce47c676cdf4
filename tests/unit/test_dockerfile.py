"""The image, as far as it can be held to the code without building it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from packaging.specifiers import SpecifierSet

from bridges.settings import BridgeSettings
from stream_app.monitor.settings import MonitorSettings
from stream_app.settings import WorkerSettings
from tools import settings_reference

PROJECT = Path(__file__).parents[2]
DOCKERFILE = PROJECT / "Dockerfile"
PYTHON_VARIABLES = {"PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined, comments gone."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(match[1], " ".join(match[2].split())) for match in re.finditer(r"^([A-Z]+) (.+)$", text, re.MULTILINE)]


def of(name: str) -> list[str]:
    """The arguments of each instruction of this name."""
    return [arguments for instruction, arguments in instructions() if instruction == name]


def variables() -> dict[str, str]:
    """What ENV sets."""
    return dict(pair.split("=", 1) for arguments in of("ENV") for pair in arguments.split())


def packages() -> list[str]:
    """The packages of the product, as the wheel has them."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    return list(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])


def copied_from_context() -> set[str]:
    """What COPY takes from the repository."""
    return {arguments.split()[0] for arguments in of("COPY") if not arguments.startswith("--from")}


@pytest.fixture(scope="module")
def image_content(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the image has in /app."""
    app = tmp_path_factory.mktemp("app")
    for package in packages():
        shutil.copytree(PROJECT / package, app / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "docker" / "sitecustomize.py", app)
    yield app
    shutil.rmtree(app)


def run_in_image(content: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on the image's content alone, with the image's own environment."""
    environment = {name: value for name, value in variables().items() if name != "PATH"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=content,
        env={**environment, "PYTHONPATH": str(content), "PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_linter_finds_nothing() -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--no-color", DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_all_stages_have_one_base_pinned_by_exact_version_that_the_project_supports() -> None:
    bases = {arguments.split()[0] for arguments in of("FROM")}
    assert len(bases) == 1
    match = re.fullmatch(r"python:(3\.\d+\.\d+)-slim-[a-z]+(@sha256:[0-9a-f]{64})?", bases.pop())
    assert match
    supported = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert match[1] in SpecifierSet(supported)


def test_it_runs_as_a_numbered_user_that_is_not_root() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", of("USER")[-1])


def test_it_starts_the_worker_without_a_shell_between_and_stops_by_sigterm() -> None:
    assert json.loads(of("CMD")[-1]) == ["faust", "-A", "stream_app", "worker"]
    assert of("STOPSIGNAL") == ["SIGTERM"]
    assert of("ENTRYPOINT") == []


def test_it_holds_the_product_and_nothing_else() -> None:
    assert copied_from_context() == {*packages(), "docker/sitecustomize.py", "requirements.lock", "LICENSE"}


def test_only_what_is_copied_reaches_the_builder() -> None:
    rules = [line for line in (PROJECT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied_from_context()
    assert "**/*.keyset.json" in rules[rules.index("!stream_app") :]


def test_its_variables_are_known_settings() -> None:
    assert variables().keys() - PYTHON_VARIABLES <= settings_reference.variables(BridgeSettings, WorkerSettings, MonitorSettings)


def test_no_variable_or_build_argument_holds_a_secret() -> None:
    assert [name for name in variables() if re.search(r"PASSWORD|SECRET|TOKEN|DSN|KEY", name)] == []
    assert of("ARG") == []


def test_the_ports_it_tells_are_the_defaults() -> None:
    defaults = {
        BridgeSettings.model_fields["bridge_web_port"].default,
        WorkerSettings.model_fields["web_port"].default,
        MonitorSettings.model_fields["monitor_web_port"].default,
    }
    assert {int(port) for arguments in of("EXPOSE") for port in arguments.split()} == defaults


@pytest.mark.parametrize(
    "command",
    [
        ("faust", "-A", "stream_app", "worker", "--help"),
        ("faust", "-A", "stream_app", "migrate", "--help"),
        ("faust", "-A", "stream_app", "keys", "create", "--help"),
        ("bridges", "sqs", "--help"),
    ],
)
def test_its_content_is_enough_to_start(command: tuple[str, ...], image_content: Path) -> None:
    result = run_in_image(image_content, "-m", *command)
    assert result.returncode == 0, result.stderr
    assert "Usage:" in result.stdout


def test_its_content_holds_the_sql_files(image_content: Path) -> None:
    assert len(list((image_content / "stream_app" / "postgres" / "sql" / "migrations").glob("*.sql"))) > 0
    result = run_in_image(image_content, "-c", "import stream_app.postgres.migrations as m; assert m.known_migrations()")
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "--user", "--pid", "--fork", "true"], capture_output=True, check=False).returncode != 0,
    reason="needs a process namespace of its own",
)
def test_a_stop_in_the_moment_of_a_containers_start_is_not_lost(image_content: Path) -> None:
    environment = {
        "PYTHONPATH": str(image_content),
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "SQS_QUEUE_URL": "http://127.0.0.1:1/1/queue",
        "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "made-up",
        "AWS_SECRET_ACCESS_KEY": "made-up",
        "BRIDGE_WEB_PORT": "0",
    }
    unshare = subprocess.Popen(
        ["unshare", "--user", "--pid", "--fork", "--kill-child", sys.executable, "-m", "bridges", "sqs"],
        cwd=image_content,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 30
        while not (first := [each for each in psutil.Process(unshare.pid).children() if _keeps_sigterm(each.pid)]):
            assert time.monotonic() < deadline, "Python has not begun"
        os.kill(first[0].pid, signal.SIGTERM)
        _, log = unshare.communicate(timeout=60)
    finally:
        unshare.kill()
    assert unshare.returncode == 0, log
    assert "policy_in_force" in log, "the signal came before all else"


def _keeps_sigterm(pid: int) -> bool:
    """Whether it is Python, not what starts it, and has SIGTERM blocked."""
    if b"bridges" not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:3]:
        return False
    blocked = re.search(r"^SigBlk:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return blocked is not None and bool(int(blocked[1], 16) & 1 << signal.SIGTERM - 1)


def test_nothing_is_written_beside_the_content(image_content: Path) -> None:
    before = sorted(image_content.rglob("*"))
    assert run_in_image(image_content, "-m", "faust", "-A", "stream_app", "worker").returncode != 0  # it lacks POSTGRES_DSN
    assert sorted(image_content.rglob("*")) == before
