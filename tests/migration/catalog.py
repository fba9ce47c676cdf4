"""What a database is made of, as text that can be compared: every table, column, index, rule, right and comment."""

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names its class like a module

IN_SCHEMA = "(SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)"

_PARTS = {
    "relations": """
        SELECT relname, relkind, relpersistence, reloptions::text,
               (SELECT string_agg(entry::text, ', ' ORDER BY entry::text) FROM unnest(relacl) AS entry)
        FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY relname""",
    "columns": """
        SELECT relname, attnum, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, attstorage,
               pg_get_expr(adbin, adrelid), col_description(attrelid, attnum),
               (SELECT string_agg(entry::text, ', ' ORDER BY entry::text) FROM unnest(attacl) AS entry)
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
        WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped ORDER BY relname, attnum""",
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexdef",
    "constraints": """
        SELECT relname, conname, convalidated, pg_get_constraintdef(pg_constraint.oid)
        FROM pg_constraint LEFT JOIN pg_class ON pg_class.oid = conrelid
        WHERE connamespace = 'public'::regnamespace ORDER BY relname, conname""",
    "triggers": """
        SELECT pg_get_triggerdef(pg_trigger.oid), tgenabled FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
        WHERE relnamespace = 'public'::regnamespace AND NOT tgisinternal ORDER BY tgname""",
    "functions": """
        SELECT pg_get_functiondef(oid), proacl::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY proname""",
    "schema rights": """
        SELECT string_agg(entry::text, ', ' ORDER BY entry::text)
        FROM pg_namespace, unnest(nspacl) AS entry WHERE nspname = 'public'""",
}


def describe(cursor: Cursor, schema: str = "public") -> dict[str, list[tuple[object, ...]]]:
    """A schema, part by part."""
    parts: dict[str, list[tuple[object, ...]]] = {}
    for part, statement in _PARTS.items():
        there = statement.replace("'public'::regnamespace", IN_SCHEMA).replace("'public'", "%(schema)s")
        cursor.execute(there, {"schema": schema})
        parts[part] = cursor.fetchall()
    return parts
