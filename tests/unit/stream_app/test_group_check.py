"""What a group that has not begun is told, beside one that has. The query itself: tests/integration/test_batch_writer.py."""

import pytest

from pipeline.errors import FatalError
from stream_app.group_check import check_group


class MadeUpGroups:
    def __init__(self, *groups: str) -> None:
        self.groups = list(groups)

    async def other_groups(self, topic: str) -> list[str]:
        assert topic == "logins"
        return self.groups


async def test_the_only_group_and_one_that_has_begun_pass() -> None:
    await check_group(MadeUpGroups(), consumer_group="mine", topic="logins")


async def test_the_others_are_named_with_the_command_to_go_on() -> None:
    with pytest.raises(FatalError) as raised:
        await check_group(MadeUpGroups("stream\x1b", "b", "c", "d"), consumer_group="straem", topic="logins")
    assert str(raised.value) == (
        "CONSUMER_GROUP: 'straem' has no position for logins, and 'stream\\x1b', 'b', 'c' has: correct it; or, if the group has a"
        " new name: faust -A stream_app positions adopt --topic logins --from stream\\x1b --group straem --reason WHY"
    )
