"""The real consumer class and Faust's own drain loop over a thread that is made up."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
import virtual_time
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError
from aiokafka.structs import TopicPartition
from faust.types import TP
from login_records import builder, chunk, login, record
from memory_store import MemoryStore

from pipeline.errors import FatalError, RetryableError
from stream_app.application import make_app
from stream_app.batch import Batch
from stream_app.chunk import Chunk
from stream_app.dead_letters import KafkaRecord
from stream_app.health import WorkerHealth
from stream_app.metrics import WorkerMetrics
from stream_app.partition_ports import Budget
from stream_app.partition_writer import State
from stream_app.partitions import Partitions
from stream_app.positions import Claim, Partition, Written
from stream_app.settings import WorkerSettings
from stream_app.transport import consumer_thread, log_reader
from stream_app.transport.batch_transport import LAST_COMMIT_SECONDS, BatchConsumer
from stream_app.transport.consumer_thread import BatchConsumerThread
from stream_app.windows import WindowPolicy

RECORDS = 5_000
FETCH = 500
PLACE = TP("logins", 0)


class RefusesOnce(MemoryStore):
    """A right is missing for a moment: the partition stops, and is claimed again behind what Faust has delivered meanwhile."""

    refusals = 1

    async def write(self, claim: Claim, batch: Batch, newest_ms: int | None = None) -> Written:
        await asyncio.sleep(0.5)
        if batch.first_offset >= 2 * FETCH and self.refusals:
            self.refusals -= 1
            raise FatalError("permission denied for a moment")
        return await super().write(claim, batch, newest_ms)


class MadeUpThread:
    """Delivers chunk after chunk, faster than they are written."""

    def __init__(self) -> None:
        self.thread_loop = asyncio.get_running_loop()
        self._records = [record(login(), offset) for offset in range(RECORDS)]
        self._next, self._seek_number, self._sequence = RECORDS, 0, 0

    def assignment(self) -> set[TP]:
        return {PLACE}

    def highwater(self, _: TP) -> int:
        return RECORDS

    async def getmany(self, active: set[TP], timeout: float) -> dict[TP, Chunk[KafkaRecord]]:  # noqa: ASYNC109 - Faust's signature
        await asyncio.sleep(0.01)
        if PLACE not in active or self._next >= RECORDS:
            await asyncio.sleep(timeout)
            return {}
        fetched = chunk(self._records[self._next : self._next + FETCH], seek_number=self._seek_number, sequence=self._sequence)
        self._next, self._sequence = self._next + FETCH, self._sequence + 1
        return {PLACE: fetched}

    async def topic_id(self) -> str | None:
        return None

    @property
    def log_reader(self) -> "MadeUpThread":
        return self

    async def log_range(self, _: Any) -> tuple[int, int]:
        return 0, RECORDS

    async def seek_numbered(self, _: Any, offset: int) -> int:
        self._next, self._sequence, self._seek_number = offset, 0, self._seek_number + 1
        return self._seek_number

    async def commit_offsets(self, _: Any) -> None:
        return


def made_up_consumer(store: MemoryStore) -> BatchConsumer:
    """A consumer of Faust's and ours that has just been assigned one partition, over a made-up thread."""
    app = make_app(WorkerSettings())
    app.metrics = WorkerMetrics()
    app.partitions = Partitions(
        store=store,
        builder=builder(),
        policy=WindowPolicy(rows=FETCH, bytes=8 << 20, seconds=0.2),
        refused_rows_max=100,
        budget=Budget(48 << 20, batches_max=5),
        flush_seconds=5,
        metrics=app.metrics,
    )

    async def deliver(message: Any) -> None:
        app.partitions.receive(Partition(message.topic, message.partition), message.value.pop())

    async def nothing(*_: Any) -> None:
        return

    class Consumer(BatchConsumer):
        def _new_consumer_thread(self) -> Any:
            return SimpleNamespace(beacon=None)

    consumer = Consumer(app.transport, callback=deliver, on_partitions_revoked=nothing, on_partitions_assigned=nothing)
    consumer._thread = MadeUpThread()  # type: ignore[assignment]
    app.__dict__["consumer"] = consumer
    consumer._set_active_tps({PLACE})
    consumer._assignment_is_new = True
    return consumer


def test_a_partition_that_is_claimed_again_under_load_goes_on() -> None:
    async def scene() -> MemoryStore:
        store = RefusesOnce()
        consumer = made_up_consumer(store)
        await consumer.perform_seek()
        drain = asyncio.create_task(consumer._drain_messages(SimpleNamespace(_stopped=consumer._stopped)))  # type: ignore[arg-type]
        async with asyncio.timeout(120):
            while len(store.rows) < RECORDS:  # noqa: ASYNC110 - in virtual time
                await asyncio.sleep(0.5)
        drain.cancel()
        await asyncio.gather(drain, return_exceptions=True)
        await consumer.give_up()
        return store

    store = virtual_time.run(scene())
    assert sorted(store.offsets()) == list(range(RECORDS))
    assert store.positions[Partition("logins", 0)].epoch == 2


