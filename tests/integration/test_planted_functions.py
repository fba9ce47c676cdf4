"""Whoever may make things in the tables' schema makes a better fitting one of all that our SQL calls: none of ours finds any.

As in a database of Postgres 14, or one upgraded from it, where every login may.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import psycopg2
import pytest
from click.testing import Result
from login_records import batch_of, login, records
from planted import plant, runs
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class like a variable
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names its class like a module

from dev_servers.postgres import Postgres
from pipeline.settings import load
from stream_app.commands.keys import KEYSET_FILES, create_keysets
from stream_app.ip_address import pack
from stream_app.masking.masker import Masker
from stream_app.masking.policy import parse_methods
from stream_app.monitor.database import Database
from stream_app.monitor.settings import MonitorSettings
from stream_app.positions import Claim, Partition
from stream_app.postgres.batch_writer import BatchWriter
from stream_app.postgres.connection import WRITER, connection_parameters
from stream_app.postgres.migrations import migrate
from stream_app.postgres.pool import ConnectionPool
from stream_app.postgres.queries import load_queries
from stream_app.postgres.settings import PostgresSettings

Command = Callable[..., Result]
PARTITION = Partition("logins", 0)
MIXED_BATCH = batch_of(records([login(), b"not json", login()], 0), 0, 3)

PATHS = pytest.mark.parametrize(
    "path",
    [
        pytest.param('"$user", public', id="where no better one is in pg_catalog"),
        pytest.param("public, pg_catalog", id="before pg_catalog"),  # as the database's owner may have set it
    ],
)


@pytest.fixture(scope="module")
def planted_template(postgres: Postgres) -> Iterator[str]:
    """A database in which some login has planted all, before anything of ours was there."""
    dsn = postgres.create_database()
    with connected(dsn) as cursor:
        cursor.execute("CREATE ROLE planter NOLOGIN; GRANT CREATE ON SCHEMA public TO PUBLIC; SET ROLE planter")
        plant(cursor)
        cursor.execute("RESET ROLE")
    yield dsn.rpartition("/")[2]
    postgres.drop_database(dsn)
    with connected(postgres.dsn) as cursor:
        cursor.execute("DROP ROLE planter")


@pytest.fixture
def planted_database(postgres: Postgres, planted_template: str) -> Iterator[str]:
    dsn = postgres.create_database(template=planted_template)
    yield dsn
    postgres.drop_database(dsn)


class connected:  # noqa: N801 - used like a function
    """The superuser, in autocommit, who finds nothing that is planted."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg2.connect(dsn, options="-c search_path=pg_catalog")
        self._connection.autocommit = True

    def __enter__(self) -> Cursor:
        return self._connection.cursor()

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def set_path(dsn: str, path: str) -> None:
    with connected(dsn) as cursor:
        cursor.execute(f"ALTER DATABASE {dsn.rpartition('/')[2]} SET search_path = {path}")


def planted_runs(dsn: str) -> int:
    with connected(dsn) as cursor:
        return runs(cursor)


@PATHS
def test_migrate_runs_nothing_that_is_planted(planted_database: str, command: Command, path: str) -> None:
    """Nor does the check before it, which a superuser runs, too."""
    set_path(planted_database, path)
    assert command("migrate", "--check", POSTGRES_DSN=planted_database).exit_code == 1
    assert planted_runs(planted_database) == 0
    applied = command("migrate")
    assert (applied.exit_code, planted_runs(planted_database)) == (0, 0), applied.output
    for again in (command("migrate"), command("migrate", "--check")):
        assert (again.exit_code, planted_runs(planted_database)) == (0, 0), again.output


