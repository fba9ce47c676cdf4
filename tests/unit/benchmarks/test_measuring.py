"""How figures are taken: readings over time, snapshots, standstills, topics, and peers that fail."""

import os
import subprocess
import sys
import time
from io import BytesIO
from itertools import islice

import pytest

from benchmarks.feeder import at_rate, endless_messages
from benchmarks.filling import MESSAGES_PER_MS, each_twice, login_messages, with_dead_letters
from benchmarks.growth import cases
from benchmarks.handover import longest_standstill
from benchmarks.latency import delays
from benchmarks.limits import parts
from benchmarks.memory import growth, rate
from benchmarks.meter import Meter, cpu_seconds, interpolated, tree
from benchmarks.report import Contender, Quantity
from benchmarks.sender import batch_size
from benchmarks.session import Entry, NoFiguresError, Progress, in_turn, wanted
from benchmarks.visibility import Snapshot, visible_at
from dev_servers.process import DevServerError

READINGS = [(10.0, 1.0), (12.0, 5.0), (13.0, 5.0)]
RATE = Quantity("rate", "rows/s")


@pytest.mark.parametrize(
    ("at", "value"), [(9.0, 1.0), (10.0, 1.0), (11.0, 3.0), (12.0, 5.0), (12.5, 5.0), (13.0, 5.0), (99.0, 5.0)]
)
def test_between_readings_a_value_is_on_the_straight_line(at: float, value: float) -> None:
    assert interpolated(READINGS, at) == value


def test_a_meter_sees_what_a_child_of_a_process_uses_up() -> None:
    """The shell waits; its child works."""
    work = "import time\nend = time.process_time() + 0.6\nwhile time.process_time() < end: pass\nprint('done', flush=True)\ninput()"
    shell = ["/bin/sh", "-c", '"$0" -c "$1"; true', sys.executable, work]
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        since = time.time()
        with Meter({"shell": process.pid, "nobody": os.getpid()}, seconds=0.02) as meter:
            assert process.stdout.readline() == b"done\n"
            assert len(list(tree(process.pid))) == 2
        process.stdin.close()
    used = meter.cpu("shell", since, time.time())
    assert 0.4 < used < 2.0
    assert meter.resident_most("shell") > 2_000_000


