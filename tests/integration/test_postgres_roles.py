"""What each role may do and may not: every statement is run as that role, taken the way the processes take it."""

from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest
from psycopg2.errors import InsufficientPrivilege
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class like a module
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from pydantic import SecretStr

from dev_servers.postgres import Postgres
from pipeline.errors import FatalError
from stream_app.postgres.connection import ANALYST, MONITOR, OPERATOR, PRIVACY_OFFICER, WRITER, connect, connection_parameters
from stream_app.postgres.queries import load_queries
from stream_app.postgres.settings import PostgresSettings

ROLES = (WRITER, OPERATOR, ANALYST, PRIVACY_OFFICER, MONITOR)
COMMANDS = load_queries("commands.sql", "public")
WORKER = load_queries("worker.sql", "public")
PLACE = {"consumer_group": "g", "topic": "t", "partition": 0}

ADD_LOGIN = (
    "INSERT INTO public.user_logins (user_id, sent_at, message_id) SELECT 'u', now(), gen_random_uuid()"
    " ON CONFLICT (sent_at, message_id) DO NOTHING"
)
ADD_LETTER = (
    "INSERT INTO public.dead_letters (consumer_group, topic, partition, record_offset, message_id, sent_at, reason, field, sealed)"
    r" SELECT 'g', 't', 0, 7, gen_random_uuid(), now(), 'not_json', NULL, '\x00' ON CONFLICT (sent_at, message_id) DO NOTHING"
)
FENCED_WRITE = f"""
WITH moved AS (
    UPDATE public.stream_positions SET next_offset = 9, updated_at = now()
    WHERE consumer_group = 'g' AND topic = 't' AND partition = 0 AND epoch = 1 AND next_offset = 5 RETURNING 1
), written AS ({ADD_LOGIN} RETURNING 1), letters AS ({ADD_LETTER} RETURNING 1)
SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM written), (SELECT count(*) FROM letters)
"""  # noqa: S608 - from the constants above

# What a statement is called, the statement, and the roles that may run it; all others may not.
STATEMENTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("write a batch", FENCED_WRITE, (WRITER,)),
    ("add a login", ADD_LOGIN, (WRITER,)),
    ("add a dead letter", ADD_LETTER, (WRITER,)),
    ("read a position", "SELECT next_offset, epoch FROM public.stream_positions", (WRITER, OPERATOR)),
    ("see how far a partition is", "SELECT partition, next_offset FROM public.stream_positions", (WRITER, OPERATOR, MONITOR)),
    ("claim", "INSERT INTO public.stream_positions VALUES ('g', 't', 1, 0, 1, 'o', now())", (WRITER,)),
    (
        "move a position",
        "UPDATE public.stream_positions SET next_offset = 1, epoch = 2, owner = 'o', updated_at = now()",
        (WRITER, OPERATOR),
    ),
    ("rename a position", "UPDATE public.stream_positions SET topic = 'other'", ()),
    ("remove a position", "DELETE FROM public.stream_positions", ()),
    ("see which messages are rows", "SELECT sent_at, message_id FROM public.user_logins", (WRITER, ANALYST)),
    ("read a masked value", "SELECT masked_ip FROM public.user_logins", (ANALYST,)),
    ("read whole rows", "SELECT * FROM public.user_logins", (ANALYST,)),
    ("get what was written back", f"{ADD_LOGIN} RETURNING user_id", ()),
    (
        "ask whether a row holds something else",
        "SELECT public.differing_logins(ARRAY[now()], ARRAY[gen_random_uuid()], '{u}', '{d}', '{i}', '{d}', '{l}', '{1}')",
        (WRITER,),
    ),
    ("ask which keys are in use", "SELECT field, key_id FROM public.keys_in_use()", (WRITER,)),
    ("ask which devices are shared", "SELECT * FROM public.shared_devices_by_day('2026-09-01', '2026-09-02')", (ANALYST,)),
    ("ask which addresses are shared", "SELECT * FROM public.shared_addresses_by_day('2026-09-01', '2026-09-02')", (ANALYST,)),
    ("change a row", "UPDATE public.user_logins SET locale = 'XX'", ()),
    ("remove rows", "DELETE FROM public.user_logins", ()),
    ("empty the rows", "TRUNCATE public.user_logins", ()),
    ("lock the rows", "LOCK TABLE public.user_logins IN ACCESS EXCLUSIVE MODE", ()),
    ("change the table", "ALTER TABLE public.user_logins ADD COLUMN ip text", ()),
    ("make a table", "CREATE TABLE public.mine (a integer)", ()),
    (
        "make a trigger",
        "CREATE TRIGGER mine AFTER INSERT ON public.user_logins EXECUTE FUNCTION public.reveal_audit_refuse_change()",
        (),
    ),
    ("read dead letters", "SELECT reason, sealed FROM public.dead_letters", (OPERATOR,)),
    ("see which messages are dead letters", "SELECT sent_at, message_id FROM public.dead_letters", (WRITER, OPERATOR)),
    ("resolve a dead letter", "UPDATE public.dead_letters SET resolution = 'replayed'", (OPERATOR,)),
    ("count a replay", "UPDATE public.dead_letters SET replays = 1, replay_ended = NULL, resolved_at = now()", (OPERATOR,)),
    ("say that replays failed", "UPDATE public.dead_letters SET replays_failed = 3", ()),
    (
        "tell what replays became",
        "SELECT public.settle_replays('{1}', ARRAY[gen_random_uuid()], '{1}', '{1}', '{r}', '{f}', '{x}')",
        (WRITER,),
    ),
    ("purge dead letters", "SELECT public.purge_dead_letters(now(), 1)", (OPERATOR,)),
    ("read what marks are signed with", "SELECT key FROM public.replay_key", (WRITER, OPERATOR)),
    ("sign with another key", r"UPDATE public.replay_key SET key = '\x00'", ()),
    ("change a dead letter", r"UPDATE public.dead_letters SET sealed = '\x00'", ()),
    ("remove dead letters", "DELETE FROM public.dead_letters", ()),
    ("audit a reveal", "INSERT INTO public.reveal_audit (reason, field, tokens) VALUES ('ticket 1', 'ip', 1)", (PRIVACY_OFFICER,)),
    ("audit in another's name", "INSERT INTO public.reveal_audit (who, reason, field, tokens) VALUES ('x', 'y', 'ip', 1)", ()),
    (
        "audit at another time",
        "INSERT INTO public.reveal_audit (revealed_at, reason, field, tokens) VALUES (now(), 'y', 'ip', 1)",
        (),
    ),
    (
        "count dead letters",
        "SELECT reason, count(*) FROM public.dead_letters WHERE resolution IS NULL GROUP BY reason",
        (OPERATOR, MONITOR),
    ),
    ("see how old dead letters are", "SELECT min(failed_at) FROM public.dead_letters", (OPERATOR, MONITOR)),
    ("count what was skipped", "SELECT target, details FROM public.operator_actions WHERE action = 'x'", (OPERATOR, MONITOR)),
    ("see who did what and why", "SELECT who, reason FROM public.operator_actions", (OPERATOR,)),
    ("count reveals", "SELECT field, sum(tokens) FROM public.reveal_audit GROUP BY field", (PRIVACY_OFFICER, MONITOR)),
    ("see who revealed and why", "SELECT who, reason FROM public.reveal_audit", (PRIVACY_OFFICER,)),
    ("read the audit", "SELECT * FROM public.reveal_audit", (PRIVACY_OFFICER,)),
    ("change the audit", "UPDATE public.reveal_audit SET reason = 'other'", ()),
    ("shorten the audit", "DELETE FROM public.reveal_audit", ()),
    ("empty the audit", "TRUNCATE public.reveal_audit", ()),
    (
        "tell of an action",
        "INSERT INTO public.operator_actions (action, target, reason) VALUES ('positions reset', 't/0', 'ticket 1')",
        (OPERATOR,),
    ),
    (
        "tell of an action in another's name",
        "INSERT INTO public.operator_actions (who, action, target, reason) VALUES ('x', 'positions reset', 't/0', 'y')",
        (),
    ),
    ("read of actions", "SELECT * FROM public.operator_actions", (OPERATOR,)),
    ("change an action", "UPDATE public.operator_actions SET reason = 'other'", ()),
    ("forget an action", "DELETE FROM public.operator_actions", ()),
    ("empty the actions", "TRUNCATE public.operator_actions", ()),
    ("see the migrations", "SELECT name FROM public.stream_migrations", ROLES),
    ("forget a migration", "DELETE FROM public.stream_migrations", ()),
    ("make a role", "CREATE ROLE mine", ()),
    ("read files of the server", "COPY (SELECT 1) TO '/tmp/made_up'", ()),
)


@pytest.fixture(scope="module")
def database(postgres: Postgres, migrated_template: str) -> Iterator[str]:
    dsn = postgres.create_database(template=migrated_template)
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO public.stream_positions VALUES ('g', 't', 0, 5, 1, 'o', now())")
    yield dsn
    postgres.drop_database(dsn)


@pytest.fixture(scope="module")
def sessions(database: str) -> Iterator[dict[str, Connection]]:
    """A session of the superuser's in each role."""
    settings = PostgresSettings(postgres_dsn=SecretStr(database))
    open_sessions = {
        role: psycopg2.connect(**dict[str, object](connection_parameters(settings, role=role, application_name="test")))  # type: ignore[call-overload]
        for role in ROLES
    }
    yield open_sessions
    for connection in open_sessions.values():
        connection.close()


