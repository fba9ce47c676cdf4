import socket
import ssl
from http.client import BadStatusLine

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)

from bridges.sqs_errors import QueueRefusedError, QueueRetryableError, translated


def client_error(code: str, status: int = 400) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": "User: arn:aws:iam::123456789012:user/ada is not authorized"},
            "ResponseMetadata": {"RequestId": "", "HostId": "", "HTTPStatusCode": status, "HTTPHeaders": {}, "RetryAttempts": 0},
        },
        "ReceiveMessage",
    )


@pytest.mark.parametrize(
    ("error", "kind", "result"),
    [
        (client_error("AWS.SimpleQueueService.NonExistentQueue"), QueueRefusedError, "refused"),
        (client_error("QueueDoesNotExist"), QueueRefusedError, "refused"),
        (client_error("AccessDenied", 403), QueueRefusedError, "refused"),
        (client_error("KMS.AccessDeniedException"), QueueRefusedError, "refused"),
        (client_error("InvalidClientTokenId", 403), QueueRefusedError, "refused"),
        (NoCredentialsError(), QueueRefusedError, "refused"),
        (CredentialRetrievalError(provider="role", error_msg="secret"), QueueRetryableError, "failed"),
        (client_error("ExpiredToken", 403), QueueRetryableError, "failed"),
        (client_error("RequestThrottled"), QueueRetryableError, "throttled"),
        (client_error("OverLimit", 403), QueueRetryableError, "throttled"),
        (client_error("429", 429), QueueRetryableError, "throttled"),
        (client_error("InternalError", 500), QueueRetryableError, "failed"),
        (client_error("503", 503), QueueRetryableError, "failed"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), QueueRetryableError, "failed"),
        (KeyError("Body"), QueueRetryableError, "failed"),
    ],
)
def test_an_error_is_retried_unless_only_a_person_can_mend_it(error: Exception, kind: type[Exception], result: str) -> None:
    our_error, counted = translated("ReceiveMessage", error)
    assert type(our_error) is kind
    assert counted == result
    assert "arn:aws" not in str(our_error)
    assert "secret" not in str(our_error)
    assert "\n" not in str(our_error)


def caused_by(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            EndpointConnectionError(endpoint_url="https://sqs.example/", error=socket.gaierror(-2, "unknown")),
            "sqs.example has no address",
        ),
        (
            caused_by(EndpointConnectionError(endpoint_url="http://127.0.0.1:1/"), ConnectionRefusedError(111, "refused")),
            "nobody listens at 127.0.0.1:1",
        ),
        (ConnectTimeoutError(endpoint_url="https://sqs.example/"), "sqs.example:443 takes no connection"),
        (ReadTimeoutError(endpoint_url="http://sqs.example/"), "sqs.example:80 takes connections and does not answer"),
        (
            SSLError(endpoint_url="https://sqs.example/", error=ValueError(ssl.SSLCertVerificationError("made up"))),
            "the certificate of sqs.example:443",
        ),
        (SSLError(endpoint_url="https://sqs.example/", error=ssl.SSLError("made up")), "is https:// right?"),
        (
            ConnectionClosedError(endpoint_url="http://sqs.example/", error=BadStatusLine("\x15\x03\x03")),
            "sqs.example:80 speaks TLS",
        ),
        (ConnectionClosedError(endpoint_url="http://sqs.example/"), "closes connections before a whole answer"),
        (EndpointConnectionError(endpoint_url="http://sqs.example/"), "sqs.example:80 can't be reached"),
    ],
)
def test_who_can_not_be_reached_is_said_with_host_and_setting(error: Exception, says: str) -> None:
    our_error, _ = translated("ReceiveMessage", error)
    assert str(our_error).startswith(f"SQS ReceiveMessage: {type(error).__name__}; ")
    assert says in str(our_error)
    assert "AWS_ENDPOINT_URL_SQS" in str(our_error)
    assert our_error.code == type(error).__name__


def test_a_proxys_password_is_not_said() -> None:
    our_error, _ = translated("ReceiveMessage", ProxyConnectionError(proxy_url="http://user:hunter2@proxy:3128"))
    assert str(our_error) == "SQS ReceiveMessage: ProxyConnectionError"
