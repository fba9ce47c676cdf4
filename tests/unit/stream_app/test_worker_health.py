import asyncio
from types import SimpleNamespace
from typing import cast

from partition_gauges import partition_gauges

from pipeline.errors import RetryableError
from stream_app.health import (
    ASSIGNMENT_MISSING_SECONDS,
    BEAT_SECONDS,
    CONSUMER_STUCK_SECONDS,
    LOOP_LATE_SECONDS,
    LOOP_STUCK_SECONDS,
    PARTITION_STALLED_SECONDS,
    PARTITION_STUCK_SECONDS,
    WorkerHealth,
)
from stream_app.metrics import PartitionGauges, WorkerMetrics
from stream_app.partition_writer import State
from stream_app.partitions import Partitions
from stream_app.positions import Partition
from stream_app.refused_rows import RefusedRows


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """A started worker with one partition, in which records wait."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.metrics = WorkerMetrics()
        self.position: int | None = 5
        self.log_end: int | None = 9
        self.hidden = 0
        """Records behind an open transaction at the log's end."""
        self.waiting = 3
        self.state = State.WRITING
        self.partitions = SimpleNamespace(
            refused_rows=RefusedRows(self.clock),
            assigned=True,
            problems=dict,
            gauges=self._gauges,
            states=self._states,
            memory_is_full=False,
        )
        self.health = WorkerHealth(cast("Partitions", self.partitions), self.metrics, self.clock)
        self.health.starting = False

    def _gauges(self) -> list[PartitionGauges]:
        stopped = self.state is State.STOPPED
        return [
            partition_gauges(
                partition=3,
                next_offset=self.position,
                log_end_offset=None if self.log_end is None else self.log_end + self.hidden,
                last_stable_offset=self.log_end,
                buffered_records=self.waiting,
                stopped=stopped,
            )
        ]

    def _states(self) -> dict[Partition, State]:
        return {Partition("logins", 3): self.state}

    def pass_time(self, seconds: float) -> None:
        """The event loop goes on meanwhile."""
        self.health.look()
        self.clock.now += seconds
        self.health.look()

    def ready(self, dependency: str) -> float | None:
        return self.metrics.registry.get_sample_value("stream_ready", {"dependency": dependency})


# /livez


def test_a_loop_that_stands_still_needs_a_restart() -> None:
    scene = Scene()
    assert scene.health.livez().ok
    scene.clock.now += LOOP_STUCK_SECONDS
    assert not scene.health.livez().ok
    assert scene.health.livez().details["event_loop_silent_seconds"] == LOOP_STUCK_SECONDS


def test_a_loop_that_moves_does_not() -> None:
    async def run() -> None:
        scene = Scene()
        scene.clock.now += LOOP_STUCK_SECONDS
        beat = asyncio.create_task(scene.health.beat())
        await asyncio.sleep(0)
        assert scene.health.livez().ok
        beat.cancel()

    asyncio.run(run())


def test_how_late_the_loop_wakes_is_measured() -> None:
    async def run() -> None:
        scene = Scene()
        beat = asyncio.create_task(scene.health.beat())
        await asyncio.sleep(0)
        scene.clock.now += 1.75
        await asyncio.sleep(BEAT_SECONDS + 0.1)
        assert scene.metrics.registry.get_sample_value("stream_event_loop_delay_seconds_sum") == 0.75
        beat.cancel()

    asyncio.run(run())


def test_a_partition_that_does_not_move_although_all_answers_needs_a_restart() -> None:
    scene = Scene()
    scene.pass_time(PARTITION_STUCK_SECONDS - 1)
    assert scene.health.livez().ok
    scene.pass_time(1)
    assert not scene.health.livez().ok
    assert scene.health.livez().details["stuck_partitions"] == ["logins/3"]


def test_a_partition_that_moves_does_not() -> None:
    scene = Scene()
    for position in (6, 7, 8):
        scene.pass_time(PARTITION_STUCK_SECONDS - 1)
        scene.position = position
    assert scene.health.livez().ok


def test_a_partition_in_which_nothing_waits_or_that_waits_for_a_person_does_not() -> None:
    idle, stopped = Scene(), Scene()
    idle.waiting, stopped.state = 0, State.STOPPED
    for scene in (idle, stopped):
        scene.pass_time(PARTITION_STUCK_SECONDS * 3)
        assert scene.health.livez().ok


