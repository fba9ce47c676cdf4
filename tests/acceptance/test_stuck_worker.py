"""A worker whose event loop hangs says so over HTTP: a process as its users run it, on real servers."""

import json
import sys
from pathlib import Path
from signal import SIGALRM
from urllib.error import HTTPError
from urllib.request import urlopen

from acceptance.running_pipeline import RunningPipeline, wait_until

from dev_servers.ports import HOST, free_port

BLOCKABLE_WORKER = """
import runpy, signal, sys, time

from stream_app import health

health.LOOP_LATE_SECONDS, health.LOOP_STUCK_SECONDS = 1.0, 3.0
signal.signal(signal.SIGALRM, lambda *_: time.sleep(600))
sys.argv = ["faust", "-A", "stream_app", "worker"]
runpy.run_module("faust", run_name="__main__")
"""
"""With shorter bounds, and with a signal whose handler does not return. Handlers run where the event loop does, on the main thread,
so this blocks the loop as a call would that never returns; the operations server's threads go on."""


def asked(port: int, path: str) -> tuple[int, dict[str, object]]:
    """Status and what it says; 0 while nobody listens."""
    try:
        with urlopen(f"http://{HOST}:{port}{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)
    except OSError:
        return 0, {}


def is_not_ready_for_its_loop(port: int) -> bool:
    status, said = asked(port, "/readyz")
    return status == 503 and "event_loop" in str(said.get("waiting_for"))


def test_a_worker_whose_event_loop_is_blocked_is_not_ready_and_then_asks_for_a_restart(
    pipeline: RunningPipeline, tmp_path: Path
) -> None:
    (tmp_path / "blockable_worker.py").write_text(BLOCKABLE_WORKER)
    port = pipeline.ports["worker"] = free_port()
    worker = pipeline._start(
        "worker",
        [sys.executable, str(tmp_path / "blockable_worker.py")],
        {"WEB_BIND": HOST, "WEB_PORT": str(port), "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        pipeline.wait_ready("worker")
        assert asked(port, "/livez")[0] == 200
        worker.send_signal(SIGALRM)
        wait_until(lambda: is_not_ready_for_its_loop(port), "it is not ready, and names its event loop")
        wait_until(lambda: asked(port, "/livez")[0] == 503, "it asks for a restart")
        assert float(str(asked(port, "/livez")[1]["event_loop_silent_seconds"])) >= 3
        with urlopen(f"http://{HOST}:{port}/metrics", timeout=5) as answer:
            assert answer.status == 200
    finally:
        pipeline.kill("worker")
