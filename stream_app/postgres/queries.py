"""The named statements of ``sql/worker.sql``."""

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def load_queries(file: str) -> dict[str, str]:
    """Statements of a file in ``sql/`` by their names, without the comments above them."""
    _, *parts = _NAME.split((files("stream_app.postgres") / "sql" / file).read_text())
    return {
        name: "".join(line for line in text.splitlines(keepends=True) if not line.startswith("--")).strip().rstrip(";")
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }
