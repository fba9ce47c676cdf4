import json
import logging
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog

from pipeline import logs
from pipeline.errors import FatalError
from pipeline.settings import LogSettings, load

SECRET = "203.0.113.7"


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def configure(**settings: str) -> None:
    logs.configure(load(LogSettings, **settings))


def fail(error: Exception) -> None:
    raise error


def quoting_driver() -> None:
    try:
        fail(KeyError(SECRET))
    except KeyError as error:
        raise ValueError(f"duplicate key: ({SECRET})") from error


def test_a_foreign_errors_message_is_not_logged_and_its_place_is(capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_format="json")
    try:
        quoting_driver()
    except ValueError:
        structlog.get_logger("test.foreign").exception("went_wrong")
        logging.getLogger("test.library").exception("it went wrong")
    text = capsys.readouterr().err
    assert SECRET not in text
    ours, library = map(json.loads, text.splitlines())
    for event in (ours, library):
        assert event["error"] == "ValueError"
        assert "test_logs.py" in event["exception"]
        assert "KeyError" in event["exception"]


def test_an_error_that_faust_puts_into_its_message_is_a_name_there(capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_format="json")
    logging.getLogger("faust.worker").error("Crashed reason=%r (%s) of %s", ValueError(SECRET), KeyError(SECRET), "a task")
    logging.getLogger("mode.services").error("stopped by %r", FatalError("run migrate"))
    logging.getLogger("mode.services").error("stopped by %r", OSError(24, "Too many open files", SECRET))
    logging.getLogger("aiokafka.client").error("can't connect: %s", OSError(24, "Too many open files"))
    text = capsys.readouterr().err
    assert [json.loads(line)["event"] for line in text.splitlines()] == [
        "Crashed reason=ValueError (KeyError) of a task",
        "stopped by FatalError: run migrate",
        "stopped by OSError: Too many open files",
        "can't connect: [Errno 24] Too many open files",
    ]


def test_an_error_that_nobody_catches_is_a_line_without_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    try:
        configure(log_format="json")
        logs.log_uncaught_errors()
        thread = threading.Thread(target=quoting_driver, name="made up")
        thread.start()
        thread.join()
        sys.excepthook(ValueError, ValueError(SECRET), None)
    finally:
        logging.captureWarnings(False)  # noqa: FBT003 - the library's own signature
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    text = capsys.readouterr().err
    assert SECRET not in text
    of_a_thread, of_the_process = map(json.loads, text.splitlines())
    assert (of_a_thread["event"], of_a_thread["thread"], of_a_thread["error"]) == ("uncaught_error", "made up", "ValueError")
    assert "quoting_driver" in of_a_thread["exception"]
    assert (of_the_process["event"], of_the_process["error"]) == ("uncaught_error", "ValueError")


def test_what_a_terminal_would_obey_is_escaped_and_no_line_is_forged(capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_format="text")
    structlog.get_logger("test.ours").warning("retrying", problem="\x1b[2Kgone\nworker_stopped", owner="\x9b2J")
    logging.getLogger("test.library").warning("from %s", "\x1b]0;title\x07\n2026-11-30 [info] partition_claimed")
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 2
    assert all(line.isprintable() for line in text.splitlines())
    assert "\\x1b" in text


def test_our_own_errors_say_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_format="json")
    try:
        fail(FatalError("run faust -A stream_app migrate"))
    except FatalError:
        structlog.get_logger("test.ours").exception("went_wrong")
    assert json.loads(capsys.readouterr().err)["error"] == "FatalError: run faust -A stream_app migrate"


def test_one_line_an_event_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_format="text")
    structlog.get_logger("test.text").info("partition_claimed", partition=3)
    (line,) = capsys.readouterr().err.splitlines()
    assert "partition_claimed" in line
    assert "partition=3" in line


@pytest.mark.parametrize("level", ["debug", "info"])
def test_libraries_never_log_their_debug_lines_which_quote_bodies(capsys: pytest.CaptureFixture[str], level: str) -> None:
    configure(log_level=level)
    for library in ("botocore.endpoint", "aiokafka.producer", "faust.transport"):
        logging.getLogger(library).debug("body %s", SECRET)
    assert SECRET not in capsys.readouterr().err


def test_what_aiokafka_warns_of_at_each_rebalance_is_dropped_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    aiokafka = logging.getLogger("aiokafka.consumer.group_coordinator")
    aiokafka.warning("Heartbeat failed for group %s because it is rebalancing", "g")
    aiokafka.error("Group Coordinator Request failed: %s", "[Error 15] GroupCoordinatorNotAvailableError")
    aiokafka.error("Heartbeat failed: %r", "other")
    (line,) = capsys.readouterr().err.splitlines()
    assert "other" in line


def test_a_library_that_tries_again_and_again_says_so_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    repetitions = logs._Repetitions(lambda: now)

    def is_logged(name: str, line: str, *arguments: object) -> bool:
        return repetitions.filter(logging.LogRecord(name, logging.ERROR, "", 0, line, arguments, None))

    assert is_logged("aiokafka.cluster", "Topic %s not found", "logins")
    assert is_logged("aiokafka.cluster", "Topic %s not found", "others")
    assert not is_logged("aiokafka.cluster", "Topic %s not found", "logins")
    assert [is_logged("stream_app.partitions", "ours") for _ in range(2)] == [True, True]
    now = logs.REPEAT_SECONDS
    assert is_logged("aiokafka.cluster", "Topic %s not found", "logins")
    monkeypatch.setattr(logs, "_REPEATED_LINES_MAX", 2)
    assert is_logged("aiokafka.cluster", "a third line: what was said before is forgotten")
    assert is_logged("aiokafka.cluster", "Topic %s not found", "logins")
