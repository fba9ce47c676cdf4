import structlog
from structlog.testing import capture_logs

from pipeline.errors import RetryableError
from stream_app.claimed_writer import retrying


async def test_while_it_tries_again_each_problem_is_logged_once() -> None:
    """That a connection was closed says little; why there is no other one says what to do."""
    problems = ["the connection was closed", "the password is wrong", "the connection was closed", "the password is wrong"]

    async def at_once(_: float) -> None:
        return

    with capture_logs() as lines:
        async for attempt in retrying("write", structlog.get_logger(), at_once):
            with attempt:
                if problems:
                    raise RetryableError(problems.pop(0))
    assert [(line["event"], line["problem"]) for line in lines] == [
        ("retrying", "the connection was closed"),
        ("retrying", "the password is wrong"),
    ]