def test_seconds_do_not_get_lost_while_children_end() -> None:
    """They pass to the parent at that moment: read before it from the parent, and after it not from the child."""
    work = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \"$0\" -Sc 'sum(range(1_000_000))'; done; read _"
    with subprocess.Popen(["/bin/sh", "-c", work, sys.executable], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        readings = [cpu_seconds(process.pid)]
        while len(list(tree(process.pid))) > 1 or readings[-1] < 0.1:
            readings.append(cpu_seconds(process.pid))
        process.stdin.close()
    assert len(readings) > 100
    assert readings == sorted(readings)


def test_a_tree_that_is_gone_keeps_what_it_had_used() -> None:
    with subprocess.Popen([sys.executable, "-c", "sum(range(10_000_000)); input()"], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        with Meter({"gone": process.pid}, seconds=0.02) as meter:
            deadline = time.monotonic() + 30
            while meter.cpu("gone", 0, time.time()) == 0 and time.monotonic() < deadline:
                time.sleep(0.02)
            process.stdin.close()
            process.wait()
    assert meter.cpu("gone", 0, time.time()) > 0


def test_a_transaction_is_visible_from_the_first_snapshot_that_has_it() -> None:
    snapshots = [
        Snapshot.parsed(1.0, "100:100:"),
        Snapshot.parsed(2.0, "100:103:100,101"),
        Snapshot.parsed(3.0, "101:103:101"),
        Snapshot.parsed(4.0, "104:104:"),
    ]
    assert [visible_at(snapshots, transaction) for transaction in (99, 100, 101, 102, 103)] == [1.0, 3.0, 4.0, 2.0, 4.0]
    with pytest.raises(LookupError):
        visible_at(snapshots, 104)


def test_delays_are_those_after_the_warm_up_in_order_of_size() -> None:
    snapshots = [Snapshot.parsed(10.5, "5:6:"), Snapshot.parsed(13.0, "8:8:")]
    rows = [(10.0, 5), (12.0, 6), (12.75, 7), (11.9, 6)]
    assert delays(rows, snapshots, warm_up_seconds=2.0) == [0.25, 1.0]


@pytest.mark.parametrize(
    ("moves", "longest"),
    [
        ([1.0, 2.0, 9.0, 10.5, 11.0], 7.0),  # it began before the event and ended after it
        ([1.0, 8.0, 8.5, 9.0, 10.0, 11.0], 1.0),  # the long one was over before
        ([1.0, 8.5, 9.0], 2.5),  # it did not move again
        ([], 3.0),  # it never moved
    ],
)
def test_the_longest_standstill_is_one_that_ends_after_the_event(moves: list[float], longest: float) -> None:
    assert longest_standstill(moves, since=8.5, until=11.5) == longest


def test_made_up_messages_are_the_same_each_time_and_in_the_order_of_the_index() -> None:
    messages = list(login_messages(100))
    assert messages == list(login_messages(100))
    assert len({message.message_id for message in messages}) == 100
    assert [message.sent_at_ms for message in messages] == sorted(message.sent_at_ms for message in messages)
    assert messages[-1].sent_at_ms - messages[0].sent_at_ms == 100 // MESSAGES_PER_MS - 1


def test_each_message_comes_twice_some_messages_apart() -> None:
    messages = list(login_messages(10))
    twice = list(each_twice(messages, distance=3))
    assert len(twice) == 20
    assert all(twice.count(message) == 2 for message in messages)
    first = messages[0]
    assert [number for number, message in enumerate(twice) if message == first] == [0, 4]


def test_one_message_in_so_many_is_of_another_kind() -> None:
    messages = list(login_messages(10))
    mixed = list(with_dead_letters(messages, 4))
    assert [place for place, message in enumerate(mixed) if message != messages[place]] == [3, 7]
    assert "user_id" not in mixed[3].body


def test_each_case_of_growth_knows_how_many_rows_its_messages_make() -> None:
    for case in cases(1_000):
        messages = list(case.messages(1_000))
        assert len(messages) == 1_000
        rows = {message.message_id for message in messages if "user_id" in message.body}
        assert len(rows) == case.rows(1_000), case.name


def test_endless_messages_never_repeat_an_id() -> None:
    ids = [message.message_id for message in islice(endless_messages(), 60_000)]
    assert len(set(ids)) == len(ids)


def test_a_steady_rate_makes_up_for_a_late_question(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    due = at_rate(50.0)
    assert due(0) == 0
    clock[0] += 2.0
    assert due(0) == 100
    assert due(90) == 10


@pytest.mark.parametrize(("per_second", "size"), [(1, 1), (100, 1), (250, 2), (1_000, 10), (9_000, 10)])
def test_a_fast_sender_sends_several_together(per_second: float, size: int) -> None:
    assert batch_size(per_second) == size


@pytest.mark.parametrize(("size", "expected"), [(2, [b"a\nb\n", b"c\n"]), (3, [b"a\nb\nc\n"]), (0, [b"a\nb\nc\n"])])
def test_rows_are_copied_so_many_at_a_time(size: int, expected: list[bytes]) -> None:
    assert [part.read() for part in parts(BytesIO(b"a\nb\nc\n"), size)] == expected


def test_growth_is_the_last_third_less_the_first() -> None:
    assert growth([(float(second), 100.0 + 10 * second) for second in range(10)]) == 60.0
    assert growth([(0.0, 5.0), (1.0, 5.0), (1.5, 90.0), (2.0, 5.0), (3.0, 5.0)]) == 0.0


def test_a_rate_is_of_a_count_between_two_moments() -> None:
    assert rate([(0.0, 0.0), (10.0, 1_000.0), (20.0, 1_500.0)], 5.0, 15.0) == 75.0


def entry(name: str, *outcomes: float | Exception, missing: str | None = None) -> Entry:
    """One whose runs end like this, one after the other."""
    left = list(outcomes)

    def measure(_: object) -> dict[str, float]:
        now = left.pop(0)
        if isinstance(now, Exception):
            raise now
        return {"rate": now}

    return Entry(Contender(name), measure, missing)


def test_all_take_turns_and_a_run_that_fails_has_no_figures(capsys: pytest.CaptureFixture[str]) -> None:
    entries = [
        entry("ours", 1.0, NoFiguresError("9 rows instead of 10", "the end of its log")),
        entry("theirs", DevServerError("theirs", "could not be started"), 2_000.0),
        entry("absent", missing="it is not installed"),
    ]
    runs = in_turn(Progress(), entries, 2, [RATE])
    assert [(run.round, run.contender, dict(run.figures), run.problem) for run in runs] == [
        (1, "ours", {"rate": 1.0}, None),
        (1, "theirs", {}, "theirs: could not be started"),
        (1, "absent", {}, "not run: it is not installed"),
        (2, "ours", {}, "9 rows instead of 10"),
        (2, "theirs", {"rate": 2_000.0}, None),
    ]
    said = capsys.readouterr().out
    assert "the end of its log" in said
    assert "round 2, theirs: 2,000 rows/s" in said


def test_only_what_is_named_is_measured() -> None:
    entries = [entry("Ours"), entry("theirs"), entry("others")]
    assert [one.contender.name for one in wanted(entries, ["ours"])] == ["Ours"]
    assert [one.contender.name for one in wanted(entries, ["THE", "our"])] == ["Ours", "theirs", "others"]
    assert len(wanted(entries, [])) == 3
