"""What a partition writer may rely on; the same for Postgres and for the store in memory that unit tests use."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg2
import pytest
from login_records import SENT_AT_BOUNDS, SENT_AT_MS, batch_of, headers, hmac_handle, login, masking_keyset, records, sealer
from memory_store import MemoryStore
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names its class like a variable
from tink import prf

from pipeline.errors import FatalError
from pipeline.settings import load
from stream_app.batch import Batch, BatchBuilder
from stream_app.masking import keysets
from stream_app.masking.masker import Masker
from stream_app.masking.policy import parse_methods
from stream_app.partition_ports import Store
from stream_app.positions import Partition, Position, Written
from stream_app.postgres.batch_writer import BatchWriter
from stream_app.postgres.connection import WRITER
from stream_app.postgres.errors import NotUniqueError, RowRefusedError
from stream_app.postgres.migrations import migrate
from stream_app.postgres.pool import ConnectionPool
from stream_app.postgres.settings import PostgresSettings

PARTITION = Partition("logins", 3)
POISON = b"not json"


def batch(first_offset: int, *bodies: bytes) -> Batch:
    return batch_of(records(bodies, first_offset), first_offset, first_offset + len(bodies))


@pytest.fixture(params=["postgres", "memory"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        memory = MemoryStore()
        memory.refused_message_ids = {batch(4711, login()).columns["message_id"][0]}
        yield memory
        return
    dsn = request.getfixturevalue("fresh_database")
    settings = load(PostgresSettings, postgres_dsn=dsn)
    migrate(settings, lambda _: None)
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE user_logins ADD CHECK (user_id <> 'refused')")
    pool = ConnectionPool(settings, role=WRITER, application_name="test", size=2)
    yield BatchWriter(pool, consumer_group="group", owner="test", create_date_time_zone="UTC")
    await pool.close()


async def test_a_partition_that_was_never_claimed_has_no_position(store: Store) -> None:
    assert await store.position(PARTITION) is None


async def test_other_groups_are_told_until_ours_has_begun(writer: BatchWriter) -> None:
    ours, theirs, others = (
        BatchWriter(writer._pool, consumer_group=name, owner="test", create_date_time_zone="UTC") for name in ("ours", "b", "a")
    )
    assert await ours.other_groups(PARTITION.topic) == []
    await theirs.claim(PARTITION, 0, None)
    await others.claim(PARTITION, 0, None)
    assert await ours.other_groups(PARTITION.topic) == ["a", "b"]
    assert await ours.other_groups("another topic") == []
    await ours.claim(PARTITION, 0, None)
    assert await ours.other_groups(PARTITION.topic) == []


async def test_the_start_counts_for_the_first_claim_only(store: Store) -> None:
    claim, position = await store.claim(PARTITION, 17, "id")
    assert (claim.epoch, position) == (1, 17)
    claim, position = await store.claim(PARTITION, 99, "id")
    assert (claim.epoch, position) == (2, 17)
    assert await store.position(PARTITION) == Position(17, 2)


async def test_the_topic_of_the_first_claim_that_knows_it_stays(store: Store) -> None:
    topic_ids = [(await store.claim(PARTITION, 0, told))[0].topic_id for told in (None, "first", None, "second")]
    assert topic_ids == [None, "first", "first", "first"]


async def test_a_write_moves_the_position_and_tells_what_it_wrote(store: Store) -> None:
    claim, _ = await store.claim(PARTITION, 5, "id")
    assert await store.write(claim, batch(5, login(), POISON, login())) == Written(
        moved=True, rows=2, dead_letter_offsets=frozenset({6})
    )
    assert await store.position(PARTITION) == Position(8, 1)


async def test_the_same_write_again_moves_nothing(store: Store) -> None:
    claim, _ = await store.claim(PARTITION, 0, "id")
    written = batch(0, login(), POISON)
    await store.write(claim, written)
    assert await store.write(claim, written) == Written(moved=False, rows=0, dead_letter_offsets=frozenset())


async def test_a_write_under_an_older_claim_moves_nothing(store: Store) -> None:
    former, _ = await store.claim(PARTITION, 0, "id")
    await store.claim(PARTITION, 0, "id")
    assert await store.write(former, batch(0, login(), POISON)) == Written(moved=False, rows=0, dead_letter_offsets=frozenset())
    assert await store.position(PARTITION) == Position(0, 2)


async def test_a_write_that_would_leave_a_gap_moves_nothing(store: Store) -> None:
    claim, _ = await store.claim(PARTITION, 0, "id")
    assert not (await store.write(claim, batch(1, login()))).moved


async def test_a_message_that_is_there_is_not_written_again(store: Store) -> None:
    claim, _ = await store.claim(PARTITION, 0, "id")
    await store.write(claim, batch(0, login(), POISON))
    again = batch_of(records([login(), POISON], 0), 2, 4)  # the same messages, further on in the log
    assert await store.write(claim, again) == Written(moved=True, rows=0, dead_letter_offsets=frozenset())


async def test_a_message_that_comes_again_with_other_content_is_told_and_changes_nothing(store: Store) -> None:
    claim, _ = await store.claim(PARTITION, 0, "id")
    await store.write(claim, batch(0, login(), login(), login(), login(), login(), login(), login(locale=None)))
    others = [
        login(user_id="another"), login(device_type="ios"), login(ip="203.0.113.9"), login(device_id="another"), login(locale=None),
        login(app_version="2.3.1"), login(),
    ]  # fmt: skip
    again = batch_of(records([*others, login()], 0), 7, 15)
    written = await store.write(claim, again)
    assert written == Written(
        moved=True, rows=1, dead_letter_offsets=frozenset(), differing_message_ids=frozenset(again.columns["message_id"][:7])
    )
    first_again = batch_of(records([login()], 0), 15, 16)
    assert not (await store.write(claim, first_again)).differing_message_ids, "the row is still what came first"


@pytest.mark.parametrize("methods", ["", "ip=hmac,device_id=hmac", "ip=truncate,device_id=redact"])
async def test_other_keys_and_methods_are_no_other_content(writer: BatchWriter, methods: str) -> None:
    claim, _ = await writer.claim(PARTITION, 0, "id")
    await writer.write(claim, batch(0, login(), login()))
    other = masking_keyset(keysets.new_secret_keyset(keysets.MASKING_TEMPLATE))
    masked = Masker(parse_methods(methods), keyset=other, hmac_keyset=hmac_handle().primitive(prf.PrfSet))
    again = batch_of(records([login(), login(locale=None)], 0), 2, 4, by=BatchBuilder(masked, sealer(), SENT_AT_BOUNDS))
    assert (await writer.write(claim, again)).differing_message_ids == frozenset(again.columns["message_id"][1:])


async def test_the_newest_row_is_known(store: Store) -> None:
    assert await store.newest_sent_at_ms() == 0
    claim, _ = await store.claim(PARTITION, 0, "id")
    await store.write(claim, batch(0, login(), login(), POISON))
    assert await store.newest_sent_at_ms() == SENT_AT_MS + 1


async def test_only_what_is_no_later_than_all_that_is_there_is_looked_for(store: Store) -> None:
    claim, _ = await store.claim(PARTITION, 0, "id")
    await store.write(claim, batch(0, login(), login()))
    both = batch_of(records([login(), login(), login()], 0), 2, 5)
    assert (both.sent_at_ms[1], both.sent_at_ms[2]) == (SENT_AT_MS + 1, SENT_AT_MS + 2)
    with pytest.raises(NotUniqueError):
        await store.write(claim, both, SENT_AT_MS)
    assert await store.position(PARTITION) == Position(2, 1)
    assert await store.write(claim, both, SENT_AT_MS + 1) == Written(moved=True, rows=1, dead_letter_offsets=frozenset())


async def test_a_message_is_another_one_if_either_its_id_or_its_time_differs(store: Store) -> None:
    """In one batch, and against what is there."""
    (first_id, first_time, _), (second_id, second_time, _) = headers(0), headers(1)
    claim, _ = await store.claim(PARTITION, 0, "id")
    for first_offset in (0, 2):
        crossed = records([login(), login()], first_offset)
        pairs = (
            [(first_id, first_time), (second_id, second_time)]
            if first_offset
            else [(first_id, second_time), (second_id, first_time)]
        )
        there = [replace(each, headers=pair) for each, pair in zip(crossed, pairs, strict=True)]
        assert (await store.write(claim, batch_of(there, first_offset, first_offset + 2))).rows == 2
    same_id = [
        replace(each, headers=(first_id, ("sent-at", b"%d" % time)), timestamp=time)
        for time, each in enumerate(records([login()] * 3, 4))
    ]
    assert (await store.write(claim, batch_of(same_id, 4, 7))).rows == 3


async def test_a_message_twice_in_one_batch_is_one_row(store: Store) -> None:
    claim, _ = await store.claim(PARTITION, 0, "id")
    twice = records([login(), login(), POISON, POISON], 0)
    twice[1] = replace(twice[1], headers=twice[0].headers)
    twice[3] = replace(twice[3], headers=twice[2].headers)
    assert await store.write(claim, batch_of(twice, 0, 4)) == Written(moved=True, rows=1, dead_letter_offsets=frozenset({2}))


async def test_a_refused_row_takes_everything_back(store: Store) -> None:
    claim, _ = await store.claim(PARTITION, 4710, "id")
    with pytest.raises(RowRefusedError):
        await store.write(claim, batch(4710, login(), login(user_id="refused"), POISON))
    assert await store.position(PARTITION) == Position(4710, 1)
    assert (await store.write(claim, batch(4710, login()))).rows == 1


async def test_a_batch_of_dead_letters_only(store: Store) -> None:
    claim, _ = await store.claim(PARTITION, 0, "id")
    assert await store.write(claim, batch(0, POISON, POISON)) == Written(moved=True, rows=0, dead_letter_offsets=frozenset({0, 1}))


async def test_partitions_and_topics_do_not_meet(store: Store) -> None:
    await store.claim(PARTITION, 1, "id")
    _, other_partition = await store.claim(Partition("logins", 4), 2, "id")
    _, other_topic = await store.claim(Partition("others", 3), 3, "id")
    assert (other_partition, other_topic) == (2, 3)


@pytest.fixture
async def writer(migrated_database: str) -> AsyncIterator[BatchWriter]:
    """On Postgres alone."""
    pool = ConnectionPool(
        load(PostgresSettings, postgres_dsn=migrated_database), role=WRITER, application_name="the writer", size=2
    )
    yield BatchWriter(pool, consumer_group="group", owner="test", create_date_time_zone="UTC")
    await pool.close()


@pytest.fixture
def superuser(migrated_database: str) -> Iterator[Cursor]:
    with closing(psycopg2.connect(migrated_database)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        yield cursor


def asked(cursor: Cursor, question: str) -> tuple[Any, ...]:
    cursor.execute(question)
    return cursor.fetchall()[0]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - Postgres sends no event
            await asyncio.sleep(0.02)


async def test_a_message_that_is_being_written_elsewhere_is_waited_for_and_found(writer: BatchWriter, superuser: Cursor) -> None:
    """The same message in two partitions: the batch that comes second is refused, and finds the row when it is sent again."""
    both = batch(0, login(), login())
    claim, _ = await writer.claim(PARTITION, 0, "id")
    superuser.execute(
        "BEGIN; INSERT INTO user_logins (sent_at, message_id) VALUES (to_timestamp(%s / 1000.0), %s)",
        (both.sent_at_ms[1], both.columns["message_id"][1]),
    )
    writing = asyncio.create_task(writer.write(claim, both))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'the writer' AND wait_event_type = 'Lock'"
    await until(lambda: asked(superuser, waiting) == (1,))
    superuser.execute("COMMIT")
    with pytest.raises(NotUniqueError):
        await writing
    assert await writer.position(PARTITION) == Position(0, 1)
    differing = frozenset(both.columns["message_id"][1:])  # the superuser's row has no user
    assert await writer.write(claim, both) == Written(
        moved=True, rows=1, dead_letter_offsets=frozenset(), differing_message_ids=differing
    )


@pytest.mark.parametrize("unique", ["CREATE UNIQUE INDEX any_name ON user_logins", "ALTER TABLE user_logins ADD PRIMARY KEY"])
async def test_a_table_in_partitions_will_do(writer: BatchWriter, superuser: Cursor, unique: str) -> None:
    """As its owner may keep it: by time, with a unique index on it. One that is missing is no fault of the rows."""
    superuser.execute(f"""
        ALTER TABLE user_logins RENAME TO former;
        CREATE TABLE user_logins (LIKE former) PARTITION BY RANGE (sent_at);
        {unique} (sent_at, message_id);
        CREATE TABLE user_logins_former PARTITION OF user_logins FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
        GRANT INSERT, SELECT (sent_at, message_id) ON user_logins TO stream_writer;
    """)
    claim, _ = await writer.claim(PARTITION, 0, "id")
    assert await writer.newest_sent_at_ms() == 0
    assert (await writer.write(claim, batch(0, login(), login()))).rows == 2
    assert await writer.newest_sent_at_ms() == SENT_AT_MS + 1
    again = batch_of(records([login(), login()], 0), 2, 4)
    with pytest.raises(NotUniqueError):
        await writer.write(claim, again, 0)
    assert await writer.write(claim, again) == Written(moved=True, rows=0, dead_letter_offsets=frozenset())
    superuser.execute("ALTER TABLE user_logins DETACH PARTITION user_logins_former")
    with pytest.raises(FatalError, match="no partition of user_logins takes a row"):
        await writer.write(claim, batch(4, login()))


async def test_a_message_that_a_child_of_the_table_holds_twice_is_there(writer: BatchWriter, superuser: Cursor) -> None:
    """A unique index of the parent doesn't hold for its children."""
    one = batch(0, login())
    superuser.execute("CREATE TABLE older () INHERITS (user_logins)")
    superuser.execute(
        "INSERT INTO older (sent_at, message_id) SELECT to_timestamp(%s / 1000.0), %s FROM generate_series(1, 2)",
        (one.sent_at_ms[0], one.columns["message_id"][0]),
    )
    claim, _ = await writer.claim(PARTITION, 0, "id")
    written = await writer.write(claim, one)
    assert (written.moved, written.rows) == (True, 0)


