from typing import Literal

import pytest
import structlog
from pydantic import Field, FilePath, ValidationError

from bridges.settings import BridgeSettings
from pipeline.errors import SettingsError
from pipeline.policy_in_force import tell_service_links
from pipeline.settings import KafkaSettings, Port, Settings, load, service_links, wants_json_log


class Secrets(Settings):
    window_rows: int
    password: int = 0


def test_a_wrong_value_is_named_by_its_variable_and_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "hunter2")
    with pytest.raises(SettingsError) as caught:
        load(Secrets)
    assert "PASSWORD: " in str(caught.value)
    assert "WINDOW_ROWS: " in str(caught.value), "all problems at once"
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_not_even_pydantics_own_error_quotes_a_value() -> None:
    with pytest.raises(ValidationError) as caught:
        Secrets(window_rows=1, password="hunter2")
    assert "hunter2" not in str(caught.value)


def test_an_empty_variable_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_TOPIC", "")
    assert load(KafkaSettings).kafka_topic == "logins"


class EverySort(Settings):
    some_text: str = Field(pattern="^a+$", examples=["aaa"])
    some_mode: Literal["one", "other"] | None = None
    some_number: float = Field(1, gt=0)
    some_count: int = Field(1, ge=1, le=9)
    some_file: FilePath | None = None
    some_port: Port = 80


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SOME_TEXT", None, "SOME_TEXT: not set; expected text such as aaa"),
        ("SOME_TEXT", "b", "SOME_TEXT: expected text such as aaa"),
        ("SOME_MODE", "third", "SOME_MODE: expected one of one, other"),
        ("SOME_NUMBER", "-1", "SOME_NUMBER: expected a number, more than 0"),
        ("SOME_NUMBER", "many", "SOME_NUMBER: expected a number, more than 0"),
        ("SOME_COUNT", "1.5", "SOME_COUNT: expected a whole number, from 1 to 9"),
        ("SOME_FILE", "/absent", "SOME_FILE: expected the path of a file; there is none, or this process can't see it"),
        ("SOME_PORT", "http", "SOME_PORT: expected a whole number, from 0 to 65535"),
    ],
)
def test_an_error_says_in_our_words_what_was_expected(
    name: str, value: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TEXT", "aaa")
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load(EverySort)
    assert str(caught.value) == said


@pytest.mark.parametrize("address", ["tcp://10.0.0.7:80", "udp://[fd00::7]:80"])
def test_kubernetes_address_of_a_service_is_no_port_of_ours(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TEXT", "aaa")
    monkeypatch.setenv("SOME_PORT", address)
    assert load(EverySort).some_port == 80
    assert service_links(EverySort) == ["SOME_PORT"]
    monkeypatch.setenv("SOME_PORT", "81")
    assert service_links(EverySort) == []


def test_a_service_link_in_the_place_of_a_port_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its owner would look for the pages at a port that the setting seems to say."""
    monkeypatch.setenv("BRIDGE_WEB_PORT", "tcp://10.0.0.7:80")
    with structlog.testing.capture_logs() as lines:
        tell_service_links(BridgeSettings)
    (line,) = lines
    assert (line["event"], line["setting"]) == ("service_link_ignored", "BRIDGE_WEB_PORT")
    assert "a service called bridge-web" in line["problem"]
    assert "enableServiceLinks: false" in line["remedy"]
    assert "10.0.0.7" not in str(line)


@pytest.mark.parametrize(("value", "expected"), [("", False), ("text", False), ("json", True), ("JSON", True), ("jsno", True)])
def test_whoever_asks_for_lines_for_a_collector_gets_them_also_for_a_slip(
    value: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_FORMAT", value)
    assert wants_json_log() is expected


@pytest.mark.parametrize("servers", ["kafka:9092", "a.b-c_d:1, 10.0.0.7:9092,[fd00::7]:9092"])
def test_kafka_servers_are_hosts_and_ports(servers: str) -> None:
    assert load(KafkaSettings, kafka_bootstrap_servers=servers).kafka_bootstrap_servers == servers.replace(" ", "")


@pytest.mark.parametrize(
    "servers", ["kafka://kafka:9092", "user:hunter2@kafka:9092", "a:9092,", "a:9092;b:9092", " ", "a:port", "kafka"]
)
def test_what_is_no_list_of_kafka_servers_is_refused_and_not_shown(servers: str) -> None:
    with pytest.raises(
        SettingsError, match=r"^KAFKA_BOOTSTRAP_SERVERS: .*; expected host:port, comma-separated, such as"
    ) as caught:
        load(KafkaSettings, kafka_bootstrap_servers=servers)
    assert "hunter2" not in str(caught.value)
