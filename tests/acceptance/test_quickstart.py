"""docs/quickstart.md, "Piece by piece": its lines are run as they stand, and must show what the page shows."""

import os
import re
import shlex
import sys
from pathlib import Path

from acceptance.printed_blocks import STOP_ALL, blocks, in_bash
from mypy_boto3_sqs import SQSClient

from dev_servers.elasticmq import ElasticMq
from dev_servers.kafka import Kafka
from dev_servers.ports import free_port
from dev_servers.postgres import program

PROJECT = Path(__file__).parents[2]
RUN_SECONDS = 120.0
WAIT_FOR_ALL_THREE = """
until [ "$(psql "$POSTGRES_DSN" -Atc 'SELECT (SELECT count(*) FROM user_logins) + (SELECT count(*) FROM dead_letters)')" = 3 ]
do sleep 0.1; done
"""


def piece_by_piece() -> list[str]:
    """The blocks of that section."""
    page = (PROJECT / "docs" / "quickstart.md").read_text()
    (section,) = re.findall(r"^## Piece by piece\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    return blocks(section)


def shown(block: str) -> tuple[str, list[str]]:
    """A command that the page shows with its output: the command, and the output's lines."""
    command, *output = block.splitlines()
    assert command.startswith("$ ")
    return command[2:], [line.rstrip() for line in output]


def test_the_quickstart_does_what_it_says(
    kafka: Kafka, elasticmq: ElasticMq, sqs: SQSClient, fresh_database: str, tmp_path: Path
) -> None:
    start_servers, prepare, start, send, select, dead_letters, reveal = piece_by_piece()
    assert "python -m dev_servers up --directory .demo/servers --env-file .demo/servers.env" in start_servers
    servers = {
        **kafka.environment,
        **elasticmq.environment,
        "SQS_QUEUE_URL": sqs.create_queue(QueueName="quickstart")["QueueUrl"],
        "POSTGRES_DSN": fresh_database,
    }
    of_this_test = {
        "KAFKA_TOPIC": "quickstart",
        "CONSUMER_GROUP": "quickstart",
        "WEB_PORT": str(free_port()),
        "BRIDGE_WEB_PORT": "0",
        "MONITOR_WEB_PORT": "0",
    }
    (tmp_path / ".demo").mkdir()
    (tmp_path / ".demo" / "servers.env").write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in servers.items()))
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))

    (select_command, rows), (list_command, letters), (reveal_command, revealed) = map(shown, (select, dead_letters, reveal))
    token = reveal_command.split()[-1]
    assert token in rows[2]
    any_token = "$(psql \"$POSTGRES_DSN\" -Atc 'SELECT masked_ip FROM user_logins LIMIT 1')"
    script = "\n".join(
        [prepare, start, send, WAIT_FOR_ALL_THREE]
        + [f"echo '--- {number}'; {command}" for number, command in enumerate((select_command, list_command))]
        + [f"echo '--- 2'; {reveal_command.replace(token, any_token)}", "echo '--- 3'", STOP_ALL]
    )
    environment = {
        **os.environ,
        **of_this_test,
        "PYTHONPATH": str(PROJECT),
        "PATH": f"{program('psql').parent}:{os.environ['PATH']}",
    }
    output = in_bash(script, tmp_path, environment, RUN_SECONDS)

    _, selected, listed, opened, ended = (
        part.strip("\n").splitlines() for part in re.split(r"^--- \d$", output, flags=re.MULTILINE)
    )
    assert sorted(line.split("|")[0].strip() for line in selected[2:4]) == sorted(line.split("|")[0].strip() for line in rows[2:4])
    assert selected[0].split() == rows[0].split()
    assert len({line.split("|")[1] for line in selected[2:4]}) == 1
    assert [line.rstrip() for line in listed[:2]] == letters[:2]
    assert listed[3].split() == letters[3].split()
    assert listed[4].split()[1:3] == letters[4].split()[1:3]
    assert opened == revealed == ["203.0.113.7"]
    assert ended == []
