r"""The SQL of ``sql/``, with the schema of our tables put in.

A session of ours looks for names in ``pg_catalog`` alone (see :mod:`stream_app.postgres.connection`), so each file names the schema
of each table and function of ours: ``:"schema".user_logins``, and ``:'schema'`` where a text is wanted. That is how psql writes its
variables: after ``\set schema public`` it runs such a file as it stands.
"""

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def with_schema(sql: str, schema: str) -> str:
    """Put the schema in. Its name holds nothing that psycopg2 or a literal would take for something else (POSTGRES_SCHEMA)."""
    return sql.replace(':"schema"', f'"{schema}"').replace(":'schema'", f"'{schema}'")


def load_queries(file: str, schema: str) -> dict[str, str]:
    """Statements of a file in ``sql/`` by their names, without the comments above them."""
    _, *parts = _NAME.split(with_schema((files("stream_app.postgres") / "sql" / file).read_text(), schema))
    return {
        name: "".join(line for line in text.splitlines(keepends=True) if not line.startswith("--")).strip().rstrip(";")
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }
