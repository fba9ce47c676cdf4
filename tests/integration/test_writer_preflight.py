"""What a worker finds before it joins its group, on a real Postgres: what ends it, and what it waits for."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import psycopg2
import pytest
import tink
from login_records import PLACE, SENT_AT_BOUNDS, batch_of, dead_letter_handle, login, masker, masking_keyset, records
from psycopg2.extensions import make_dsn
from tink import hybrid

from dev_servers.ports import free_port
from dev_servers.postgres import Postgres
from pipeline.errors import FatalError, PipelineError, RetryableError
from pipeline.settings import load
from stream_app.batch import BatchBuilder
from stream_app.dead_letters import Sealer
from stream_app.masking import keysets
from stream_app.masking.masker import Masker
from stream_app.masking.policy import parse_methods
from stream_app.positions import Partition
from stream_app.postgres.batch_writer import BatchWriter
from stream_app.postgres.connection import WRITER
from stream_app.postgres.errors import MIGRATE
from stream_app.postgres.migrations import migrate
from stream_app.postgres.pool import ConnectionPool
from stream_app.postgres.preflight import DatabaseReadOnlyError, TablesPendingError, WriterPreflight
from stream_app.postgres.settings import PostgresSettings
from stream_app.preflight import Check, look_at_all

LOGIN = "preflight_login"
PASSWORD = "right"


def query(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


def sealing(handle: tink.KeysetHandle) -> Sealer:
    public = handle.public_keyset_handle()
    ids = frozenset(key.key_id for key in public.keyset_info().key_info)
    return Sealer(public.primitive(hybrid.HybridEncrypt), ids)


class Worker:
    """A worker's part that has to do with Postgres."""

    def __init__(self, dsn: str, masking: Masker | None = None, sealer: Sealer | None = None, **settings: Any) -> None:
        self.masker = masking or masker()
        self.sealer = sealer or sealing(dead_letter_handle())
        self.pool = ConnectionPool(
            load(PostgresSettings, postgres_dsn=dsn, **settings), role=WRITER, application_name="test", size=2
        )
        self.writer = BatchWriter(self.pool, consumer_group="group", owner="test", create_date_time_zone="UTC")
        self.builder = BatchBuilder(self.masker, self.sealer, SENT_AT_BOUNDS)
        self.preflight = WriterPreflight(self.pool, self.writer)

    def keys_of(self, field: str) -> tuple[str, frozenset[int]]:
        if field == "dead letter":
            return keysets.SETTING_DEAD_LETTER_PUBLIC, self.sealer.key_ids
        return self.masker.keys_of(field)

    async def keys(self, *, accept: bool = False) -> str | None:
        await self.preflight.session()
        return await self.preflight.keys(self.keys_of, accept=accept)

    async def passes(self) -> list[PipelineError]:
        """What is waited for; raises what is not."""

        async def keys() -> None:
            await self.keys()

        looks: tuple[Callable[[], Awaitable[None]], ...] = (
            self.preflight.session,
            self.preflight.tables,
            lambda: self.preflight.statements(self.builder.begin(Partition("logins", -1), 0)),
            keys,
        )
        return [error for _, error in await look_at_all([Check(str(look), "postgres", look) for look in looks])]

    async def write(self, *bodies: bytes) -> None:
        claim, position = await self.writer.claim(PLACE, 0, None)
        batch = batch_of(records(bodies, position), position, position + len(bodies), by=self.builder)
        assert (await self.writer.write(claim, batch)).moved


@asynccontextmanager
async def worker(dsn: str, *arguments: Any, **settings: Any) -> AsyncIterator[Worker]:
    made = Worker(dsn, *arguments, **settings)
    try:
        yield made
    finally:
        await made.pool.close()


