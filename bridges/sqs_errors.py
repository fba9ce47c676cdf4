"""What went wrong with a request to SQS, in two words: repeat it, or have a person mend something.

Every request ends in one of three ways: it worked; :class:`QueueRetryableError` (the network, SQS itself, throttling); or
:class:`QueueRefusedError` (what only a person can mend: no such queue, no right, no credentials).
"""

from botocore.exceptions import ClientError, CredentialRetrievalError, NoCredentialsError, PartialCredentialsError

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


def translated(operation: str, error: Exception) -> tuple[QueueRetryableError | QueueRefusedError, str]:
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
