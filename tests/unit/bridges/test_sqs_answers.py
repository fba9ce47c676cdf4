"""What SQS answers, from its JSON."""

import subprocess
import sys
from pathlib import Path

from bridges.sqs_answers import ReceiveAnswer, decode

PROJECT = Path(__file__).parents[3]

FIRST_USE_BY_EIGHT_THREADS = """
import importlib, sys, threading
from bridges import sqs_answers

sys.setswitchinterval(1e-6)
answer = (
    b'{"Messages": [{"MessageId": "m", "ReceiptHandle": "r", "Body": "b", "Attributes": {"SentTimestamp": "1"},'
    b' "MessageAttributes": {"a": {"StringValue": "x"}}}]}'
)


def use(together):
    together.wait()
    assert sqs_answers.decode(answer, sqs_answers.ReceiveAnswer).messages[0].body == "b"


for _ in range(100):
    importlib.reload(sqs_answers)  # new types, which nobody has used
    together = threading.Barrier(8)
    threads = [threading.Thread(target=use, args=(together,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_receivers_may_all_read_their_first_answer_at_once() -> None:
    """In a process of its own: msgspec would end it (see the module)."""
    ended = subprocess.run(
        [sys.executable, "-c", FIRST_USE_BY_EIGHT_THREADS], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_half_a_surrogate_pair_is_read_all_the_same() -> None:
    answer = decode(b'{"Messages": [{"MessageId": "m", "ReceiptHandle": "r", "Body": "\\ud800"}]}', ReceiveAnswer)
    assert answer.messages[0].body == "\ud800"
