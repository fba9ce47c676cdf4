"""What one partition's ends say of transactions, with a clock that is made up."""

from structlog.testing import capture_logs

from pipeline.settings import KafkaSettings, load
from stream_app.open_transaction import OPEN_SECONDS, LogEnd, TransactionWatch
from stream_app.transaction_producers import transaction_producers

LOOK_SECONDS = 5.0


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """A look every few seconds; a transaction that is open for long is named when it is seen."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.watch = TransactionWatch("logins", 3, self.clock)

    def look(self, log_end_offset: int, last_stable_offset: int, *, seconds: float = LOOK_SECONDS) -> None:
        self.clock.now += seconds
        self.watch.saw(LogEnd(log_end_offset, last_stable_offset))
        if self.watch.unnamed_at is not None:
            self.watch.name(4711)


def test_where_no_transaction_is_open_there_is_none() -> None:
    scene = Scene()
    assert (scene.watch.seconds, scene.watch.problem, scene.watch.unnamed_at) == (0, None, None)
    for end in range(20):
        scene.look(end, end)
        assert (scene.watch.seconds, scene.watch.problem) == (0, None)


def test_one_that_stays_open_is_counted_from_first_notice_and_told_once() -> None:
    scene = Scene()
    with capture_logs() as events:
        scene.look(10, 10)
        for end in range(12, 62):
            scene.look(end, 10)
    assert scene.watch.seconds == 49 * LOOK_SECONDS
    (event,) = events
    assert (event["event"], event["log_level"], event["topic"], event["partition"]) == ("transaction_open", "warning", "logins", 3)
    assert (event["last_stable_offset"], event["log_end_offset"], event["producer_id"]) == (10, 18, 4711)
    assert event["open_seconds"] == OPEN_SECONDS
    assert scene.watch.problem is not None
    assert "producer 4711 has been open for 245 s at offset 10: nothing of logins/3 is read" in scene.watch.problem


def test_its_end_is_told_once() -> None:
    scene = Scene()
    for _ in range(20):
        scene.look(12, 10)
    with capture_logs() as events:
        for end in (13, 13, 14):
            scene.look(end, end)
    assert (scene.watch.seconds, scene.watch.problem) == (0, None)
    assert [(event["event"], event["last_stable_offset"]) for event in events] == [("transaction_over", 13)]


def test_a_producer_that_is_busy_is_none_that_stays_open() -> None:
    """One is open at each look, and never the same."""
    scene = Scene()
    with capture_logs() as events:
        for offset in range(0, 1_000, 10):
            scene.look(offset + 5, offset)
            assert (scene.watch.seconds, scene.watch.problem) == (0, None)
    assert events == []


def test_another_one_behind_it_has_a_time_and_a_line_of_its_own() -> None:
    scene = Scene()
    with capture_logs() as events:
        for first_offset in (10, 20):
            for _ in range(10):
                scene.look(99, first_offset)
    assert [(event["event"], event["last_stable_offset"]) for event in events] == [
        ("transaction_open", 10),
        ("transaction_over", 20),
        ("transaction_open", 20),
    ]
    assert scene.watch.seconds == 9 * LOOK_SECONDS


def test_it_is_no_longer_open_than_it_was_seen() -> None:
    """While Kafka is away nobody knows."""
    scene = Scene()
    scene.look(12, 10)
    scene.look(12, 10)
    scene.clock.now += 3_600
    assert scene.watch.seconds == LOOK_SECONDS


def test_a_producer_that_nobody_can_tell_is_named_so() -> None:
    settings = load(KafkaSettings, kafka_bootstrap_servers="127.0.0.1:1")
    producers = transaction_producers(settings, {3: 10})
    assert producers == {3: "unknown (KafkaConnectionError)"}
    watch = TransactionWatch("logins", 3, Clock())
    watch.saw(LogEnd(12, 10))
    with capture_logs() as events:
        watch.name(producers[3])
    assert [event["producer_id"] for event in events] == ["unknown (KafkaConnectionError)"]
