import pytest

from bridges.settings import BridgeSettings
from pipeline.errors import SettingsError
from pipeline.settings import load

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue"


def test_defaults_hold_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQS_QUEUE_URL", URL + ".fifo")
    settings = load(BridgeSettings)
    assert settings.queue_name == "login-queue.fifo"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SQS_QUEUE_URL", "login-queue"),
        ("SQS_QUEUE_URL", "https://user:hunter2@sqs.example.org/1/q"),
        ("BRIDGE_RECEIVERS", "0"),
        ("BRIDGE_RECEIVE_WAIT_SECONDS", "21"),
        ("BRIDGE_IN_FLIGHT_MESSAGES_MAX", "9"),
        ("BRIDGE_SHUTDOWN_SECONDS", "3"),
        ("BRIDGE_LINGER_SECONDS", "0.9"),
    ],
)
def test_a_wrong_value_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("SQS_QUEUE_URL", URL)
    monkeypatch.setenv("BRIDGE_PRODUCE_TIMEOUT_SECONDS", "1")
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as caught:
        load(BridgeSettings)
    assert "hunter2" not in str(caught.value)