def test_an_assignment_is_claimed_once_and_forgets_who_waited_before() -> None:
    async def scene() -> None:
        consumer = made_up_consumer(MemoryStore())
        consumer._buffered_partitions.add(PLACE)
        await consumer.perform_seek()
        assert (consumer.app.partitions.held, consumer._buffered_partitions) == ([Partition("logins", 0)], set())
        await consumer.perform_seek()  # Faust calls it again and again while the flow is stopped
        await consumer.give_up()
        assert consumer.app.partitions.held == []

    virtual_time.run(scene())


def test_an_assignment_that_meets_a_stop_is_not_claimed() -> None:
    async def scene() -> None:
        consumer = made_up_consumer(MemoryStore())
        consumer.app._stopped.set()
        await consumer.perform_seek()
        assert consumer.app.partitions.held == []

    virtual_time.run(scene())


def test_between_a_revoke_and_the_next_assignment_nothing_is_ours() -> None:
    async def scene() -> None:
        partitions = made_up_consumer(MemoryStore()).app.partitions
        partitions.told([])
        assert partitions.assigned
        await partitions.revoke()
        assert not partitions.assigned

    virtual_time.run(scene())


def test_a_worker_that_has_just_joined_is_ready_when_its_partitions_are_claimed() -> None:
    """Faust tells first what is ours, and has it claimed when its agents stand: nothing is written meanwhile."""

    async def scene() -> None:
        consumer = made_up_consumer(MemoryStore())
        partitions = consumer.app.partitions
        health = WorkerHealth(partitions, consumer.app.metrics, asyncio.get_running_loop().time)
        health.starting = False
        await consumer.on_partitions_assigned({PLACE})
        assert "assignment" in health.readyz().details["waiting_for"]
        await consumer.perform_seek()
        assert health.readyz().details == {"partitions": {"logins/0": "claiming"}}
        async with asyncio.timeout(60):
            while not health.readyz().ok:  # noqa: ASYNC110 - in virtual time
                await asyncio.sleep(0.1)
        assert partitions.states() == {Partition("logins", 0): State.WRITING}
        await consumer.give_up()
        assert not health.readyz().ok
        await consumer.on_partitions_assigned(set())
        assert health.readyz().ok

    virtual_time.run(scene())


def test_the_last_commit_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        consumer = made_up_consumer(MemoryStore())
        monkeypatch.setattr(consumer.app.partitions, "uncommitted", lambda: {Partition("logins", 0): 1})
        monkeypatch.setattr(consumer._thread, "commit_offsets", lambda _: asyncio.sleep(1_000))
        await consumer.give_up()
        assert asyncio.get_running_loop().time() == pytest.approx(LAST_COMMIT_SECONDS)

    virtual_time.run(scene())


def test_no_partition_to_fetch_is_not_taken_for_all_of_them() -> None:
    async def scene() -> None:
        consumer = made_up_consumer(MemoryStore())
        consumer.resume_flow()
        consumer._active_partitions.clear()
        asyncio.get_running_loop().call_later(0.1, consumer._partition_resumed.set)
        assert await consumer._wait_next_records(1.0) == ({}, set())
        assert asyncio.get_running_loop().time() == pytest.approx(0.1), "it asked Kafka"

    virtual_time.run(scene())


def test_a_worker_that_fetches_nothing_for_long_stays_in_the_group() -> None:
    """After this long without a fetch aiokafka leaves the group, and Faust never joins again."""
    app = make_app(WorkerSettings())
    assert app.conf.broker_max_poll_interval > 10 * 365 * 86_400


def test_what_kafka_refuses_ends_the_worker_and_is_named() -> None:
    async def scene() -> None:
        class Refusing:
            thread_loop = asyncio.get_running_loop()

            async def check_errors(self) -> None:
                raise GroupAuthorizationFailedError("login-stream")

        consumer = BatchConsumer.__new__(BatchConsumer)
        consumer._thread = Refusing()  # type: ignore[assignment]
        with structlog.testing.capture_logs() as events, pytest.raises(GroupAuthorizationFailedError):
            await consumer._check_errors()
        (event,) = events
        assert (event["event"], event["log_level"]) == ("kafka_refuses", "critical")
        assert event["problem"] == "GroupAuthorizationFailedError"

    asyncio.run(scene())