def without_records() -> Scene:
    """Nothing is in hand, the log ends beyond the position, and has just grown."""
    scene = Scene()
    scene.waiting = 0
    scene.health.look()
    scene.log_end = 10
    scene.health.look()
    return scene


def test_a_log_that_grows_and_of_which_nothing_comes_for_long_needs_a_restart() -> None:
    scene = without_records()
    scene.pass_time(PARTITION_STALLED_SECONDS - 1)
    assert scene.health.livez().ok
    scene.pass_time(1)
    assert not scene.health.livez().ok
    assert scene.health.livez().details["stalled_partitions"] == ["logins/3"]
    scene.position = 10
    scene.health.look()
    assert scene.health.livez().ok


def test_behind_an_open_transaction_nothing_can_come_and_a_restart_does_not_help() -> None:
    scene = without_records()
    scene.position = 10
    for scene.hidden in range(1, 100):
        scene.pass_time(PARTITION_STALLED_SECONDS / 10)
        assert scene.health.livez().ok


def test_control_records_at_the_logs_end_do_not_nor_a_record_that_comes_after_them() -> None:
    scene = Scene()
    scene.waiting, scene.position, scene.log_end = 0, 8, 9
    scene.pass_time(PARTITION_STALLED_SECONDS * 10)
    assert scene.health.livez().ok
    scene.log_end = 10
    scene.pass_time(5)
    assert scene.health.livez().ok, "the record has just come to the log"
    scene.position = 10
    scene.pass_time(PARTITION_STALLED_SECONDS * 10)
    assert scene.health.livez().ok


def test_reading_again_while_nothing_comes_does_not_begin_the_time_anew() -> None:
    scene = without_records()
    for state in (State.CLAIMING, State.WRITING):
        scene.state = state
        scene.pass_time(PARTITION_STALLED_SECONDS / 2)
    assert scene.health.livez().details["stalled_partitions"] == ["logins/3"]


def test_a_claim_that_does_not_end_needs_a_restart() -> None:
    scene = Scene()
    scene.waiting, scene.position, scene.log_end, scene.state = 0, None, None, State.CLAIMING
    scene.pass_time(PARTITION_STALLED_SECONDS - 1)
    assert scene.health.livez().ok
    scene.pass_time(1)
    assert scene.health.livez().details["stalled_partitions"] == ["logins/3"]


def test_claims_that_end_do_not_however_often_they_are_made() -> None:
    scene = Scene()
    scene.waiting, scene.position, scene.log_end = 0, 8, 9
    for _ in range(10):
        for scene.state in (State.CLAIMING, State.WRITING):
            scene.pass_time(PARTITION_STALLED_SECONDS / 4)
    assert scene.health.livez().ok


def test_a_partition_that_waits_for_a_person_for_another_worker_or_for_memory_does_not() -> None:
    stopped, fenced, full = without_records(), without_records(), without_records()
    stopped.state, fenced.state, full.partitions.memory_is_full = State.STOPPED, State.FENCED, True
    for scene in (stopped, fenced, full):
        scene.pass_time(PARTITION_STALLED_SECONDS * 3)
        assert scene.health.livez().ok


def test_time_without_kafka_does_not_count_for_what_does_not_come() -> None:
    scene = without_records()
    scene.health.did_not_answer("kafka", RetryableError("Kafka did not answer"))
    scene.pass_time(PARTITION_STALLED_SECONDS * 3)
    assert scene.health.livez().ok
    scene.health.answered("kafka")
    scene.pass_time(PARTITION_STALLED_SECONDS - 1)
    assert scene.health.livez().ok


def test_an_absent_database_is_no_reason_to_restart() -> None:
    scene = Scene()
    scene.health.did_not_answer("postgres", RetryableError("Postgres doesn't answer"))
    scene.pass_time(PARTITION_STUCK_SECONDS * 3)
    assert scene.health.livez().ok
    scene.health.answered("postgres")
    scene.pass_time(PARTITION_STUCK_SECONDS - 1)
    assert scene.health.livez().ok


