"""Rows that Postgres refuses: why, and when so many in a row are no longer the rows' fault.

A row that is refused alone, among others that are taken, is a dead letter. Row after row refused for one and the same reason says
that the table has changed: then the partition stops, and waits for whoever changed it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import FatalError

WHOLE_BATCH_ROWS_MIN = 10
"""A batch of at least so many rows, all refused for one reason, stops the partition by itself."""

RECHECK_ROWS = 10
"""When a stopped partition is tried again, so many rows at the same place, refused for the same reason, leave it stopped."""

RECHECK_WHOLE_SECONDS = 300.0
"""So often as many are tried again as stopped it: the first ones may be bad by themselves by now."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why Postgres refuses a row: names of the schema, and the code. Never a value."""

    sqlstate: str | None = None
    table: str | None = None
    column: str | None = None
    constraint: str | None = None
    function: str | None = None
    """The function that raised it, as an error's context names it."""
    trigger: str | None = None
    """The trigger of the table that runs this function."""

    def named(self) -> dict[str, str]:
        """What is known of it, for a log line or a page."""
        names = {
            "sqlstate": self.sqlstate,
            "table": self.table,
            "column": self.column,
            "constraint": self.constraint,
            "trigger": self.trigger,
            "function": self.function,
        }
        return {name: value for name, value in names.items() if value is not None}

    def __str__(self) -> str:
        parts = [f"{'SQLSTATE' if name == 'sqlstate' else name} {value}" for name, value in self.named().items()]
        return ", ".join(parts) or "before anything was sent"


@dataclass(frozen=True, slots=True)
class RowsRefused:
    """Rows in a row that stop their partition. None of them is a dead letter."""

    refusal: Refusal
    first_offset: int
    last_offset: int
    rows: int

    def named(self) -> dict[str, str | int]:
        """What a log line says of it."""
        offsets: dict[str, str | int] = {"first_offset": self.first_offset, "last_offset": self.last_offset, "rows": self.rows}
        return {**self.refusal.named(), **offsets}


class RowsRefusedError(FatalError):
    """So many rows in a row are refused for one reason that the partition stops."""

    def __init__(self, found: RowsRefused) -> None:
        super().__init__(
            f"Postgres refuses row after row from offset {found.first_offset} on, for one reason ({found.refusal}): nothing is"
            " skipped until it takes one; mend the table, or set REFUSED_ROWS_MAX=0 if these are to be dead letters"
        )
        self.found = found


class RefusedRun:
    """The rows of one partition that were refused one after the other for the same reason, no row written between them.

    Lives as long as the partition is ours, over its claims. How long they took does not count: where a hundred in a row are
    refused, everything is, however slowly it comes.
    """

    def __init__(self, rows_max: int, monotonic: Callable[[], float]) -> None:
        """``rows_max``: so many stop the partition; 0: none do."""
        self.rows_max = rows_max
        self._monotonic = monotonic
        self._refusal: Refusal | None = None
        self._dead_letters = 0
        self._held: list[int] = []
        self._stopped: tuple[Refusal, int] | None = None  # why, and at which offset
        self._tried_whole_at = 0.0

    def begin(self) -> None:
        """A claim begins: what was held back, and not written, comes again."""
        self._held.clear()

    def refused(self, refusal: Refusal, offset: int) -> None:
        """One more row is refused, and held back. Raises :class:`RowsRefusedError` when it is one too many."""
        if refusal != self._refusal:
            self._refusal, self._dead_letters = refusal, 0
            self._held.clear()
        self._held.append(offset)
        if not self.rows_max:
            return
        if self._dead_letters + len(self._held) >= self.rows_max:
            self._tried_whole_at = self._monotonic()
            self._stop()
        if self._is_stopped_here() and len(self._held) >= min(RECHECK_ROWS, self.rows_max):
            self._stop()

    def ends_batch(self, rows: int) -> None:
        """All rows of a batch were tried. Raises :class:`RowsRefusedError` if every one of them is held back, for one reason."""
        if self.rows_max and rows == len(self._held) and rows >= min(WHOLE_BATCH_ROWS_MIN, self.rows_max):
            self._tried_whole_at = self._monotonic()
            self._stop()

    def became_dead_letters(self) -> None:
        """What was held back is written, as dead letters."""
        self._dead_letters += len(self._held)
        self._held.clear()

    def row_written(self) -> None:
        """Postgres takes rows."""
        self._refusal, self._dead_letters, self._stopped = None, 0, None
        self._held.clear()

    def _is_stopped_here(self) -> bool:
        recent = self._monotonic() - self._tried_whole_at < RECHECK_WHOLE_SECONDS
        return recent and self._stopped == (self._refusal, self._held[0])

    def _stop(self) -> None:
        if self._refusal is not None:
            first, last, rows = self._held[0], self._held[-1], len(self._held)
            self._held.clear()
            self._stopped = (self._refusal, first)
            raise RowsRefusedError(RowsRefused(self._refusal, first, last, rows))
