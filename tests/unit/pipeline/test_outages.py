from pipeline.outages import Outage, OutageEvent


def test_an_outage_is_told_at_its_beginning_now_and_then_and_at_its_end() -> None:
    outage = Outage(repeat_seconds=60, quiet_seconds=5)
    assert outage.worked(0) is None
    assert outage.failed(10, "Down") == OutageEvent("failing", 1, 0.0, "Down")
    assert (outage.works, outage.code) == (False, "Down")
    assert outage.failed(69.9, "Down") is None
    assert outage.failed(70, "Other") == OutageEvent("still_failing", 3, 60.0, "Other")
    assert outage.worked(71) is None, "not yet: it might fail again"
    assert (outage.works, outage.code) == (True, "")
    assert outage.tick(74.9) is None
    assert outage.tick(75) == OutageEvent("recovered", 3, 61.0, "Other")
    assert outage.tick(76) is None
    assert outage.failed(80, "Down") == OutageEvent("failing", 1, 0.0, "Down")


def test_single_failures_among_many_successes_are_one_outage() -> None:
    outage, events = Outage(repeat_seconds=60, quiet_seconds=5), []
    for second in range(100):
        events += [outage.failed(second, "Throttled"), outage.worked(second + 0.5)]
    assert [event.kind for event in events if event] == ["failing", "still_failing"]


def test_no_end_while_it_fails() -> None:
    outage = Outage(quiet_seconds=5)
    outage.failed(0, "Down")
    assert outage.tick(1_000) is None
