"""Bodies are packed into batches that SQS takes."""

import pytest

from dev_servers.queue_filling import BATCH_BYTES_MAX, batches


def test_ten_small_bodies_make_a_batch_and_order_is_kept() -> None:
    bodies = [str(number) for number in range(25)]
    packed = list(batches(bodies))
    assert [len(batch) for batch in packed] == [10, 10, 5]
    assert [body for batch in packed for body in batch] == bodies


def test_a_batch_never_holds_more_bytes_than_sqs_takes() -> None:
    half = "é" * (BATCH_BYTES_MAX // 4)  # two bytes each
    assert [len(batch) for batch in batches([half, half, half, "x"])] == [2, 2]
    assert [len(batch) for batch in batches([half + "x", half, half])] == [1, 2]


def test_the_largest_body_goes_alone() -> None:
    assert [len(batch) for batch in batches(["x", "x" * BATCH_BYTES_MAX, "x"])] == [1, 1, 1]


@pytest.mark.parametrize("body", ["", "x" * (BATCH_BYTES_MAX + 1)])
def test_a_body_that_sqs_never_takes_is_named_by_its_place(body: str) -> None:
    with pytest.raises(ValueError, match="message 2 has"):
        list(batches(["fine", body]))
