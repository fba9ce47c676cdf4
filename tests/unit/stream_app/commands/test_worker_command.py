"""Faust's worker command, as ours: what it says, and where."""

import asyncio
import io

from stream_app.application import make_app
from stream_app.commands.worker import StreamWorker
from stream_app.settings import WorkerSettings


async def test_a_worker_told_to_stop_while_it_starts_writes_nothing_to_standard_output() -> None:
    """Faust ends its spinner's line then, though there is none: an empty line among the log's, which a collector can't parse."""
    standard_output = io.StringIO()
    worker = StreamWorker(make_app(WorkerSettings()), stdout=standard_output, loop=asyncio.get_running_loop())
    worker._on_sigterm()
    await worker.on_startup_finished()
    assert standard_output.getvalue() == ""
