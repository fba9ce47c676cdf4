"""One client of SQS: boto3, and a quick way past it for what works.

boto3 finds credentials, region and endpoint, knows SQS's errors, and decides what is worth a second attempt. It also takes more
time for a request than all else that the bridge does for ten messages. So its first request shows where requests go and what is
signed; from then on a request is signed (:mod:`bridges.aws_signature`) and sent (:mod:`bridges.http_connections`) here. An answer
with status 200 is all there is to it. Any other answer, or none, becomes the first attempt of a request of boto3's: boto3 judges
it, and makes the second attempt, as if it had made the first.

What is not usual (a proxy, another signature, an endpoint with a path) is boto3's alone.

Read against botocore 1.44: ``Endpoint._do_get_response`` (an answer of a ``before-send`` handler is taken for the server's, an
``HTTPClientError`` for a failed attempt), ``URLLib3Session`` (``_verify``, ``send``), ``EndpointCreator`` (proxies).
"""

import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

import boto3
import msgspec
import structlog
from botocore import xform_name
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.exceptions import BotoCoreError, HTTPClientError, ProfileNotFound
from botocore.httpsession import create_urllib3_context, get_cert_path
from botocore.utils import get_environ_proxies

from bridges.aws_signature import Destination, signed_request
from bridges.http_connections import HTTP_ERRORS, Connections, HttpAnswer, WaitToRead
from bridges.memory import answer_length_max
from bridges.settings import RECEIVE_MESSAGES_MAX
from bridges.sqs_answers import AnswerT, convert, decode
from pipeline import __version__
from pipeline.errors import SettingsError

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

_log = structlog.stdlib.get_logger("bridges.sqs_client")

ATTEMPTS_MAX = 2
"""Of one request, both at once; those that go on for ever are the callers', who can be stopped."""

CONNECT_SECONDS = 4

_OK = 200
# The signature that bridges.aws_signature makes, of the headers that it signs.
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, "
    r"SignedHeaders=content-type;host;x-amz-date;(x-amz-security-token;)?x-amz-target;x-amzn-query-mode, Signature=[0-9a-f]{64}"
)


def boto3_session() -> boto3.session.Session:
    """What finds credentials; its clients refresh them together. Raises :class:`SettingsError`."""
    try:
        return boto3.session.Session()
    except ProfileNotFound as error:
        raise SettingsError("AWS_PROFILE: no such profile in the AWS configuration; set it to one that is there") from error