def test_an_assignment_that_is_lost_for_long_although_kafka_answers_needs_a_restart() -> None:
    scene = Scene()
    scene.partitions.assigned = False
    scene.pass_time(ASSIGNMENT_MISSING_SECONDS - 1)
    assert scene.health.livez().ok
    scene.pass_time(1)
    assert not scene.health.livez().ok
    assert scene.health.livez().details["assignment_missing_seconds"] == ASSIGNMENT_MISSING_SECONDS


def test_an_assignment_that_is_lost_while_kafka_is_away_does_not() -> None:
    scene = Scene()
    scene.partitions.assigned = False
    scene.health.did_not_answer("kafka", RetryableError("Kafka did not answer"))
    scene.pass_time(ASSIGNMENT_MISSING_SECONDS * 3)
    assert scene.health.livez().ok


def test_a_consumer_whose_thread_stands_still_needs_a_restart() -> None:
    scene = Scene()
    scene.health.consumer_moves()
    scene.waiting = 0
    scene.pass_time(CONSUMER_STUCK_SECONDS - 1)
    assert scene.health.livez().ok
    scene.pass_time(1)
    assert not scene.health.livez().ok
    assert scene.health.livez().details["consumer_silent_seconds"] == CONSUMER_STUCK_SECONDS
    scene.health.consumer_moves()
    assert scene.health.livez().ok


# /readyz


def test_ready_when_nothing_is_waited_for() -> None:
    assert Scene().health.readyz().ok


def test_a_loop_that_stands_still_is_named_long_before_it_needs_a_restart() -> None:
    scene = Scene()
    scene.clock.now += LOOP_LATE_SECONDS - 1
    assert scene.health.readyz().ok
    scene.clock.now += 1
    assert not scene.health.readyz().ok
    assert "10 s" in scene.health.readyz().details["waiting_for"]["event_loop"]
    assert scene.health.livez().ok
    scene.health.look()
    assert scene.health.readyz().ok


def test_the_start_is_waited_for() -> None:
    scene = Scene()
    scene.health.starting = True
    assert (scene.health.readyz().ok, list(scene.health.readyz().details["waiting_for"])) == (False, ["start"])


def test_a_dependency_that_does_not_answer_is_named_until_it_does() -> None:
    scene = Scene()
    assert (scene.ready("kafka"), scene.ready("postgres")) == (1, 1)
    scene.health.did_not_answer("postgres", RetryableError("nobody listens there"))
    assert scene.health.readyz().in_words == {"waiting_for": {"postgres": "nobody listens there"}}
    assert (scene.ready("kafka"), scene.ready("postgres")) == (1, 0)
    scene.health.answered("postgres")
    assert scene.health.readyz().ok
    assert scene.ready("postgres") == 1


def test_a_lost_assignment_is_named() -> None:
    scene = Scene()
    scene.partitions.assigned = False
    assert "consumer group" in scene.health.readyz().details["waiting_for"]["assignment"]


def test_partitions_that_do_not_write_are_named_with_what_is_wrong() -> None:
    scene = Scene()
    scene.partitions.problems = lambda: {"logins/3": "a table is missing"}
    stopped = scene.health.readyz()
    assert (stopped.ok, stopped.in_words) == (False, {"partitions": {"logins/3": "a table is missing"}})


def test_what_servers_say_is_kept_apart_from_what_is_waited_for() -> None:
    """The one is for everybody who reaches the port, and names codes and states; the other may name hosts and users."""
    scene = Scene()
    error = RetryableError('Postgres refuses the connection: no entry for host "10.1.2.3", user "worker"')
    error.__cause__ = ConnectionRefusedError("10.1.2.3")
    scene.health.did_not_answer("postgres", error)
    scene.partitions.problems = lambda: {"logins/3": 'relation "secret_table" does not exist'}
    scene.partitions.states = lambda: {Partition("logins", 3): State.STOPPED}
    scene.clock.now += LOOP_LATE_SECONDS
    asked = scene.health.readyz()
    late = f"it has not moved for {LOOP_LATE_SECONDS:.0f} s"
    waiting_for = {"postgres": "ConnectionRefusedError", "event_loop": late}
    assert asked.details == {"waiting_for": waiting_for, "partitions": {"logins/3": "stopped"}}
    assert asked.in_words["waiting_for"] == {"postgres": str(error), "event_loop": late}
    assert asked.in_words["partitions"] == {"logins/3": 'relation "secret_table" does not exist'}