@PATHS
async def test_the_worker_runs_nothing_that_is_planted(planted_database: str, path: str) -> None:
    set_path(planted_database, path)
    settings = load(PostgresSettings, postgres_dsn=planted_database)
    migrate(settings, lambda _: None)
    pool = ConnectionPool(settings, role=WRITER, application_name="test", size=1)
    writer = BatchWriter(pool, consumer_group="group", owner="test", create_date_time_zone="Europe/Berlin")
    claim, _ = await writer.claim(PARTITION, 0, "id")
    assert await writer.newest_sent_at_ms() == 0
    assert (await writer.write(claim, MIXED_BATCH)).rows == 2
    again = batch_of(records([login(), b"not json", login()], 3), 3, 6)
    assert (await writer.write(claim, again, await writer.newest_sent_at_ms())).rows == 2
    position = await writer.position(PARTITION)
    await pool.close()
    assert position is not None
    assert (position.next_offset, planted_runs(planted_database)) == (6, 0)


@PATHS
def test_commands_and_monitor_run_nothing_that_is_planted(
    planted_database: str, command: Command, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_path(planted_database, path)
    monkeypatch.setenv("POSTGRES_DSN", planted_database)
    migrate(load(PostgresSettings), lambda _: None)
    with connected(planted_database) as cursor:
        cursor.execute("INSERT INTO public.stream_positions VALUES ('stream_app', 'logins', 0, 500, 4, 'host:1')")
        cursor.execute(
            "INSERT INTO public.dead_letters SELECT 'g', 't', 0, n, gen_random_uuid(), now(), 'not_json', NULL, ''"
            " FROM generate_series(1, 3) AS n"
        )
    assert command("positions").stdout.count("logins") == 1
    reset = command("positions", "reset", "--topic", "logins", "--partition", "0", "--to", "7", "--reason", "r", "--yes")
    assert reset.stdout.endswith("next_offset 7, epoch 5\n"), reset.output
    assert command("dead-letters", "list", "--reason", "not_json").stdout.splitlines()[1].split() == ["not_json", "3"]
    paths = create_keysets(tmp_path)
    keyset_file = {file.setting: path for file, path in paths.items() if file in KEYSET_FILES}["MASKING_KEYSET_FILE"]
    token = Masker.load(parse_methods(""), keyset_file=keyset_file).mask("ip", [pack("203.0.113.7")])[0]
    assert token is not None
    revealed = command("reveal", "--field", "ip", "--reason", "r", token, MASKING_KEYSET_FILE=str(keyset_file))
    assert revealed.stdout == "203.0.113.7\n", revealed.output
    database = Database(load(MonitorSettings))
    assert database.positions() == {0: 7}
    facts = database.table_facts()
    database.close()
    assert (facts.open_dead_letters, facts.reveals["ip"].calls) == ({"not_json": 3}, 1)
    assert planted_runs(planted_database) == 0


def plant_record(dsn: str, statements: str) -> None:
    """Make ``stream_migrations`` before ``migrate`` does, as a login that may make things in the schema."""
    with connected(dsn) as cursor:
        cursor.execute("""
            GRANT CREATE ON SCHEMA public TO PUBLIC;
            CREATE SEQUENCE public.planted_runs;
            GRANT ALL ON SEQUENCE public.planted_runs TO PUBLIC;
            CREATE FUNCTION public.planted(name text) RETURNS text LANGUAGE sql AS $$
            SELECT $1 FROM nextval('public.planted_runs') $$;
            CREATE FUNCTION public.planted_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN NEW.name := public.planted(NEW.name); RETURN NEW; END $$;
            DO $$ BEGIN
                CREATE ROLE other_planter NOLOGIN;
            EXCEPTION WHEN duplicate_object THEN
                NULL;
            END $$;
            SET ROLE other_planter
        """)
        cursor.execute(statements)
        cursor.execute("GRANT ALL ON public.stream_migrations TO PUBLIC; RESET ROLE")


VIEWS = (
    "CREATE VIEW public.stream_migrations AS SELECT public.planted('0001_user_logins') AS name",
    """CREATE TABLE public.real (name text);
    CREATE FUNCTION public.rows() RETURNS SETOF public.real LANGUAGE sql AS $$ SELECT public.planted('x') $$;
    CREATE VIEW public.stream_migrations AS SELECT * FROM public.rows()""",
)
TABLES = (
    """CREATE TABLE public.stream_migrations (name text PRIMARY KEY);
    CREATE TRIGGER planted BEFORE INSERT ON public.stream_migrations FOR EACH ROW EXECUTE FUNCTION public.planted_trigger()""",
    "CREATE TABLE public.stream_migrations (name text CHECK (public.planted(name) IS NOT NULL))",
    "CREATE TABLE public.stream_migrations (name text, more text DEFAULT public.planted('x'))",
    """CREATE TABLE public.stream_migrations (name text);
    ALTER TABLE public.stream_migrations ENABLE ROW LEVEL SECURITY;
    CREATE POLICY planted ON public.stream_migrations USING (public.planted(name) IS NOT NULL)""",
    """CREATE TABLE public.stream_migrations (name text);
    CREATE FUNCTION public.planted_constant(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
    BEGIN IF current_user = 'other_planter' THEN RETURN 'x'; END IF; RETURN public.planted($1); END $$;
    CREATE INDEX ON public.stream_migrations ((public.planted_constant('x')))""",  # run when a query is planned
)


@pytest.mark.parametrize("statements", VIEWS)
def test_a_view_in_place_of_the_table_of_migrations_is_not_read(command: Command, fresh_database: str, statements: str) -> None:
    """It would run with the rights of whoever asks what is pending."""
    plant_record(fresh_database, statements)
    for arguments in (("migrate", "--check"), ("migrate",)):
        result = command(*arguments, POSTGRES_DSN=fresh_database)
        assert result.stderr == "Error: public.stream_migrations is no table: somebody else made it; as its owner: DROP it\n"
    assert planted_runs(fresh_database) == 0


@pytest.mark.parametrize("statements", TABLES)
def test_a_table_of_migrations_that_somebody_else_made_is_not_written(
    command: Command, fresh_database: str, statements: str
) -> None:
    """What its owner put on it would run with the rights of whoever migrates. To read it runs nothing."""
    plant_record(fresh_database, statements)
    check = command("migrate", "--check", POSTGRES_DSN=fresh_database)
    assert check.stdout.count("pending ") > 1
    assert (
        "public.stream_migrations belongs to other_planter, who is neither a superuser nor the owner of the database"
        in check.stderr
    )
    result = command("migrate")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: public.stream_migrations belongs to other_planter, who is neither this login nor a ")
    assert planted_runs(fresh_database) == 0


def test_a_policy_of_somebody_else_is_an_error_and_is_not_run(command: Command, fresh_database: str, postgres: Postgres) -> None:
    plant_record(fresh_database, TABLES[3])
    with connected(fresh_database) as cursor:
        cursor.execute("INSERT INTO public.stream_migrations VALUES ('x')")
        cursor.execute("CREATE ROLE plain LOGIN PASSWORD 'made-up'")
    try:
        result = command("migrate", "--check", POSTGRES_DSN=postgres.dsn_of(fresh_database.rpartition("/")[2], "plain", "made-up"))
        assert result.exit_code == 1
        assert "row-level security policy" in result.stderr
        assert planted_runs(fresh_database) == 0
    finally:
        with connected(fresh_database) as cursor:
            cursor.execute("DROP OWNED BY plain; DROP ROLE plain")


def test_a_table_of_logins_that_somebody_else_made_is_told_of(command: Command, fresh_database: str) -> None:
    """It may be meant. What its owner puts on it runs with the rights of the worker, not of whoever migrates."""
    plant_record(
        fresh_database,
        """CREATE TABLE public.user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
        masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date);
        INSERT INTO public.user_logins VALUES ('u');
        CREATE FUNCTION public.planted_immutable(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
        BEGIN RETURN public.planted($1); END $$;
        ALTER TABLE public.user_logins ADD CHECK (public.planted_immutable(user_id) IS NOT NULL) NOT VALID;
        CREATE TRIGGER planted BEFORE INSERT ON public.user_logins FOR EACH ROW EXECUTE FUNCTION public.planted_trigger();
        CREATE TABLE public.stream_migrations (name text)""",
    )
    with connected(fresh_database) as cursor:
        cursor.execute("DROP TABLE public.stream_migrations")
    result = command("migrate", POSTGRES_DSN=fresh_database)
    assert result.exit_code == 0
    assert "public.user_logins belongs to other_planter, who is neither" in result.stderr
    for function in ("planted_immutable(text)", "planted_trigger()"):
        assert f'ALTER FUNCTION public.{function} SET search_path = pg_catalog, "public", pg_temp' in result.stderr
    assert planted_runs(fresh_database) == 0


class _Recorder:
    """A pool that sends nothing: what the worker's statements are, with the parameters it has for them."""

    schema = "public"

    def __init__(self) -> None:
        self.sent: list[tuple[str, Mapping[str, Any]]] = []

    async def fetch_one(self, statement: str, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
        self.sent.append((statement, parameters))
        return (0, 1, None, None, None)


PLACE = {"consumer_group": "g", "topic": "t", "partition": 0}
CHOSEN = {"sent_at": ["2026-01-01"], "message_ids": [str(UUID(int=1))], "replays": [1]}
PARAMETERS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("positions_of_partition", "monitor_positions", "monitor_records_skipped"), PLACE),
    "add_reveal_audit": {"reason": "r", "field": "ip", "tokens": 1},
    "add_operator_action": {"action": "a", "target": "t", "details": "{}", "reason": "r"},
    "operator_actions": {"action": "a", "limit": 1},
    "count_dead_letters": {"reason": "r"},
    "newest_dead_letters": {"reason": "r", "limit": 1},
    "newest_reveals": {"limit": 1},
    "choose_dead_letters": {
        **dict.fromkeys(("topic", "message_ids", "reason", "field", "since", "until", "limit")),
        "only_open": True,
    },
    **dict.fromkeys(("sealed_dead_letters", "begin_replays", "end_replays", "discard_dead_letters"), CHOSEN),
    "purge_dead_letters": {"older_than": "2026-01-01", "most": 1},
    "reset_position": {**PLACE, "next_offset": 0, "found_next_offset": 0, "details": "{}", "reason": "r"},
    "adopt_positions": {**PLACE, "other_group": "h", "reason": "r"},
    "write_record": {"name": "n"},
    "limit_lock_wait": {"milliseconds": "1"},
    "look_for_holders": {"tables": ["t"], "modes": ["m"]},
    "look_at_log_settings": {"names": ["n"]},
    "may_keep_rows_out_of_log": {"names": ["n"]},
}
NO_EXPRESSION = ("read_record", "make_schema", "make_record", "take_turn", "hold_record", "keep_rows_out_of_log")
"""Statements that define or lock."""


