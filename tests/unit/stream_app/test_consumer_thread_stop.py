"""The stop of the consumer's thread ends within its bound, whatever aiokafka's does: mode waits for ever where it raises."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
import virtual_time
from aiokafka.errors import NodeNotReadyError
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from stream_app.transport.consumer_thread import THREAD_STOP_SECONDS, BatchConsumerThread


async def hang(*_: Any) -> None:
    await asyncio.sleep(1_000)


async def leave(*_: Any) -> None:
    return


async def refuse(*_: Any) -> None:
    raise NodeNotReadyError


async def be_cancelled_by_a_task_of_its_own(*_: Any) -> None:
    """As aiokafka's coordinator, whose task was cancelled with a commit that was given up."""
    task = asyncio.create_task(hang())
    await asyncio.sleep(0)
    task.cancel()
    await task


@pytest.mark.parametrize(
    ("stop", "problems"),
    [
        (leave, []),
        (hang, ["TimeoutError"]),
        (refuse, ["NodeNotReadyError"]),
        (be_cancelled_by_a_task_of_its_own, ["CancelledError"]),
    ],
)
@pytest.mark.parametrize("reader_stop", [leave, hang])
def test_it_ends_within_its_bound_and_says_that_the_group_was_not_left(
    monkeypatch: pytest.MonkeyPatch,
    stop: Callable[..., Awaitable[None]],
    problems: list[str],
    reader_stop: Callable[..., Awaitable[None]],
) -> None:
    async def scene() -> None:
        thread = BatchConsumerThread.__new__(BatchConsumerThread)
        thread.log_reader = SimpleNamespace(stop=reader_stop)  # type: ignore[assignment] # all that a stop asks of it
        with structlog.testing.capture_logs() as lines:
            await thread.on_thread_stop()
        waited_seconds = THREAD_STOP_SECONDS if hang in {stop, reader_stop} else 0
        assert asyncio.get_running_loop().time() == pytest.approx(waited_seconds)
        assert [(line["event"], line["problem"]) for line in lines] == [("group_not_left", problem) for problem in problems]

    monkeypatch.setattr(AIOKafkaConsumerThread, "on_thread_stop", stop)
    virtual_time.run(scene())