@pytest.mark.parametrize(("partitions", "each"), [(0, 1_048_576), (4, 1_048_576), (64, 262_144)])
def test_many_partitions_share_what_one_fetch_may_bring(monkeypatch: pytest.MonkeyPatch, partitions: int, each: int) -> None:
    async def nothing(*_: Any) -> None:
        return

    async def scene() -> None:
        fetcher, paused = SimpleNamespace(), list[TopicPartition]()
        thread = BatchConsumerThread.__new__(BatchConsumerThread)
        consumer = SimpleNamespace(_fetcher=fetcher, pause=lambda *those: paused.extend(those))
        monkeypatch.setattr(thread, "_ensure_consumer", lambda: consumer)
        monkeypatch.setattr(BatchConsumerThread.__base__, "on_partitions_assigned", nothing)
        assigned = {TP("logins", number) for number in range(partitions)}
        await thread.on_partitions_assigned(assigned)
        assert fetcher._max_partition_fetch_bytes == each
        assert set(paused) == assigned, "until they are claimed"

    asyncio.run(scene())


class Heard:
    """In the place of the App's KafkaWait."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.answers = 0
        self.held: list[int] = []

    async def failed(self, error: RetryableError) -> None:
        self.failures.append(str(error))

    def answered(self) -> None:
        self.answers += 1

    def holds(self, partitions: int) -> None:
        self.held.append(partitions)


class MadeUpAioKafka(SimpleNamespace):
    """A consumer of aiokafka's that was not started."""

    stopped = False

    async def stop(self) -> None:
        self.stopped = True


def test_the_consumers_thread_connects_until_it_stands_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[MadeUpAioKafka] = []
    outcomes = iter([KafkaConnectionError(), TimeoutError(), None, None, ConnectionResetError(), None, None, None])

    async def start(consumer: MadeUpAioKafka) -> None:
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        consumer._fetcher = SimpleNamespace()

    def make(_: Any, __: Any) -> MadeUpAioKafka:
        made.append(MadeUpAioKafka())
        return made[-1]

    async def scene() -> None:
        consumer = made_up_consumer(MemoryStore())
        heard = Heard()
        monkeypatch.setattr(consumer.app, "kafka", heard, raising=False)
        loop = asyncio.get_running_loop()
        thread = BatchConsumerThread(consumer, loop=loop, thread_loop=loop, beacon=consumer.beacon)
        await thread.on_start()
        await asyncio.sleep(0)
        assert [consumer.stopped for consumer in made] == [True] * 9 + [False] * 3
        reader = thread.log_reader
        assert [reader._ends, reader._stable_ends, thread._consumer] == made[-3:]
        assert made[-3]._group_id is made[-2]._group_id is None
        assert heard.failures == [
            f"Kafka did not answer ({name})" for name in ("KafkaConnectionError", "TimeoutError", "ConnectionResetError")
        ]
        assert heard.answers == 1

    monkeypatch.setattr(log_reader, "start_consumer", start)
    monkeypatch.setattr(consumer_thread, "start_consumer", start)
    monkeypatch.setattr(consumer_thread, "TopicId", lambda _: None)
    monkeypatch.setattr(BatchConsumerThread, "_create_worker_consumer", make)
    virtual_time.run(scene())


def test_a_start_that_lasts_is_told_of_while_it_does_and_ends_when_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        consumer = made_up_consumer(MemoryStore())
        heard = Heard()
        monkeypatch.setattr(consumer.app, "kafka", heard, raising=False)
        loop = asyncio.get_running_loop()
        thread = BatchConsumerThread(consumer, loop=loop, thread_loop=loop, beacon=consumer.beacon)
        loop.call_later(7, thread._stopped.set)
        await thread.on_start()
        assert loop.time() == 7
        assert heard.failures == ["Kafka did not answer (TimeoutError)"]
        assert heard.answers == 0

    monkeypatch.setattr(log_reader, "start_consumer", lambda _: asyncio.sleep(1_000))
    monkeypatch.setattr(consumer_thread, "TopicId", lambda _: None)
    monkeypatch.setattr(BatchConsumerThread, "_create_worker_consumer", lambda *_: MadeUpAioKafka())
    virtual_time.run(scene())


def test_while_it_runs_kafkas_answers_and_the_number_of_partitions_are_told() -> None:
    async def scene() -> None:
        consumer = made_up_consumer(MemoryStore())
        app: Any = consumer.app
        app.health, app.kafka = SimpleNamespace(consumer_moves=lambda: None), Heard()
        answers = iter([{}, KafkaConnectionError(), {}])

        async def log_ends(_: Any) -> Any:
            answer = next(answers, None)
            if answer is None:
                consumer._stopped.set()
                return {}
            if isinstance(answer, Exception):
                raise answer
            return answer

        async def check_errors() -> None:
            return

        thread: Any = consumer._thread
        thread.log_ends, thread.check_errors = log_ends, check_errors
        app.partitions.told([])
        await BatchConsumer._watch_log_ends.fun(consumer)
        assert app.kafka.failures == ["Kafka did not answer (KafkaConnectionError)"]
        assert app.kafka.answers == 3
        assert app.kafka.held == [0, 0, 0, 0]

    virtual_time.run(scene())
