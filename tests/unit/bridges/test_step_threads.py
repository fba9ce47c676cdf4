from queue import Queue
from threading import Barrier, Event

from structlog.testing import capture_logs

from bridges.step_threads import Beat, StepThreads, in_parallel
from pipeline.errors import FatalError


def test_a_thread_that_dies_is_reported_without_what_its_error_says() -> None:
    reported: Queue[FatalError] = Queue()
    threads = StepThreads(reported.put)

    def body(_: Beat) -> None:
        raise ValueError("203.0.113.7")

    with capture_logs() as logs:
        threads.start("receive-0", body)
        error = reported.get(timeout=5)
    assert "receive-0" in str(error)
    assert "ValueError" in str(error)
    assert "203.0.113.7" not in str(error)
    assert threads.failed() == ["receive-0"]
    assert [(log["event"], log["thread"]) for log in logs] == [("thread_died", "receive-0")]


def test_a_fatal_error_is_reported_as_it_is() -> None:
    reported: Queue[FatalError] = Queue()

    def body(_: Beat) -> None:
        raise FatalError("set SQS_QUEUE_URL")

    StepThreads(reported.put).start("start", body)
    assert str(reported.get(timeout=5)) == "set SQS_QUEUE_URL"


def test_a_thread_without_a_step_is_silent_until_it_steps_or_returns() -> None:
    now, step, stepped, leave = [0.0], Event(), Event(), Event()

    def body(beat: Beat) -> None:
        step.wait(5)
        beat()
        stepped.set()
        leave.wait(5)

    threads = StepThreads(lambda _: None, lambda: now[0])
    threads.start("watch", body)
    now[0] = 60.0
    assert threads.silent(60) == []
    now[0] = 61.0
    assert threads.silent(60) == ["watch"]
    step.set()
    assert stepped.wait(5)
    assert threads.silent(60) == []
    now[0] = 200.0
    leave.set()
    assert threads.join("watch", 300.0)
    assert threads.silent(60) == []


def test_work_is_done_in_parallel_and_what_is_late_is_not_waited_for() -> None:
    meet, never = Barrier(3), Event()

    def meet_the_others() -> None:
        meet.wait(5)

    def wait_in_vain() -> None:
        never.wait(5)

    assert in_parallel([meet_the_others] * 3, threads_max=3)
    assert in_parallel([], threads_max=3)
    assert not in_parallel([wait_in_vain], threads_max=3, seconds=0.01)
    never.set()
