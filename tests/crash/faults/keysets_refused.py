"""Keysets are removed or spoiled: who runs goes on, who starts says what is wrong and ends."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from crash.faults import fault
from crash.faults.keysets import other_keysets, primary, restart, rows_by_key
from crash.system import System
from dev_servers.process import ChildProcess
from pipeline.ending import EXIT_REFUSED
from stream_app.commands.keys import DEAD_LETTER_PRIVATE, DEAD_LETTER_PUBLIC, MASKING, MASKING_HMAC, KeysetFile

STARTS_AT_ONCE = 4

END_SECONDS = 60.0
"""For a start that is refused: what it needs to say so on a busy machine."""


def _refused(system: System, starts: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Start workers that must end by themselves, by name with their settings; what each said."""
    children: dict[str, ChildProcess] = {}
    try:
        for name, settings in starts.items():
            children[name] = system.processes.start_worker(name, **settings)
        for name, child in children.items():
            code = child.wait(END_SECONDS)
            assert code == EXIT_REFUSED, f"{name} ended with {code}"
    finally:
        for name, child in children.items():
            child.kill()  # of those that have ended nothing is left to kill
            del system.processes.running[name]
    return {name: child.log_file.read_bytes()[child.log_from :].decode() for name, child in children.items()}


@fault(
    "keyset-removed",
    "Running workers go on with the keys they hold; a start ends with an error that names the setting, until the file is back.",
    recovery_seconds=10,
    soak=True,
)
def removed(system: System) -> Iterator[str]:
    """The masking keyset's file is gone for a while, and a worker is restarted in that time."""
    keyset = system.keys_directory / MASKING.name
    worker, began = system.worker, time.time()
    system.moment()
    away = keyset.rename(keyset.with_suffix(".away"))
    try:
        system.wait_flowing(200)
        assert system.processes.stop(worker) == {worker: 0}
        (said,) = _refused(system, {worker: {}}).values()
        system.prove("its start was refused", lambda: f"Error: {MASKING.setting}: the file it names does not exist" in said)
        assert "Traceback" not in said
        system.wait_flowing(100)  # by the other worker alone
    finally:
        away.rename(keyset)
    system.start_worker(worker)
    system.mended()
    system.processes.wait_ready(worker)
    assert set(rows_by_key(system, began)) == {primary(keyset)}
    yield "a worker's start was refused while the file was away"


def _spoiled(directory: Path) -> dict[KeysetFile, dict[Path, str]]:
    """Files that are no use as this keyset, and what a worker says of each."""
    masking, public = (directory / file.name for file in (MASKING, DEAD_LETTER_PUBLIC))
    text = masking.read_text()
    made = {name: directory / name for name in ("half", "empty", "bytes", "open-to-others", "directory")}
    made["directory"].mkdir()
    made["half"].write_text(text[: len(text) // 2])
    made["empty"].touch()
    made["bytes"].write_bytes(os.urandom(200) + b"\xff")
    made["open-to-others"].write_text(text)
    for name in ("half", "empty", "bytes"):
        made[name].chmod(0o600)
    made["open-to-others"].chmod(0o644)
    return {
        MASKING: {
            made["half"]: "the file it names is no Tink keyset",
            made["empty"]: "the file it names is no Tink keyset",
            made["bytes"]: "can't read the file it names",
            made["directory"]: "can't read the file it names",
            made["open-to-others"]: "the file it names is open to other users",
            directory / MASKING_HMAC.name: "the file it names is a keyset of another kind",
            public: "the file it names is a keyset of another kind",
        },
        DEAD_LETTER_PUBLIC: {
            directory / "nowhere": "the file it names does not exist",
            directory / DEAD_LETTER_PRIVATE.name: "the file it names is no public Tink keyset",
            masking: "the file it names is no public Tink keyset",
        },
    }


@fault(
    "keyset-unreadable",
    "Running workers go on with the keys they hold; a start with a keyset that can't be read, is damaged, of another kind, or open"
    " to others ends with an error that names the setting and tells nothing of the keys.",
    recovery_seconds=10,
    soak=True,
)
def unreadable(system: System) -> Iterator[str]:
    """What stands at the keyset's path can't be read; a second worker is tried with one spoiled file after the other."""
    keyset = system.keys_directory / MASKING.name
    others, began = other_keysets(system), time.time()
    system.moment()
    away = keyset.rename(keyset.with_suffix(".away"))
    keyset.mkdir()  # nobody can read a directory as a file, root neither
    try:
        system.wait_flowing(100)
        starts: dict[str, dict[str, str]] = {"worker-at-the-path": {}}
        expected = {"worker-at-the-path": f"Error: {MASKING.setting}: can't read the file it names"}
        for file, spoiled in _spoiled(others).items():
            for path, problem in spoiled.items():
                name = f"worker-with-{file.name}-{path.name}"
                # The other keyset is as it should be: which one is looked at first does not matter then.
                starts[name] = {MASKING.setting: str(away), file.setting: str(path)}
                expected[name] = f"Error: {file.setting}: {problem}"
        said: dict[str, str] = {}
        names = list(starts)
        for first in range(0, len(names), STARTS_AT_ONCE):
            said |= _refused(system, {name: starts[name] for name in names[first : first + STARTS_AT_ONCE]})
        for name, problem in expected.items():
            assert problem in said[name], f"{name}: {said[name]}"
            assert "Traceback" not in said[name], said[name]
        system.prove("every start was refused with its reason", lambda: said.keys() == expected.keys())
    finally:
        keyset.rmdir()
        away.rename(keyset)
    secrets = [key["keyData"]["value"] for key in json.loads(keyset.read_text())["key"]]
    secrets += [key["keyData"]["value"] for key in json.loads((others / MASKING_HMAC.name).read_text())["key"]]
    logs = "".join(file.read_text() for file in system.directory.glob("*.log"))
    restart(system, system.worker)
    assert not [secret for secret in secrets if secret in logs], "a key is in a log"
    assert set(rows_by_key(system, began)) == {primary(keyset)}
    yield f"{len(starts)} starts were refused, each with its reason"
