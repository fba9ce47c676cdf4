"""Bridges, workers, monitors and commands as a user starts them: by command line and environment, each a process of its own."""

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from signal import Signals

from prometheus_client.parser import text_string_to_metric_families

from dev_servers.ports import HOST, free_port
from dev_servers.process import ChildProcess, DevServerError, Launch

PROJECT = Path(__file__).resolve().parent.parent
READY_SECONDS = 60.0
COMMAND_SECONDS = 60.0
ANSWER_SECONDS = 5.0
STOP_SECONDS = 30.0
"""After SIGTERM; more than bridge and worker promise to need."""

FAUST = (sys.executable, "-m", "faust", "-A", "stream_app")
BRIDGE = (sys.executable, "-m", "bridges", "sqs")


class PipelineProcesses:
    """Processes by name. Each one's log is ``NAME.log`` in the directory, and is appended to when the name is started again."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        """``environment``: of every process, on top of our own."""
        self.directory = directory
        self.environment = dict(environment)
        self.running: dict[str, ChildProcess] = {}
        self.ports: dict[str, int] = {}
        """Where each process serves /metrics, /livez and /readyz; kept when it has ended."""
        self.interrupt: Callable[[], None] = lambda: None
        """Called again and again while something is waited for; may raise."""
        self._started: dict[str, tuple[Sequence[str], Mapping[str, str]]] = {}
        self._commands = 0

    def run(self, *arguments: str, **settings: str) -> str:
        """Run ``faust -A stream_app ARGUMENTS``; what it printed. Raises :class:`DevServerError` with the end of it if it fails."""
        self._commands += 1
        log_file = self.directory / f"command-{self._commands}.log"
        child = ChildProcess(f"faust -A stream_app {' '.join(arguments)}", self._launch([*FAUST, *arguments], settings), log_file)
        try:
            code = child.wait(COMMAND_SECONDS)
        finally:
            child.kill()
        if code != 0:
            raise DevServerError(child.name, f"failed with exit code {code}", log_file, child.log_from)
        return log_file.read_bytes()[child.log_from :].decode()

    def start_command(self, name: str, *arguments: str, **settings: str) -> ChildProcess:
        """Start ``faust -A stream_app ARGUMENTS``; neither waited for nor ended with the others. Its log is ``NAME.log``."""
        return ChildProcess(name, self._launch([*FAUST, *arguments], settings), self.directory / f"{name}.log")

    def start_bridge(self, name: str = "bridge", **settings: str) -> ChildProcess:
        """Start a bridge; it is not waited for. ``settings``: environment variables of this one."""
        self.ports[name] = free_port()
        return self._start(name, BRIDGE, {"BRIDGE_WEB_BIND": HOST, "BRIDGE_WEB_PORT": str(self.ports[name]), **settings})

    def start_worker(self, name: str = "worker", **settings: str) -> ChildProcess:
        """Start a worker, likewise."""
        self.ports[name] = free_port()
        return self._start(name, [*FAUST, "worker"], {"WEB_BIND": HOST, "WEB_PORT": str(self.ports[name]), **settings})

    def start_monitor(self, name: str = "monitor", **settings: str) -> ChildProcess:
        """Start a monitor, likewise."""
        self.ports[name] = free_port()
        return self._start(
            name, [*FAUST, "monitor"], {"MONITOR_WEB_BIND": HOST, "MONITOR_WEB_PORT": str(self.ports[name]), **settings}
        )

    def start_again(self, name: str) -> ChildProcess:
        """Start one that has ended as it was started, with its own port. It is not waited for."""
        ended = self.running.pop(name)
        ended.stop()
        return self._start(name, *self._started[name])

    def wait_ready(self, *names: str) -> None:
        """Wait until each says so at ``/readyz``. Raises :class:`DevServerError` with the end of a log."""
        for name in names or tuple(self.running):
            self.running[name].wait_until(partial(self._is_ready, name), READY_SECONDS, partial(self._readiness, name))

    def _is_ready(self, name: str) -> bool:
        self.interrupt()
        return self.is_ready(name)

    def is_ready(self, name: str) -> bool:
        """Whether it says so at ``/readyz``, within 2 seconds: soon told for one that is stopped by SIGSTOP."""
        try:
            return self._asked(name, "/readyz", seconds=2.0)[0] == HTTPStatus.OK
        except OSError:
            return False

    def _readiness(self, name: str) -> str:
        try:
            return f"; /readyz says {self._asked(name, '/readyz')[1].strip()}"
        except OSError as error:
            return f"; no answer from port {self.ports[name]}: {error}"

    def livez(self, name: str) -> tuple[int, str]:
        """Status and text of ``/livez``: not 200 asks for a restart, and the text says why. Raises :class:`OSError`."""
        return self._asked(name, "/livez")

    def readyz(self, name: str) -> tuple[int, str]:
        """Status and text of ``/readyz``: not 200 waits for something, and the text names it. Raises :class:`OSError`."""
        return self._asked(name, "/readyz")

    def _asked(self, name: str, path: str, seconds: float = ANSWER_SECONDS) -> tuple[int, str]:
        with closing(HTTPConnection(HOST, self.ports[name], timeout=seconds)) as connection:
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            except HTTPException as error:  # as when it is killed while it answers
                raise OSError(f"{name} did not give a whole answer") from error

    def send_signal(self, number: Signals, *names: str) -> None:
        """To all of them at once."""
        for name in names:
            self.running[name].send_signal(number)

    def kill(self, *names: str) -> None:
        """End them with SIGKILL, all at once, as a power cut would; returns when nothing is left of them."""
        self.send_signal(Signals.SIGKILL, *names)
        for name in names:
            self.running.pop(name).kill()

    def stop(self, *names: str) -> dict[str, int]:
        """SIGTERM to all at once; their exit codes."""
        children = {name: self.running.pop(name) for name in names}
        with ThreadPoolExecutor(max(len(children), 1)) as pool:  # a second SIGTERM would be an order to drop everything
            return dict(zip(children, pool.map(ChildProcess.stop, children.values()), strict=True))

    def check(self) -> None:
        """Raise :class:`DevServerError` if anything has ended that was not told to."""
        for child in self.running.values():
            child.check()

    def log(self, name: str, start: int = 0) -> str:
        """What it has logged from this byte on, earlier runs under this name included."""
        return (self.directory / f"{name}.log").read_bytes()[start:].decode()

    def scrape(self, name: str) -> str:
        """Its /metrics. Raises :class:`OSError` when it doesn't answer."""
        status, text = self._asked(name, "/metrics")
        if status != HTTPStatus.OK:
            raise OSError(f"{name} answers {status} at /metrics")
        return text

    def metric(self, name: str, metric: str, **labels: str) -> float:
        """The sum over a metric's series that have these labels. Raises :class:`LookupError` when there is none of that name."""
        return metric_sum(self.scrape(name), metric, labels)

    def _start(self, name: str, command: Sequence[str], settings: Mapping[str, str]) -> ChildProcess:
        if name in self.running:
            raise RuntimeError(f"{name} runs already")
        self._started[name] = (command, settings)
        self.running[name] = ChildProcess(name, self._launch(command, settings), self.directory / f"{name}.log")
        return self.running[name]

    def _launch(self, command: Sequence[str], settings: Mapping[str, str]) -> Launch:
        environment = {**self.environment, **settings, "PYTHONUNBUFFERED": "1"}
        return Launch(command, environment=environment, directory=PROJECT, stop_seconds=STOP_SECONDS)


def metric_sum(text: str, metric: str, labels: Mapping[str, str]) -> float:
    """Of a text in Prometheus's form: the sum over a metric's series that have these labels. Raises :class:`LookupError`."""
    families = text_string_to_metric_families(text)
    found = [sample for family in families for sample in family.samples if sample.name == metric]
    if not found:
        raise LookupError(f"there is no metric {metric}")
    return sum(sample.value for sample in found if labels.items() <= sample.labels.items())
