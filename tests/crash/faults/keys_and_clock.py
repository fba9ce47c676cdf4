"""Keysets are removed, spoiled, replaced, rotated, or not the same for all; the clock goes wrong."""

import json
import os
import time
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from crash.faults import fault
from crash.system import Setup, System
from dev_servers.process import ChildProcess
from stream_app.commands.keys import DEAD_LETTER_PRIVATE, DEAD_LETTER_PUBLIC, MASKING, MASKING_HMAC, KeysetFile

STARTS_AT_ONCE = 4

END_SECONDS = 60.0
"""For a start that is refused: what it needs to say so on a busy machine."""

OFF_SECONDS = 3_660
"""How far the clock is off: an hour, and a minute, since bounds of an hour are common (Kafka has one)."""

DELAY_SECONDS = 600
"""More than a row takes on the busiest machine, less than the clock is off."""

LIBFAKETIME = "libfaketime/vendor/libfaketime/src/libfaketime.so.1"


# --- keysets


def _replace(path: Path, text: str) -> None:
    """Write a keyset as a careful operator does: whole, or not at all, and for its owner only."""
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(path)


def _other_keysets(system: System) -> Path:
    """The directory of new keysets, which have nothing to do with this run's."""
    directory = system.directory / f"other-keys-{system.chance.getrandbits(32):08x}"
    system.processes.run("keys", "create", "--directory", str(directory))
    return directory


def _both(old: Path, new: Path) -> str:
    """The keys of both files; the primary one is the new file's."""
    keyset, added = json.loads(old.read_text()), json.loads(new.read_text())
    return json.dumps({"primaryKeyId": added["primaryKeyId"], "key": [*keyset["key"], *added["key"]]})


def _primary(path: Path) -> int:
    return int(json.loads(path.read_text())["primaryKeyId"])


def _masks_with(system: System, worker: str, key_id: int) -> bool:
    """Whether a worker shows this key, and no other, as the one that masks."""
    masks = [
        sample.labels["key_id"]
        for family in text_string_to_metric_families(system.processes.scrape(worker))
        for sample in family.samples
        if sample.name == "stream_masking_key_info" and sample.labels["primary"] == "true"
    ]
    return masks == [str(key_id)]


def _rows_by_key(system: System, sent_from: float) -> Counter[int]:
    """How many rows each key has masked, of those sent from this second on: a token begins with 0x01 and its key's id."""
    found: Counter[int] = Counter()
    for start, rows in system.query(
        "SELECT left(masked_ip, 8), count(*) FROM user_logins WHERE sent_at >= to_timestamp(%s) GROUP BY 1", [sent_from]
    ):
        found[int.from_bytes(urlsafe_b64decode(start)[1:5], "big")] += rows
    return found


def _letters_by_key(system: System) -> Counter[int]:
    """The same of dead letters: what Tink seals begins alike."""
    letters = system.query("SELECT substring(sealed FROM 2 FOR 4), count(*) FROM dead_letters GROUP BY 1")
    return Counter({int.from_bytes(bytes(key_id), "big"): number for key_id, number in letters})


def _restart(system: System, worker: str) -> None:
    """In order, as for a change of settings."""
    codes = system.processes.stop(worker)
    assert codes == {worker: 0}, codes
    system.start_worker(worker)
    system.processes.wait_ready(worker)


