"""What each page says to whom, without a socket."""

import gzip
import json
import os
from http import HTTPStatus
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter
from pydantic import SecretStr

from pipeline.errors import SettingsError
from pipeline.http_server import Answer, Request
from pipeline.operations import Health, Pages, is_loopback, read_token

TOKEN = "0123456789-abcdef"
LIVE = Health(ok=True, details={"seconds": 1})
NOT_READY = Health(
    ok=False,
    details={"waiting_for": {"postgres": "28P01"}, "started": True},
    in_words={"waiting_for": {"postgres": 'Postgres refuses the connection: no pg_hba.conf entry for user "worker"'}},
)
IN_WORDS = {"ok": False, "started": True, **NOT_READY.in_words}
BY_CODE = {"ok": False, **NOT_READY.details}


def asked(path: str, client: str = "127.0.0.1", token: str | None = None, query: str = "", **headers: str) -> Answer:
    registry = CollectorRegistry()
    Counter("made_up", "For the test.", registry=registry).inc(3)
    pages = Pages(registry, lambda: LIVE, lambda: NOT_READY, None if token is None else SecretStr(token))
    return pages.answer(Request("GET", path, query, headers, client))


def test_metrics_are_the_registrys() -> None:
    answer = asked("/metrics")
    assert answer.status is HTTPStatus.OK
    assert b"made_up_total 3.0" in answer.body


def test_metrics_come_in_the_form_and_packing_that_is_asked_for() -> None:
    headers = {"accept": "application/openmetrics-text; version=1.0.0", "accept-encoding": "gzip"}
    answer = asked("/metrics", **headers)
    assert dict(answer.headers)["Content-Encoding"] == "gzip"
    assert dict(answer.headers)["Content-Type"].startswith("application/openmetrics-text")
    assert gzip.decompress(answer.body).endswith(b"# EOF\n")


def test_an_accept_header_that_the_library_trips_over_gets_plain_text() -> None:
    answer = asked("/metrics", accept="application/openmetrics-text; version=abc")
    assert (answer.status, dict(answer.headers)["Content-Type"][:10]) == (HTTPStatus.OK, "text/plain")
    assert b"made_up_total 3.0" in answer.body


def test_metrics_can_be_asked_for_by_name() -> None:
    assert b"made_up_total" not in asked("/metrics", query="name[]=another").body


def test_health_is_told_by_status_and_as_json() -> None:
    live, ready = asked("/livez"), asked("/readyz")
    assert (live.status, json.loads(live.body)) == (HTTPStatus.OK, {"ok": True, "seconds": 1})
    assert ready.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert dict(ready.headers)["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", ["/", "/metrics/", "/LIVEZ", "/readyz%00", "//livez", "/livez/../readyz"])
def test_there_is_nothing_else(path: str) -> None:
    assert asked(path).status is HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_what_servers_say_is_told_to_a_client_on_the_same_machine(client: str) -> None:
    assert json.loads(asked("/readyz", client).body) == IN_WORDS


@pytest.mark.parametrize("client", ["10.0.0.1", "0.0.0.0", "2001:db8::1", "::ffff:10.0.0.1", "fe80::1%eth0"])  # noqa: S104 - a client
def test_any_other_learns_what_is_waited_for_and_a_code(client: str) -> None:
    assert json.loads(asked("/readyz", client).body) == BY_CODE
    assert not is_loopback(client)


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip", "host"])
def test_no_header_makes_a_client_local(header: str) -> None:
    assert json.loads(asked("/readyz", "10.0.0.1", **{header: "127.0.0.1"}).body) == BY_CODE


def test_who_knows_the_token_is_told_what_servers_say() -> None:
    assert json.loads(asked("/readyz", "10.0.0.1", TOKEN, authorization=f"Bearer {TOKEN}").body) == IN_WORDS


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ä"],
)
def test_who_does_not_know_the_token_is_any_other(authorization: str) -> None:
    assert json.loads(asked("/readyz", "10.0.0.1", TOKEN, authorization=authorization).body) == BY_CODE


def test_without_a_token_no_header_is_one() -> None:
    for authorization in ("Bearer None", "Bearer ", "Bearer"):
        assert json.loads(asked("/readyz", "10.0.0.1", authorization=authorization).body) == BY_CODE


def token_file(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "token"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_token_is_the_files_line(tmp_path: Path) -> None:
    token = read_token(token_file(tmp_path, TOKEN + "\n"), "WEB_TOKEN_FILE")
    assert token is not None
    assert token.get_secret_value() == TOKEN
    assert TOKEN not in repr(token)
    assert read_token(None, "WEB_TOKEN_FILE") is None


@pytest.mark.parametrize("text", ["", "\n", "too-short", "0123456789 abcdefgh", "0123456789-äbcdefgh", TOKEN + "\nanother line"])
def test_what_is_no_token_is_refused_by_the_settings_name_without_a_word_of_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"^WEB_TOKEN_FILE: ") as refused:
        read_token(token_file(tmp_path, text), "WEB_TOKEN_FILE")
    assert text.strip() == "" or text.strip() not in str(refused.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_token_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(SettingsError, match=r"^MONITOR_WEB_TOKEN_FILE: .* chmod 600 it"):
        read_token(token_file(tmp_path, TOKEN, mode), "MONITOR_WEB_TOKEN_FILE")


def test_a_token_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^BRIDGE_WEB_TOKEN_FILE: can't read the file it names"):
        read_token(tmp_path / os.devnull.strip("/"), "BRIDGE_WEB_TOKEN_FILE")
