"""Whatever ends while the demo runs is told and started again, as a service manager would."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from dev_servers.local_pipeline import LocalPipeline
from dev_servers.process import DevServerError

STARTS = 3
"""So often is tried to start one again, in case that somebody ends it while it starts."""


class Watch:
    """Of bridge, workers, monitor and servers."""

    def __init__(self, pipeline: LocalPipeline, say: Callable[[str], None]) -> None:
        self._pipeline = pipeline
        self._say = say
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="start-again")
        self._starting: dict[str, Future[None]] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """What is being started again has ended, or is waited for, when this is left."""
        try:
            yield
        finally:
            self._pipeline.ending = True
            for name in self._starting:
                self._pipeline.give_up_start(name)
            self._pool.shutdown(cancel_futures=True)

    def look(self) -> bool:
        """Start again what has ended. Whether all were there. Raises :class:`DevServerError` when one can't be started again."""
        for name, start in list(self._starting.items()):
            if start.done():
                del self._starting[name]
                start.result()
                self._say(f"{name} is ready again, process {self._pipeline.child(name).pid}")
        for name in self._pipeline.names:
            if name not in self._starting and (child := self._pipeline.child(name)).returncode is not None:
                self._say(f"{name} ended, {child.how_it_ended()}; starting it again")
                self._starting[name] = self._pool.submit(self._start_again, name)
        return not self._starting

    def _start_again(self, name: str) -> None:
        for attempt in range(1, STARTS + 1):
            try:
                self._pipeline.start_again(name)
            except DevServerError:
                if attempt == STARTS or self._pipeline.ending:
                    raise
            else:
                return
