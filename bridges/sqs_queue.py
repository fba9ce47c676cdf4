"""The queue; the only module that knows boto3.

Every request ends in one of three ways: it worked; :class:`QueueRetryableError` (the network, SQS itself, throttling); or
:class:`QueueRefusedError` (what only a person can mend: no such queue, no right, no credentials). A batch request that worked may
still have failed for single entries: these come back one by one.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

from bridges.message import Message, body_bytes, trace_context
from bridges.settings import RECEIVE_MESSAGES_MAX
from pipeline import __version__
from pipeline.errors import FatalError, RetryableError, SettingsError

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

ResultT = TypeVar("ResultT")

_CONNECT_SECONDS = 4
_ANSWER_SECONDS = 6  # beyond the wait that we asked for
_RETENTION_SECONDS = 345_600  # SQS's own default, four days: for servers that don't say
_ATTEMPTS_MAX = 2  # botocore's own, at once; those that go on for ever are the callers', who can be stopped

# Codes that no repetition mends, without their prefixes ("AWS.SimpleQueueService.", "KMS.").
_NO_QUEUE = frozenset({"QueueDoesNotExist", "NonExistentQueue", "InvalidAddress"})
_NO_CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_NO_RIGHT = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthorizationError",
        "InvalidSecurity",
        "KmsAccessDenied",
        "KmsDisabled",
        "KmsInvalidState",
        "KmsNotFound",
        "OptInRequired",
    }
)
_THROTTLED = frozenset(
    {"KmsThrottled", "OverLimit", "RequestLimitExceeded", "RequestThrottled", "SlowDown", "Throttling", "ThrottlingException"}
)


class QueueRetryableError(RetryableError):
    """The request may work when it is made again. ``code`` names the failure, from SQS or boto3."""

    def __init__(self, operation: str, code: str) -> None:
        super().__init__(f"SQS {operation}: {code}")
        self.code = code


class QueueRefusedError(FatalError):
    """The request works only after a person has mended something; the message says what."""

    def __init__(self, operation: str, code: str, remedy: str) -> None:
        super().__init__(f"SQS {operation}: {code}; {remedy}")
        self.code = code


QUEUE_ERRORS = (QueueRetryableError, QueueRefusedError)
"""While running both are tried again: a person may mend a queue's policy any moment."""


class Answer(Enum):
    """How SQS answered one entry of a batch request."""

    OK = "ok"
    EXPIRED = "expired"
    """The receipt handle is no longer good: the message was deleted, or given out anew."""
    REFUSED = "refused"
    """Refused for another reason that repeating won't change."""
    FAILED = "failed"
    """SQS failed; try again."""


_EXPIRED_CODES = frozenset({"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidReceiptHandle", "InvalidParameterValue"})


@dataclass(frozen=True, slots=True)
class QueueAttributes:
    """What the queue says of itself."""

    visibility_seconds: int
    """How long a received message is hidden from others."""
    visible_messages: int
    """Approximate number that can be received."""
    hidden_messages: int
    """Approximate number in flight, with whichever reader."""
    retention_seconds: int
    """How long a message is kept."""
    receives_max: int | None
    """How often a message is given out before it goes to the dead-letter queue; None without one."""


Observer = Callable[[str, str, float], None]
"""Told of each request: operation, result (``ok``, ``throttled``, ``failed``, ``refused``), seconds."""


