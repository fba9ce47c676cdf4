"""Writes docs/reference/settings.md and pipeline/setting_names.py from the settings classes; `--check` says whether they are fresh.

    python -m tools.settings_reference [--check]

The page can't disagree with the code: name, type, range, default and help stand once, in the fields. Nor can the names, by which
each process knows the others' settings from misspelt ones of its own.
"""

import argparse
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from bridges.settings import BridgeSettings
from pipeline.setting_words import takes
from pipeline.settings import Settings
from pipeline.spelling import OWN_PREFIXES
from stream_app.monitor.settings import MonitorSettings
from stream_app.settings import OperatorSettings, RevealSettings, WorkerSettings

PAGE: Final = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"

NAMES: Final = Path(__file__).parents[1] / "pipeline" / "setting_names.py"

PROCESSES: Final[Mapping[str, type[Settings]]] = {
    "bridge": BridgeSettings,
    "worker": WorkerSettings,
    "monitor": MonitorSettings,
    "operator's commands": OperatorSettings,
    "command `reveal`": RevealSettings,
}

NAMES_INTRODUCTION: Final = '''\
"""The settings of all processes, made from the code by `make reference`.

Each process knows them all: the bridge may be given the worker's variables in one file with its own, and a name that is in nobody's
list is a misspelt one (:mod:`pipeline.spelling`).
"""

SETTING_NAMES = frozenset(
    {
'''

INTRODUCTION: Final = """\
# Settings

<!-- Made from the code by `make reference`; change the field's description there, not this page. -->

All processes read environment variables and nothing else. Each checks all of its own before it connects to anything: a wrong or
missing one stops the start with a line that names the variable and what was expected, never its value. An empty variable counts as
not set.

A misspelt one stops it, too: a variable that is nearly a setting's name (`MASKING_METHOD`, `POSTGRES_SSL_MODE`, `kafka_topic`), and
any that is no setting of our three processes and begins with one of
{own_prefixes}.
The line names the right one. Variables of others are let alone, Kubernetes' service links among them, whatever a service is called
(`WEB_PORT=tcp://…` is no port of ours: it counts as not set, and the log says so). One that looks like ours and isn't can be
set empty for our processes.

Variables of libraries don't reach in: not Faust's (`APP_VERSION`, `BROKER_URL`, `FAUST_DEBUG`, …), libpq's (`PGHOST`, `PGSSLMODE`,
`PGTZ`, …; POSTGRES_DSN says all that they can) or the Prometheus client's (`PROMETHEUS_MULTIPROC_DIR`).
[Decision 0021](../decisions/0021-the-environment-is-ours-alone.md) says how, and what can't be helped.

A file that holds a secret (a keyset, POSTGRES_PASSWORD_FILE, POSTGRES_SSLKEY) must be closed to its group and to others if it
belongs to the process's own user. One of another user, such as a mounted secret, is theirs to guard. A process that runs as root
owns what is mounted: mount it with mode 0400 there.

The bridge is `python -m bridges sqs`, the worker `faust -A stream_app worker`, the monitor `faust -A stream_app monitor`. Each
other `faust -A stream_app` command reads what its `--help` lists; one that serves nothing looks at no port.

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
    own_prefixes = ", ".join(f"`{prefix}`" for prefix in OWN_PREFIXES)
    introduction = INTRODUCTION.format(own_prefixes=own_prefixes)
    return "\n".join([introduction, *(_section(group, readers[group]) for group in shared_last)])


def names_module() -> str:
    """The whole module of names."""
    names = sorted(variables(*PROCESSES.values()))
    return "".join([NAMES_INTRODUCTION, *(f'        "{name}",\n' for name in names), "    }\n)\n"])


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
        cells = (f"`{variable}`", takes(field, "`{}`".format), _default(field), field.description or "")
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, ""])


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
    """Write both files, or with ``--check`` compare them; the process's exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.settings_reference", description="Makes docs/reference/settings.md and pipeline/setting_names.py."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is not what the code says")
    check = parser.parse_args(arguments).check
    stale = 0
    for file, text in ((PAGE, page()), (NAMES, names_module())):
        if not check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        elif not file.exists() or file.read_text(encoding="utf-8") != text:
            print(f"{file.name} is not what the settings classes say: run `make reference`", file=sys.stderr)  # noqa: T201 - a command
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