async def statements() -> list[tuple[str, Mapping[str, Any]]]:
    """Each of ours, with parameters."""
    recorder = _Recorder()
    writer = BatchWriter(cast("ConnectionPool", recorder), consumer_group="g", owner="o", create_date_time_zone="UTC")
    await writer.position(PARTITION)
    await writer.other_groups("t")
    await writer.claim(PARTITION, 0, "id")
    await writer.newest_sent_at_ms()
    await writer.replay_key()
    await writer.write(Claim(PARTITION, 1, None), MIXED_BATCH, 1)
    assert {statement for statement, _ in recorder.sent} == set(load_queries("worker.sql", "public").values())
    others = [
        (statement, PARAMETERS.get(name, {}))
        for file in ("preflight.sql", "commands.sql", "monitor.sql", "migrate.sql", "session.sql")
        for name, statement in load_queries(file, "public").items()
        if name not in NO_EXPRESSION
    ]
    return recorder.sent + others


BY_NAME_IN_PG_CATALOG = {"unnest", "current_setting"}
"""The first, with several arguments, by Postgres's grammar; the second is written so, where the path is not yet known."""

_CALLED = re.compile(
    r":funcid (\d+) :funcresulttype \d+ :funcretset \w+ :funcvariadic \w+ :funcformat 0 |:(?:aggfnoid|winfnoid) (\d+) "
)
_OPERATORS = re.compile(r":opno (\d+) |:opnos \(o ([\d ]+)\)")


