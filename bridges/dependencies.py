"""Whether SQS and Kafka work: what each request tells of them, the log lines, and the endless repetition of requests that fail."""

import time
from collections.abc import Callable
from threading import Event, Lock
from typing import TypeVar

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set
from tenacity.wait import wait_random_exponential

from bridges.metrics import BridgeMetrics
from pipeline.outages import Outage, OutageEvent

_log = structlog.stdlib.get_logger("bridges.dependencies")

BACKOFF_SECONDS = 0.2
BACKOFF_SECONDS_MAX = 20.0

ResultT = TypeVar("ResultT")


class Dependency:
    """One of the two. Thread-safe; :attr:`works` may be read without a lock."""

    def __init__(
        self,
        name: str,
        metrics: BridgeMetrics,
        on_change: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``on_change`` is called when it works again, without a lock held."""
        self.name = name
        self._outage = Outage()
        self._lock = Lock()
        self._ready = metrics.ready[name]
        self._ready.set(1)  # until it fails: what has not been asked yet is nobody's trouble
        self._backoffs = metrics.backoffs[name]
        self._on_change = on_change
        self._monotonic = monotonic

    @property
    def works(self) -> bool:
        """Whether the last thing that was tried worked."""
        return self._outage.works

    @property
    def code(self) -> str:
        """The last failure's code while it fails; else empty."""
        return self._outage.code

    def details(self) -> dict[str, object]:
        """For /readyz: whether it works, and while not the last failure's code, and why in words once that is known."""
        problem = self._outage.problem
        return {"ok": self.works, "code": self.code, **({"problem": problem} if problem else {})}

    def failed(self, code: str, problem: str = "") -> None:
        """Something that was asked of it failed; ``problem`` says why, where that is known at once."""
        with self._lock:
            event = self._outage.failed(self._monotonic(), code, problem)
        self._ready.set(0)
        self._say(event)

    def explained(self, problem: str) -> None:
        """It was found out why it fails."""
        with self._lock:
            event = self._outage.explained(self._monotonic(), problem)
        self._say(event)

    def worked(self) -> None:
        """Something that was asked of it worked. Costs little, but ask :attr:`works` first where that counts."""
        with self._lock:
            was_working = self._outage.works
            event = self._outage.worked(self._monotonic())
        self._ready.set(1)
        self._say(event)
        if not was_working:
            self._on_change()

    def tick(self) -> None:
        """Time has passed: an outage may be over."""
        with self._lock:
            event = self._outage.tick(self._monotonic())
        self._say(event)

    def repeat(
        self,
        request: Callable[[], ResultT],
        errors: tuple[type[Exception], ...],
        until: Event,
        beat: Callable[[], None],
    ) -> ResultT:
        """Make a request until it works, for ever, with backoff and full jitter. Raises its error once ``until`` is set.

        The first try goes without tenacity, which costs more than all else that we do for a batch of ten.
        """
        try:
            result = request()
        except errors as error:
            failures = iter([error])

            def again() -> ResultT:
                for failure in failures:  # the one that we have already
                    raise failure
                return request()

            result = self._repeating(errors, until, beat)(again)
        if not self.works:
            self.worked()
        return result

    def _repeating(self, errors: tuple[type[Exception], ...], until: Event, beat: Callable[[], None]) -> Retrying:
        def before_sleep(state: RetryCallState) -> None:
            beat()
            if state.outcome is not None and (error := state.outcome.exception()) is not None:
                self._back_off(error)

        return Retrying(
            retry=retry_if_exception_type(errors),
            wait=wait_random_exponential(multiplier=BACKOFF_SECONDS, max=BACKOFF_SECONDS_MAX),
            stop=stop_when_event_set(until),
            sleep=sleep_using_event(until),
            before_sleep=before_sleep,
            reraise=True,
        )

    def _back_off(self, error: BaseException) -> None:
        self._backoffs.inc()
        self.failed(str(getattr(error, "code", type(error).__name__)), str(error))

    def _say(self, event: OutageEvent | None) -> None:
        if event is None:
            return
        log = _log.info if event.kind == "recovered" else _log.warning
        log(f"{self.name}_{event.kind}", failures=event.failures, seconds=event.seconds, code=event.code, problem=event.problem)