async def test_a_worker_that_can_write_passes_and_has_written_nothing(migrated_database: str) -> None:
    before = query(migrated_database, "SELECT count(*) FROM user_logins, stream_positions")
    async with worker(migrated_database) as ours:
        assert await ours.passes() == []
    assert query(migrated_database, "SELECT count(*) FROM user_logins, stream_positions") == before


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        ("ALTER TABLE user_logins RENAME TO elsewhere", r'"public.user_logins" does not exist \(SQLSTATE 42P01\).*schema.sql'),
        (
            "ALTER TABLE user_logins DROP COLUMN locale",
            r'column "locale" of relation "user_logins".*\(SQLSTATE 42703\).*schema.sql',
        ),
        (
            "DROP INDEX user_logins_sent_at_message_id",
            r"user_logins has no valid unique index on \(sent_at, message_id\).*CREATE UNIQ",
        ),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'user_logins_sent_at_message_id'::regclass",
            r"public.user_logins has no valid unique index",
        ),
        ("ALTER TABLE dead_letters DROP CONSTRAINT dead_letters_pkey", r"public.dead_letters has no valid unique index"),
        (
            "ALTER TABLE stream_positions DROP CONSTRAINT stream_positions_pkey",
            r"public.stream_positions has no valid unique index",
        ),
        ("REVOKE INSERT ON user_logins FROM stream_writer", r"permission denied for table user_logins \(SQLSTATE 42501\)"),
        ("REVOKE INSERT ON dead_letters FROM stream_writer", r"permission denied for table dead_letters \(SQLSTATE 42501\)"),
        ("REVOKE UPDATE (epoch) ON stream_positions FROM stream_writer", r"permission denied for table stream_positions"),
        ("REVOKE EXECUTE ON FUNCTION differing_logins FROM stream_writer", r"permission denied for function differing_logins"),
        ("DROP FUNCTION differing_logins", r"function public.differing_logins.* does not exist"),
        ("DROP FUNCTION keys_in_use", r"function public.keys_in_use\(\) does not exist.*schema.sql"),
        ("REVOKE SELECT ON stream_migrations FROM stream_writer", r"permission denied for table stream_migrations.*schema.sql"),
        ("REVOKE USAGE ON SCHEMA public FROM stream_writer, PUBLIC", r"permission denied for schema public"),
        (
            "CREATE SCHEMA elsewhere; ALTER TABLE stream_migrations SET SCHEMA elsewhere",
            r"POSTGRES_SCHEMA is public, and the tables are in the schema elsewhere",
        ),
    ],
)
async def test_what_migrate_made_and_somebody_changed_ends_the_worker(migrated_database: str, breaks: str, says: str) -> None:
    query(migrated_database, breaks)
    async with worker(migrated_database) as ours:
        with pytest.raises(FatalError, match=says):
            await ours.passes()


async def test_before_migrate_has_run_a_worker_waits(fresh_database: str) -> None:
    async with worker(fresh_database) as ours:
        (waits,) = await ours.passes()
        assert isinstance(waits, TablesPendingError)
        assert f"has no tables of this stream in the schema public: run `{MIGRATE}`, or correct POSTGRES_DSN" in str(waits)
        migrate(load(PostgresSettings, postgres_dsn=fresh_database), lambda _: None)
        assert await ours.passes() == []


async def test_a_worker_of_a_newer_version_waits_for_its_migrations(migrated_database: str) -> None:
    query(migrated_database, "DELETE FROM stream_migrations WHERE name = '0015_shared_by_day'")
    async with worker(migrated_database) as ours:
        (waits,) = await ours.passes()
    assert isinstance(waits, TablesPendingError)
    assert "it has 0015_shared_by_day to apply" in str(waits)


async def test_a_worker_of_an_older_version_goes_on(migrated_database: str) -> None:
    query(migrated_database, "INSERT INTO stream_migrations VALUES ('9999_newer')")
    async with worker(migrated_database) as ours:
        assert await ours.passes() == []


async def test_a_server_without_the_role_waits_for_migrate(migrated_database: str) -> None:
    query(migrated_database, "ALTER ROLE stream_writer RENAME TO stream_writer_away")
    try:
        async with worker(migrated_database) as ours:
            (waits,) = await ours.passes()
    finally:
        query(migrated_database, "ALTER ROLE stream_writer_away RENAME TO stream_writer")
    assert isinstance(waits, TablesPendingError)
    assert MIGRATE in str(waits)


