"""What others offer for the same work is set up right, and says why when it can't run."""

import ast
import re
import stat
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.peer import Peer, Servers
from benchmarks.peers import QUEUE_PEERS, REDPANDA_CONNECT, TOPIC_PEERS
from benchmarks.peers.environments import EVERY, Environment
from benchmarks.peers.login_rows import COLUMNS, INSERT, LoginRows, version_number
from benchmarks.peers.one_by_one import STATEMENT
from stream_app.app_version import ordered
from stream_app.masking import keysets
from tools import locks

PROJECT = Path(__file__).parents[3]
PEERS = PROJECT / "benchmarks" / "peers"
EVERY_PEER = pytest.mark.parametrize("peer", [*TOPIC_PEERS, *QUEUE_PEERS], ids=lambda peer: peer.name)
EVERY_ENVIRONMENT = pytest.mark.parametrize("environment", EVERY, ids=lambda environment: environment.name)

ENVIRONMENT = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
    "KAFKA_TOPIC": "logins",
    "CONSUMER_GROUP": "benchmark",
    "POSTGRES_DSN": "postgresql://postgres@127.0.0.1/postgres",
    "MASKING_KEYSET_FILE": "masking.keyset.json",
    "SQS_QUEUE_URL": "http://127.0.0.1:9324/000000000000/login-queue",
    "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9324",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    return Servers(
        kafka_bootstrap_servers=ENVIRONMENT["KAFKA_BOOTSTRAP_SERVERS"],
        postgres_dsn=ENVIRONMENT["POSTGRES_DSN"],
        sqs_endpoint_url=ENVIRONMENT["AWS_ENDPOINT_URL_SQS"],
        sqs_queue_url=ENVIRONMENT["SQS_QUEUE_URL"],
        topic="logins",
        partitions=4,
        consumer_group="benchmark",
        keys_directory=tmp_path,
        scratch_directory=tmp_path,
        environment=ENVIRONMENT,
    )


def redpanda_configuration(name: str) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((PEERS / name).read_text())
    return parsed


@EVERY_PEER
def test_peer_starts_a_file_that_is_there(peer: Peer, servers: Servers) -> None:
    command = [str(part) for part in peer.command(servers).command]
    if command[0] == REDPANDA_CONNECT:
        assert Path(command[-1]).is_file()
    else:
        assert command[1] == "-m"
        assert find_spec(command[2]) is not None


@EVERY_PEER
def test_peer_is_told_every_variable_that_it_reads(peer: Peer, servers: Servers) -> None:
    launch = peer.command(servers)
    command = [str(part) for part in launch.command]
    if command[0] == REDPANDA_CONNECT:
        read = set(re.findall(r"\$\{([A-Z_]+)\}", Path(command[-1]).read_text()))
    else:
        tree = ast.parse((PEERS / f"{command[2].rpartition('.')[2]}.py").read_text())
        subscripts = [node for node in ast.walk(tree) if isinstance(node, ast.Subscript)]
        read = {ast.literal_eval(node.slice) for node in subscripts if ast.unparse(node.value) == "os.environ"}
    assert read
    assert read <= set(launch.environment)


def test_names_are_unique() -> None:
    for peers in (TOPIC_PEERS, QUEUE_PEERS):
        assert len({peer.name for peer in peers}) == len(peers)


def test_redpanda_connect_has_new_keys_each_run(servers: Servers) -> None:
    peer = next(peer for peer in TOPIC_PEERS if peer.name == "Redpanda Connect")
    first, second = (peer.command(servers).environment for _ in range(2))
    for key in ("REDPANDA_CONNECT_AES_KEY", "REDPANDA_CONNECT_HMAC_KEY"):
        assert re.fullmatch("[0-9a-f]{64}", first[key])
        assert first[key] != second[key]


def test_redpanda_connect_is_missing_where_the_path_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    peers = [peer for peer in (*TOPIC_PEERS, *QUEUE_PEERS) if peer.name == "Redpanda Connect"]
    monkeypatch.setenv("PATH", str(tmp_path))
    for peer in peers:
        reason = peer.missing()
        assert reason is not None
        assert "`redpanda-connect` is on the PATH" in reason
    program = tmp_path / REDPANDA_CONNECT
    program.touch()
    program.chmod(stat.S_IRWXU)
    assert [peer.missing() for peer in peers] == [None] * len(peers)


