"""The stream worker: Kafka to Postgres, masked, in micro-batches, each record exactly once: `faust -A stream_app worker`."""

from typing import TYPE_CHECKING, Any

import pipeline  # noqa: F401 - `faust -A` has the working directory on the path only while it imports this package

if TYPE_CHECKING:
    from stream_app.application import app as app


def __getattr__(name: str) -> Any:
    """``stream_app.app`` is the Faust App, made when it is asked for: importing a part of the package reads no setting."""
    if name == "app":
        from pipeline import json_errors  # noqa: PLC0415 - before all else that may fail

        json_errors.begin()
        from stream_app.application import app  # noqa: PLC0415 - see above

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
