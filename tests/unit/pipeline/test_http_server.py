"""What a request's head means, without a socket; what clients do to the server is in tests/integration/test_operations.py."""

from http import HTTPStatus

import pytest

from pipeline.http_server import Answer, RefusedRequestError, Request, parse_head, refusal, to_bytes


def test_a_request_is_its_method_path_query_and_headers() -> None:
    head = b"GET /metrics?name[]=up&x=1 HTTP/1.1\r\nHost: worker:6066\r\nACCEPT-encoding:  gzip \r\nEmpty:"
    headers = {"host": "worker:6066", "accept-encoding": "gzip", "empty": ""}
    assert parse_head(head, "10.0.0.1") == Request("GET", "/metrics", "name[]=up&x=1", headers, "10.0.0.1")


def test_the_form_that_proxies_send_names_the_same_page() -> None:
    assert parse_head(b"HEAD http://worker:6066/livez HTTP/1.0", "::1").path == "/livez"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"", HTTPStatus.BAD_REQUEST),
        (b"GET /livez", HTTPStatus.BAD_REQUEST),
        (b"GET  /livez HTTP/1.1", HTTPStatus.BAD_REQUEST),
        (b"GET http://[ HTTP/1.1", HTTPStatus.BAD_REQUEST),
        (b"PRI * HTTP/2.0", HTTPStatus.BAD_REQUEST),
        (b"GET /livez HTTP/1.1\r\nno colon", HTTPStatus.BAD_REQUEST),
        (b"GET /livez HTTP/1.1\r\nHost : x", HTTPStatus.BAD_REQUEST),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n folded: y", HTTPStatus.BAD_REQUEST),
        (b"\x16\x03\x01\x02\x00\x01", HTTPStatus.BAD_REQUEST),
        (b"POST /livez HTTP/1.1", HTTPStatus.METHOD_NOT_ALLOWED),
        (b"DELETE /metrics HTTP/1.1", HTTPStatus.METHOD_NOT_ALLOWED),
    ],
)
def test_what_is_no_request_of_ours_is_refused(head: bytes, status: HTTPStatus) -> None:
    with pytest.raises(RefusedRequestError) as refused:
        parse_head(head, "10.0.0.1")
    assert refused.value.status is status


def test_an_answer_says_how_long_it_is_and_that_it_is_the_last() -> None:
    head, _, body = to_bytes(Answer(HTTPStatus.OK, b"all is well\n", (("Content-Type", "text/plain"),))).partition(b"\r\n\r\n")
    start, *headers = head.split(b"\r\n")
    assert start == b"HTTP/1.1 200 OK"
    assert {b"Content-Type: text/plain", b"Content-Length: 12", b"Connection: close"} < set(headers)
    assert body == b"all is well\n"


def test_an_answer_to_head_is_the_same_without_its_body() -> None:
    answer = Answer(HTTPStatus.OK, b"all is well\n")
    whole, head = to_bytes(answer), to_bytes(answer, with_body=False)
    assert whole.endswith(b"\r\n\r\nall is well\n")
    assert head.endswith(b"\r\n\r\n")
    assert b"Content-Length: 12" in head


def test_a_method_that_is_refused_is_told_which_ones_are_not() -> None:
    assert ("Allow", "GET, HEAD") in refusal(HTTPStatus.METHOD_NOT_ALLOWED).headers
