"""Faust reads the environment in many places; the App and its command line are the same whatever stands there.

Which variables there are is asked of Faust itself, so that those of a new version are tested, too.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.setting_names import SETTING_NAMES

PROJECT = Path(__file__).parents[3]
ASIDE: dict[str, str] = {"PATH": os.defpath, "PYTHONPATH": str(PROJECT), "HOME": "/nonexistent"}

ASK_FAUST = """
import importlib, json, os, pkgutil, sys
asked = set()
class Asked(type(os.environ)):
    def __getitem__(self, name):
        frame = sys._getframe(1)
        while frame is not None and (frame.f_globals.get("__name__") or "") in ("collections.abc", "os", "__main__"):
            frame = frame.f_back
        if frame is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("faust", "mode"):
            asked.add(name)
        return super().__getitem__(name)
os.environ.__class__ = Asked
import faust, mode
for package in (faust, mode):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".", onerror=lambda name: None):
        if not module.name.endswith("__main__") and "gevent" not in module.name and "eventlet" not in module.name:
            try:
                importlib.import_module(module.name)
            except ImportError:
                pass
from faust.types.settings import Settings
settings = [setting.env_name for setting in Settings.SETTINGS.values() if setting.env_name]
print(json.dumps({"settings": settings, "at_import": sorted(asked)}))
"""

SHOW_APP = """
import json, re, warnings
warnings.simplefilter("error")
from stream_app.application import app
conf = app.conf
names = sorted(name for name, setting in conf.SETTINGS.items() if setting.active and not setting.deprecated)
shown = {name: re.sub(" at 0x[0-9a-f]+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "", repr(getattr(conf, name))) for name in names}
shown |= {"app": app.conf.id, "fixups": repr(app.fixups), "transport": type(app.transport).__name__}
print(json.dumps(shown))
"""

LOOPS = {"FAUST_LOOP", "F_LOOP"}
"""Faust loads what they name while it is imported."""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=PROJECT,
        env={**ASIDE, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def answer(code: str, environment: Mapping[str, str]) -> Any:
    result = run("-c", code, **environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])  # TYPEXPR_DEBUG prints before


@pytest.fixture(scope="module")
def odd_variables() -> dict[str, str]:
    """Every variable that Faust and mode know, with a value that nobody wants. Those of our own name are ours: they count."""
    known = answer(ASK_FAUST, {})
    settings, at_import = set(known["settings"]), set(known["at_import"])
    assert {"APP_VERSION", "BROKER_URL", "PROCESSING_GUARANTEE", "APP_ENV_PREFIX", "APP_DATADIR"} <= settings
    assert {"FAUST_DEBUG", "F_WORKDIR", "FAUST_DATADIR", "FAUST_STRICT", "F_CONSOLE_PORT", "FAUST_LOOP", "NO_CYTHON"} <= at_import
    assert len(settings) > 70
    odd = dict.fromkeys(at_import - LOOPS, "7")  # some must be numbers for Faust to be imported at all
    odd |= dict.fromkeys(settings - {"APP_ENV_PREFIX"}, "odd-1.2.3")
    odd |= {"DJANGO_SETTINGS_MODULE": "odd"}
    return {name: value for name, value in odd.items() if name not in SETTING_NAMES}


@pytest.fixture(scope="module")
def app_without() -> dict[str, str]:
    """The App's configuration in an empty environment."""
    shown: dict[str, str] = answer(SHOW_APP, {})
    return shown


def test_the_app_is_the_same_with_every_variable_that_faust_knows(
    odd_variables: dict[str, str], app_without: dict[str, str]
) -> None:
    assert answer(SHOW_APP, odd_variables) == app_without
    assert app_without["consumer_auto_offset_reset"] == "'earliest'"
    assert app_without["transport"] == "BatchTransport"


def test_nor_does_a_prefix_for_those_variables_matter(odd_variables: dict[str, str], app_without: dict[str, str]) -> None:
    environment = {"APP_ENV_PREFIX": "OTHER", **{f"OTHER_{name}": value for name, value in odd_variables.items()}}
    assert answer(SHOW_APP, environment) == app_without


def test_nor_do_values_that_faust_would_like(app_without: dict[str, str]) -> None:
    environment = {
        "APP_VERSION": "7", "BROKER_URL": "kafka://10.0.0.1:9092", "TIMEZONE": "Europe/Berlin", "BROKER_MAX_POLL_INTERVAL": "30",
        "PROCESSING_GUARANTEE": "exactly_once", "CONSUMER_AUTO_OFFSET_RESET": "latest", "APP_STORE": "rocksdb://",
        "FAUST_DATADIR": "elsewhere", "F_WEB_TRANSPORT": "unix:///x", "FAUST_STRICT": "1", "FAUST_DEBUG": "1",
    }  # fmt: skip
    assert answer(SHOW_APP, environment) == app_without


@pytest.mark.parametrize("arguments", [("--help",), ("worker", "--help"), ("keys", "create", "--help")])
def test_the_command_line_is_the_same_with_every_variable_that_faust_knows(
    arguments: tuple[str, ...], odd_variables: dict[str, str]
) -> None:
    result = run("-m", "faust", "-A", "stream_app", *arguments, **odd_variables)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Usage:" in result.stdout


def test_a_command_runs_where_it_was_started_and_not_where_a_variable_says(odd_variables: dict[str, str], tmp_path: Path) -> None:
    """Faust would change its directory to FAUST_WORKDIR, and end with a traceback where there is none."""
    result = run("-m", "faust", "-A", "stream_app", "keys", "create", "--directory", str(tmp_path / "keys"), **odd_variables)
    assert (result.returncode, result.stderr) == (0, "")


def test_what_the_command_line_itself_says_still_counts(odd_variables: dict[str, str], tmp_path: Path) -> None:
    arguments = ("keys", "create", "--directory", "made-here")
    result = run("-m", "faust", "-A", "stream_app", "--workdir", str(tmp_path), *arguments, **odd_variables)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "made-here" / "masking.keyset.json").exists()


@pytest.mark.parametrize("name", sorted(LOOPS))
def test_another_event_loop_by_a_variable_is_refused(name: str) -> None:
    """Faust has loaded it before anything of ours runs; here something harmless."""
    result = run("-m", "faust", "-A", "stream_app", "migrate", "--check", **{name: "string"})
    assert result.returncode == 1
    assert (
        result.stderr == "Error: FAUST_LOOP or F_LOOP: unset it; Faust took an event loop from there, and ours is asyncio's own\n"
    )
    assert run("-m", "faust", "-A", "stream_app", "--help", **{name: "aio"}).returncode == 0


def test_the_port_of_the_command_line_goes_before_the_setting() -> None:
    code = (
        "import sys; from stream_app.application import app; from stream_app.commands.worker import worker\n"
        "command = object.__new__(worker); command.app = app\n"
        "command._init_worker_options(with_web=True, web_port=7001, web_bind='0.0.0.0', web_host=None, web_transport=None)\n"
        "print(app.conf.web_port, app.conf.web_bind)"
    )
    result = run("-c", code, WEB_PORT="7000")
    assert result.stdout == "7001 0.0.0.0\n", result.stderr
