"""Whether a position fits the topic that is there. Where it does not, a person has to say what is meant: never a silent jump."""

from pipeline.errors import FatalError
from stream_app.positions import Claim


def check_position(claim: Claim, position: int, *, topic_id: str | None, log_start: int, log_end: int) -> None:
    """Raise :class:`FatalError`, with the command to go on, when the position is another topic's or past the log's end."""
    partition = claim.partition
    place = f"the position {position} of {partition.topic}/{partition.partition}"
    if is_other_topic(claim, topic_id):
        problem = f"{place} belongs to the topic {claim.topic_id}; {topic_id} is there: it was deleted and made anew"
    elif position > log_end:
        problem = f"{place} is past the log's end {log_end}: the topic was made anew or lost records"
    else:
        return
    raise FatalError(
        f"{problem}. If that was meant: faust -A stream_app positions reset --topic {partition.topic}"
        f" --partition {partition.partition} --to {log_start} --reason WHY"
    )


def is_other_topic(claim: Claim, topic_id: str | None) -> bool:
    """Whether the topic that is there is not the one that the claim's position belongs to. Without an id nobody knows."""
    return claim.topic_id is not None and topic_id is not None and claim.topic_id != topic_id