class SqsClient:
    """Its requests take no longer than a number of seconds each; may be used from several threads at a time."""

    def __init__(self, session: boto3.session.Session, region: str | None, answer_seconds: int, connections: int) -> None:
        """``connections``: that boto3 keeps. Opens none. Raises :class:`SettingsError` when boto3 can't be set up."""
        self._answer_seconds = answer_seconds
        self._client = _boto3_client(session, region, answer_seconds, connections)
        self._client.meta.events.register("before-send.sqs", self._before_send)  # type: ignore[arg-type] # the answer counts
        self._session = session
        self._thread = threading.local()
        self._learning = threading.Lock()
        self._has_learned = False
        self._quick_way: _QuickWay | None = None

    def ask(
        self,
        operation: str,
        parameters: Mapping[str, Any],
        answer_type: type[AnswerT],
        wait_to_read: WaitToRead | None = None,
    ) -> AnswerT:
        """Make a request. Raises what boto3 raises, and a ValueError when the answer is not of its type.

        ``wait_to_read`` is not asked where boto3 reads the answer, nor is its length bounded there.
        """
        first_attempt: AWSResponse | HTTPClientError | None = None
        if (quick_way := self._quick_way) is not None:
            try:
                answer = quick_way.exchange(operation, msgspec.json.encode(parameters), wait_to_read)
            except HTTP_ERRORS as error:
                first_attempt = HTTPClientError(error=error)
            else:
                if answer.status == _OK:
                    return decode(answer.content, answer_type)
                first_attempt = _for_boto3(answer, self._client.meta.endpoint_url)
        self._thread.first_attempt = first_attempt
        return convert(getattr(self._client, xform_name(operation))(**parameters), answer_type)

    def close(self) -> None:
        """Close the connections that are not in use."""
        if self._quick_way is not None:
            self._quick_way.connections.close()
        self._client.close()

    def _before_send(self, request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        """Called by boto3 with each request that it has made and signed; what is returned is the answer, None: send it."""
        first_attempt: AWSResponse | HTTPClientError | None = self._thread.first_attempt
        self._thread.first_attempt = None
        if isinstance(first_attempt, HTTPClientError):
            raise first_attempt
        if first_attempt is None and not self._has_learned:
            self._learn(request)
        return first_attempt

    def _learn(self, request: AWSPreparedRequest) -> None:
        with self._learning:
            if self._has_learned:
                return
            self._has_learned = True
            url = urlsplit(request.url)
            headers = {name.lower(): _text(value) for name, value in request.headers.items()}
            signature = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
            if signature is None or url.path not in {"", "/"} or url.query or _has_proxy(url):
                _log.warning("sqs_requests_are_slow", reason="a proxy, another signature, or an endpoint with a path")
                return
            self._quick_way = _QuickWay(
                Destination(
                    host=url.netloc.rpartition("@")[2],
                    region=signature["region"],
                    service=signature["service"],
                    target_prefix=headers["x-amz-target"].rpartition(".")[0] + ".",
                    user_agent=headers["user-agent"],
                ),
                Connections(
                    str(url.hostname),
                    url.port or (443 if url.scheme == "https" else 80),
                    self._tls_context() if url.scheme == "https" else None,
                    connect_seconds=CONNECT_SECONDS,
                    answer_seconds=self._answer_seconds,
                    answer_bytes_max=answer_length_max(RECEIVE_MESSAGES_MAX),
                ),
                self._session.get_credentials(),
            )

    def _tls_context(self) -> ssl.SSLContext:
        """Trusts whom boto3 trusts: AWS_CA_BUNDLE, the configuration file, or the usual authorities."""
        context: ssl.SSLContext = create_urllib3_context()
        context.check_hostname = True  # urllib3 looks itself, so botocore's context does not
        context.load_verify_locations(cafile=get_cert_path(self._client._endpoint.http_session._verify))  # type: ignore[attr-defined]  # noqa: SLF001
        return context


@dataclass(frozen=True, slots=True)
class _QuickWay:
    destination: Destination
    connections: Connections
    credentials: Any
    """botocore's; they refresh themselves when they are asked for."""

    def exchange(self, operation: str, body: bytes, wait_to_read: WaitToRead | None) -> HttpAnswer:
        credentials = self.credentials.get_frozen_credentials()
        return self.connections.exchange(
            signed_request(
                self.destination,
                operation,
                body,
                access_key=credentials.access_key,
                secret_key=credentials.secret_key,
                session_token=credentials.token,
                now=time.time(),
            ),
            wait_to_read,
        )


class _Received(BytesIO):
    """What botocore reads an answer from."""

    def stream(self) -> Iterator[bytes]:
        yield self.read()


def _for_boto3(answer: HttpAnswer, url: str) -> AWSResponse:
    headers = HTTPHeaders.from_pairs((name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers)
    return AWSResponse(url, answer.status, headers, _Received(answer.content))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _has_proxy(url: SplitResult) -> bool:
    return url.scheme in get_environ_proxies(url.geturl())


def _boto3_client(session: boto3.session.Session, region: str | None, answer_seconds: int, connections: int) -> "SQSClient":
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=answer_seconds,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS_MAX},
        max_pool_connections=connections,
        tcp_keepalive=True,
        user_agent=f"login-stream-bridge/{__version__}",
        parameter_validation=False,  # our parameters have one form each
    )
    try:
        if not (region or session.region_name):
            raise SettingsError("AWS_DEFAULT_REGION: missing, and SQS_QUEUE_URL names no region; set it")
        return session.client("sqs", region_name=region, config=config)
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(
            f"AWS_ENDPOINT_URL_SQS, AWS_DEFAULT_REGION or the AWS configuration file: boto3 refuses it ({type(error).__name__})"
        ) from error
