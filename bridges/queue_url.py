"""What SQS_QUEUE_URL may be. No error quotes it: it may hold a password."""

from typing import Final
from urllib.parse import SplitResult, urlsplit

FORM: Final = "expected the queue's full URL, as https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue"


def check_queue_url(url: str) -> None:
    """Raise ValueError, with what was expected, unless it is the URL of a queue."""
    if url.startswith("arn:"):
        raise ValueError(f"this is the queue's ARN; {FORM}")
    if any(character.isspace() for character in url):
        raise ValueError(f"there is a space in it; {FORM}")
    try:
        parts = urlsplit(url)
        problem = _problem(parts)
    except ValueError:  # a port that is none, or brackets without an IPv6 address; the message quotes them
        problem = "its host or port can't be read"
    if problem:
        raise ValueError(f"{problem}; {FORM}")


def _problem(parts: SplitResult) -> str | None:
    if "@" in parts.netloc:
        return "it must not hold a user or password: credentials come from boto3's own chain"
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "it does not begin with https:// and a host"
    if parts.port == 0:
        return "its port must be from 1 to 65535"
    if parts.query or parts.fragment:
        return "there is a ? or # in it"
    if not parts.path.strip("/") or parts.path.endswith("/"):
        return "it does not end with the queue's name"
    return None
