"""Functions, operators, aggregates, types and views that a login plants in the tables' schema, so that our SQL might find them.

For each call, operator, cast and catalog that the SQL files have, by their text: with the argument types that Postgres's own have,
which win where the schema comes before ``pg_catalog``, and with others, which win wherever the schema is in the path at all and
they fit better than Postgres's own do. Each of them counts its run in a sequence, which no rollback takes back, and then raises.
"""

import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import count, product

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names its class like a module

TYPES = (
    "text", "name", "character varying", '"char"', "integer", "bigint", "double precision", "numeric", "boolean", "oid",
    "regclass", "timestamp with time zone", "date", "uuid", "bytea",
)  # fmt: skip
ARRAYS = ("text[]", "name[]", "bigint[]", "integer[]", "uuid[]", "bytea[]", "oid[]")
MIXED = ("text", "name", "integer", "bigint", "oid", "boolean")
"""All combinations of these, where a function has two or three arguments."""

POLYMORPHIC = {"anyelement", "anynonarray", "anycompatible", "anyarray", "anycompatiblearray", '"any"', "anycompatiblenonarray"}
OTHER_KINDS = {"internal", "anyenum", "anyrange", "anymultirange", "anycompatiblerange", "anycompatiblemultirange"}
IMPLIED_OPERATORS = {"BETWEEN": (">=", "<="), "IN": ("=",), "CASE": ("=",), "DISTINCT": ("=",), "IS": ("=",)}
JSON_OPERATORS = {"->": "jsonb", "->>": "text"}
"""Of jsonb and text."""
RESULTS = {"||": "text", "/": "double precision", "*": "double precision", "+": "double precision", "-": "double precision"}


MADE_MIN = 5_000

_NUMBERS = count()


def sql_files() -> str:
    """All statements of ours, without comments."""
    texts = [path.read_text() for path in _sql_files()]
    return re.sub(r"--[^\n]*", "", "\n".join(texts))


def _sql_files() -> Iterator[Traversable]:
    directory = files("stream_app.postgres") / "sql"
    for place in (directory, directory / "migrations"):
        yield from (path for path in place.iterdir() if path.name.endswith(".sql"))


def names_called() -> set[str]:
    """What is followed by a bracket, in lower case; much of it is no function."""
    return set(re.findall(r"\b([a-z][a-z0-9_]*)\s*\(", sql_files()))


def operators_used() -> set[str]:
    """Operator signs outside of literals, and those that words stand for."""
    text = re.sub(r"%\(\w+\)s|'[^']*'|\$\$|:=|::|%|:\"\w+\"", " ", sql_files())
    implied = {sign for word, signs in IMPLIED_OPERATORS.items() if re.search(rf"\b{word}\b", text) for sign in signs}
    return (set(re.findall(r"[+*/<>=~!@#^&|?-]+", text)) - {"=>"}) | implied


def plant(cursor: Cursor) -> None:
    """Plant everything, as this session's user, who may make things in ``public``; the session's path is ``pg_catalog``."""
    cursor.execute("""
        CREATE SEQUENCE public.planted_runs;
        GRANT ALL ON SEQUENCE public.planted_runs TO PUBLIC;
        CREATE FUNCTION public.planted(what text) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
        BEGIN PERFORM nextval('public.planted_runs'); RAISE EXCEPTION 'planted: %', what; END $$;
    """)
    statements = [*_functions(cursor), *_operators(), *_types(cursor), *_views(cursor)]
    cursor.execute("""
        CREATE FUNCTION public.plant(statements text[]) RETURNS integer LANGUAGE plpgsql AS $$
        DECLARE
            one  text;
            made integer := 0;
        BEGIN
            FOREACH one IN ARRAY statements LOOP
                BEGIN
                    EXECUTE one;
                    made := made + 1;
                EXCEPTION WHEN duplicate_function OR invalid_function_definition THEN -- the same one again, also of an operator
                    NULL;
                END;
            END LOOP;
            RETURN made;
        END $$
    """)
    cursor.execute("SELECT public.plant(%s)", (statements,))
    ((made,),) = cursor.fetchall()
    assert made > MADE_MIN


def runs(cursor: Cursor) -> int:
    """How often something planted was run."""
    cursor.execute("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM public.planted_runs")
    ((count,),) = cursor.fetchall()
    return int(count)


