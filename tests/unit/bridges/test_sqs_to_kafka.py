from bridges.sqs_to_kafka import PRODUCE_BACKOFF_SECONDS_MAX, produce_backoff_seconds


def test_the_backoff_grows_to_its_bound_however_long_kafka_is_away() -> None:
    assert 0.1 <= produce_backoff_seconds(0) <= 0.2
    for attempts in (6, 100, 100_000):
        assert PRODUCE_BACKOFF_SECONDS_MAX / 2 <= produce_backoff_seconds(attempts) <= PRODUCE_BACKOFF_SECONDS_MAX
