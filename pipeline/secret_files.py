"""Files that hold a secret: one rule for all of them, who else may open one.

As ssh does it: a file of our own must be closed to its group and to everybody else; the line of the refusal says how. A file that
belongs to another user is theirs to guard, whatever its mode: that is what a mounted secret looks like to a process that does not
run as root (Kubernetes with fsGroup: root's, 0440; Docker: root's, 0444), and its mode can't be changed from inside. Who runs as
root has the mode set where the secret is mounted (``defaultMode: 0400``).
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from pydantic import SecretStr

from pipeline.errors import SettingsError

SECRET_BYTES_MAX = 1_048_576
"""Far above what any keyset, key or password has; a file that is larger was named by mistake."""


def refuse_open_file(file: BinaryIO, setting: str) -> None:
    """Raise :class:`SettingsError` that names ``setting`` when the open file is ours and others may read or write it."""
    state = os.fstat(file.fileno())  # of what was opened, not of what the path names by now
    if state.st_uid == os.geteuid() and stat.S_IMODE(state.st_mode) & 0o077:
        raise SettingsError(f"{setting}: the file it names is open to other users of this machine; chmod 600 it")


def read_file(path: Path, setting: str, *, secret: bool = True) -> str:
    """The file's text. ``secret=False``: a file that anybody may see, such as a public key.

    Raises :class:`SettingsError` that names ``setting``, never what the file holds; and ``FileNotFoundError``.
    """
    try:
        with path.open("rb") as file:
            if secret:
                refuse_open_file(file, setting)
            content = file.read(SECRET_BYTES_MAX + 1)
        if len(content) > SECRET_BYTES_MAX:
            raise SettingsError(f"{setting}: the file it names is too large for what it should hold")
        return content.decode()
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{setting}: can't read the file it names ({type(error).__name__}); check path and rights"
        ) from None  # a decoding error holds the text


def read_secret_file(path: Path, setting: str) -> SecretStr:
    """The text of a secret's file without its trailing newline. Raises :class:`SettingsError` that names ``setting``."""
    try:
        return SecretStr(read_file(path, setting).rstrip("\r\n"))
    except FileNotFoundError:
        raise SettingsError(f"{setting}: can't read the file it names (FileNotFoundError); check path and rights") from None


def check_secret_file(path: Path, setting: str) -> None:
    """For a file that a library reads by itself: the same rule, before the library says it in its own words, or doesn't."""
    try:
        with path.open("rb") as file:
            refuse_open_file(file, setting)
    except OSError as error:
        raise SettingsError(f"{setting}: can't read the file it names ({type(error).__name__}); check path and rights") from None
