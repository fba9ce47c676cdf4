"""The scenes of one fault through a real Alertmanager: its word against that of the model. Collected by `make alertmanager`.

The model plays the same scenes in every run, in ``tests/unit/test_alertmanager_example.py``.
"""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml
from alert_scenes import CONFIGURATION, SCENES, Scene

from dev_servers.ports import HOST, free_port
from dev_servers.process import Launch
from dev_servers.server import Server

AGREE_SECONDS = 30.0


def program(*names: str) -> str:
    """The first of these that is on the PATH."""
    found = next(filter(None, map(shutil.which, names)), None)
    assert found is not None, "install Alertmanager with amtool (Debian, Ubuntu: apt-get install prometheus-alertmanager)"
    return found


class Alertmanager(Server):
    """With the project's own configuration; nobody listens where it calls."""

    name = "alertmanager"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = free_port()

    def ask(self, path: str, content: Any = None) -> Any:
        """Its API's answer; ``content`` is sent to it."""
        request = urllib.request.Request(
            f"http://{HOST}:{self.port}/api/v2/{path}",
            data=None if content is None else json.dumps(content).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - likewise
            text = answer.read()
        return json.loads(text) if text else None

    def told(self) -> list[tuple[str, list[str]]]:
        """Each group with the alerts in it that nothing hides, but those for nobody."""
        silent = {receiver["name"] for receiver in yaml.safe_load(CONFIGURATION.read_text())["receivers"] if len(receiver) == 1}
        groups = (
            (group["receiver"]["name"], sorted(each["labels"]["alertname"] for each in group["alerts"] if not hides(each)))
            for group in self.ask("alerts/groups")
        )
        return sorted((receiver, names) for receiver, names in groups if names and receiver not in silent)

    def _launch(self) -> Launch:
        return Launch(
            [
                program("prometheus-alertmanager", "alertmanager"),
                f"--config.file={CONFIGURATION}",
                f"--storage.path={self.directory}",
                f"--web.listen-address={HOST}:{self.port}",
                "--cluster.listen-address=",
            ],
            directory=self.directory,
        )

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/-/ready", timeout=2) as answer:
                return bool(answer.status == HTTPStatus.OK)
        except OSError:
            return False


def hides(alert: dict[str, Any]) -> bool:
    """Whether it is known, and told to nobody."""
    return bool(alert["status"]["inhibitedBy"])


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    """One that knows of no alert yet."""
    with Alertmanager(tmp_path) as server:
        yield server


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_one_fault_is_one_page(scene: Scene, alertmanager: Alertmanager) -> None:
    alertmanager.ask("alerts", [{"labels": labels} for labels in scene.firing])
    expected = sorted((receiver, sorted(names)) for receiver, names in scene.told)
    deadline = time.monotonic() + AGREE_SECONDS
    while not (len(alertmanager.ask("alerts")) == len(scene.firing) and alertmanager.told() == expected):
        assert time.monotonic() < deadline, alertmanager.told()
        time.sleep(0.1)


def test_amtool_finds_no_fault() -> None:
    command = [program("amtool"), "check-config", str(CONFIGURATION)]
    assert "SUCCESS" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
