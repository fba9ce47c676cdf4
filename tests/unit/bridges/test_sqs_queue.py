"""What needs no server: how answers are understood. Requests are tested on real servers."""

import msgspec
import pytest

from bridges.sqs_answers import BatchAnswer
from bridges.sqs_queue import Answer, _answers, region_of


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
    assert _answers(msgspec.convert(answer, BatchAnswer), 7) == expected
    assert _answers(BatchAnswer(), 2) == [Answer.FAILED, Answer.FAILED]


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