@dataclass
class Found:
    """Names of functions and signs of operators: those of pg_catalog, and all others."""

    own: set[str] = field(default_factory=set)
    planted: set[str] = field(default_factory=set)


def resolve(connection: Connection, statement: str, parameters: Mapping[str, Any], found: Found) -> None:
    """Add what a statement calls and compares with, by Postgres's own parse tree of it.

    The tree is that of a function with the statement as its body. Casts that Postgres puts in by itself have no name there.
    """
    with connection.cursor() as cursor:
        body = cursor.mogrify(statement, parameters or None).decode()
        cursor.execute(f"CREATE FUNCTION pg_temp.parsed() RETURNS void LANGUAGE sql BEGIN ATOMIC {body}; END")
        cursor.execute("SELECT prosqlbody::pg_catalog.text FROM pg_catalog.pg_proc WHERE proname OPERATOR(pg_catalog.=) 'parsed'")
        ((tree,),) = cursor.fetchall()
        functions = [int(one or other) for one, other in _CALLED.findall(tree)]
        operators = [int(each) for one, several in _OPERATORS.findall(tree) for each in (one or several).split()]
        cursor.execute(
            """SELECT proname, pronamespace OPERATOR(pg_catalog.=) 11::pg_catalog.oid
            FROM pg_catalog.pg_proc WHERE oid OPERATOR(pg_catalog.=) ANY(%s::pg_catalog.oid[])
            UNION ALL SELECT oprname, oprnamespace OPERATOR(pg_catalog.=) 11::pg_catalog.oid
            FROM pg_catalog.pg_operator WHERE oid OPERATOR(pg_catalog.=) ANY(%s::pg_catalog.oid[])""",
            (functions, operators),
        )
        for name, is_own in cursor.fetchall():
            (found.own if is_own else found.planted).add(name)
    connection.rollback()


