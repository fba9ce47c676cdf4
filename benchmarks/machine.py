"""On what a benchmark ran: machine, versions, commit."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pipeline
from dev_servers import jars
from dev_servers.postgres import VERSION as POSTGRES_VERSION

PROJECT = Path(__file__).parents[1]
LIBRARIES = ("faust-streaming", "aiokafka", "aiopg", "psycopg2-binary", "tink", "msgspec", "boto3", "confluent-kafka")


@dataclass(frozen=True, slots=True)
class Machine:
    """What matters of it to a speed."""

    cpu: str
    cores: int
    memory_mib: int
    system: str

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cores} cores, {self.memory_mib / 1024:.0f} GiB, {self.system}"


def this_machine() -> Machine:
    """The one we run on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(_cpu_model(), os.cpu_count() or 1, memory // 2**20, f"Linux {platform.release()}")


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def versions() -> Mapping[str, str]:
    """Of what took part."""
    kafka, elasticmq = (jars.LOCKED[name][0].rpartition(":")[2] for name in ("kafka", "elasticmq"))
    return {
        "login-stream": pipeline.__version__,
        "Python": sys.version,  # with its build: one made without profile and link time optimization is a fifth slower
        "Kafka": kafka,
        "ElasticMQ": elasticmq,
        "Postgres": str(POSTGRES_VERSION),
        **{library: version(library) for library in LIBRARIES},
    }


def commit() -> str:
    """Of the checkout; ``+`` after it if files differ from it."""
    if not (PROJECT / ".git").exists():
        return "unknown"

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=PROJECT, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603, S607

    return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