def _body(what: str) -> str:
    return f"LANGUAGE plpgsql AS $$ BEGIN PERFORM public.planted({_literal(what)}); END $$"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _functions(cursor: Cursor) -> Iterator[str]:
    cursor.execute(
        "SELECT proname, prokind::text, proretset, format_type(prorettype, NULL),"
        " ARRAY(SELECT format_type(type, NULL) FROM unnest(proargtypes) WITH ORDINALITY AS given (type, place) ORDER BY place)"
        " FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY(%s) AND prokind IN ('f', 'a')"
        " ORDER BY proname, proargtypes",
        (list(names_called()),),
    )
    found = [each for each in cursor.fetchall() if not OTHER_KINDS & {each[3], *each[4]}]
    for name, kind, is_set, result, arguments in found:  # Postgres's own signatures first: of two alike the first is made
        for concrete, concrete_result in _concrete(arguments, result):
            yield _function(name, kind, concrete, concrete_result, is_set=is_set)
    for name, kind, is_set, result, arguments in found:
        for others in _others(arguments):
            yield _function(name, kind, others, "text" if result in POLYMORPHIC else result, is_set=is_set)


def _concrete(arguments: list[str], result: str) -> Iterator[tuple[tuple[str, ...], str]]:
    if not POLYMORPHIC & set(arguments):
        yield tuple(arguments), result
        return
    for type_ in (*TYPES, *ARRAYS):
        element, is_array = type_.removesuffix("[]"), type_.endswith("[]")
        chosen = tuple(
            given if given not in POLYMORPHIC else (f"{element}[]" if given.endswith("array") else type_) for given in arguments
        )
        if result in POLYMORPHIC:
            yield (
                chosen,
                type_ if is_array and not result.endswith("array") else f"{element}[]" if result.endswith("array") else element,
            )
        else:
            yield chosen, result


def _others(arguments: list[str]) -> Iterator[tuple[str, ...]]:
    for place in range(len(arguments)):
        for type_ in (*TYPES, *ARRAYS):
            yield (*(_plain(each) for each in arguments[:place]), type_, *(_plain(each) for each in arguments[place + 1 :]))
    if len(arguments) in (2, 3):
        yield from product(MIXED, repeat=len(arguments))


def _plain(type_: str) -> str:
    return "text" if type_ in POLYMORPHIC else type_


def _function(name: str, kind: str, arguments: tuple[str, ...], result: str, *, is_set: bool) -> str:
    if result in ("void", "trigger", "record"):
        result = "text"
    listed = ", ".join(arguments)
    if kind == "a":
        step = f"planted_step_{next(_NUMBERS)}"
        # One string, two statements: the step has a name of its own, so only the aggregate may be there already.
        return (
            f"CREATE FUNCTION public.{step}({', '.join((result, *arguments))}) RETURNS {result} {_body(name)};"
            f" CREATE AGGREGATE public.{name}({listed or '*'}) (SFUNC = public.{step}, STYPE = {result})"
        )
    return f"CREATE FUNCTION public.{name}({listed}) RETURNS {'SETOF ' if is_set else ''}{result} {_body(f'{name}({listed})')}"


def _operators() -> Iterator[str]:
    for sign in sorted(operators_used() & JSON_OPERATORS.keys()):
        function = f"planted_for_json_{JSON_OPERATORS[sign]}"
        yield f"CREATE FUNCTION public.{function}(jsonb, text) RETURNS {JSON_OPERATORS[sign]} {_body(f'jsonb {sign} text')}"
        yield f"CREATE OPERATOR public.{sign} (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = public.{function})"
    for left, right in product((*TYPES, *ARRAYS), repeat=2):
        for sign in sorted(operators_used() - JSON_OPERATORS.keys()):
            result = RESULTS.get(sign, "boolean")
            function = f"planted_for_{result.partition(' ')[0]}"
            yield f"CREATE FUNCTION public.{function}({left}, {right}) RETURNS {result} {_body(f'{left} ? {right}')}"
            yield f"CREATE OPERATOR public.{sign} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.{function})"


def _types(cursor: Cursor) -> Iterator[str]:
    cursor.execute(
        "SELECT typname, format_type(oid, NULL) FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b'"
        " AND typname = ANY(%s)",
        (list(set(re.findall(r"::([a-z0-9]+)", sql_files()))),),
    )
    for name, type_ in cursor.fetchall():
        yield f"CREATE DOMAIN public.{name} AS {type_} CHECK (public.planted({_literal(name)}))"


def _views(cursor: Cursor) -> Iterator[str]:
    cursor.execute(
        "SELECT relname, string_agg(quote_ident(attname), ', ') FROM pg_class"
        " JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped JOIN pg_type ON pg_type.oid = atttypid"
        " WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v') AND typtype <> 'p' AND relname = ANY(%s)"
        " GROUP BY relname",
        (list(set(re.findall(r"\b(pg_[a-z_]+)\b", sql_files()))),),
    )
    for name, columns in cursor.fetchall():
        hidden = f"pg_catalog.{name} WHERE public.planted({_literal(name)})"
        yield f"CREATE VIEW public.{name} AS SELECT {columns} FROM {hidden}"  # noqa: S608 - names of the catalog