async def test_every_call_and_operator_of_ours_is_postgres_own(planted_database: str) -> None:
    settings = load(PostgresSettings, postgres_dsn=planted_database)
    migrate(settings, lambda _: None)
    set_path(planted_database, "public, pg_catalog")
    given: Any = connection_parameters(settings, role=None, application_name="test")
    found = Found()
    with closing(psycopg2.connect(**given)) as connection:
        for statement, parameters in await statements():
            resolve(connection, statement, parameters, found)
    assert found.planted == {"differing_logins", "keys_in_use", "settle_replays", "purge_dead_letters"}, (
        "ours, and named with its schema"
    )
    assert {"unnest", "to_timestamp", "quote_ident", "count", "=", "||", "/"} <= found.own


@pytest.mark.parametrize(("path", "all_of_it"), [("public,pg_catalog", True), ("pg_catalog,public", False)])
async def test_what_is_planted_would_be_found_in_another_path(planted_database: str, path: str, all_of_it: bool) -> None:  # noqa: FBT001
    """Else the tests above would prove nothing. And pg_catalog first in the path is no help, if there is another schema in it."""
    migrate(load(PostgresSettings, postgres_dsn=planted_database), lambda _: None)
    with connected(planted_database) as cursor:  # these make calls ambiguous, no others of them
        cursor.execute(
            "SELECT 'DROP DOMAIN public.' || quote_ident(typname) FROM pg_type"
            " WHERE typtype = 'd' AND typnamespace = 'public'::regnamespace"
        )
        for (statement,) in cursor.fetchall():
            cursor.execute(statement)
        cursor.execute(  # planted aggregates return text, and ours would not be found for that
            "CREATE FUNCTION public.differing_logins(text, text, text, text, text, text, text, text) RETURNS uuid[]"
            " LANGUAGE sql RETURN NULL::pg_catalog.uuid[];"
            "CREATE FUNCTION public.settle_replays(text, text, text, text, text, text, text) RETURNS bigint[]"
            " LANGUAGE sql RETURN NULL::pg_catalog.int8[]"
        )
    found = Found()
    with closing(psycopg2.connect(planted_database, options=f"-c search_path={path}")) as connection:
        for statement, parameters in await statements():
            resolve(connection, statement, parameters, found)
    if all_of_it:
        assert found.own <= BY_NAME_IN_PG_CATALOG
    assert {"unnest", "quote_ident", "||", "/"} <= found.planted
