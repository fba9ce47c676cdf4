"""A dead letter for a person or a program to read, opened or not."""

import base64
from collections.abc import Iterator
from typing import Any

import click

from stream_app.commands.chosen_letters import ChosenLetter
from stream_app.dead_letters import OriginalLargeRecord, OriginalRecord, Sealed
from stream_app.large_records import Excerpt

_TITLES = (
    "message_id",
    "sent_at",
    "failed_at",
    "reason",
    "field",
    "topic",
    "partition",
    "record_offset",
    "resolution",
    "resolved_at",
    "replays",
    "replays_failed",
    "replay_ended",
)


def raw_value(original: Sealed) -> bytes:
    """The record's value. Raises UsageError where it was not kept."""
    if not isinstance(original, OriginalRecord):
        raise click.UsageError("the record was too large to be kept: without --raw its size, digest and first bytes are shown")
    return original.value or b""


def lines_of(letter: ChosenLetter, original: Sealed) -> Iterator[str]:
    r"""For a person. Bytes that are no UTF-8 are shown as ``\xff``."""
    for title in _TITLES:
        value = getattr(letter, title)
        if value is not None:
            yield f"{title}: {value.isoformat() if hasattr(value, 'isoformat') else value}"
    yield f"kafka timestamp: {original.timestamp}"
    for name, header in original.headers:
        yield f"header {name}: {_text(header)}"
    if isinstance(original, OriginalRecord):
        yield f"key: {_text(original.key)}"
        yield f"value: {_text(original.value)}"
        return
    yield f"too large to be kept: {original.size if original.size is not None else 'unknown'} bytes; replay can't send it"
    if original.headers_left_out:
        yield f"headers left out: {original.headers_left_out}"
    for title, excerpt in _excerpts(original):
        yield f"{title}: {excerpt.size} bytes, SHA-256 {excerpt.sha256.hex()}, begins {_text(excerpt.first_bytes)}"


def as_json(letter: ChosenLetter, original: Sealed | None = None) -> dict[str, Any]:
    """For a program: bytes in base64."""
    content = {title: getattr(letter, title) for title in _TITLES}
    if original is None:
        return content
    content["kafka_timestamp"] = original.timestamp
    content["headers"] = [{"name": name, "value_base64": _base64(value)} for name, value in original.headers]
    if isinstance(original, OriginalRecord):
        return content | {"key_base64": _base64(original.key), "value_base64": _base64(original.value)}
    content |= {"size": original.size, "headers_left_out": original.headers_left_out}
    for title, excerpt in _excerpts(original):
        content[title] = {
            "size": excerpt.size,
            "sha256": excerpt.sha256.hex(),
            "first_bytes_base64": _base64(excerpt.first_bytes),
        }
    return content


def _excerpts(original: OriginalLargeRecord) -> Iterator[tuple[str, Excerpt]]:
    for title, excerpt in (("key", original.key), ("value", original.value), ("record batch", original.batch)):
        if excerpt is not None:
            yield title, excerpt


def _text(value: bytes | None) -> str:
    return "-" if value is None else value.decode(errors="backslashreplace")


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()
