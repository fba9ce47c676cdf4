import pytest

from bridges.queue_url import FORM, check_queue_url


@pytest.mark.parametrize(
    "url",
    [
        "https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue",
        "http://127.0.0.1:9324/000000000000/logins.fifo",
        "http://[::1]:9324/queue/logins",
        "http://localstack:4566/logins",
    ],
)
def test_a_queues_url_is_taken(url: str) -> None:
    check_queue_url(url)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("login-queue", "does not begin with https://"),
        ("sqs.eu-west-1.amazonaws.com/123456789012/login-queue", "does not begin with https://"),
        ("arn:aws:sqs:eu-west-1:123456789012:login-queue", "ARN"),
        ("https://user:hunter2@sqs.example/1/q", "user or password"),
        ("https:///1/q", "and a host"),
        ("https://sqs.example:99999/1/q", "host or port"),
        ("https://sqs.example:hunter2/1/q", "host or port"),
        ("https://sqs.example:0/1/q", "port must be"),
        ("https://[sqs.example/1/q", "host or port"),
        ("https://sqs.example/1/q?Action=x", "there is a ?"),
        ("https://sqs.example/1/q/", "queue's name"),
        ("https://sqs.example", "queue's name"),
        ("https://sqs.example/1/q q", "a space"),
    ],
)
def test_what_is_no_queues_url_is_told_with_the_right_form_and_not_quoted(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match="expected the queue's full URL") as caught:
        check_queue_url(url)
    assert problem in str(caught.value)
    assert str(caught.value).endswith(FORM)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
