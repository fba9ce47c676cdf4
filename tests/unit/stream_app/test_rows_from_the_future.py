"""A row whose sent at lies ahead has every later row looked up: nobody would see it but in what Postgres does."""

import pytest
import virtual_time
from partition_scenes import Scene
from structlog.testing import capture_logs

NOW_MS = 2_000_000_000_000  # of the scene's clock
DAY_MS = 86_400_000


def told_at_a_claim(it: Scene) -> list[tuple[int, int]]:
    async def scene() -> None:
        async with it.opened():
            pass

    with capture_logs() as logs:
        virtual_time.run(scene())
    return [(line["newest_ms"], line["each_row_looked_up_for_seconds"]) for line in logs if line["event"] == "rows_from_the_future"]


@pytest.mark.parametrize(("ahead_ms", "is_told"), [(-DAY_MS, False), (3_600_000, False), (DAY_MS, True)])
def test_a_claim_tells_of_rows_from_the_future(ahead_ms: int, is_told: bool) -> None:  # noqa: FBT001 - a column of the table above
    it = Scene()
    it.store.rows[str(NOW_MS + ahead_ms), "some id"] = 1

    assert told_at_a_claim(it) == ([(NOW_MS + ahead_ms, ahead_ms // 1_000)] if is_told else [])
    assert it.count("newest_sent_at_timestamp_seconds") == (NOW_MS + ahead_ms) / 1_000


def test_without_rows_there_is_nothing_to_tell() -> None:
    it = Scene()

    assert told_at_a_claim(it) == []
    assert it.count("newest_sent_at_timestamp_seconds") == 0