@pytest.fixture
def login(postgres: Postgres, database: str) -> Iterator[PostgresSettings]:
    """A user without any right or membership."""
    with closing(psycopg2.connect(database)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("CREATE ROLE plain_login LOGIN NOINHERIT PASSWORD 'made-up'")
        yield PostgresSettings(postgres_dsn=SecretStr(postgres.dsn_of(database.rpartition("/")[2], "plain_login", "made-up")))
        cursor.execute("DROP ROLE plain_login")


def is_allowed(cursor: Cursor, statement: str, parameters: dict[str, object] | None = None) -> bool:
    try:
        cursor.execute(statement, parameters)
    except InsufficientPrivilege:
        return False
    finally:
        cursor.connection.rollback()
    return True


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("statement", "allowed"), [entry[1:] for entry in STATEMENTS], ids=[entry[0] for entry in STATEMENTS])
def test_role_may_do_its_job_and_nothing_else(
    sessions: dict[str, Connection], role: str, statement: str, allowed: tuple[str, ...]
) -> None:
    assert is_allowed(sessions[role].cursor(), statement) == (role in allowed)


@pytest.mark.parametrize(
    ("role", "statement", "parameters"),
    [
        (WRITER, WORKER["read_position"], PLACE),
        (WRITER, WORKER["claim_partition"], {**PLACE, "start": 0, "owner": "o", "topic_id": "i"}),
        (PRIVACY_OFFICER, COMMANDS["add_reveal_audit"], {"reason": "r", "field": "ip", "tokens": 1}),
        (OPERATOR, COMMANDS["count_dead_letters"], {"reason": None}),
        (OPERATOR, COMMANDS["newest_dead_letters"], {"reason": None, "limit": 1}),
        (OPERATOR, COMMANDS["all_positions"], {}),
        (OPERATOR, COMMANDS["positions_of_partition"], PLACE),
        (OPERATOR, COMMANDS["reset_position"], {**PLACE, "next_offset": 0, "found_next_offset": 0, "details": "{}", "reason": "r"}),
    ],
)
def test_role_may_run_the_statements_of_its_job(
    sessions: dict[str, Connection], role: str, statement: str, parameters: dict[str, object]
) -> None:
    assert is_allowed(sessions[role].cursor(), statement, parameters)


def test_audit_is_append_only_for_its_owner_too(database: str) -> None:
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO public.reveal_audit (reason, field, tokens) VALUES ('r', 'ip', 1)")
        connection.commit()
        for statement in (
            "UPDATE public.reveal_audit SET reason = 'other'",
            "DELETE FROM public.reveal_audit",
            "TRUNCATE public.reveal_audit",
        ):
            assert not is_allowed(cursor, statement)
        cursor.execute("SELECT reason FROM public.reveal_audit")
        assert cursor.fetchall() == [("r",)]


def test_audit_names_the_login_user_whatever_the_role(database: str, login: PostgresSettings) -> None:
    with closing(psycopg2.connect(database)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"GRANT {PRIVACY_OFFICER} TO plain_login")
    with connect(login, role=PRIVACY_OFFICER, application_name="test") as connection, connection.cursor() as cursor:
        cursor.execute(COMMANDS["add_reveal_audit"], {"reason": "r", "field": "ip", "tokens": 3})
        cursor.execute(
            "SELECT who, field, tokens, now() - revealed_at < interval '1 minute' FROM public.reveal_audit ORDER BY id DESC LIMIT 1"
        )
        assert cursor.fetchall() == [("plain_login", "ip", 3, True)]


@pytest.mark.parametrize("role", ROLES)
def test_user_who_is_no_member_is_refused(login: PostgresSettings, role: str) -> None:
    with (
        pytest.raises(
            FatalError, match=rf"^Postgres refuses the role {role} \(SQLSTATE 42501\): POSTGRES_DSN's user is no member of it"
        ),
        connect(login, role=role, application_name="test"),
    ):
        pass


def test_role_stays_after_reset(sessions: dict[str, Connection]) -> None:
    """It is where the session begins, so what a pool does between two users of a connection does not lift it."""
    cursor = sessions[ANALYST].cursor()
    for statement in ("RESET ROLE", "RESET ALL"):
        cursor.execute(statement)
        cursor.execute("SELECT current_user")
        assert cursor.fetchone() == (ANALYST,)


def test_newest_dead_letters_come_from_the_index(database: str) -> None:
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO public.dead_letters SELECT 'g', 't', 0, n, gen_random_uuid(), now(), 'r', NULL, ''"
            " FROM generate_series(1, 5000) n"
        )
        cursor.execute("ANALYZE dead_letters")
        cursor.execute(f"EXPLAIN {COMMANDS['newest_dead_letters']}", {"reason": None, "limit": 20})
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Index Scan Backward using dead_letters_failed_at" in plan
    assert "Sort" not in plan
