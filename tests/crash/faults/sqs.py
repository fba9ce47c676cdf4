"""SQS fails in whole and in part: what it answers instead, and when it does not."""

from collections.abc import Iterator

from crash.faults import fault
from crash.sqs_front import GARBAGE, RESET, Answer, Request, Rule, each, error, half_refused, in_turn
from crash.system import Setup, System

PROXIED = Setup(proxied=("sqs",))
FAILING_SECONDS = 5.0
LATE_SECONDS = 30.0


def failing(system: System, *rules: Rule, seconds: float = FAILING_SECONDS) -> float:
    """Let SQS answer by these rules for so long; how many requests they answered."""
    front = system.servers.sqs_front
    before = front.interfered.total()
    system.moment()
    front.rules += rules
    try:
        system.rest(seconds)
        return system.prove("requests met it", lambda: front.interfered.total() - before)
    finally:
        front.heal()
        system.mended()


def noticed(system: System) -> None:
    """The bridge has seen a failure, and waited before it asked again."""
    (bridge,) = system.bridges
    system.prove("the bridge backs off", lambda: system.metric(bridge, "bridge_backoffs_total", dependency="sqs"))


@fault(
    "sqs-answers-500",
    "While SQS answers 500, the bridge asks less and less often; nothing is taken for deleted.",
    recovery_seconds=25,
    setup=PROXIED,
    soak=True,
)
def answers_500(system: System) -> Iterator[str]:
    """To everything."""
    requests = failing(system, each(error(500, "InternalError")))
    noticed(system)
    yield f"{requests:g} requests were answered so"


@fault(
    "sqs-answers-503",
    "While SQS answers 503, the same.",
    recovery_seconds=25,
    setup=PROXIED,
    soak=True,
)
def answers_503(system: System) -> Iterator[str]:
    """To everything."""
    requests = failing(system, each(error(503, "ServiceUnavailable")))
    noticed(system)
    yield f"{requests:g} requests were answered so"


@fault(
    "sqs-throttles",
    "While SQS throttles, the bridge asks less and less often.",
    recovery_seconds=25,
    setup=PROXIED,
    soak=True,
)
def throttles(system: System) -> Iterator[str]:
    """Every request."""
    (bridge,) = system.bridges
    requests = failing(system, each(error(400, "RequestThrottled")))
    system.prove("the bridge counts it", lambda: system.metric(bridge, "bridge_sqs_requests_total", result="throttled"))
    yield f"{requests:g} requests were answered so"


@fault(
    "sqs-refuses-half-of-a-batch",
    "Of a batch that SQS carries out in half, the other half is asked for again.",
    recovery_seconds=25,
    setup=PROXIED,
    soak=True,
)
def refuses_half_of_a_batch(system: System) -> Iterator[str]:
    """Of deletes and extensions alike."""
    (bridge,) = system.bridges
    requests = failing(system, half_refused)
    system.prove("deletes failed", lambda: system.metric(bridge, "bridge_messages_deleted_total", result="failed"))
    yield f"{requests:g} batches were answered so"


@fault(
    "sqs-answers-garbage",
    "An answer that is none of SQS's counts as a failure: no message is made of it, none is taken for deleted.",
    recovery_seconds=25,
    setup=PROXIED,
    soak=True,
)
def answers_garbage(system: System) -> Iterator[str]:
    """HTTP 200, and no JSON, or JSON of another shape, or half of an answer, in turn."""
    requests = failing(system, in_turn(*GARBAGE))
    noticed(system)
    yield f"{requests:g} requests were answered so"


@fault(
    "sqs-slow",
    "What SQS has done and answers 30 s later is asked for again; messages that nobody got are visible again.",
    recovery_seconds=45,
    setup=PROXIED,
    soak=True,
)
def slow(system: System) -> Iterator[str]:
    """It does at once what it is asked, and answers half a minute later; the bridge waits less."""
    front = system.servers.sqs_front

    def late(request: Request) -> Answer:
        answer = request.forward()
        front.hold(LATE_SECONDS)
        return answer

    requests = failing(system, late, seconds=LATE_SECONDS + 2)
    noticed(system)
    yield f"{requests:g} requests were answered after 30 s"


@fault(
    "sqs-resets-connections",
    "A connection that SQS resets is made anew.",
    recovery_seconds=25,
    setup=PROXIED,
    soak=True,
)
def resets_connections(system: System) -> Iterator[str]:
    """Whatever comes over it."""
    requests = failing(system, each(RESET))
    noticed(system)
    yield f"{requests:g} requests ended so"
