"""A consumer group that has not begun, beside one that has: mostly a CONSUMER_GROUP that is misspelt, or has a new name."""

from typing import Protocol

from pipeline.errors import FatalError
from pipeline.printable import printable

GROUPS_NAMED_MAX = 3


class Groups(Protocol):
    """Who has positions."""

    async def other_groups(self, topic: str) -> list[str]:
        """Whose positions for the topic are there, where those of the group that asks are not."""


async def check_group(groups: Groups, *, consumer_group: str, topic: str) -> None:
    """Raise :class:`FatalError`, with the command to go on, when the topic would be read anew beside a group that has it.

    That would bring back rows that were deleted since, and hold the new ones up behind all the old.
    """
    others = await groups.other_groups(topic)
    if others:
        named = ", ".join(f"'{printable(group)}'" for group in others[:GROUPS_NAMED_MAX])
        raise FatalError(
            f"CONSUMER_GROUP: {consumer_group!r} has no position for {topic}, and {named} has: correct it; or, if the group has a"
            f" new name: faust -A stream_app positions adopt --topic {topic} --from {printable(others[0])} --group {consumer_group}"
            " --reason WHY"
        )
