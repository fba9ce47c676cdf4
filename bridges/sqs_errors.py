"""What went wrong with a request to SQS, in two words: repeat it, or have a person mend something.

Every request ends in one of three ways: it worked; :class:`QueueRetryableError` (the network, SQS itself, throttling); or
:class:`QueueRefusedError` (what only a person can mend: no such queue, no right, no credentials).
"""

import socket
import ssl
from collections.abc import Iterator
from http.client import BadStatusLine
from urllib.parse import urlsplit

from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
)

from pipeline.errors import FatalError, RetryableError

# Codes that no repetition mends, without their prefixes ("AWS.SimpleQueueService.", "KMS.").
_NO_QUEUE = frozenset({"QueueDoesNotExist", "NonExistentQueue", "InvalidAddress"})
_NO_CREDENTIALS = frozenset(
    {"AuthFailure", "InvalidAccessKeyId", "InvalidClientTokenId", "MissingAuthenticationToken", "UnrecognizedClientException"}
)
_BAD_SIGNATURE = frozenset(
    {"IncompleteSignature", "InvalidSignatureException", "RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch"}
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


_TLS_RECORD = "\x15\x03"  # an alert


class QueueRetryableError(RetryableError):
    """The request may work when it is made again. ``code`` names the failure, from SQS or boto3; ``problem`` says it in words."""

    def __init__(self, operation: str, code: str, problem: str | None = None) -> None:
        super().__init__(f"SQS {operation}: {code}" + ("" if problem is None else f"; {problem}"))
        self.code = code


class QueueRefusedError(FatalError):
    """The request works only after a person has mended something; the message says what."""

    def __init__(self, operation: str, code: str, remedy: str) -> None:
        super().__init__(f"SQS {operation}: {code}; {remedy}")
        self.code = code


QUEUE_ERRORS = (QueueRetryableError, QueueRefusedError)
"""While running both are tried again: a person may mend a queue's policy any moment."""


def translated(operation: str, error: Exception) -> tuple[QueueRetryableError | QueueRefusedError, str]:
    """Our error for botocore's, and the result that is counted. Only codes are kept: messages name accounts and users."""
    credentials = "no usable credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role, as boto3 finds them"
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return QueueRefusedError(operation, type(error).__name__, credentials), "refused"
    if isinstance(error, CredentialRetrievalError) or not isinstance(error, ClientError):
        return QueueRetryableError(operation, type(error).__name__, _unreachable(error)), "failed"
    full_code = str(error.response.get("Error", {}).get("Code", "Unknown"))
    code = full_code.rsplit(".", 1)[-1].rsplit("#", 1)[-1]
    if code in _NO_QUEUE:
        remedy = "no such queue: check SQS_QUEUE_URL, AWS_ENDPOINT_URL_SQS and AWS_DEFAULT_REGION"
    elif code in _NO_CREDENTIALS:
        remedy = credentials
    elif code in _BAD_SIGNATURE:
        remedy = "check AWS_SECRET_ACCESS_KEY, and this machine's clock: AWS refuses a signature that is five minutes off"
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


def _unreachable(error: Exception) -> str | None:
    """Why no answer came, with host and port; None where botocore does not tell the endpoint, as of a proxy."""
    url = urlsplit(str(getattr(error, "kwargs", {}).get("endpoint_url", "")))
    if url.hostname is None:
        return None
    where = f"{url.hostname}:{url.port or (443 if url.scheme == 'https' else 80)}"
    causes = list(_causes(error))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        problem = f"{url.hostname} has no address"
    elif any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        problem = f"nobody listens at {where}"
    elif isinstance(error, ConnectTimeoutError):
        problem = f"{where} takes no connection"
    elif isinstance(error, ReadTimeoutError):
        problem = f"{where} takes connections and does not answer"
    elif any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        problem = f"the certificate of {where} is for another host, has expired, or is of nobody in AWS_CA_BUNDLE"
    elif any(isinstance(cause, ssl.SSLError) for cause in causes):
        problem = f"{where} does not speak TLS: is https:// right?"
    elif any(isinstance(cause, BadStatusLine) and str(cause).startswith(_TLS_RECORD) for cause in causes):
        problem = f"{where} speaks TLS: https:// is needed"
    elif isinstance(error, ConnectionClosedError):
        problem = f"{where} closes connections before a whole answer"
    else:
        problem = f"{where} can't be reached ({type(error).__name__})"
    return f"{problem} (AWS_ENDPOINT_URL_SQS, or AWS's own for the region)"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What an error came from, itself first: botocore and urllib3 keep it in several ways."""
    seen: list[BaseException] = [error]
    for link in seen:
        yield link
        further = (link.__cause__, link.__context__, getattr(link, "kwargs", {}).get("error"), *link.args)
        seen += [one for one in further if isinstance(one, BaseException) and all(one is not other for other in seen)]
