"""Says whether the lock files still belong to pyproject.toml. Needs no network: it compares, `make lock` compiles.

    python -m tools.locks --check

Fresh means: every dependency that pyproject.toml names is pinned at a version that it allows, nothing else claims to come from
there, every pin has hashes, both files pin a shared package alike, and no download address stands in them.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT: Final = Path(__file__).parents[1]
PRODUCT_LOCK: Final = "requirements.lock"
DEVELOPMENT_LOCK: Final = "requirements-dev.lock"
_PIN: Final = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(?P<version>[^ ;\\]+)")


@dataclass(slots=True)
class Pin:
    """One package of a lock file."""

    versions: set[str] = field(default_factory=set)
    """More than one where Pythons differ: each then has a marker."""
    hashed: bool = True
    direct: bool = False
    """pyproject.toml itself names it."""


def read_lock(text: str) -> dict[str, Pin]:
    """The pins of a lock file by package name."""
    pins: dict[str, Pin] = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        match = _PIN.match(block)
        if match:
            pin = pins.setdefault(canonicalize_name(match["name"]), Pin())
            pin.versions.add(match["version"])
            pin.hashed &= "--hash=" in block
            pin.direct |= "(pyproject.toml" in block
    return pins


def requirements(pyproject: Mapping[str, Any], groups: tuple[str, ...]) -> list[Requirement]:
    """What pyproject.toml asks for: the product's dependencies and those of the groups, included ones too."""

    def of_group(name: str) -> Iterator[str]:
        for entry in pyproject["dependency-groups"][name]:
            if isinstance(entry, str):
                yield entry
            else:
                yield from of_group(entry["include-group"])

    names = [*pyproject["project"]["dependencies"], *(entry for group in groups for entry in of_group(group))]
    return [Requirement(name) for name in names]


def problems(pyproject: Mapping[str, Any], product_lock: str, development_lock: str) -> list[str]:
    """One line for each thing that is stale or missing; none when both locks are fresh."""
    found: list[str] = []
    locks = {
        PRODUCT_LOCK: (product_lock, requirements(pyproject, ())),
        DEVELOPMENT_LOCK: (development_lock, requirements(pyproject, ("dev",))),
    }
    for file, (text, wanted) in locks.items():
        pins = read_lock(text)
        for requirement in wanted:
            pin = pins.get(canonicalize_name(requirement.name))
            if pin is None or not pin.direct:
                found.append(f"{file}: {requirement.name} is in pyproject.toml and not in the lock")
            elif not all(requirement.specifier.contains(version, prereleases=True) for version in pin.versions):
                pinned = " and ".join(sorted(pin.versions))
                found.append(f"{file}: {requirement.name} is pinned at {pinned}, pyproject.toml wants {requirement.specifier}")
        named = {canonicalize_name(requirement.name) for requirement in wanted}
        found += [
            f"{file}: {name} is no longer in pyproject.toml" for name, pin in pins.items() if pin.direct and name not in named
        ]
        found += [f"{file}: {name} has no hash" for name, pin in pins.items() if not pin.hashed]
        if "://" in text:
            found.append(f"{file}: holds a download address")
    development = read_lock(development_lock)
    for name, pin in read_lock(product_lock).items():
        if name not in development or development[name].versions != pin.versions:
            found.append(f"{DEVELOPMENT_LOCK}: {name} is not what {PRODUCT_LOCK} has")
    return found


def main(arguments: list[str]) -> int:
    """Print what is stale; the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.locks", description="Says whether the lock files are fresh.")
    parser.add_argument("--check", action="store_true", required=True, help="compare; `make lock` compiles")
    parser.parse_args(arguments)
    found = problems(
        tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8")),
        (PROJECT / PRODUCT_LOCK).read_text(encoding="utf-8"),
        (PROJECT / DEVELOPMENT_LOCK).read_text(encoding="utf-8"),
    )
    for problem in found:
        print(problem, file=sys.stderr)  # noqa: T201 - a command
    if found:
        print("run `make lock`", file=sys.stderr)  # noqa: T201 - a command
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
