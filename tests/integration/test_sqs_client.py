"""Requests to SQS: when boto3 makes them, when they take the quick way, and that nobody can tell by the outcome."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext

import pytest
from integration.certificate_authority import Authority
from integration.running_bridge import Queue
from integration.scripted_http_server import Heard, Said, Script, ScriptedHttpServer, http, says
from structlog.testing import capture_logs

from bridges.message import Message
from bridges.sqs_errors import QueueRefusedError, QueueRetryableError
from bridges.sqs_queue import Answer, SqsQueue
from dev_servers.elasticmq import MADE_UP_CREDENTIALS, ElasticMq
from dev_servers.moto_sqs import Moto

MESSAGES = [Message("id-0", "handle-0", b""), Message("id-1", "handle-1", b"")]
DONE = http(200, {"Successful": [{"Id": "0"}, {"Id": "1"}]})
BOTH_OK = [Answer.OK, Answer.OK]


class Requests:
    """A queue, and what was observed of its requests."""

    def __init__(self, stack: ExitStack, url: str) -> None:
        self.observed: list[tuple[str, str]] = []
        self.queue = SqsQueue(url, wait_seconds=1, threads=2, observe=lambda *seen: self.observed.append(seen[:2]))
        stack.callback(self.queue.close)

    def delete(self) -> list[Answer]:
        return self.queue.delete(MESSAGES)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own AWS settings."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in {**MADE_UP_CREDENTIALS, "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


def scripted(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, script: Script, tls: SSLContext | None = None
) -> tuple[ScriptedHttpServer, Requests]:
    """A server with a script, and the queue of a client that already knows how to sign: its first request has been answered."""
    server = stack.enter_context(ScriptedHttpServer(says(DONE), tls))
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", server.url)
    requests = Requests(stack, f"{server.url}/123456789012/login-queue")
    assert requests.delete() == BOTH_OK
    server.script = script
    server.heard.clear()
    requests.observed.clear()
    return server, requests


def asked_by(server: ScriptedHttpServer) -> list[str]:
    return ["boto3" if heard.by_boto3 else "us" for heard in server.heard]


def test_boto3_makes_the_first_request_and_we_the_others(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    server = stack.enter_context(ScriptedHttpServer(says(DONE)))
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", server.url)
    requests = Requests(stack, f"{server.url}/123456789012/login-queue")
    assert [requests.delete() for _ in range(3)] == [BOTH_OK] * 3
    assert asked_by(server) == ["boto3", "us", "us"]
    assert json.loads(server.heard[0].body) == json.loads(server.heard[1].body)
    assert requests.observed == [("DeleteMessageBatch", "ok")] * 3
    theirs, ours, _ = (heard.headers for heard in server.heard)
    differing = {name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name)}
    assert differing <= {"authorization", "x-amz-date", "content-length", "amz-sdk-invocation-id", "amz-sdk-request"}


@pytest.mark.parametrize("server_name", ["elasticmq", "moto"])
def test_both_servers_take_what_we_make(
    stack: ExitStack, server_name: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    server: ElasticMq | Moto = request.getfixturevalue(server_name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", server.endpoint_url)
    test_queue = Queue(server.endpoint_url, receives_max=3)
    ids = test_queue.send(["one", "two", "café ✓"])
    requests = Requests(stack, test_queue.url)
    for _ in range(2):  # by boto3, by us
        attributes = requests.queue.attributes()
        assert (attributes.visibility_seconds, attributes.visible_messages, attributes.receives_max) == (30, 3, 3)
        assert attributes.retention_seconds == 345_600
        received: list[Message] = []
        while len(received) < 3:
            received += requests.queue.receive(30, 10, lambda _: None)
        assert sorted(message.message_id for message in received) == sorted(ids)
        assert {message.value.decode() for message in received} == {"one", "two", "café ✓"}
        assert all(message.sent_at is not None for message in received)
        assert requests.queue.change_visibility(received, 0) == [Answer.OK] * 3
    received = requests.queue.receive(30, 10, lambda _: None)
    assert [message.receive_count for message in received] == [3] * len(received)
    unknown = Message("none", "no such handle", b"")
    answers = requests.queue.delete([*received, unknown])
    assert answers[:-1] == [Answer.OK] * len(received)
    assert answers[-1] in {Answer.EXPIRED, Answer.REFUSED}
    assert {result for _, result in requests.observed} == {"ok"}


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_failed_first_attempt_is_followed_by_one_of_boto3(stack: ExitStack, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    server, requests = scripted(stack, monkeypatch, says(http(status, b"<html>busy</html>"), DONE))
    assert requests.delete() == BOTH_OK
    assert requests.delete() == BOTH_OK
    assert asked_by(server) == ["us", "boto3", "us"]
    assert requests.observed == [("DeleteMessageBatch", "ok")] * 2


def test_there_are_two_attempts_and_no_more(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    server, requests = scripted(stack, monkeypatch, says(http(500, {"__type": "com.amazonaws.sqs#InternalError"})))
    with pytest.raises(QueueRetryableError, match="InternalError"):
        requests.delete()
    assert asked_by(server) == ["us", "boto3"]
    assert requests.observed == [("DeleteMessageBatch", "failed")]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (http(400, {"__type": "com.amazonaws.sqs#QueueDoesNotExist"}), "QueueDoesNotExist; no such queue"),
        (
            http(400, {"__type": "QueueDoesNotExist"}, "x-amzn-query-error: AWS.SimpleQueueService.NonExistentQueue;Sender"),
            "NonExistentQueue; no such queue",
        ),
        (http(400, {"__type": "KMS.DisabledException"}, "x-amzn-query-error: KmsDisabled;Sender"), "KmsDisabled; not allowed"),
        (http(403, {"__type": "AccessDeniedException"}), "AccessDeniedException; not allowed"),
        (http(403, {"__type": "com.amazon.coral.service#UnrecognizedClientException"}), "UnrecognizedClientException; no usable"),
        (http(403, {"__type": "com.amazon.coral.service#InvalidSignatureException"}), "InvalidSignatureException; .*clock"),
    ],
)
def test_what_only_a_person_can_mend_is_asked_once_and_named(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, answer: bytes, expected: str
) -> None:
    server, requests = scripted(stack, monkeypatch, says(answer))
    with pytest.raises(QueueRefusedError, match=expected):
        requests.delete()
    assert asked_by(server) == ["us"]
    assert requests.observed == [("DeleteMessageBatch", "refused")]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (http(403, {"__type": "com.amazon.coral.service#ExpiredTokenException"}), "ExpiredTokenException"),
        (http(400, b"not what was asked for"), "400"),
    ],
)
def test_what_time_may_mend_is_left_to_those_who_ask(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, answer: bytes, code: str
) -> None:
    server, requests = scripted(stack, monkeypatch, says(answer))
    with pytest.raises(QueueRetryableError, match=code):
        requests.delete()
    assert asked_by(server) == ["us"]
    assert requests.observed == [("DeleteMessageBatch", "failed")]


@pytest.mark.parametrize(
    "answer",
    [
        http(400, {"__type": "com.amazonaws.sqs#RequestThrottled"}),
        http(400, {"__type": "ThrottlingException"}),
        http(429, b""),
        http(400, {"__type": "com.amazonaws.sqs#OverLimit"}),
    ],
)
def test_throttling_is_counted_as_such(stack: ExitStack, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    _, requests = scripted(stack, monkeypatch, says(answer))
    with pytest.raises(QueueRetryableError):
        requests.delete()
    assert requests.observed == [("DeleteMessageBatch", "throttled")]


@pytest.mark.parametrize(
    "broken",
    [Said((), closes=True), Said((DONE[:-3],), closes=True), Said((b"\0\0\0",), closes=True)],
    ids=["none", "half", "noise"],
)
def test_a_broken_connection_is_a_failed_attempt(stack: ExitStack, monkeypatch: pytest.MonkeyPatch, broken: Said) -> None:
    server, requests = scripted(stack, monkeypatch, lambda heard: Said((DONE,)) if heard.by_boto3 else broken)
    assert requests.delete() == BOTH_OK
    assert asked_by(server)[-1] == "boto3"
    server.script = says(Said((), closes=True))
    server.heard.clear()
    with pytest.raises(QueueRetryableError, match="ConnectionClosedError"):
        requests.delete()
    assert asked_by(server) == ["us", "boto3"]
    assert requests.observed == [("DeleteMessageBatch", "ok"), ("DeleteMessageBatch", "failed")]


def test_connections_that_the_server_closes_between_requests_are_no_failure(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, requests = scripted(stack, monkeypatch, says(Said((DONE,), closes=True)))
    for _ in range(20):
        server.closed.clear()
        assert requests.delete() == BOTH_OK
        assert server.closed.wait(5)
    assert asked_by(server) == ["us"] * 20
    assert {result for _, result in requests.observed} == {"ok"}


@pytest.mark.parametrize("answer", [b"<html>hello</html>", b'{"Successful": [{"Id": 7}]}', b'{"Successful": [{"Id": "9"}]}', b"[]"])
def test_an_answer_that_is_not_of_sqs_is_a_failure_and_nothing_is_deleted_by_it(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    _, requests = scripted(stack, monkeypatch, says(http(200, answer)))
    with pytest.raises(QueueRetryableError):
        requests.delete()
    assert requests.observed == [("DeleteMessageBatch", "failed")]


def test_a_lone_surrogate_does_not_hold_up_the_messages_beside_it(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQS takes none; a server that does must not give us a batch that we can never read."""
    received = [{"MessageId": name, "ReceiptHandle": name, "Body": body} for name, body in (("a", "\ud800"), ("b", "good"))]
    server = stack.enter_context(ScriptedHttpServer(says(http(200, {"Messages": received}))))
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", server.url)
    requests = Requests(stack, f"{server.url}/123456789012/login-queue")
    for _ in range(2):
        assert [message.value for message in requests.queue.receive(30, 10, lambda _: None)] == [b"\xed\xa0\x80", b"good"]
    assert asked_by(server) == ["boto3", "us"]


