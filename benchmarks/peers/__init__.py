"""What a user would pick instead of us, as a good engineer would set it up. README.md: method, tuning, what each does less."""

import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.peer import Peer, Servers
from benchmarks.peers.environments import AIOBOTOCORE, PROJECT, QUIX_STREAMS
from dev_servers.process import Launch

REDPANDA_CONNECT = "redpanda-connect"
_HERE = Path(__file__).parent


def _python(module: str, *arguments: str, python: Path = Path(sys.executable)) -> Callable[[Servers], Launch]:
    """A module of this package as a process."""
    return lambda servers: Launch([python, "-m", f"{__name__}.{module}", *arguments], servers.environment, PROJECT)


def _redpanda_connect(configuration: str) -> Callable[[Servers], Launch]:
    """A configuration of this folder; keys for masking are made for each run."""
    return lambda servers: Launch(
        [REDPANDA_CONNECT, "run", _HERE / configuration],
        {
            **servers.environment,
            "REDPANDA_CONNECT_AES_KEY": secrets.token_hex(32),
            "REDPANDA_CONNECT_HMAC_KEY": secrets.token_hex(32),
        },
        servers.scratch_directory,
    )


def _no_redpanda_connect() -> str | None:
    if shutil.which(REDPANDA_CONNECT) is None:
        return f"no `{REDPANDA_CONNECT}` is on the PATH: install it as its makers say, `make bench` then finds it"
    return None


TOPIC_PEERS = (
    Peer(
        name="plain Faust agent",
        note="take and execute_values; at least once, no dead letters, positions in Kafka",
        records=80_000,
        command=_python("faust_agent", "worker", "--loglevel", "WARN"),
    ),
    Peer(
        name="Quix Streams",
        note="its own Postgres sink; at least once, no dead letters",
        records=250_000,
        command=_python("quix_streams", python=QUIX_STREAMS.python),
        missing=QUIX_STREAMS.missing,
    ),
    Peer(
        name="Redpanda Connect",
        note="sql_insert with pgx; masking made of HMAC and AES-CTR; at least once, no dead letters",
        records=1_000_000,
        command=_redpanda_connect("redpanda_topic_to_postgres.yaml"),
        missing=_no_redpanda_connect,
    ),
    Peer(
        name="one record at a time",
        note="a statement and a commit for each; at least once, no dead letters",
        records=5_000,
        command=_python("one_by_one"),
    ),
)
"""From the topic to rows."""

QUEUE_PEERS = (
    Peer(
        name="boto3 one by one",
        note="a receive, a flush and a delete for each message",
        records=1_500,
        command=_python("sqs_one_by_one"),
    ),
    Peer(
        name="boto3, 16 threads",
        note="by tens; no back-off, no visibility kept up, no check of a body",
        records=20_000,
        command=_python("sqs_threads"),
    ),
    Peer(
        name="aiobotocore, 32 coroutines",
        note="by tens; no back-off, no visibility kept up, no check of a body",
        records=30_000,
        command=_python("sqs_coroutines", python=AIOBOTOCORE.python),
        missing=AIOBOTOCORE.missing,
    ),
    Peer(
        name="Redpanda Connect",
        note="aws_sqs to redpanda; the time of sending is lost",
        records=20_000,
        command=_redpanda_connect("redpanda_queue_to_topic.yaml"),
        missing=_no_redpanda_connect,
    ),
)
"""From the queue to the topic, acknowledged by all in-sync replicas, then deleted."""