async def test_a_database_that_takes_no_writes_is_waited_for(migrated_database: str) -> None:
    name = migrated_database.rpartition("/")[2]
    query(migrated_database, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    async with worker(migrated_database) as ours:
        (waits,) = await ours.passes()
    assert isinstance(waits, DatabaseReadOnlyError)
    assert name in str(waits)


@pytest.fixture
def login_role(migrated_database: str) -> Iterator[str]:
    """A login that is no member of the writer's role."""
    query(migrated_database, f"CREATE ROLE {LOGIN} LOGIN PASSWORD '{PASSWORD}'")
    yield LOGIN
    query(migrated_database, f"DROP OWNED BY {LOGIN}; DROP ROLE {LOGIN}")


async def test_a_login_without_the_role_ends_the_worker(migrated_database: str, login_role: str) -> None:
    async with worker(make_dsn(migrated_database, user=login_role, password=PASSWORD)) as ours:
        with pytest.raises(
            FatalError, match=r"the role stream_writer.*POSTGRES_DSN's user is no member.*permission denied to set role"
        ):
            await ours.passes()


async def test_a_database_that_is_not_there_ends_the_worker(postgres: Postgres) -> None:
    async with worker(make_dsn(postgres.dsn, dbname="no_such_database")) as ours:
        with pytest.raises(FatalError, match=r'create it or correct POSTGRES_DSN.*database "no_such_database" does not exist'):
            await ours.passes()


async def test_a_wrong_password_ends_the_worker(migrated_database: str, login_role: str) -> None:
    async with worker(make_dsn(migrated_database, user=login_role, password="wrong")) as ours:
        with pytest.raises(
            FatalError, match=r"POSTGRES_DSN, POSTGRES_PASSWORD_FILE \(SQLSTATE 28P01\).*password authentication failed"
        ):
            await ours.passes()


async def test_a_login_that_may_not_connect_ends_the_worker(migrated_database: str, login_role: str) -> None:
    name = migrated_database.rpartition("/")[2]
    query(migrated_database, f'GRANT stream_writer TO {login_role}; REVOKE CONNECT ON DATABASE "{name}" FROM PUBLIC')
    async with worker(make_dsn(migrated_database, user=login_role, password=PASSWORD)) as ours:
        with pytest.raises(FatalError, match=r"POSTGRES_DSN's user may not connect.*permission denied for database"):
            await ours.passes()


async def test_a_server_that_asks_for_tls_we_can_not_check_ends_the_worker(migrated_database: str) -> None:
    async with worker(migrated_database, postgres_sslmode="require") as ours:
        with pytest.raises(FatalError, match="offers no TLS, and POSTGRES_SSLMODE requires it"):
            await ours.passes()


async def test_a_server_that_is_away_is_waited_for() -> None:
    async with worker(f"postgresql://someone@127.0.0.1:{free_port()}/somewhere") as ours:
        (waits,) = await ours.passes()
    assert isinstance(waits, RetryableError)
    assert "nobody listens" in str(waits)


async def test_a_login_at_its_limit_of_connections_is_waited_for(migrated_database: str, login_role: str) -> None:
    query(migrated_database, f"GRANT stream_writer TO {login_role}; ALTER ROLE {login_role} CONNECTION LIMIT 0")
    async with worker(make_dsn(migrated_database, user=login_role, password=PASSWORD)) as ours:
        (waits,) = await ours.passes()
    assert "too many connections" in str(waits)


# --- keys


def strange_masker(methods: str = "") -> Masker:
    return Masker(parse_methods(methods), keyset=masking_keyset(keysets.new_secret_keyset(keysets.MASKING_TEMPLATE)))


async def test_a_masking_keyset_that_is_not_the_others_ends_the_worker(migrated_database: str) -> None:
    async with worker(migrated_database) as others, worker(migrated_database, strange_masker()) as ours:
        assert await ours.passes() == []  # nothing is there that would tell
        await others.write(login(), login(device_id=None))
        assert await others.passes() == []
        (key_id,) = others.masker.keys_of("ip")[1]
        with pytest.raises(
            FatalError, match=rf"^MASKING_KEYSET_FILE: .* has device_id masked with key {key_id}, .*KEYSET_MISMATCH=acc"
        ):
            await ours.passes()
        assert "MASKING_KEYSET_FILE" in str(await ours.keys(accept=True))
        await ours.write(login())
        assert await others.passes() == await ours.passes() == []  # who may be wrong can't be told any more


async def test_a_keyset_with_the_others_key_and_a_newer_one_is_theirs(migrated_database: str) -> None:
    handle = keysets.new_secret_keyset(keysets.MASKING_TEMPLATE)
    old = Masker(parse_methods(""), keyset=masking_keyset(handle))
    new = strange_masker()
    both = Masker(parse_methods(""), keyset=with_ids(new, old))
    async with worker(migrated_database, old) as before, worker(migrated_database, both) as after:
        await before.write(login())
        assert await after.passes() == []


def with_ids(one: Masker, other: Masker) -> keysets.MaskingKeyset:
    """The first one's keyset, as if it held the other's keys, too: only their ids are looked at."""
    keyset = one._keyset
    assert keyset is not None
    return keysets.MaskingKeyset(keyset.aead, keyset.key_ids | other.keys_of("ip")[1], keyset.primary_id)


async def test_a_field_that_others_mask_with_a_key_and_this_worker_does_not_ends_it(migrated_database: str) -> None:
    async with worker(migrated_database) as others, worker(migrated_database, masker("ip=redact")) as ours:
        await others.write(login())
        with pytest.raises(FatalError, match=r"^MASKING_METHODS: .* has ip masked with key .*, and here it is none"):
            await ours.passes()


@pytest.mark.parametrize("methods", ["ip=truncate,device_id=redact", "ip=rotate,device_id=rotate"])
async def test_values_that_no_key_has_masked_tell_nothing(migrated_database: str, methods: str) -> None:
    async with worker(migrated_database, masker(methods)) as others, worker(migrated_database) as ours:
        await others.write(login(), login(device_id="AQAAAAAAAAAA"))
        assert await ours.passes() == []


async def test_a_dead_letter_keyset_that_is_not_the_others_ends_the_worker_while_they_are_open(migrated_database: str) -> None:
    strange = sealing(keysets.new_secret_keyset(keysets.DEAD_LETTER_TEMPLATE))
    async with worker(migrated_database) as others, worker(migrated_database, masker(), strange) as ours:
        await others.write(b"not json")
        assert await others.passes() == []
        with pytest.raises(FatalError, match=r"^DEAD_LETTER_PUBLIC_KEYSET_FILE: .* has dead letter sealed with key"):
            await ours.passes()
        query(migrated_database, "UPDATE dead_letters SET resolution = 'discarded'")
        assert await ours.passes() == []
