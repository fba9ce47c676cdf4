import time
from calendar import timegm
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from bridges.aws_signature import Destination, signed_request

QUEUE_URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue"


def boto3_request(
    region: str, endpoint_url: str | None, secret_key: str, token: str | None, body: dict[str, Any]
) -> AWSPreparedRequest:
    """What boto3 would send."""
    made: list[AWSPreparedRequest] = []

    class Nothing:
        def stream(self) -> list[bytes]:
            return [b"{}"]

    def on_send(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        made.append(request)
        return AWSResponse(request.url, 200, {}, Nothing())  # type: ignore[arg-type]

    client = boto3.session.Session().client(
        "sqs",
        region_name=region,
        endpoint_url=endpoint_url,
        aws_access_key_id="AKIDMADEUP",
        aws_secret_access_key=secret_key,
        aws_session_token=token,
    )
    client.meta.events.register("before-send.sqs", on_send)  # type: ignore[arg-type]
    client.delete_message_batch(**body)
    return made[0]


def as_text(value: str | bytes) -> str:
    """Stubs say that a header is text; some that botocore makes are bytes."""
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize(
    ("region", "endpoint_url", "host", "secret_key", "token"),
    [
        ("eu-west-1", None, "sqs.eu-west-1.amazonaws.com", "made/up+secret", None),
        ("eu-west-1", None, "sqs.eu-west-1.amazonaws.com", "made/up+secret", "made/up+token=="),
        ("eu-west-1", None, "sqs.eu-west-1.amazonaws.com", "another secret", None),
        ("us-gov-west-1", None, "sqs.us-gov-west-1.amazonaws.com", "made/up+secret", "token"),
        ("us-east-1", "http://127.0.0.1:9324", "127.0.0.1:9324", "made/up+secret", None),
    ],
)
def test_it_is_the_signature_of_boto3(region: str, endpoint_url: str | None, host: str, secret_key: str, token: str | None) -> None:
    theirs = boto3_request(
        region, endpoint_url, secret_key, token, {"QueueUrl": QUEUE_URL, "Entries": [{"Id": "0", "ReceiptHandle": "café ✓"}]}
    )
    their_headers = {name.lower(): as_text(value) for name, value in theirs.headers.items()}
    body = theirs.body
    assert isinstance(body, bytes)

    ours = signed_request(
        Destination(host, region, "sqs", "AmazonSQS.", "login-stream-bridge/1"),
        "DeleteMessageBatch",
        body,
        access_key="AKIDMADEUP",
        secret_key=secret_key,
        session_token=token,
        now=timegm(time.strptime(their_headers["x-amz-date"], "%Y%m%dT%H%M%SZ")),
    )

    head, _, our_body = ours.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    our_headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert first == "POST / HTTP/1.1"
    assert our_body == body
    assert our_headers["host"] == host
    compared = {"authorization", "content-length", "content-type", "x-amz-date", "x-amz-target", "x-amzn-query-mode"}
    compared |= {"x-amz-security-token"} if token else set()
    assert {name: our_headers.get(name) for name in compared} == {name: their_headers.get(name) for name in compared}
    assert ("x-amz-security-token" in our_headers) == (token is not None)
