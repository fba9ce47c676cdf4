"""The order within each message group of a FIFO queue.

Promise: of one group, only the head is in Kafka's hands; the next follows when the head is acknowledged. So when the head fails, no
later message of its group can be in the topic before it. It would break if a head were passed over: whoever gives a head up must
release its followers, and SQS gives them again, in order, after the head.
"""

from collections import deque

from bridges.message import Message


class MessageGroups:
    """The groups that have messages held. Not thread-safe: the caller serialises the calls."""

    def __init__(self) -> None:
        self._followers: dict[str, deque[Message]] = {}  # by group id; the head itself is not in it

    def __len__(self) -> int:
        return len(self._followers)

    def admit(self, message: Message) -> bool:
        """Take in a message in the order of its receive. True: it is its group's head, produce it now. False: it waits."""
        if message.group_id is None:
            return True
        followers = self._followers.get(message.group_id)
        if followers is None:
            self._followers[message.group_id] = deque()
            return True
        followers.append(message)
        return False

    def advance(self, head: Message) -> Message | None:
        """The head is acknowledged: the next of its group, which is the head from now on."""
        if head.group_id is None:
            return None
        followers = self._followers[head.group_id]
        if followers:
            return followers.popleft()
        del self._followers[head.group_id]
        return None

    def give_up(self, head: Message) -> list[Message]:
        """The head will not be produced: its followers, which must be released, not produced. The group begins anew."""
        if head.group_id is None:
            return []
        return list(self._followers.pop(head.group_id))
