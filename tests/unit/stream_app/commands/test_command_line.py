"""The command line is ours: Faust's own commands are gone, and help says what is so here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pipeline
from pipeline.settings import settings_help
from stream_app.commands.faust_help import NOT_OURS, SETTINGS

OURS = ["dead-letters", "export", "keys", "migrate", "monitor", "positions", "reveal", "reveals", "worker"]


def faust(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("faust"), "-A", "stream_app", *arguments],
        env={"PATH": os.environ["PATH"], **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_is_about_our_commands_and_options_and_no_others() -> None:
    text = faust("--help").stdout
    assert text.startswith("Usage: faust -A stream_app [OPTIONS] COMMAND [ARGS]...\n")
    assert f"login-stream {pipeline.__version__}:" in text
    options, commands = text.split("Commands:\n")
    listed = [line.split()[0] for line in commands.splitlines() if line.startswith("  ") and line[2] != " "]
    assert set(listed) >= set(OURS)
    assert not set(listed) & set(NOT_OURS)
    for other in ("--datadir", "--loglevel", "--console-port", "--workdir", "WARN"):
        assert other not in options


def test_help_of_a_command_says_how_it_is_called_and_what_it_reads() -> None:
    text = faust("worker", "--help").stdout
    assert text.startswith("Usage: faust -A stream_app worker [OPTIONS]\n")
    assert "WINDOW_SECONDS (default " in text
    assert "POSTGRES_DSN (no default)" in text
    for other in ("WARN", "0.0.0.0", "6066]", "--web-transport"):  # noqa: S104 - Faust's default, which is none here
        assert other not in text.partition("Settings, from the environment")[0]


def test_faust_s_own_commands_are_no_commands() -> None:
    done = faust("send", "logins", "a value")
    assert done.returncode == 2
    assert "No such command 'send'" in done.stderr


def test_a_data_directory_is_refused(tmp_path: Path) -> None:
    done = faust("--datadir", str(tmp_path), "migrate")
    assert done.returncode == 2
    assert "--datadir: there is none here" in done.stderr


def test_json_is_understood_after_the_command_too(tmp_path: Path) -> None:
    done = faust("keys", "create", "--directory", str(tmp_path / "keys"), "--json")
    assert json.loads(done.stdout)["MASKING_KEYSET_FILE"] == str(tmp_path / "keys" / "masking.keyset.json")


def test_every_command_that_reads_settings_lists_them() -> None:
    assert set(SETTINGS) == set(OURS) - {"export", "keys"}
    assert "KAFKA_TOPIC (default logins)" in settings_help(SETTINGS["monitor"])


def login_stream(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from stream_app.command_line import main; sys.argv[0] = 'login-stream'; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_the_wheel_s_command_is_the_same_without_naming_the_app_and_says_our_version() -> None:
    assert login_stream("--version").stdout == f"login-stream, version {pipeline.__version__}\n"
    text = login_stream("--help").stdout
    assert text.startswith("Usage: login-stream [OPTIONS] COMMAND [ARGS]...\n")
    listed = [line.split()[0] for line in text.split("Commands:\n")[1].splitlines() if line.startswith("  ") and line[2] != " "]
    assert listed == sorted(["bridge", *OURS])
    assert "-A" not in text
    assert "Usage: login-stream bridge sqs [OPTIONS]" in login_stream("bridge", "sqs", "--help").stdout


def test_no_command_but_the_bridge_s_loads_boto3() -> None:
    """A worker's memory is what it is because of that."""
    code = "import sys, stream_app.command_line; from stream_app.application import app; print('boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