class SqsQueue:
    """One queue. Its methods may be called from several threads at a time."""

    def __init__(self, url: str, *, wait_seconds: int, threads: int, observe: Observer) -> None:
        """Opens no connection. Raises :class:`SettingsError` when boto3 can't be set up."""
        self.url = url
        self.is_fifo = url.endswith(".fifo")
        self._wait_seconds = wait_seconds
        self._observe = observe
        region = region_of(url)
        # Two clients, as botocore has one read timeout a client: an extension must not hang for as long as a receive may.
        self._receiving = _client(region, wait_seconds + _ANSWER_SECONDS, threads)
        self._answering = _client(region, _ANSWER_SECONDS, threads * 2)

    @property
    def request_seconds_max(self) -> float:
        """The longest that one request can take, botocore's repetition included."""
        return _ATTEMPTS_MAX * (_CONNECT_SECONDS + self._wait_seconds + _ANSWER_SECONDS) + 1

    def attributes(self) -> QueueAttributes:
        """The queue's attributes."""
        return self._request(
            "GetQueueAttributes",
            lambda: self._answering.get_queue_attributes(
                QueueUrl=self.url,
                AttributeNames=[
                    "VisibilityTimeout",
                    "ApproximateNumberOfMessages",
                    "ApproximateNumberOfMessagesNotVisible",
                    "MessageRetentionPeriod",
                    "RedrivePolicy",
                ],
            ),
            _attributes,
        )

    def receive(self, visibility_seconds: int) -> list[Message]:
        """Up to ten messages, hidden from others for ``visibility_seconds``; waits for the first one, but not for ever."""
        return self._request(
            "ReceiveMessage",
            lambda: self._receiving.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=RECEIVE_MESSAGES_MAX,
                WaitTimeSeconds=self._wait_seconds,
                VisibilityTimeout=visibility_seconds,
                MessageSystemAttributeNames=["SentTimestamp", "ApproximateReceiveCount", "MessageGroupId", "AWSTraceHeader"],
                MessageAttributeNames=["traceparent"],
            ),
            lambda answer: [self._message(message) for message in answer.get("Messages", ())],
        )

    def delete(self, messages: Sequence[Message]) -> list[Answer]:
        """Delete up to ten; one answer a message, in their order."""
        return self._request(
            "DeleteMessageBatch",
            lambda: self._answering.delete_message_batch(
                QueueUrl=self.url,
                Entries=[{"Id": str(index), "ReceiptHandle": message.receipt_handle} for index, message in enumerate(messages)],
            ),
            lambda answer: _answers(answer, len(messages)),
        )

    def change_visibility(self, messages: Sequence[Message], visibility_seconds: int) -> list[Answer]:
        """Hide up to ten for ``visibility_seconds`` from now; 0: visible at once. One answer a message, in their order."""
        return self._request(
            "ChangeMessageVisibilityBatch",
            lambda: self._answering.change_message_visibility_batch(
                QueueUrl=self.url,
                Entries=[
                    {"Id": str(index), "ReceiptHandle": message.receipt_handle, "VisibilityTimeout": visibility_seconds}
                    for index, message in enumerate(messages)
                ],
            ),
            lambda answer: _answers(answer, len(messages)),
        )

    def _message(self, message: Mapping[str, Any]) -> Message:
        system = message.get("Attributes", {})
        own = message.get("MessageAttributes")
        xray_header = system.get("AWSTraceHeader")
        traceparent = own["traceparent"].get("StringValue") if own and "traceparent" in own else None
        return Message(
            message_id=message["MessageId"],
            receipt_handle=message["ReceiptHandle"],
            value=body_bytes(message["Body"]),
            sent_at=system.get("SentTimestamp"),
            group_id=system.get("MessageGroupId") if self.is_fifo else None,  # a standard queue's groups promise no order
            receive_count=int(system.get("ApproximateReceiveCount", 1)),
            traceparent=trace_context(traceparent, xray_header) if traceparent or xray_header else None,
        )

    def _request(
        self, operation: str, request: Callable[[], Mapping[str, Any]], understand: Callable[[Mapping[str, Any]], ResultT]
    ) -> ResultT:
        began = time.perf_counter()
        try:
            result = understand(request())
        except Exception as error:  # an answer that is no SQS answer raises anything, in botocore or in understand()
            translated, kind = _translate(operation, error)
            self._observe(operation, kind, time.perf_counter() - began)
            raise translated from error
        self._observe(operation, "ok", time.perf_counter() - began)
        return result


def region_of(url: str) -> str | None:
    """The region that an AWS queue URL names; None for other servers. No other works, whatever AWS_DEFAULT_REGION says."""
    host = (urlsplit(url).hostname or "").split(".")
    if not ("amazonaws" in host or host[-2:] == ["api", "aws"]):
        return None
    for before, after in pairwise(host):
        if before in {"sqs", "sqs-fips"}:
            return after  # sqs.REGION.amazonaws.com, vpce-ID.sqs.REGION.vpce.amazonaws.com
        if after == "queue" and before.count("-") >= 2:  # noqa: PLR2004 - as in eu-west-1
            return before  # REGION.queue.amazonaws.com, the form of old
    return None


