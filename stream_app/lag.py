"""How far a partition is behind: in records by its offsets, in seconds by the oldest record that is not in Postgres."""

from collections.abc import Callable


class Lag:
    """Follows one partition's position and its log's end: the log end offset, be what is before it hidden by an open transaction.

    Where no waiting record is at hand to tell its own sent at, the partition has been behind at least since that was first noticed
    here: so the lag of a partition that stands still grows, and one record after hours of idleness is no lag of hours.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self.next_offset: int | None = None
        """The position; None until it is known."""
        self.log_end_offset: int | None = None
        self._behind_since: float | None = None

    def moved_to(self, next_offset: int) -> None:
        """The position is here now."""
        if next_offset != self.next_offset:
            self.next_offset = next_offset
            self._behind_since = None
        self._look()

    def log_ends_at(self, log_end_offset: int) -> None:
        """The log's end, as Kafka has just told it."""
        self.log_end_offset = log_end_offset
        self._look()

    def oldest_unwritten_seconds(self, oldest_in_hand_ms: int | None) -> float | None:
        """Sent at (seconds since the epoch) of the oldest record that waits, as near as it is known; None when none waits."""
        return self._behind_since if oldest_in_hand_ms is None else oldest_in_hand_ms / 1000

    def _look(self) -> None:
        behind = self.log_end_offset is not None and self.next_offset is not None and self.log_end_offset > self.next_offset
        if not behind:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = self._wall_clock()
