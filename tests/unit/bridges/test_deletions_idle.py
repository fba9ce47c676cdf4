"""A deleter that has waited in vain comes back in its time: an idle bridge must not look like one that hangs.

``SimpleQueue.get`` with a timeout can wait for ever before Python 3.13; with several threads and times this short it soon does.
"""

from collections.abc import Sequence
from contextlib import suppress
from threading import Event, Thread
from time import monotonic, sleep

import pytest

from bridges import deletions
from bridges.dependencies import Dependency
from bridges.message import Message
from bridges.metrics import BridgeMetrics
from bridges.sqs_queue import Answer

DELETERS = 8
DELETES = 3_000


class _Queue:
    """Deletes at once."""

    def delete(self, messages: Sequence[Message]) -> list[Answer]:
        return [Answer.OK] * len(messages)


class _EndedError(Exception):
    """Ends a deleter."""


class Deleters:
    def __init__(self) -> None:
        metrics = BridgeMetrics()
        self.ended = Event()
        self.beats = [monotonic()] * DELETERS
        self.deletions = deletions.Deletions(
            _Queue(),  # type: ignore[arg-type] # all that is asked of it
            sqs=Dependency("sqs", metrics),
            metrics=metrics,
            on_answers=lambda *_: None,
            until=self.ended,
        )
        for index in range(DELETERS):
            Thread(target=self._run, args=(index,), daemon=True).start()

    def _run(self, index: int) -> None:
        def beat() -> None:
            self.beats[index] = monotonic()
            if self.ended.is_set():
                raise _EndedError

        with suppress(_EndedError):
            self.deletions.run(beat)

    def delete_one(self) -> None:
        self.deletions.add([Message("id", "", b"")])
        self.deletions.hand_over()

    def step_within(self, seconds: float) -> bool:
        """Whether each makes a step from now on."""
        now = monotonic()
        while min(self.beats) < now:
            if monotonic() > now + seconds:
                return False
            sleep(0.0003)
        return True


def test_an_idle_deleter_goes_on_making_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletions, "_IDLE_SECONDS", 1e-5)
    monkeypatch.setattr(deletions, "COALESCE_SECONDS", 0.0)
    deleters = Deleters()
    try:
        for _ in range(DELETES):
            deleters.delete_one()
            assert deleters.step_within(5.0), "nothing comes any more, and one waits for more than its time"
    finally:
        deleters.ended.set()
