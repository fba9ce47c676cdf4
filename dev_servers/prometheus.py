"""A real Prometheus with the project's own configuration and rules: the one on the PATH, else Debian's package, never installed."""

import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from dev_servers import debian_packages
from dev_servers.ports import HOST, free_port
from dev_servers.process import DevServerError, Launch
from dev_servers.server import Server

CONFIGURATION = Path(__file__).resolve().parent.parent / "prometheus" / "prometheus.yml"
RULES = CONFIGURATION.parent / "rules"
REQUEST_SECONDS = 10.0
PACKAGE = "prometheus"
"""Debian's and Ubuntu's, with promtool in it."""
REMEDY = "Install it with promtool (Debian, Ubuntu: apt-get install prometheus; macOS: brew install prometheus)"


def program(name: str) -> Path:
    """Where ``prometheus`` or ``promtool`` is: on the PATH, else unpacked in the cache, where it is brought the first time.

    Raises :class:`DevServerError` that says what to install.
    """
    if found := shutil.which(name):
        return Path(found)
    file = debian_packages.unpacked(PACKAGE) / "usr" / "bin" / name
    if not file.exists():
        try:
            debian_packages.fetch(PACKAGE)
        except DevServerError as error:
            raise DevServerError(name, f"is not on the PATH; {error.reason}. {REMEDY}") from error
    return file


class Prometheus(Server):
    """Scrapes what :meth:`scrape` names, as the jobs of ``prometheus.yml``; its data is kept across starts."""

    name = "prometheus"

    def __init__(
        self, directory: Path, *, scrape_seconds: float | None = None, rules: Path = RULES, port: int | None = None
    ) -> None:
        """``scrape_seconds``: between scrapes, and between evaluations of the rules; None: as ``prometheus.yml`` says."""
        super().__init__(directory)
        self.port = free_port() if port is None else port
        self._scrape_seconds = scrape_seconds
        self._rules = rules
        self._data = self.directory / "data"
        self._targets: Mapping[str, int] = {}

    @property
    def url(self) -> str:
        """Where its pages are."""
        return f"http://{HOST}:{self.port}"

    def scrape(self, ports: Mapping[str, int]) -> None:
        """Scrape these processes of this machine from now on, and no others; it takes some seconds until it does.

        A name begins with its job: ``bridge``, ``worker-2``.
        """
        self._targets = dict(ports)
        self.directory.mkdir(parents=True, exist_ok=True)
        for job in self._configuration()["scrape_configs"]:
            for found in job.get("file_sd_configs", ()):
                self._write_targets(Path(found["files"][0]), str(job["job_name"]))

    def forget(self) -> None:
        """Start anew without what was scraped so far; it must be running."""
        self.stop()
        shutil.rmtree(self._data)
        self.start()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query, each with ``metric`` and ``value``. Raises :class:`DevServerError` with what is wrong."""
        answer = self._ask("query", {"query": expression})
        if answer["resultType"] != "vector":
            raise DevServerError(self.name, f"a {answer['resultType']} instead of a vector: {expression}")
        return list(answer["result"])

    def query_range(self, expression: str, start: float, end: float, step_seconds: float) -> list[dict[str, Any]]:
        """Each series with ``metric`` and ``values``: what a board's panel asks for that time. Raises like :meth:`query`."""
        times = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step_seconds:g}"}
        return list(self._ask("query_range", {"query": expression, **times})["result"])

    def value(self, expression: str) -> float | None:
        """The number of an expression that has one; None where there is no series. Raises when there are several."""
        found = self.query(expression)
        if len(found) > 1:
            raise DevServerError(self.name, f"{len(found)} series instead of one: {expression}")
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> list[dict[str, str]]:
        """The labels of each alert that fires."""
        return [alert["labels"] for alert in self._ask("alerts", {})["alerts"] if alert["state"] == "firing"]

    def rules(self) -> list[dict[str, Any]]:
        """Each rule, with its ``health`` and perhaps a ``lastError``."""
        return [rule for group in self._ask("rules", {})["groups"] for rule in group["rules"]]

    def _ask(self, what: str, parameters: Mapping[str, str]) -> Any:
        path = f"api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/{path}", timeout=REQUEST_SECONDS) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise DevServerError(self.name, f"{json.load(error)['error']}: {dict(parameters)}") from error

    def _launch(self) -> Launch:
        file = program("prometheus")
        pages = debian_packages.unpacked(PACKAGE) / "usr" / "share" / "prometheus" / "web"
        # Debian's looks for its pages where the package would be installed; others have them built in and no such option.
        options = [f"--web.local-assets={pages}"] if file.is_relative_to(debian_packages.unpacked(PACKAGE)) else []
        self.scrape(self._targets)
        configuration = self.directory / "prometheus.yml"
        configuration.write_text(yaml.safe_dump(self._configuration(), sort_keys=False))
        return Launch(
            [
                file,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={self._data}",
                f"--web.listen-address={HOST}:{self.port}",
                "--log.level=warn",
                *options,
            ],
            directory=self.directory,
        )

    def _configuration(self) -> dict[str, Any]:
        """The project's own, but for where things are: containers are found by name, processes of this machine by a file."""
        configuration: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
        configuration["rule_files"] = [str(self._rules / "*.yml")]
        if self._scrape_seconds is not None:
            seconds = f"{self._scrape_seconds * 1_000:.0f}ms"
            configuration["global"] |= dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), seconds)
        for job in configuration["scrape_configs"]:
            if job["job_name"] == self.name:
                job["static_configs"] = [{"targets": [f"{HOST}:{self.port}"]}]
            else:
                del job["dns_sd_configs"]
                file = self.directory / f"targets-{job['job_name']}.json"
                job["file_sd_configs"] = [{"files": [str(file)], "refresh_interval": "1s"}]
        return configuration

    def _write_targets(self, file: Path, job: str) -> None:
        groups = [
            {"targets": [f"{HOST}:{port}"], "labels": {"instance": name}}
            for name, port in self._targets.items()
            if name.partition("-")[0] == job
        ]
        scratch = file.with_suffix(".new")
        scratch.write_text(json.dumps(groups))
        scratch.replace(file)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/-/ready", timeout=2) as answer:
                return bool(answer.status == HTTPStatus.OK)
        except OSError:
            return False
