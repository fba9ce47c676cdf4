"""What needs no server: how answers and errors are understood. Requests are tested on real servers."""

import pytest
from botocore.exceptions import ClientError, CredentialRetrievalError, EndpointConnectionError, NoCredentialsError

from bridges.sqs_queue import Answer, QueueRefusedError, QueueRetryableError, _answers, _translate, region_of


def client_error(code: str, status: int = 400) -> ClientError:
    error = {"Code": code, "Message": "User: arn:aws:iam::123456789012:user/ada is not authorized"}
    return ClientError({"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}}, "ReceiveMessage")


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
    translated, counted = _translate("ReceiveMessage", error)
    assert type(translated) is kind
    assert counted == result
    assert "arn:aws" not in str(translated)
    assert "secret" not in str(translated)
    assert "\n" not in str(translated)


def test_an_entry_that_is_not_said_to_be_done_is_not_done() -> None:
    answer = {
        "Successful": [{"Id": "3"}],
        "Failed": [
            {"Id": "0", "SenderFault": True, "Code": "ReceiptHandleIsInvalid"},
            {"Id": "1", "SenderFault": True, "Code": "AWS.SimpleQueueService.MessageNotInflight"},
            {"Id": "2", "SenderFault": True, "Code": "AccessDenied"},
            {"Id": "4", "SenderFault": False, "Code": "InternalError"},
            {"Id": "5", "SenderFault": False, "Code": "ReceiptHandleIsInvalid"},
        ],
    }
    expected = [Answer.EXPIRED, Answer.EXPIRED, Answer.REFUSED, Answer.OK, Answer.FAILED, Answer.FAILED, Answer.FAILED]
    assert _answers(answer, 7) == expected
    assert _answers({}, 2) == [Answer.FAILED, Answer.FAILED]


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue", "eu-west-1"),
        ("https://sqs-fips.us-gov-west-1.amazonaws.com/123456789012/q", "us-gov-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/q", "cn-north-1"),
        ("https://eu-central-1.queue.amazonaws.com/123456789012/q", "eu-central-1"),
        ("https://queue.amazonaws.com/123456789012/q", None),
        ("https://vpce-0a-b.sqs.us-east-2.vpce.amazonaws.com/123456789012/q", "us-east-2"),
        ("https://sqs.us-east-1.api.aws/123456789012/q", "us-east-1"),
        ("http://127.0.0.1:9324/000000000000/login-queue", None),
        ("http://sqs.local:9324/000000000000/login-queue", None),
    ],
)
def test_the_region_is_that_of_the_queue(url: str, region: str | None) -> None:
    assert region_of(url) == region
