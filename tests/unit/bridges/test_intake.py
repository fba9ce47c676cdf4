from bridges.intake import Intake


def test_an_idle_queue_is_asked_by_one_receiver() -> None:
    intake = Intake(receivers=4, messages_max=1_000, bytes_max=1_000)
    assert [intake.allows(index, 0, 0) for index in range(4)] == [True, False, False, False]


def test_each_receive_that_brings_something_lets_one_more_ask_and_each_empty_one_one_fewer() -> None:
    intake, active = Intake(3, 1_000, 1_000), []
    for brought in (1, 10, 10, 0, 0, 0, None, 5):
        intake.asked()
        intake.answered(brought)
        active.append(intake.active)
    assert active == [2, 3, 3, 2, 1, 1, 1, 2]


def test_open_requests_count_as_the_most_that_they_may_bring() -> None:
    intake = Intake(receivers=4, messages_max=35, bytes_max=1_000)
    intake.active = 4
    assert intake.allows(0, messages=25, size=0)
    assert not intake.allows(0, messages=26, size=0)
    intake.asked()
    assert intake.allows(1, messages=15, size=0)
    assert not intake.allows(1, messages=16, size=0)
    intake.answered(None)
    assert intake.allows(1, messages=25, size=0)


def test_the_bound_on_bytes_stops_the_next_request() -> None:
    intake = Intake(receivers=1, messages_max=1_000, bytes_max=500)
    assert intake.allows(0, 1, 499)
    assert not intake.allows(0, 1, 500)


def test_who_has_asked_and_got_no_answer_is_counted() -> None:
    intake, asking = Intake(3, 1_000, 1_000), [0]
    intake.asked()
    intake.asked()
    asking.append(intake.asking)
    intake.answered(0)
    asking.append(intake.asking)
    intake.answered(None)
    asking.append(intake.asking)
    assert asking == [0, 2, 1, 0]
