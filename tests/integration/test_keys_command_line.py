"""`faust -A stream_app keys create` as a user runs it, on a machine where nothing is set up."""

import os
import subprocess
import sys
from pathlib import Path

FAUST = Path(sys.executable).with_name("faust")
REPOSITORY = Path(__file__).parents[2]


def test_keys_are_made_without_any_setting_keyset_or_server(tmp_path: Path) -> None:
    command: list[str | Path] = [FAUST, "-A", "stream_app", "keys", "create", "--directory", tmp_path / "keys"]

    made = subprocess.run(command, cwd=REPOSITORY, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)
    again = subprocess.run(command, cwd=REPOSITORY, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)

    assert (made.returncode, made.stderr) == (0, "")
    assert f"MASKING_KEYSET_FILE={tmp_path}/keys/masking.keyset.json" in made.stdout.splitlines()
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("Error: ")
    assert again.stderr.count("\n") == 1