def _refused(system: System, starts: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Start workers that must end by themselves, by name with their settings; what each said."""
    children: dict[str, ChildProcess] = {}
    try:
        for name, settings in starts.items():
            children[name] = system.processes.start_worker(name, **settings)
        for name, child in children.items():
            code = child.wait(END_SECONDS)
            assert code == 1, f"{name} ended with {code}"
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
    system.processes.wait_ready(worker)
    assert set(_rows_by_key(system, began)) == {_primary(keyset)}
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
    others, began = _other_keysets(system), time.time()
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
    _restart(system, system.worker)
    assert not [secret for secret in secrets if secret in logs], "a key is in a log"
    assert set(_rows_by_key(system, began)) == {_primary(keyset)}
    yield f"{len(starts)} starts were refused, each with its reason"


@fault(
    "keyset-replaced",
    "A file that is changed while workers run counts for none of them before its restart.",
    recovery_seconds=10,
    soak=True,
)
def replaced(system: System) -> Iterator[str]:
    """Another keyset stands in the file for a while; nobody is restarted before it is put right."""
    keyset = system.keys_directory / MASKING.name
    right_text, right, began = keyset.read_text(), _primary(keyset), time.time()
    system.moment()
    _replace(keyset, (_other_keysets(system) / MASKING.name).read_text())
    try:
        replaced_at = time.time()
        system.prove("rows are written while another keyset is there", lambda: _rows_by_key(system, replaced_at)[right] > 300)
        assert _primary(keyset) != right
    finally:
        _replace(keyset, right_text)
    worker = system.worker
    _restart(system, worker)
    assert _masks_with(system, worker, right)
    assert set(_rows_by_key(system, began)) == {right}
    yield "another keyset was in the file while rows were written"


@fault(
    "keyset-rotated",
    "A new primary key masks from each worker's restart on; in between, old and new workers write together, and the tokens of both"
    " keys open with the new file.",
    recovery_seconds=10,
    fast=True,
    soak=True,
)
def rotated(system: System) -> Iterator[str]:
    """The file gets a second key, which is primary; then one worker after the other is restarted."""
    keyset = system.keys_directory / MASKING.name
    old, began = _primary(keyset), time.time()
    others = _other_keysets(system)
    first, second = system.chance.sample(system.workers, 2)
    system.moment()
    _replace(keyset, _both(keyset, others / MASKING.name))
    new = _primary(keyset)
    system.wait_flowing(100)
    assert all(_masks_with(system, worker, old) for worker in (first, second)), "a running worker keeps its key"
    assert set(_rows_by_key(system, began)) == {old}
    _restart(system, first)
    assert _masks_with(system, first, new)
    assert _masks_with(system, second, old)
    both_from = time.time()
    try:
        system.prove("both keys are in use", lambda: set(_rows_by_key(system, both_from)) == {old, new})
    finally:
        _restart(system, second)
    rotated_at = time.time()
    yield "rows of both keys were written at the same time"
    assert set(_rows_by_key(system, rotated_at)) == {new}, "after the last restart nothing is masked by the old key"


@fault(
    "keyset-wrong-for-one-worker",
    "Nothing is lost: rows that one worker masks by another keyset are told by the key id in their tokens; the metric"
    " stream_masking_key_info shows two primary keys.",
    recovery_seconds=10,
    soak=True,
)
def wrong_for_one(system: System) -> Iterator[str]:
    """One worker is started with a keyset that the other does not have."""
    keyset = system.keys_directory / MASKING.name
    right, wrong_file = _primary(keyset), _other_keysets(system) / MASKING.name
    wrong = _primary(wrong_file)
    astray, other = system.chance.sample(system.workers, 2)
    system.moment()
    began = time.time()
    assert system.processes.stop(astray) == {astray: 0}
    system.start_worker(astray, **{MASKING.setting: str(wrong_file)})
    system.processes.wait_ready(astray)
    system.prove("rows of the wrong key are written", lambda: _rows_by_key(system, began)[wrong])
    assert _masks_with(system, astray, wrong)
    assert _masks_with(system, other, right)
    _restart(system, astray)
    mended_at = time.time()
    _replace(keyset, _both(wrong_file, keyset))  # for whoever opens tokens: the wrong key's are opened by keeping that key, too
    yield f"{_rows_by_key(system, began)[wrong]} rows were masked by the wrong key"
    assert set(_rows_by_key(system, mended_at)) == {right}


@fault(
    "dead-letter-keyset-replaced",
    "Dead letters are sealed for the keyset that a worker started with; a new pair counts after the restart, and a private keyset"
    " with both keys opens all.",
    recovery_seconds=10,
    setup=Setup(bad_share=0.3),
)
def dead_letter_keyset_replaced(system: System) -> Iterator[str]:
    """The public keyset is another one while workers run; then they are restarted."""
    public, private = (system.keys_directory / file.name for file in (DEAD_LETTER_PUBLIC, DEAD_LETTER_PRIVATE))
    others = _other_keysets(system)
    old, new = _primary(public), _primary(others / DEAD_LETTER_PUBLIC.name)
    system.moment()
    _replace(public, (others / DEAD_LETTER_PUBLIC.name).read_text())
    before = _letters_by_key(system)[old]
    system.prove("dead letters are made meanwhile", lambda: _letters_by_key(system)[old] > before + 50)
    assert set(_letters_by_key(system)) == {old}
    for worker in system.workers:
        _restart(system, worker)
    sealed = system.prove("dead letters are sealed for the new key", lambda: _letters_by_key(system)[new])
    _replace(private, _both(private, others / DEAD_LETTER_PRIVATE.name))
    yield f"{sealed} dead letters were sealed for the new key, {_letters_by_key(system)[old]} for the old one"


# --- the clock


def _with_a_clock_of_their_own(system: System) -> Path:
    """Restart everything with a wall clock that is off by the seconds that stand in the file which is returned.

    The library is loaded before libc by the bridge and the workers alone: the servers keep the right time. The monotonic clock is
    the machine's own, as it is when somebody sets a machine's clock.
    """
    clock = system.directory / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(distribution("libfaketime").locate_file(LIBFAKETIME)),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    names = list(system.processes.running)
    assert set(system.processes.stop(*names).values()) == {0}
    for name in names:
        start = system.start_worker if name.startswith("worker") else system.start_bridge
        start(name, **environment)
    system.processes.wait_ready(*names)
    system.wait_flowing()
    return clock


def _set(clock: Path, seconds: int) -> None:
    new = clock.with_suffix(".new")
    new.write_text(f"{seconds:+d}")
    new.replace(clock)


def _bridge_is_off_by(system: System) -> float:
    return system.metric(system.bridges[0], "bridge_last_poll_timestamp_seconds") - time.time()


def _written(system: System, worker: str) -> tuple[float, float]:
    """Rows, and the seconds from sent to written that were counted for them."""
    name = "stream_sent_to_written_seconds"
    return system.metric(worker, f"{name}_count"), system.metric(worker, f"{name}_sum")


def _below_zero(system: System) -> set[str]:
    """Metrics of any process that are negative: none may ever be."""
    return {
        sample.name
        for name in system.processes.running
        for family in text_string_to_metric_families(system.processes.scrape(name))
        for sample in family.samples
        if sample.value < 0
    }


def _runs_with_a_wrong_clock(system: System, off_seconds: int) -> str:
    clock = _with_a_clock_of_their_own(system)
    system.moment()
    rebalances = {name: system.metric(name, "stream_rebalances_total") for name in system.workers}
    _set(clock, off_seconds)
    system.prove("the bridge has the wrong time", lambda: abs(_bridge_is_off_by(system) - off_seconds) < 60)
    system.wait_flowing(300)  # what was on its way, and then some
    before = {name: _written(system, name) for name in system.workers}
    for _ in range(10):
        system.wait_flowing(100)
        assert not (below := _below_zero(system)), f"negative: {below}"
    delays = []
    for name, (rows, seconds) in before.items():
        rows_now, seconds_now = _written(system, name)
        assert rows_now > rows, f"{name} wrote nothing"
        delays.append((seconds_now - seconds) / (rows_now - rows))
    # By the wrong clock a row takes an hour, or less than no time, which counts as none. By the right one it may take a minute:
    # all were restarted just now.
    assert all(abs(delay - max(off_seconds, 0)) < DELAY_SECONDS for delay in delays), delays
    _set(clock, 0)
    system.prove("the bridge has the right time", lambda: abs(_bridge_is_off_by(system)) < 60)
    system.wait_flowing(300)
    assert rebalances == {name: system.metric(name, "stream_rebalances_total") for name in system.workers}, "a session ended"
    return f"bridge and workers ran with a clock that was off by {off_seconds} s; delays of {min(delays):.1f} s were counted"


@fault(
    "clock-an-hour-ahead",
    "Rows and dates are right: times come from SQS, waiting goes by the monotonic clock. Delays and lag seem an hour longer.",
    recovery_seconds=10,
)
def clock_ahead(system: System) -> Iterator[str]:
    """The clock of bridge and workers leaps ahead, and after a while back."""
    yield _runs_with_a_wrong_clock(system, OFF_SECONDS)


@fault(
    "clock-an-hour-behind",
    "Rows and dates are right: times come from SQS, waiting goes by the monotonic clock. Delays and lag are 0, never less.",
    recovery_seconds=10,
)
def clock_behind(system: System) -> Iterator[str]:
    """The clock of bridge and workers leaps back, and after a while ahead."""
    yield _runs_with_a_wrong_clock(system, -OFF_SECONDS)
