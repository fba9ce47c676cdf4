"""The whole chain on this machine: three servers, and bridge and workers as a user would start them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dev_servers import jars
from dev_servers.elasticmq import ElasticMq, LoginQueue
from dev_servers.kafka import Kafka
from dev_servers.pipeline_processes import PipelineProcesses
from dev_servers.ports import HOST
from dev_servers.postgres import Postgres
from dev_servers.process import ChildProcess
from dev_servers.prometheus import Prometheus
from dev_servers.server import Server, start_together, stop_together

TOPIC = "logins"
BRIDGE = "bridge"
MONITOR = "monitor"


class LocalPipeline:
    """Three servers, one bridge, some workers; where wished, a monitor and Prometheus. All state is in ``directory``."""

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 2,
        visibility_seconds: int = 30,
        interrupt: Callable[[], None] = lambda: None,
    ) -> None:
        """``interrupt`` is called again and again while something is waited for; what it raises ends the wait."""
        self.directory = directory.resolve()
        self.elasticmq = ElasticMq(self.directory / "elasticmq", queue=LoginQueue(visibility_seconds=visibility_seconds))
        self.kafka = Kafka(self.directory / "kafka")
        # So that each row can tell when it was committed.
        self.postgres = Postgres(self.directory / "postgres", settings={"track_commit_timestamp": "on"})
        self.servers: tuple[Server, ...] = (self.elasticmq, self.kafka, self.postgres)
        self.prometheus: Prometheus | None = None
        self.workers = tuple(f"worker-{number}" for number in range(1, workers + 1))
        self._keys = keys = self.directory / "keys"
        self.processes = PipelineProcesses(
            self.directory / "logs",
            {
                "MASKING_KEYSET_FILE": str(keys / "masking.keyset.json"),
                "DEAD_LETTER_PUBLIC_KEYSET_FILE": str(keys / "dead-letter-public.keyset.json"),
            },
        )
        self.ending = False
        """Whether all is being ended, and nothing to be started again."""
        self._interrupt = self.processes.interrupt = interrupt

    @property
    def names(self) -> list[str]:
        """Of all processes and servers that should run."""
        return [*sorted(self.processes.running), *(server.name for server in self.servers)]

    def child(self, name: str) -> ChildProcess:
        """The process of this name, or the server's."""
        for server in self.servers:
            if server.name == name:
                return server.child
        return self.processes.running[name]

    def start_again(self, name: str) -> None:
        """Start again what has ended, and wait until it is ready. Raises :class:`dev_servers.process.DevServerError`."""
        for server in self.servers:
            if server.name == name:
                server.stop()
                server.start()
                return
        self.processes.start_again(name)
        self.processes.wait_ready(name)

    def give_up_start(self, name: str) -> None:
        """End a server that is being started again, so that its start ends, too; a process's start hears of the interrupt."""
        for server in self.servers:
            if server.name == name:
                _end(server)

    @property
    def metrics_urls(self) -> dict[str, str]:
        """Where each process serves its metrics, by the process's name."""
        return {name: f"http://{HOST}:{port}/metrics" for name, port in self.processes.ports.items()}

    @property
    def log_files(self) -> list[Path]:
        """The logs of bridge and workers."""
        return [self.processes.directory / f"{name}.log" for name in self.processes.ports]

    def start_servers(self, on_ready: Callable[[Server, float], None] = lambda _, __: None) -> None:
        """Download what is missing, then start all three. Raises :class:`dev_servers.process.DevServerError`."""
        self.processes.directory.mkdir(parents=True, exist_ok=True)
        jars.download([server.name for server in self.servers if server.name in jars.LOCKED])
        start_together(self.servers, on_ready, self._interrupt)
        for server in self.servers:
            self.processes.environment.update(server.environment)

    def make_ready(self) -> None:
        """Make keysets and tables, as the quickstart says."""
        self.processes.run("keys", "create", "--directory", str(self._keys))
        self._interrupt()
        self.processes.run("migrate")

    def start_processes(self) -> None:
        """Start the bridge and the workers. They are not waited for."""
        self.processes.start_bridge(BRIDGE)
        for worker in self.workers:
            self.processes.start_worker(worker)
        self.scrape()

    def watch(self, prometheus: Prometheus) -> None:
        """Start this Prometheus, have it scrape all processes, and treat it as one of the servers from now on."""
        self.prometheus = prometheus
        self.scrape()
        prometheus.start()
        self.servers = (*self.servers, prometheus)

    def scrape(self) -> None:
        """Tell Prometheus where the processes are now: one that was started again has another port."""
        if self.prometheus is not None:
            self.prometheus.scrape(self.processes.ports)

    def check(self) -> None:
        """Raise :class:`dev_servers.process.DevServerError` if anything has ended that should run."""
        for server in self.servers:
            server.child.check()
        self.processes.check()

    def stop(self) -> None:
        """Stop the bridge, then the workers and the monitor, then the servers: each while what it needs still runs."""
        self.ending = True
        for names in ((BRIDGE,), (*self.workers, MONITOR)):
            self.processes.stop(*(name for name in names if name in self.processes.running))
        stop_together(self.servers)

    def end_at_once(self) -> None:
        """End everything as a power cut would, all at the same time; for a directory that nobody will look into again."""
        self.ending = True
        with ThreadPoolExecutor(1 + len(self.servers)) as pool:
            ends = [pool.submit(self.processes.kill, *self.processes.running), *(pool.submit(_end, each) for each in self.servers)]
        for end in ends:
            end.result()


def _end(server: Server) -> None:
    if isinstance(server, Postgres):
        server.stop(mode="immediate")  # after SIGKILL its shared memory would stay
    else:
        server.kill()