def test_credentials_that_expire_are_renewed_and_signed_with(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A role's, from an address as containers have it; the first ones end within the time in which boto3 renews them."""
    seconds_left = iter([60, 7_200])

    def credentials(heard: Heard) -> Said:
        number = len([one for one in server.heard if one.path == "/credentials"])
        assert heard.path == "/credentials"
        return Said((
            http(
                200,
                {
                    "AccessKeyId": f"AKID{number}",
                    "SecretAccessKey": f"secret-{number}",
                    "Token": f"token-{number}",
                    "Expiration": (datetime.now(UTC) + timedelta(seconds=next(seconds_left))).strftime("%Y-%m-%dT%H:%M:%SZ"),
                },
            ),
        ))  # fmt: skip

    server = stack.enter_context(
        ScriptedHttpServer(lambda heard: credentials(heard) if "credentials" in heard.path else Said((DONE,)))
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/credentials")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", server.url)
    requests = Requests(stack, f"{server.url}/123456789012/login-queue")
    for _ in range(3):
        assert requests.delete() == BOTH_OK
    signed = [heard for heard in server.heard if heard.path != "/credentials"]
    assert [heard.by_boto3 for heard in signed] == [True, False, False]
    assert {heard.headers["x-amz-security-token"] for heard in signed} == {"token-2"}
    assert all("Credential=AKID2/" in heard.headers["authorization"] for heard in signed)
    assert all(";x-amz-security-token;" in heard.headers["authorization"] for heard in signed)


def test_credentials_renewed_while_it_runs_are_used_at_once(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    server, requests = scripted(stack, monkeypatch, says(DONE))
    requests.delete()
    quick_way = requests.queue._answering._quick_way
    assert quick_way is not None
    quick_way.credentials.access_key, quick_way.credentials.secret_key = "AKIDNEW", "new"
    requests.delete()
    assert ["Credential=AKIDNEW/" in heard.headers["authorization"] for heard in server.heard] == [False, True]


def test_credentials_that_are_missing_are_named(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    requests = Requests(stack, "https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue")
    with pytest.raises(QueueRefusedError, match="AWS_ACCESS_KEY_ID"):
        requests.delete()
    assert requests.observed == [("DeleteMessageBatch", "refused")]


def test_behind_a_proxy_all_requests_are_those_of_boto3(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = stack.enter_context(ScriptedHttpServer(says(DONE)))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://sqs.example.test")
    requests = Requests(stack, "http://sqs.example.test/123456789012/login-queue")
    with capture_logs() as logs:
        assert [requests.delete() for _ in range(3)] == [BOTH_OK] * 3
    assert asked_by(proxy) == ["boto3"] * 3
    assert {heard.path for heard in proxy.heard} == {"http://sqs.example.test/"}
    assert [log["event"] for log in logs] == ["sqs_requests_are_slow"]


def test_an_endpoint_with_a_path_is_left_to_boto3(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    server = stack.enter_context(ScriptedHttpServer(says(DONE)))
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", f"{server.url}/behind/a/path")
    requests = Requests(stack, f"{server.url}/123456789012/login-queue")
    assert [requests.delete() for _ in range(2)] == [BOTH_OK] * 2
    assert asked_by(server) == ["boto3"] * 2


def serving(authority: Authority, host: str) -> SSLContext:
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(host, host))
    return context


def test_tls_is_spoken_on_connections_that_are_kept(stack: ExitStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.file))
    server, requests = scripted(stack, monkeypatch, says(DONE), serving(authority, "127.0.0.1"))
    assert [requests.delete() for _ in range(2)] == [BOTH_OK] * 2
    assert asked_by(server) == ["us"] * 2
    assert len({heard.connection for heard in server.heard}) == 1


@pytest.mark.parametrize(("known", "host"), [("other", "127.0.0.1"), ("authority", "127.0.0.2")], ids=["authority", "host"])
def test_a_certificate_that_boto3_refuses_is_refused_by_us(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, known: str, host: str
) -> None:
    authorities = {name: Authority(tmp_path / name, name) for name in ("authority", "other")}
    server = stack.enter_context(ScriptedHttpServer(says(DONE), serving(authorities["authority"], host)))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authorities[known].file))
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", server.url)
    requests = Requests(stack, f"{server.url}/123456789012/login-queue")
    for _ in range(2):  # boto3's first request, then the quick way
        with pytest.raises(QueueRetryableError, match="SSLError"):
            requests.delete()
    assert server.heard == []