def _client(region: str | None, read_seconds: int, connections: int) -> "SQSClient":
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=read_seconds,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS_MAX},
        max_pool_connections=connections,
        tcp_keepalive=True,
        user_agent=f"login-stream-bridge/{__version__}",  # botocore's own is put together anew for each request: 7 % of its time
        parameter_validation=False,  # our parameters have one form each; checking it costs a tenth of a request
    )
    try:
        session = boto3.session.Session()
        if not (region or session.region_name):
            raise SettingsError("AWS_DEFAULT_REGION: missing, and SQS_QUEUE_URL names no region; set it")
        return session.client("sqs", region_name=region, config=config)
    except ProfileNotFound as error:
        raise SettingsError("AWS_PROFILE: no such profile in the AWS configuration; set it to one that is there") from error
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(
            f"AWS_ENDPOINT_URL_SQS, AWS_DEFAULT_REGION or the AWS configuration file: boto3 refuses it ({type(error).__name__})"
        ) from error


def _translate(operation: str, error: Exception) -> tuple[QueueRetryableError | QueueRefusedError, str]:
    """Our error for botocore's, and the result that is counted. Only codes are kept: messages name accounts and users."""
    credentials = "no usable credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role, as boto3 finds them"
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return QueueRefusedError(operation, type(error).__name__, credentials), "refused"
    if isinstance(error, CredentialRetrievalError) or not isinstance(error, ClientError):
        return QueueRetryableError(operation, type(error).__name__), "failed"
    full_code = str(error.response.get("Error", {}).get("Code", "Unknown"))
    code = full_code.rsplit(".", 1)[-1].rsplit("#", 1)[-1]
    if code in _NO_QUEUE:
        remedy = "no such queue: check SQS_QUEUE_URL, AWS_ENDPOINT_URL_SQS and AWS_DEFAULT_REGION"
    elif code in _NO_CREDENTIALS:
        remedy = credentials
    elif code in _NO_RIGHT:
        remedy = (
            "not allowed on SQS_QUEUE_URL: grant sqs:ReceiveMessage, sqs:DeleteMessage, sqs:ChangeMessageVisibility and "
            "sqs:GetQueueAttributes (and kms:Decrypt if it is encrypted)"
        )
    else:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        throttled = code in _THROTTLED or status == 429  # noqa: PLR2004 - HTTP's "too many requests"
        return QueueRetryableError(operation, code), "throttled" if throttled else "failed"
    return QueueRefusedError(operation, code, remedy), "refused"


def _attributes(answer: Mapping[str, Any]) -> QueueAttributes:
    attributes = answer["Attributes"]
    redrive_policy = json.loads(attributes["RedrivePolicy"]) if attributes.get("RedrivePolicy") else {}
    receives_max = redrive_policy.get("maxReceiveCount")  # a number from AWS, a text from others
    return QueueAttributes(
        visibility_seconds=int(attributes["VisibilityTimeout"]),
        visible_messages=int(attributes.get("ApproximateNumberOfMessages", 0)),
        hidden_messages=int(attributes.get("ApproximateNumberOfMessagesNotVisible", 0)),
        retention_seconds=int(attributes.get("MessageRetentionPeriod", _RETENTION_SECONDS)),
        receives_max=None if receives_max is None else int(receives_max),
    )


def _answers(answer: Mapping[str, Any], count: int) -> list[Answer]:
    """One answer an entry. An entry that SQS doesn't mention has failed: nothing is taken for done that isn't said to be."""
    answers = [Answer.FAILED] * count
    for entry in answer.get("Successful", ()):
        answers[int(entry["Id"])] = Answer.OK
    for entry in answer.get("Failed", ()):
        if entry.get("SenderFault"):
            code = str(entry.get("Code", "")).rsplit(".", 1)[-1]
            answers[int(entry["Id"])] = Answer.EXPIRED if code in _EXPIRED_CODES else Answer.REFUSED
        else:
            answers[int(entry["Id"])] = Answer.FAILED
    return answers
