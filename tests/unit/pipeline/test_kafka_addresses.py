import pytest
from yarl import URL

from pipeline.errors import SettingsError
from pipeline.kafka_addresses import Address, parse_addresses
from pipeline.settings import KafkaSettings, load


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("kafka:9092", (Address("kafka", 9092),)),
        ("10.0.0.1:1,b-1.kafka_2.example:65535", (Address("10.0.0.1", 1), Address("b-1.kafka_2.example", 65535))),
        (" kafka-1:9092 , kafka-2:9092 ", (Address("kafka-1", 9092), Address("kafka-2", 9092))),
        ("[::1]:9092", (Address("::1", 9092),)),
    ],
)
def test_addresses_are_read(text: str, addresses: tuple[Address, ...]) -> None:
    assert parse_addresses(text) == addresses
    assert parse_addresses(",".join(map(str, addresses))) == addresses, "and written as they are read"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("PLAINTEXT://kafka:9092", "leave that out"),
        ("SASL_SSL://kafka:9092", "TLS or a login"),
        ("http://kafka:9092", "it is a URL"),
        ("kafka:9092/path", "it is a URL or a path"),
        ("kafka", "it has no port"),
        ("kafka:", "it has no port"),
        ("kafka:0", "it has no port from 1 to 65535"),
        ("kafka:65536", "it has no port from 1 to 65535"),
        ("kafka:٣", "it has no port from 1 to 65535"),
        ("kafka:9092,", "entry 2 of 2 is empty"),
        ("a:1,,b:2", "entry 2 of 3 is empty"),
        ("a:1 b:2", "it has a space in it"),
        (":9092", "it has no host name"),
        ("::1:9092", "stands in brackets"),
        ("[::1]9092", "it has no port"),
        ("[::1", "no IPv6 address within its brackets"),
        ("[kafka]:9092", "no IPv6 address within its brackets"),
        ("user:hunter2@kafka:9092", "no user and no password"),
        ("SASL_SSL://user:hunter2@kafka:9092", "no user and no password"),
    ],
)
def test_what_is_no_address_is_refused_at_once_with_the_setting_and_the_right_form(
    monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", text)
    with pytest.raises(SettingsError) as caught:
        load(KafkaSettings)
    says = str(caught.value)
    assert says.startswith("KAFKA_BOOTSTRAP_SERVERS: ")
    assert problem in says
    assert "such as kafka-1:9092,kafka-2:9092" in says
    assert "\n" not in says
    assert "hunter2" not in says


def test_all_clients_are_given_one_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", " [::1]:9092 , kafka:09092")
    settings = load(KafkaSettings)
    assert settings.kafka_bootstrap_servers == "[::1]:9092,kafka:9092"
    urls = [URL(f"batch://{server}") for server in settings.kafka_servers]  # as Faust is given them
    assert [(url.host, url.port) for url in urls] == [("::1", 9092), ("kafka", 9092)]
