"""The whole chain on this machine, each part a process of its own, as a user would start them: by command line and environment."""

import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path

from dev_servers import jars
from dev_servers.elasticmq import ElasticMq, LoginQueue
from dev_servers.kafka import Kafka
from dev_servers.ports import HOST, free_port
from dev_servers.postgres import Postgres
from dev_servers.process import ChildProcess, DevServerError, Launch
from dev_servers.server import Server, start_together, stop_together

PROJECT = Path(__file__).resolve().parent.parent
READY_SECONDS = 60.0
COMMAND_SECONDS = 60.0
STOP_SECONDS = 20.0
FAUST = (sys.executable, "-m", "faust", "-A", "stream_app")
TOPIC = "logins"


class LocalPipeline:
    """Three servers, one bridge, some workers. All state is in ``directory``, logs in its ``logs``."""

    def __init__(self, directory: Path, *, workers: int = 2, visibility_seconds: int = 30, **settings: str) -> None:
        """``settings``: environment variables of bridge, workers and commands, beside the addresses."""
        self.directory = directory.resolve()
        self.elasticmq = ElasticMq(self.directory / "elasticmq", queue=LoginQueue(visibility_seconds=visibility_seconds))
        self.kafka = Kafka(self.directory / "kafka")
        # So that each row can tell when it was committed.
        self.postgres = Postgres(self.directory / "postgres", settings={"track_commit_timestamp": "on"})
        self.servers: tuple[Server, ...] = (self.elasticmq, self.kafka, self.postgres)
        self.bridge_port = free_port()
        self.worker_ports = [free_port() for _ in range(workers)]
        self._settings = settings
        self._keys = self.directory / "keys"
        self._logs = self.directory / "logs"
        self._children: dict[str, ChildProcess] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What configures every process of the chain."""
        addresses = {name: value for server in self.servers for name, value in server.environment.items()}
        return {
            **addresses,
            "MASKING_KEYSET_FILE": str(self._keys / "masking.keyset.json"),
            "DEAD_LETTER_PUBLIC_KEYSET_FILE": str(self._keys / "dead-letter-public.keyset.json"),
            **self._settings,
        }

    @property
    def metrics_urls(self) -> dict[str, str]:
        """Where each process serves its metrics, by the process's name."""
        ports = {"bridge": self.bridge_port, **{f"worker-{n}": port for n, port in enumerate(self.worker_ports, start=1)}}
        return {name: f"http://{HOST}:{port}/metrics" for name, port in ports.items()}

    def start_servers(self, on_ready: Callable[[Server, float], None] = lambda _, __: None) -> None:
        """Download what is missing, then start all three. Raises :class:`DevServerError`."""
        self._logs.mkdir(parents=True, exist_ok=True)
        jars.download([server.name for server in self.servers if server.name in jars.LOCKED])
        start_together(self.servers, on_ready)

    def run(self, *arguments: str) -> str:
        """Run ``faust -A stream_app ARGUMENTS``; what it printed. Raises :class:`DevServerError` with the end of it if it fails."""
        name = "-".join(argument for argument in arguments if not argument.startswith(("-", "/")))
        log_file = self._logs / f"{name}.log"
        child = ChildProcess(f"faust -A stream_app {' '.join(arguments)}", self._launch([*FAUST, *arguments], {}), log_file)
        try:
            code = child.wait(COMMAND_SECONDS)
        finally:
            child.kill()
        if code != 0:
            raise DevServerError(child.name, f"failed with exit code {code}", log_file, child.log_from)
        return log_file.read_bytes()[child.log_from :].decode()

    def make_ready(self) -> None:
        """Make keysets and tables, as the quickstart says."""
        self.run("keys", "create", "--directory", str(self._keys))
        self.run("migrate")

    def start_processes(self) -> None:
        """Start the bridge and the workers. They are not waited for."""
        web = {"BRIDGE_WEB_BIND": HOST, "BRIDGE_WEB_PORT": str(self.bridge_port)}
        self._start("bridge", [sys.executable, "-m", "bridges", "sqs"], web)
        for number, port in enumerate(self.worker_ports, start=1):
            self._start(f"worker-{number}", [*FAUST, "worker"], {"WEB_BIND": HOST, "WEB_PORT": str(port)})

    def wait_ready(self) -> None:
        """Wait until each process says so at ``/readyz``. Raises :class:`DevServerError` with the end of a log."""
        for name, url in self.metrics_urls.items():
            self._children[name].wait_until(partial(_is_ready, url.replace("/metrics", "/readyz")), READY_SECONDS)

    def kill_processes(self) -> None:
        """End bridge and workers with SIGKILL, as a power cut would."""
        for child in self._children.values():
            child.send_signal(signal.SIGKILL)  # all at once, then wait for each
        for child in self._children.values():
            child.kill()
        self._children.clear()

    def check(self) -> None:
        """Raise :class:`DevServerError` if anything has ended that should run."""
        for server in self.servers:
            server.child.check()
        for child in self._children.values():
            child.check()

    def log_files(self) -> list[Path]:
        """The logs of bridge and workers."""
        return [self._logs / f"{name}.log" for name in self.metrics_urls if (self._logs / f"{name}.log").exists()]

    def stop(self) -> None:
        """Stop the bridge, then the workers, then the servers: each while what it needs still runs."""
        bridge = self._children.pop("bridge", None)
        if bridge is not None:
            bridge.stop()
        for worker in self._children.values():
            worker.send_signal(signal.SIGTERM)  # all at once, then wait for each
        for worker in self._children.values():
            worker.stop()
        self._children.clear()
        stop_together(self.servers)

    def _start(self, name: str, command: list[str], settings: Mapping[str, str]) -> None:
        self._children[name] = ChildProcess(name, self._launch(command, settings), self._logs / f"{name}.log")

    def _launch(self, command: list[str], settings: Mapping[str, str]) -> Launch:
        environment = {**self.environment, **settings, "PYTHONUNBUFFERED": "1"}
        return Launch(command, environment=environment, directory=PROJECT, stop_seconds=STOP_SECONDS)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own process's
            return bool(answer.status == HTTPStatus.OK)
    except (OSError, urllib.error.HTTPError):
        return False
