"""`faust -A stream_app worker`: Faust's own command, with our start-up checks and without its banner."""

import gc
import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from faust.cli.worker import worker as faust_worker_command
from faust.worker import Worker
from mode import ServiceT
from mode import Worker as ModeWorker

from pipeline.ending import EXIT_REFUSED
from pipeline.errors import FatalError
from pipeline.stop_signals import STOP_SIGNALS, call_on_stop_signal
from stream_app.commands.command import refused

if TYPE_CHECKING:  # the App's module imports this one
    from stream_app.application import StreamApp


GARBAGE_THRESHOLDS = (10_000, 10, 10)
"""The first is above what a slice of records has: a few containers a record, in no cycle, dropped before the next slice."""


def _collect_garbage_less_often() -> None:
    """Python looks for cycles each time there are 700 more containers than before: while it fetches, after each 100 records.

    Looking took 4 of 14 us a row, and at start-up's objects no one need look again. What is in cycles here is next to nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


class StreamWorker(Worker):
    """Faust's worker without its progress spinner (standard output stays empty, the log tells), and with a sure end.

    Read against mode 0.7.1 (``worker.py``): it hears of signals in the event loop, so a loop that stands still hears of none, and
    takes a second one for the first.
    """

    app: "StreamApp"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.spinner = None

    def install_signal_handlers(self) -> None:
        """Take SIGTERM and SIGINT in a thread of their own: the first stops in order, within a bound; the second ends at once."""
        super().install_signal_handlers()
        for number in STOP_SIGNALS:
            self.loop.remove_signal_handler(number)
        call_on_stop_signal(self._told_to_stop)
        self.app.ending.start()

    def _on_sigint(self) -> None:
        """As for SIGTERM, if it comes in the moment before ours are in place: mode would write -INT- -INT- into the log."""
        self._on_sigterm()

    def _told_to_stop(self) -> None:
        self.app.ending.stopping()
        with suppress(RuntimeError):  # the loop is closed: it has stopped already
            self.loop.call_soon_threadsafe(self._on_sigterm)

    def on_worker_shutdown(self) -> None:
        """Follow up a stop that no signal began, too: an error did, mostly one at the start."""
        error = self.crash_reason or sys.exc_info()[1]
        self.app.ending.stopping(None if isinstance(error, SystemExit) else error)
        super().on_worker_shutdown()

    def stop_and_shutdown(self) -> None:
        """End here, once all is written and closed: Python would wait for each thread that still asks a Kafka which is away."""
        super().stop_and_shutdown()
        if self.crash_reason is None and sys.exc_info()[1] is None:
            logging.shutdown()
            os._exit(0)

    def say(self, msg: str) -> None:
        """Nothing: Faust ends the spinner's line here, with or without a spinner, when it is told to stop while it starts."""


class worker(faust_worker_command):  # noqa: N801 - the class's name is the command's
    """Write logins from Kafka to Postgres.

    Start as many as there are partitions, on any machines; each writes what it holds and leaves on SIGTERM.
    """

    def as_service(self, loop: Any, *args: Any, **kwargs: Any) -> ServiceT:
        """The App, composed: a missing keyset or setting ends here, with one line."""
        service = super().as_service(loop, *args, **kwargs)
        try:
            cast("StreamApp", self.app).compose()
        except FatalError as error:
            refused(error, EXIT_REFUSED).show()
            raise SystemExit(EXIT_REFUSED) from error  # Faust shows a traceback for any other exception
        _collect_garbage_less_often()
        return service

    def on_worker_created(self, worker: ModeWorker) -> None:
        """No banner: the log line worker_started says what a reader needs."""
