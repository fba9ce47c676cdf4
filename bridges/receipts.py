"""Which messages the bridge holds, until when SQS hides each from others, and whose time has to be extended.

No clock, no lock, no request: the caller passes the time (monotonic seconds) and serialises the calls. A message is held from its
receive until it is deleted, released, refused for ever, or lost because its receipt expired.
"""

import heapq
from collections.abc import Iterable, Sequence
from itertools import count

from bridges.message import Message

EXTEND_AT = 0.5
"""The share of the visibility timeout after which it is extended: the other half is there for attempts that fail."""


class Receipts:
    """The messages in flight. An ordinary message costs one insert and one removal; its batch one entry in the schedule."""

    def __init__(self) -> None:
        self._expires_at: dict[Message, float] = {}
        self._schedule: list[tuple[float, int, Sequence[Message]]] = []  # (when to extend, tie-breaker, messages)
        self._tie = count()
        self.bytes = 0
        """Of the bodies held."""

    def __len__(self) -> int:
        return len(self._expires_at)

    def __contains__(self, message: Message) -> bool:
        return message in self._expires_at

    def held(self) -> list[Message]:
        """All that is held, the earliest first."""
        return list(self._expires_at)

    def hold(self, messages: Sequence[Message], now: float, visibility_seconds: float) -> None:
        """Hold what was just received; hidden from others for ``visibility_seconds`` from ``now``."""
        for message in messages:
            self._expires_at[message] = now + visibility_seconds
            self.bytes += len(message.value)
        self._plan(messages, now + visibility_seconds * EXTEND_AT)

    def settle(self, message: Message) -> bool:
        """Hold it no longer, for whatever reason; False if it was not held any more."""
        if self._expires_at.pop(message, None) is None:
            return False
        self.bytes -= len(message.value)
        return True

    def is_valid(self, message: Message, now: float) -> bool:
        """Whether it is held and, by our clock, still hidden from others."""
        return self._expires_at.get(message, now) > now

    def due(self, now: float) -> list[Message]:
        """Whose time has to be extended now. Each comes once: :meth:`extended` or :meth:`extend_later` plans its next time."""
        due: list[Message] = []
        while self._schedule and self._schedule[0][0] <= now:
            due.extend(message for message in heapq.heappop(self._schedule)[2] if message in self._expires_at)
        return due

    def extended(self, messages: Iterable[Message], asked_at: float, visibility_seconds: float) -> None:
        """SQS hides these for ``visibility_seconds`` more, counted from ``asked_at`` (when we asked, to be on the safe side)."""
        still = [message for message in messages if message in self._expires_at]
        for message in still:
            self._expires_at[message] = asked_at + visibility_seconds
        self._plan(still, asked_at + visibility_seconds * EXTEND_AT)

    def extend_later(self, messages: Iterable[Message], at: float) -> None:
        """Extending these failed for now: they are due again at ``at``."""
        self._plan([message for message in messages if message in self._expires_at], at)

    def next_due_at(self) -> float | None:
        """When :meth:`due` may next have something; None: nothing is held."""
        return self._schedule[0][0] if self._schedule else None

    def _plan(self, messages: Sequence[Message], at: float) -> None:
        if messages:
            heapq.heappush(self._schedule, (at, next(self._tie), messages))
