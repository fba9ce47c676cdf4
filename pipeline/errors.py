"""Every error of our own; its class says what the caller does about it.

    PipelineError
    |-- RetryableError     try again with backoff: nothing is wrong with the data or the settings
    |-- PoisonError        this one record can't become a row: dead-letter it, go on with the next
    `-- FatalError         stop, with one line that names the setting or the command that mends it
        `-- SettingsError  a setting is missing or wrong

Drivers' errors are translated into these at one seam each (SQS, Kafka, Postgres), the cause chained. A message says what was
expected, what came and what to do; it never holds a record's value, a secret, or the database's DETAIL.
"""


class PipelineError(Exception):
    """The root: catch it to catch everything that this project raises on purpose."""


class RetryableError(PipelineError):
    """Try again with backoff."""


def cause_code(error: PipelineError) -> str:
    """What lies behind an error, for who may not read its text: the database's code, a client's, or the driver's class's name."""
    cause = error.__cause__
    return getattr(cause, "pgcode", None) or getattr(error, "code", None) or type(cause or error).__name__


class PoisonError(PipelineError):
    """One record can't become a row.

    ``reason`` is a code from a closed list, ``field`` the field's name or ``None`` when the whole record is meant.
    """

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason if field is None else f"{reason}: {field}")
        self.reason = reason
        self.field = field

    def as_found(self) -> "PoisonError":
        """The same, to be kept: one that was raised keeps the frames that it passed, and with them every record of its batch."""
        return PoisonError(self.reason, self.field)


class FatalError(PipelineError):
    """Stop: a person has to act. The message is one line and names the setting or command."""


class SettingsError(FatalError):
    """A setting is missing or wrong."""
