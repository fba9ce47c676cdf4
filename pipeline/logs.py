"""Logs: a line is an event and its fields, for people (``text``) or for a collector (``json``), on standard error.

Our own events and those of the libraries (Faust, aiokafka, boto3) leave through the same handler. Nothing is logged per record,
and never a record's value: an event names offsets, counts and reasons.
"""

import logging.config
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from pipeline.errors import PipelineError
from pipeline.printable import printable
from pipeline.settings import LogSettings

log = structlog.stdlib.get_logger("pipeline.logs")

_CHAIN_MAX = 8

# Libraries that report their ordinary running at INFO; their warnings still come through.
_QUIET_LOGGERS = ("aiokafka", "aiopg", "asyncio", "boto3", "botocore", "faust", "mode", "urllib3")


def _exception_without_values(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Render where an error came from. What it says is kept for our own errors only: a driver's message may quote the record."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        links: list[str] = []
        link: BaseException | None = error
        while link is not None and len(links) < _CHAIN_MAX:
            links.append("".join(traceback.format_tb(link.__traceback__)) + _name(link))
            link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
        event["error"] = _name(error)
        event["exception"] = "\ncaused by:\n".join(links)
    return event


def _name(error: BaseException) -> str:
    said: object = error.strerror if isinstance(error, OSError) else error if isinstance(error, PipelineError) else None
    return type(error).__name__ if said is None else f"{type(error).__name__}: {said}"


_CRASH_LOGGERS = ("faust", "mode")


class _NamedErrors(logging.Filter):
    """Has Faust and mode, which put whatever has crashed into their messages, put its name there: what it says may quote a record.

    What the system says (no file descriptor, no memory) stays. Other libraries put only errors of their own there.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Always to be logged."""
        if record.name.partition(".")[0] in _CRASH_LOGGERS and isinstance(record.args, tuple):
            record.args = tuple(_Name(_name(arg)) if isinstance(arg, BaseException) else arg for arg in record.args)
        return True


class _Name(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


# What aiokafka warns of in the ordinary course of a first start and of each rebalance.
_ORDINARY = ("Marking the coordinator dead", "Heartbeat failed for group %s because it is rebalancing")


class _OrdinaryWarnings(logging.Filter):
    """Drops what aiokafka warns of at a group's first start and at each rebalance. What lasts shows in /readyz."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it."""
        text = str(record.msg)
        return not text.startswith(_ORDINARY) and "GroupCoordinatorNotAvailableError" not in record.getMessage()


REPEAT_SECONDS = 60.0
_REPEATED_LINES_MAX = 1_000


class _Repetitions(logging.Filter):
    """Lets a library say the same thing once a minute: what it tries again and again it says each time."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._said_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it."""
        if record.name.partition(".")[0] not in _QUIET_LOGGERS:
            return True
        line, now = (record.name, record.getMessage()), self._monotonic()
        if now - self._said_at.get(line, float("-inf")) < REPEAT_SECONDS:
            return False
        if len(self._said_at) >= _REPEATED_LINES_MAX:
            self._said_at.clear()
        self._said_at[line] = now
        return True


def _printable_texts(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """For people: nothing that a terminal would obey, and no line that only looks like one of ours."""
    for name, value in event.items():
        if isinstance(value, str):
            lines = value.split("\n") if name == "exception" else (value,)  # its lines are those of a traceback
            event[name] = "\n".join(map(printable, lines))
    return event


_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.stdlib.ExtraAdder(),
    _exception_without_values,
)


def logging_config(settings: LogSettings) -> dict[str, Any]:
    """The :func:`logging.config.dictConfig` schema; Faust applies it by itself, the bridge through :func:`configure`."""
    renderers: tuple[Processor, ...] = (
        (structlog.processors.JSONRenderer(),)
        if settings.log_format == "json"
        else (_printable_texts, structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0, sort_keys=False))
    )
    level = settings.log_level.upper()
    quiet_level = "INFO" if settings.log_level == "debug" else "WARNING"  # never DEBUG: there botocore and aiokafka quote bodies
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "event": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": list(_SHARED),
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    *renderers,
                ],
            }
        },
        "filters": {
            "named errors": {"()": _NamedErrors},
            "ordinary warnings": {"()": _OrdinaryWarnings},
            "repetitions": {"()": _Repetitions},
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "event",
                "filters": ["named errors", "ordinary warnings", "repetitions"],
            }
        },
        "root": {"level": level, "handlers": ["stderr"]},
        "loggers": {name: {"level": quiet_level} for name in _QUIET_LOGGERS},
    }


def configure_structlog() -> None:
    """Send structlog's events through the standard library's loggers, so that all lines have one form."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def configure(settings: LogSettings) -> None:
    """Set up logging for a process that has no framework to do it."""
    logging.config.dictConfig(logging_config(settings))
    configure_structlog()


def log_uncaught_errors() -> None:
    """Have errors that nobody catches, and Python's warnings, logged: a log has nothing but lines of one form."""
    logging.captureWarnings(True)  # noqa: FBT003 - the library's own signature
    sys.excepthook = _log_uncaught
    sys.unraisablehook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _log_uncaught(_: type[BaseException], error: BaseException | None, __: TracebackType | None) -> None:
    """In place of Python's traceback, which stands between the lines and says what the error says."""
    if not isinstance(error, SystemExit):  # of a thread: ends it, and is no fault
        log.critical("uncaught_error", thread=threading.current_thread().name, exc_info=error)
