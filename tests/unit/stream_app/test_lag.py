from stream_app.lag import Lag


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_nothing_waits_where_nothing_is_known_or_all_is_written() -> None:
    lag = Lag(Clock())
    assert lag.oldest_unwritten_seconds(None) is None
    lag.log_ends_at(10)
    assert lag.oldest_unwritten_seconds(None) is None
    lag.moved_to(10)
    assert lag.oldest_unwritten_seconds(None) is None


def test_the_oldest_record_in_hand_tells_its_own_time() -> None:
    lag = Lag(Clock())
    lag.moved_to(5)
    lag.log_ends_at(10)
    assert lag.oldest_unwritten_seconds(900_500) == 900.5


def test_a_partition_that_stands_still_has_waited_since_that_was_seen() -> None:
    clock = Clock()
    lag = Lag(clock)
    lag.moved_to(5)
    lag.log_ends_at(10)
    clock.now = 1_600.0
    lag.log_ends_at(20)
    lag.moved_to(5)
    assert lag.oldest_unwritten_seconds(None) == 1_000.0


def test_progress_and_catching_up_end_the_wait() -> None:
    clock = Clock()
    lag = Lag(clock)
    lag.moved_to(5)
    lag.log_ends_at(10)
    clock.now = 1_600.0
    lag.moved_to(8)
    assert lag.oldest_unwritten_seconds(None) == 1_600.0
    lag.moved_to(10)
    assert lag.oldest_unwritten_seconds(None) is None


def test_a_record_after_hours_of_idleness_is_no_lag_of_hours() -> None:
    clock = Clock()
    lag = Lag(clock)
    lag.moved_to(10)
    lag.log_ends_at(10)
    clock.now = 50_000.0
    lag.log_ends_at(11)
    assert lag.oldest_unwritten_seconds(None) == 50_000.0