def test_redpanda_connect_writes_each_column_and_passes_over_what_is_there() -> None:
    configuration = redpanda_configuration("redpanda_topic_to_postgres.yaml")
    output = configuration["output"]["sql_insert"]
    assert tuple(output["columns"]) == COLUMNS
    assert output["suffix"] == INSERT.partition("%s ")[2]
    mapping = configuration["pipeline"]["processors"][0]["mapping"]
    values = mapping.partition("root = [")[2].strip().splitlines()
    assert len([line for line in values if line.strip().endswith(",")]) == len(COLUMNS)


def test_redpanda_connect_deletes_only_what_all_replicas_have() -> None:
    configuration = redpanda_configuration("redpanda_queue_to_topic.yaml")
    assert configuration["output"]["redpanda"]["acks"] == "all"


@pytest.mark.parametrize("name", ["redpanda_topic_to_postgres.yaml", "redpanda_queue_to_topic.yaml"])
def test_redpanda_connect_opens_no_port(name: str) -> None:
    assert redpanda_configuration(name)["http"] == {"enabled": False}


@EVERY_ENVIRONMENT
def test_environment_is_missing_until_it_is_made(environment: Environment, tmp_path: Path) -> None:
    nowhere = replace(environment, root=tmp_path)
    assert nowhere.missing() == f"{environment.name} is not installed: `make bench-peers` does it"
    nowhere.directory.mkdir()
    made_from = nowhere.directory / "installed.lock"
    made_from.write_bytes(nowhere.lock.read_bytes())
    assert nowhere.missing() is None
    made_from.write_bytes(b"another==1.0\n")
    assert nowhere.missing() == f"{environment.name} is not the version that its lock names: `make bench-peers` installs that"


@EVERY_ENVIRONMENT
def test_lock_has_what_was_asked_for_with_hashes_and_no_address(environment: Environment) -> None:
    text = environment.lock.read_text()
    pins = locks.read_lock(text)
    assert "://" not in text
    assert all(pin.hashed for pin in pins.values())
    asked = environment.lock.with_suffix(".in").read_text().splitlines()
    for name, version in (re.sub(r"\[.*\]", "", line).split("==") for line in asked):
        assert pins[name].versions == {version}


@EVERY_ENVIRONMENT
def test_environment_shares_what_it_can_with_the_product(environment: Environment) -> None:
    ours = locks.read_lock((PROJECT / "requirements.lock").read_text())
    asked = [line.split("==") for line in environment.lock.with_suffix(".in").read_text().splitlines() if "[" not in line]
    shared = [(name, version) for name, version in asked if name in ours]
    assert shared
    for name, version in shared:
        assert ours[name].versions == {version}


def test_row_is_that_of_the_table(tmp_path: Path) -> None:
    keyset_file = tmp_path / "masking.keyset.json"
    keysets.write_new({keyset_file: keysets.secret_text(keysets.new_secret_keyset(keysets.MASKING_TEMPLATE))})
    rows = LoginRows(keyset_file)
    login = {
        "user_id": "somebody",
        "app_version": "2.3",
        "device_type": "ios",
        "ip": "203.0.113.9",
        "locale": None,
        "device_id": "203.0.113.9",
    }
    row = dict(zip(COLUMNS, rows.row(login, {"sent-at": b"1795000000123", "message-id": b"some-id"}), strict=True))
    assert row["masked_ip"] != row["masked_device_id"], "equal values of two fields must not link"
    assert "203.0.113.9" not in {str(value) for value in row.values()}
    assert row == dict(zip(COLUMNS, rows.row(login, {"sent-at": b"1795000000123", "message-id": b"some-id"}), strict=True))
    assert str(row["sent_at"]) == "2026-11-18 11:06:40.123000+00:00"
    assert str(row["create_date"]) == "2026-11-18"
    assert row["app_version"] == 2_003_000


@pytest.mark.parametrize("text", ["2.3", "2.3.4", "7", "0.0.1"])
def test_version_number_is_ours(text: str) -> None:
    assert (version_number(text), frozenset()) == ordered(text)


def test_one_by_one_gives_each_column_a_value() -> None:
    assert STATEMENT.partition("VALUES (")[2].partition(")")[0].split(", ") == ["%s"] * len(COLUMNS)
    assert STATEMENT.endswith(INSERT.partition("VALUES %s")[2])
