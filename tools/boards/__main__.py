"""Writes the boards, or says whether they are fresh: see the package."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tools.boards import capacity, hops, overview, privacy

DIRECTORY: Final = Path(__file__).parents[2] / "grafana" / "dashboards"
BOARDS: Final[dict[str, Callable[[], Dashboard]]] = {
    "overview": overview.board,
    "hops": hops.board,
    "privacy": privacy.board,
    "capacity": capacity.board,
}


def texts() -> dict[Path, str]:
    """What each board's file holds."""
    encoder = JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False)
    made: dict[Path, str] = {}
    for name, board in BOARDS.items():
        built = board().build()
        for number, panel in enumerate(built.panels or (), 1):
            panel.id_val = number  # so that a link to a panel is one for good; the SDK leaves it to Grafana
        made[DIRECTORY / f"{name}.json"] = encoder.encode(built) + "\n"
    return made


def main(arguments: list[str]) -> int:
    """Write the boards, or with ``--check`` compare them; the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.boards", description="Makes grafana/dashboards/*.json.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a board is not what the code says")
    made = texts()
    if not parser.parse_args(arguments).check:
        for path, text in made.items():
            path.write_text(text, encoding="utf-8")
        return 0
    stale = {path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text}
    stale |= set(DIRECTORY.iterdir()) - made.keys()
    for path in sorted(stale):
        print(f"{path.relative_to(DIRECTORY.parents[1])} is not what tools/boards says: run `make boards`", file=sys.stderr)  # noqa: T201 - a command
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
