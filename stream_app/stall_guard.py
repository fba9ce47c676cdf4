"""Notices that nothing comes although a partition's log goes on, as far as it is given to a reader: to the last stable offset.

The last chunk before a pause may have been dropped on its way through Faust, and no later one is there to show it.
"""

from collections.abc import Callable

STALL_SECONDS = 10.0
STALL_AGAIN_SECONDS = 300.0
"""If still nothing comes after the partition was read again, the next time is later: the log may end in control records, which are
never delivered."""


class StallGuard:
    """Told of one partition's last stable offset every few seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._waits_for: int | None = None
        self._waits_since = 0.0
        self._seconds = STALL_SECONDS
        self._read_again_at: int | None = None

    def is_stalled(self, expected_offset: int | None, last_stable_offset: int) -> bool:
        """Whether the partition should be read again: nothing has come at this offset for long enough. None: nothing may come."""
        now = self._monotonic()
        if expected_offset is None or last_stable_offset <= expected_offset:
            self._waits_for = None
        elif expected_offset != self._waits_for:
            self._waits_for, self._waits_since = expected_offset, now
            if expected_offset != self._read_again_at:
                self._seconds = STALL_SECONDS
        elif now - self._waits_since >= self._seconds:
            self._read_again_at, self._seconds = expected_offset, STALL_AGAIN_SECONDS
            self._waits_for = None
            return True
        return False
