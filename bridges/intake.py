"""How many receivers may ask SQS at a time: few while it is empty, all while it is full, none beyond what may be in flight."""

from bridges.settings import RECEIVE_MESSAGES_MAX


class Intake:
    """The policy; the caller serialises the calls and lets receivers wait while :meth:`allows` says no.

    An idle bridge keeps one request open, not one a receiver: each request is paid for. Every receive that brings something lets
    one more receiver ask, every empty one a receiver fewer. The bound on messages is strict: an open request counts as the most
    that it may bring. The bound on bytes is not, since nobody knows what a request will bring.
    """

    def __init__(self, receivers: int, messages_max: int, bytes_max: int) -> None:
        self._receivers = receivers
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self.asking = 0
        """Those that have asked and have no answer yet."""
        self.active = 1
        """Receivers that may ask: those with a lower index."""

    def allows(self, index: int, messages: int, size: int) -> bool:
        """Whether the receiver ``index`` may ask while ``messages`` with ``size`` bytes are in flight."""
        return (
            index < self.active
            and messages + (self.asking + 1) * RECEIVE_MESSAGES_MAX <= self._messages_max
            and size < self._bytes_max
        )

    def asked(self) -> None:
        """A receiver has begun to ask."""
        self.asking += 1

    def answered(self, messages: int | None) -> None:
        """It has its answer, and what it brought is in flight now; None: the request failed."""
        self.asking -= 1
        if messages:
            self.active = min(self.active + 1, self._receivers)
        elif messages == 0:
            self.active = max(self.active - 1, 1)
