"""`faust -A stream_app keys`: makes the keysets. Needs no connection and no other keyset."""

import errno
import shlex
from dataclasses import dataclass
from pathlib import Path

import click

from pipeline.errors import FatalError
from stream_app.commands.command import Group, QuietCommand, cli, json_option, say, show_json, wants_json
from stream_app.masking import keysets


@dataclass(frozen=True, slots=True)
class KeysetFile:
    """One of the files that ``keys create`` writes."""

    name: str
    setting: str
    holder: str
    """Who needs it, and what for."""


MASKING = KeysetFile("masking.keyset.json", keysets.SETTING_MASKING, "workers, and whoever may reveal values")
MASKING_HMAC = KeysetFile(
    "masking-hmac.keyset.json", keysets.SETTING_MASKING_HMAC, "workers, if MASKING_METHODS has hmac for a field"
)
DEAD_LETTER_PUBLIC = KeysetFile(
    "dead-letter-public.keyset.json", keysets.SETTING_DEAD_LETTER_PUBLIC, "workers: it seals dead letters and opens none"
)
DEAD_LETTER_PRIVATE = KeysetFile(
    "dead-letter-private.keyset.json",
    keysets.SETTING_DEAD_LETTER_PRIVATE,
    "the operator alone, away from the workers: it opens dead letters",
)
KEYSET_FILES = (MASKING, MASKING_HMAC, DEAD_LETTER_PUBLIC, DEAD_LETTER_PRIVATE)


def create_keysets(directory: Path) -> dict[KeysetFile, Path]:
    """Write new keysets, all or none; readable by their owner only. Raises :class:`FatalError`; no file is ever overwritten."""
    private = keysets.new_secret_keyset(keysets.DEAD_LETTER_TEMPLATE)
    texts = {
        MASKING: keysets.secret_text(keysets.new_secret_keyset(keysets.MASKING_TEMPLATE)),
        MASKING_HMAC: keysets.secret_text(keysets.new_secret_keyset(keysets.MASKING_HMAC_TEMPLATE)),
        DEAD_LETTER_PUBLIC: keysets.public_text(private),
        DEAD_LETTER_PRIVATE: keysets.secret_text(private),
    }
    paths = {file: directory.absolute() / file.name for file in texts}
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        keysets.write_new({paths[file]: text for file, text in texts.items()})
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise FatalError(
                f"{error.filename} exists already: nothing was written. Who loses a keyset loses what it masked or sealed; choose"
                " another --directory, or move the old files to where they are kept"
            ) from error
        raise FatalError(f"can't write keysets to {directory}: {error.strerror}; nothing was written") from error
    return paths


@cli.group(cls=Group)
def keys() -> None:
    """The keysets that mask values and seal dead letters."""


@keys.command(cls=QuietCommand)
@click.option(
    "--directory", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where to write them; made if missing."
)
@json_option
def create(*, directory: Path) -> None:
    """Make the keysets: for masking, and a private and a public one for dead letters.

    Files readable by their owner only; an existing one is never overwritten. Keep copies where they outlive this machine: what was
    masked or sealed with a keyset opens with no other.
    """
    paths = create_keysets(directory)
    if wants_json():
        show_json({file.setting: str(path) for file, path in paths.items()})
        return
    say("Written, readable by you only. Copies belong where they outlive this machine: nothing else opens what they mask or seal.")
    for file, path in paths.items():
        say()
        say(f"# {file.holder}")
        say(f"{file.setting}={shlex.quote(str(path))}")
