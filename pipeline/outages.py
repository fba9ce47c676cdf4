"""When a failing dependency is worth a log line: the first failure, now and then while it lasts, and its end.

A request that fails among many that work must not log twice each time, so an outage ends only after a quiet time without a failure.
"""

from dataclasses import dataclass

REPEAT_SECONDS = 60.0
QUIET_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class OutageEvent:
    """What to log. ``kind``: ``failing`` (the first failure), ``still_failing``, ``recovered``."""

    kind: str
    failures: int
    seconds: float
    code: str
    """The last failure's code."""
    problem: str = ""
    """The last failure in words, where there are any."""


class Outage:
    """One dependency's. The clock is the caller's."""

    def __init__(self, repeat_seconds: float = REPEAT_SECONDS, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._repeat_seconds = repeat_seconds
        self._quiet_seconds = quiet_seconds
        self._began_at: float | None = None
        self._logged_at = 0.0
        self._failed_at = 0.0
        self._worked_at = 0.0
        self._failures = 0
        self._code = ""
        self._problem = ""
        self.works = True
        """Whether the last thing that was tried worked."""

    @property
    def code(self) -> str:
        """The last failure's code while it fails; else empty."""
        return "" if self.works else self._code

    @property
    def problem(self) -> str:
        """Likewise in words."""
        return "" if self.works else self._problem

    def failed(self, now: float, code: str, problem: str = "", since: float | None = None) -> OutageEvent | None:
        """Something failed. What was found out about the outage stands until more is known.

        ``since``: when it began, where that is known to be earlier.
        """
        self.works = False
        self._code = code
        self._problem = problem or self._problem
        self._failed_at = now
        self._failures += 1
        if self._began_at is None:
            self._began_at, self._logged_at = now if since is None else since, now
            return self._event("failing", now)
        if now - self._logged_at >= self._repeat_seconds:
            self._logged_at = now
            return self._event("still_failing", now)
        return None

    def explained(self, now: float, problem: str) -> OutageEvent | None:
        """It was found out why it fails; news are told at once."""
        if self.works or problem == self._problem:
            return None
        self._problem, self._logged_at = problem, now
        return self._event("still_failing", now)

    def worked(self, now: float) -> OutageEvent | None:
        """Something worked."""
        if not self.works:
            self.works, self._worked_at = True, now
        return self.tick(now)

    def tick(self, now: float) -> OutageEvent | None:
        """Time passed: the outage ends if it works and there was no failure for the quiet time."""
        if self._began_at is None or not self.works or now - self._failed_at < self._quiet_seconds:
            return None
        event = self._event("recovered", self._worked_at)
        self._began_at, self._failures, self._problem = None, 0, ""
        return event

    def _event(self, kind: str, now: float) -> OutageEvent:
        began_at = now if self._began_at is None else self._began_at
        return OutageEvent(kind, self._failures, round(now - began_at, 1), self._code, self._problem)
