import pytest
from botocore.exceptions import ClientError, CredentialRetrievalError, EndpointConnectionError, NoCredentialsError

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
