"""How many receivers may ask SQS at a time, and for how much: few while it is empty, all while it is full, all within bounds."""

from dataclasses import dataclass

from bridges.memory import answer_bytes, held_bytes
from bridges.settings import RECEIVE_MESSAGES_MAX

RECEIVE_SHARE_MAX = 0.5
"""Of the memory, for one receive: it asks for fewer messages than ten where these are expected to take more. Not for what is left
just now: that would end in many requests for one message each."""

SMALL_BYTES = 4_096
"""Messages that are shorter in an answer count as so long."""

_FORGETS = 0.1
"""How much of what it expected of a message's size gives way to what an answer shows, where that is less."""


@dataclass(slots=True, eq=False)
class Receive:
    """One request to SQS for messages, from the asking to the answer."""

    messages: int
    """How many it asks for."""
    memory_bytes: int
    """What its answer is expected to take; when its length is known, what that takes."""
    answer_length: int = 0
    """In bytes, when it has begun; 0 before, where it came at once, and where boto3 reads it."""
    arrived_at: float | None = None
    """Monotonic seconds when it began, likewise None."""


class Intake:
    """The policy; the caller serialises the calls and lets receivers wait while :meth:`ask` or :meth:`read` says no.

    An idle bridge keeps one request open, not one a receiver: each request is paid for. Every receive that brings something lets
    one more receiver ask, every empty one a receiver fewer.

    Both bounds are strict. An open request counts as the most messages that it may bring. What it will bring in bytes nobody knows,
    so it counts as much as the last ones brought, and asks for fewer messages where these were large; but its answer is read only
    when what it really takes is free. An answer that takes more than there is altogether is read when nothing else is in memory.
    """

    def __init__(self, receivers: int, messages_max: int, bytes_max: int) -> None:
        self._receivers = receivers
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self.asking = 0
        """Those that have asked and have no whole answer yet."""
        self.active = 1
        """Receivers that may ask: those with a lower index."""
        self.reading_bytes = 0
        """What the answers take that are being read."""
        self.waiting = 0
        """Answers that wait for memory: nobody asks for more until they have it."""
        self._asked_messages = 0
        self._expected_bytes = 0
        self._message_length: float = SMALL_BYTES  # of one message in an answer, as the last ones were
        self._messages_a_receive = RECEIVE_MESSAGES_MAX
        self._expected_a_receive = self._expected(RECEIVE_MESSAGES_MAX)

    def ask(self, index: int, messages: int, body_bytes: int) -> Receive | None:
        """The receiver ``index`` asks now, while so many messages with bodies of so many bytes are in flight; None: it may not."""
        if index >= self.active or self.waiting:
            return None
        count, expected = self._messages_a_receive, self._expected_a_receive
        used = held_bytes(messages, body_bytes) + self.reading_bytes + self._expected_bytes
        if messages + self._asked_messages + count > self._messages_max:
            return None
        if used + expected > self._bytes_max and (messages or self.asking):
            return None
        receive = Receive(count, expected)
        self.asking += 1
        self._asked_messages += count
        self._expected_bytes += expected
        return receive

    def read(self, receive: Receive, length: int, messages: int, body_bytes: int) -> bool:
        """Whether an answer of this length may be read now, while so much is in flight; if so it counts as what it takes."""
        memory_bytes = answer_bytes(length, receive.messages)
        used = held_bytes(messages, body_bytes) + self.reading_bytes
        if used + memory_bytes > self._bytes_max and (self.reading_bytes or body_bytes):
            return False
        self._release(receive)
        receive.answer_length, receive.memory_bytes = length, memory_bytes
        self.reading_bytes += memory_bytes
        return True

    def broke_off(self, receive: Receive) -> None:
        """Its answer ended before it was whole, and it will be made again."""
        if receive.answer_length:
            self._release(receive)
            receive.answer_length, receive.memory_bytes = 0, self._expected(receive.messages)
            self._expected_bytes += receive.memory_bytes

    def answered(self, receive: Receive, messages: int | None, body_bytes: int = 0) -> None:
        """It has its answer, and the messages that it brought are in flight now; None: it failed."""
        self._release(receive)
        self.asking -= 1
        self._asked_messages -= receive.messages
        if messages:
            self._expect((receive.answer_length or body_bytes) / messages)
            self.active = min(self.active + 1, self._receivers)
        elif messages == 0:
            self.active = max(self.active - 1, 1)

    def _expect(self, message_length: float) -> None:
        """Messages as long as those that have just come, and for a while as long as longer ones before."""
        if self._message_length == SMALL_BYTES >= message_length:
            return
        forgetting = self._message_length + (message_length - self._message_length) * _FORGETS
        self._message_length = max(message_length, forgetting, SMALL_BYTES)
        count = RECEIVE_MESSAGES_MAX
        while (expected := self._expected(count)) > self._bytes_max * RECEIVE_SHARE_MAX and count > 1:
            count -= 1
        self._messages_a_receive, self._expected_a_receive = count, expected

    def _expected(self, messages: int) -> int:
        return answer_bytes(int(self._message_length * messages), messages)

    def _release(self, receive: Receive) -> None:
        if receive.answer_length:
            self.reading_bytes -= receive.memory_bytes
        else:
            self._expected_bytes -= receive.memory_bytes
