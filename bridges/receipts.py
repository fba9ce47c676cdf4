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


_Batch = dict[Message, None]
"""Messages whose time is extended together, in their order."""

_SETTLED_BATCHES_MAX = 64


class Receipts:
    """The messages in flight. An ordinary message costs one insert and one removal; its batch one entry in the schedule."""

    def __init__(self) -> None:
        self._batch_of: dict[Message, _Batch] = {}
        self._schedule: list[tuple[float, int, _Batch]] = []  # (when to extend, tie-breaker, messages still held)
        self._tie = count()
        self.body_bytes = 0
        """Of the bodies that are in memory: of messages held, and of those that Kafka still has although their receipt expired."""

    def __len__(self) -> int:
        return len(self._batch_of)

    def __contains__(self, message: Message) -> bool:
        return message in self._batch_of

    def held(self) -> list[Message]:
        """All that is held, the earliest first."""
        return list(self._batch_of)

    def hold(self, messages: Sequence[Message], now: float, visibility_seconds: float) -> None:
        """Hold what was just received; hidden from others for ``visibility_seconds`` from ``now``."""
        for message in messages:
            message.hidden_until = now + visibility_seconds
            self.body_bytes += len(message.value)
        self._plan(messages, now + visibility_seconds * EXTEND_AT)

    def settle(self, message: Message) -> bool:
        """Hold it no longer, for whatever reason; False if it was not held any more."""
        batch = self._batch_of.pop(message, None)
        if batch is None:
            return False
        del batch[message]
        if message.acknowledged:  # as drop_body, without a call for each message that passes
            self.body_bytes -= len(message.value)
            message.value = b""
        return True

    def drop_body(self, message: Message) -> None:
        """It will not be produced again, and Kafka's client has let go of it: its body is not needed any more."""
        self.body_bytes -= len(message.value)
        message.value = b""

    def is_valid(self, message: Message, now: float) -> bool:
        """Whether it is held and, by our clock, still hidden from others."""
        return message in self._batch_of and message.hidden_until > now

    def due(self, now: float) -> list[Message]:
        """Whose time has to be extended now. Each comes once: :meth:`extended` or :meth:`extend_later` plans its next time."""
        due: list[Message] = []
        while self._schedule and self._schedule[0][0] <= now:
            due.extend(heapq.heappop(self._schedule)[2])
        return due

    def extended(self, messages: Iterable[Message], asked_at: float, visibility_seconds: float) -> None:
        """SQS hides these for ``visibility_seconds`` more, counted from ``asked_at`` (when we asked, to be on the safe side)."""
        still = [message for message in messages if message in self._batch_of]
        for message in still:
            message.hidden_until = asked_at + visibility_seconds
        self._plan(still, asked_at + visibility_seconds * EXTEND_AT)

    def extend_later(self, messages: Iterable[Message], at: float) -> None:
        """Extending these failed for now: they are due again at ``at``."""
        self._plan([message for message in messages if message in self._batch_of], at)

    def next_due_at(self) -> float | None:
        """When :meth:`due` may next have something; None: nothing is held."""
        return self._schedule[0][0] if self._schedule else None

    def _plan(self, messages: Sequence[Message], at: float) -> None:
        if not messages:
            return
        batch = dict.fromkeys(messages)
        self._batch_of.update(dict.fromkeys(messages, batch))
        heapq.heappush(self._schedule, (at, next(self._tie), batch))
        # Most batches are settled long before they are due: what is left of them must not pile up until then.
        if len(self._schedule) > 2 * len(self._batch_of) + _SETTLED_BATCHES_MAX:
            self._schedule = [entry for entry in self._schedule if entry[2]]
            heapq.heapify(self._schedule)
