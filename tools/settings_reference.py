"""Writes docs/reference/settings.md from the settings classes; `--check` only says whether the page is fresh.

    python -m tools.settings_reference [--check]

The page can't disagree with the code: name, type, range, default and help stand once, in the fields.
"""

import argparse
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from bridges.settings import BridgeSettings
from pipeline.settings import Settings
from stream_app.monitor.settings import MonitorSettings
from stream_app.settings import WorkerSettings

PAGE: Final = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"

PROCESSES: Final[Mapping[str, type[Settings]]] = {
    "bridge": BridgeSettings,
    "worker": WorkerSettings,
    "monitor": MonitorSettings,
}

INTRODUCTION: Final = """\
# Settings

<!-- Made from the code by `make reference`; change the field's description there, not this page. -->

All processes read environment variables and nothing else. Each checks all of its own before it connects to anything: a wrong or
missing one stops the start with a line that names the variable and what was expected, never its value. An empty variable counts as
not set.

The bridge is `python -m bridges sqs`, the worker `faust -A stream_app worker`, the monitor `faust -A stream_app monitor`; the other
`faust -A stream_app` commands read the worker's variables too.

AWS credentials, region and endpoint are boto3's own business: it reads `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
`AWS_DEFAULT_REGION`, `AWS_PROFILE`, `AWS_ENDPOINT_URL_SQS`, the role of the machine and so on, as its documentation says.
"""


def groups(process_settings: type[Settings]) -> Iterator[type[Settings]]:
    """The classes that declare this process's options, the process's own first."""
    for cls in process_settings.__mro__:
        if issubclass(cls, Settings) and any(name in cls.model_fields for name in inspect.get_annotations(cls)):
            yield cls


def options(group: type[Settings]) -> dict[str, FieldInfo]:
    """The fields that this class itself declares, by environment variable."""
    declared = inspect.get_annotations(group)
    return {name.upper(): field for name, field in group.model_fields.items() if name in declared}


def variables(*process_settings: type[Settings]) -> frozenset[str]:
    """Every environment variable of these processes."""
    return frozenset(name.upper() for settings in process_settings for name in settings.model_fields)


def page() -> str:
    """The whole page."""
    readers: dict[type[Settings], list[str]] = {}
    for process, settings in PROCESSES.items():
        for group in groups(settings):
            readers.setdefault(group, []).append(process)
    shared_last = sorted(readers, key=lambda group: len(readers[group]))  # stable: else in the order of PROCESSES
    return "\n".join([INTRODUCTION, *(_section(group, readers[group]) for group in shared_last)])


def _section(group: type[Settings], processes: list[str]) -> str:
    about = (group.__doc__ or "").strip().splitlines()[0].replace("``", "`")
    readers = "" if group in PROCESSES.values() else f" Read by the {' and the '.join(processes)}."
    lines = [
        f"## {group.__name__.removesuffix('Settings')}",
        "",
        about + readers,
        "",
        "| Variable | Takes | Default | What it does |",
        "|---|---|---|---|",
    ]
    for variable, field in options(group).items():
        cells = (f"`{variable}`", _takes(field), _default(field), field.description or "")
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, ""])


def _takes(field: FieldInfo) -> str:
    kind: Any = field.annotation
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (part for part in get_args(kind) if part is not NoneType)
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if kind is SecretStr:
        return "secret text"
    if isinstance(kind, type) and issubclass(kind, Path):
        return "path of a file"
    name = {bool: "`true` or `false`", int: "whole number", float: "number", str: "text"}[kind]
    bounds = _bounds(field)
    return f"{name}, {bounds}" if bounds else name


def _bounds(field: FieldInfo) -> str:
    """The allowed range in words, from pydantic's constraints."""
    said: list[str] = []
    for constraint in field.metadata:
        match constraint:
            case Ge(ge=bound):
                said.append(f"from {bound}")
            case Gt(gt=bound):
                said.append(f"more than {bound}")
            case Le(le=bound):
                said.append(f"to {bound}")
            case Lt(lt=bound):
                said.append(f"less than {bound}")
            case MinLen(min_length=1):
                said.append("not empty")
            case MinLen(min_length=bound):
                said.append(f"at least {bound} characters")
            case MaxLen(max_length=bound):
                said.append(f"at most {bound} characters")
            case _ if getattr(constraint, "pattern", None):
                said.append(f"as `{constraint.pattern}`")
            case _:
                continue
    return " ".join(said)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value == "":
        return "not set"
    if isinstance(value, SecretStr):
        return "a secret"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def main(arguments: list[str]) -> int:
    """Write the page, or with ``--check`` compare it; the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.settings_reference", description="Makes docs/reference/settings.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the page is not what the code says")
    check = parser.parse_args(arguments).check
    if check:
        if PAGE.read_text(encoding="utf-8") == page():
            return 0
        print(f"{PAGE.name} is not what the settings classes say: run `make reference`", file=sys.stderr)  # noqa: T201 - a command
        return 1
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
