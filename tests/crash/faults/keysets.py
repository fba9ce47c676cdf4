"""Keysets are replaced, rotated, or not the same for all."""

import json
import time
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from crash.faults import fault
from crash.system import Setup, System
from pipeline.ending import EXIT_REFUSED
from stream_app.commands.keys import DEAD_LETTER_PRIVATE, DEAD_LETTER_PUBLIC, MASKING

REFUSED_SECONDS = 60.0
"""For a start that is refused: what it needs to say so on a busy machine."""


def _replace(path: Path, text: str) -> None:
    """Write a keyset as a careful operator does: whole, or not at all, and for its owner only."""
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(path)


def other_keysets(system: System) -> Path:
    """The directory of new keysets, which have nothing to do with this run's."""
    directory = system.directory / f"other-keys-{system.chance.getrandbits(32):08x}"
    system.processes.run("keys", "create", "--directory", str(directory))
    return directory


def _both(old: Path, new: Path) -> str:
    """The keys of both files; the primary one is the new file's."""
    keyset, added = json.loads(old.read_text()), json.loads(new.read_text())
    return json.dumps({"primaryKeyId": added["primaryKeyId"], "key": [*keyset["key"], *added["key"]]})


def primary(path: Path) -> int:
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


def rows_by_key(system: System, sent_from: float) -> Counter[int]:
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


def restart(system: System, worker: str, **settings: str) -> None:
    """In order, as for a change of settings."""
    codes = system.processes.stop(worker)
    assert codes == {worker: 0}, codes
    system.start_worker(worker, **settings)
    system.mended()
    system.processes.wait_ready(worker)


@fault(
    "keyset-replaced",
    "A file that is changed while workers run counts for none of them before its restart.",
    recovery_seconds=10,
    soak=True,
)
def replaced(system: System) -> Iterator[str]:
    """Another keyset stands in the file for a while; nobody is restarted before it is put right."""
    keyset = system.keys_directory / MASKING.name
    right_text, right, began = keyset.read_text(), primary(keyset), time.time()
    system.moment()
    _replace(keyset, (other_keysets(system) / MASKING.name).read_text())
    try:
        replaced_at = time.time()
        system.prove("rows are written while another keyset is there", lambda: rows_by_key(system, replaced_at)[right] > 300)
        assert primary(keyset) != right
    finally:
        _replace(keyset, right_text)
    worker = system.worker
    restart(system, worker)
    assert _masks_with(system, worker, right)
    assert set(rows_by_key(system, began)) == {right}
    yield "another keyset was in the file while rows were written"


@fault(
    "keyset-rotated",
    "A new primary key masks from each worker's restart on; in between, old and new workers write together, and the tokens of both"
    " keys open with the new file.",
    recovery_seconds=10,
    soak=True,
)
def rotated(system: System) -> Iterator[str]:
    """The file gets a second key, which is primary; then one worker after the other is restarted."""
    keyset = system.keys_directory / MASKING.name
    old, began = primary(keyset), time.time()
    others = other_keysets(system)
    first, second = system.chance.sample(system.workers, 2)
    system.moment()
    _replace(keyset, _both(keyset, others / MASKING.name))
    new = primary(keyset)
    system.wait_flowing(100)
    assert all(_masks_with(system, worker, old) for worker in (first, second)), "a running worker keeps its key"
    assert set(rows_by_key(system, began)) == {old}
    restart(system, first)
    assert _masks_with(system, first, new)
    assert _masks_with(system, second, old)
    both_from = time.time()
    try:
        system.prove("both keys are in use", lambda: set(rows_by_key(system, both_from)) == {old, new})
    finally:
        restart(system, second)
    rotated_at = time.time()
    yield "rows of both keys were written at the same time"
    assert set(rows_by_key(system, rotated_at)) == {new}, "after the last restart nothing is masked by the old key"


@fault(
    "keyset-wrong-for-one-worker",
    "It is refused before it takes a partition. Told to go on, it loses nothing: rows that it masks by another keyset are told by"
    " the key id in their tokens; the metric stream_masking_key_info shows two primary keys.",
    recovery_seconds=10,
    soak=True,
)
def wrong_for_one(system: System) -> Iterator[str]:
    """One worker is started with a keyset that the other does not have."""
    keyset = system.keys_directory / MASKING.name
    right, wrong_file = primary(keyset), other_keysets(system) / MASKING.name
    wrong = primary(wrong_file)
    astray, other = system.chance.sample(system.workers, 2)
    system.moment()
    began = time.time()
    assert system.processes.stop(astray) == {astray: 0}
    system.wait_flowing(200)  # the other one alone
    refused = system.processes.start_worker(astray, **{MASKING.setting: str(wrong_file)})
    assert refused.wait(REFUSED_SECONDS) == EXIT_REFUSED
    del system.processes.running[astray]
    assert not rows_by_key(system, began)[wrong]
    system.start_worker(astray, **{MASKING.setting: str(wrong_file), "KEYSET_MISMATCH": "accept"})
    system.processes.wait_ready(astray)
    system.prove("rows of the wrong key are written", lambda: rows_by_key(system, began)[wrong])
    assert _masks_with(system, astray, wrong)
    assert _masks_with(system, other, right)
    restart(system, astray)
    mended_at = time.time()
    _replace(keyset, _both(wrong_file, keyset))  # for whoever opens tokens: the wrong key's are opened by keeping that key, too
    yield f"{rows_by_key(system, began)[wrong]} rows were masked by the wrong key"
    assert set(rows_by_key(system, mended_at)) == {right}


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
    others = other_keysets(system)
    old, new = primary(public), primary(others / DEAD_LETTER_PUBLIC.name)
    system.moment()
    _replace(public, (others / DEAD_LETTER_PUBLIC.name).read_text())
    before = _letters_by_key(system)[old]
    system.prove("dead letters are made meanwhile", lambda: _letters_by_key(system)[old] > before + 50)
    assert set(_letters_by_key(system)) == {old}
    for worker in system.workers:
        restart(system, worker, KEYSET_MISMATCH="accept")
    sealed = system.prove("dead letters are sealed for the new key", lambda: _letters_by_key(system)[new])
    _replace(private, _both(private, others / DEAD_LETTER_PRIVATE.name))
    yield f"{sealed} dead letters were sealed for the new key, {_letters_by_key(system)[old]} for the old one"