async def test_a_row_that_a_trigger_refuses_is_a_refused_row(writer: BatchWriter, superuser: Cursor) -> None:
    """With the code that Postgres has for a missing partition, and a text that may hold anything."""
    superuser.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'no partition of %', NEW.user_id USING ERRCODE = 'check_violation'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION refuse();
    """)
    claim, _ = await writer.claim(PARTITION, 0, "id")
    with pytest.raises(RowRefusedError):
        await writer.write(claim, batch(0, login()))


@pytest.mark.parametrize(
    ("theirs", "newest"),
    [("infinity", 253_402_300_800_000), ("-infinity", 0), (None, 0), ("2026-01-01 00:00:00.000001+00", 1_767_225_600_001)],
)
async def test_the_newest_row_may_be_of_others(writer: BatchWriter, superuser: Cursor, theirs: str | None, newest: int) -> None:
    superuser.execute("INSERT INTO user_logins (sent_at) VALUES (%s)", (theirs,))
    assert await writer.newest_sent_at_ms() == newest


async def test_without_the_unique_index_nothing_is_written(writer: BatchWriter, superuser: Cursor) -> None:
    """Nothing else keeps a second row out that comes at the same moment, and each row would be looked for in the whole table."""
    claim, _ = await writer.claim(PARTITION, 0, "id")
    superuser.execute("DROP INDEX user_logins_sent_at_message_id")
    with pytest.raises(FatalError, match="42P10"):
        await writer.write(claim, batch(0, login()))
    with pytest.raises(FatalError, match="42P10"):
        await writer.newest_sent_at_ms()
    assert await writer.position(PARTITION) == Position(0, 1)


@pytest.mark.parametrize(("rows", "then"), [(20_000, "SELECT 1"), (20_000, "ANALYZE user_logins"), (20, "ANALYZE user_logins")])
async def test_what_may_be_there_is_looked_for_in_the_index(writer: BatchWriter, superuser: Cursor, rows: int, then: str) -> None:
    """However much or little Postgres knows about the table, and however small it is. What can't be there is not looked for."""
    superuser.execute(
        "INSERT INTO user_logins (user_id, sent_at, message_id)"
        " SELECT repeat('u', 100), now() - number * interval '1 s', gen_random_uuid() FROM generate_series(1, %s) AS number",
        (rows,),
    )
    superuser.execute(then)
    claim, _ = await writer.claim(PARTITION, 0, "id")
    looked_for = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'user_logins'"
    seq_scans, index_scans = asked(superuser, looked_for)
    assert (await writer.write(claim, batch(0, *[login()] * 500))).rows == 500
    assert (await writer.write(claim, batch(500, *[login()] * 500), SENT_AT_MS)).rows == 500
    await writer._pool.close()  # a session tells what it did at its end, if not before
    await until(lambda: asked(superuser, looked_for) == (seq_scans, index_scans + 500))


@pytest.mark.parametrize(
    "user_id", ["plain", "o'brien", "back\\slash", "'); DROP TABLE user_logins; --", "100 %s %(a)s", "\\'", "ün\u2028ï"]
)
async def test_a_text_arrives_as_it_is(fresh_database: str, user_id: str) -> None:
    """Alone, and beside one that is plain: a column is quoted as a whole."""
    settings = load(PostgresSettings, postgres_dsn=fresh_database)
    migrate(settings, lambda _: None)
    pool = ConnectionPool(settings, role=WRITER, application_name="test", size=1)
    store = BatchWriter(pool, consumer_group="group", owner="test", create_date_time_zone="UTC")
    claim, _ = await store.claim(PARTITION, 0, "id")
    assert (await store.write(claim, batch(0, login(user_id=user_id)))).rows == 1
    assert (await store.write(claim, batch(1, login(user_id=user_id), login(user_id="plain")))).rows == 2
    await pool.close()
    with closing(psycopg2.connect(fresh_database)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT user_id FROM user_logins ORDER BY sent_at")
        assert cursor.fetchall() == [(user_id,), (user_id,), ("plain",)]
