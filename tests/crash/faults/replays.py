"""`dead-letters replay` is interrupted: killed itself, or Kafka, or the worker that reads what it sent."""

from collections.abc import Callable, Iterator
from contextlib import closing
from signal import Signals

import psycopg2

from crash.faults import fault
from crash.system import Setup, System
from dev_servers.kafka import Kafka
from dev_servers.process import ChildProcess
from stream_app.commands.keys import DEAD_LETTER_PRIVATE

REFUSED_ROWS = 40
"""So many have become dead letters before the constraint goes."""
COMMAND = ("dead-letters", "replay", "--yes", "--reason-code", "row_refused")
SLOW_SECONDS = 1.0
"""Each way between the command and Kafka: long enough for what is to happen while it waits for the acknowledgement."""
ENDED_SECONDS = 30.0

_LETTERS = "SELECT count(*) FROM dead_letters WHERE reason = 'row_refused'"
_BEGUN = f"{_LETTERS} AND replays > 0"
_OPEN = f"{_LETTERS} AND resolution IS NULL"
_NOT_YET_ROWS = f"{_LETTERS} AND (resolution, replay_ended) IS DISTINCT FROM ('replayed', 'row')"
_MARK_WAITS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name LIKE '%replay%'"""


def _count(system: System, statement: str) -> int:
    return int(system.query(statement)[0][0])


def _refuse_some(system: System) -> int:
    """Have good logins refused by a constraint that comes and goes under load; how many became dead letters."""
    system.query("ALTER TABLE user_logins ADD CONSTRAINT some_users CHECK (hashtext(user_id::text) % 8 <> 0) NOT VALID")
    system.wait("rows are refused", lambda: _count(system, _LETTERS) >= REFUSED_ROWS)
    system.query("ALTER TABLE user_logins DROP CONSTRAINT some_users")
    for workload in system.workloads:
        workload.pause()
    assert system.drained_within(ENDED_SECONDS)
    letters = _count(system, _LETTERS)
    system.restore_load()
    return letters


def _start_replay(system: System, bootstrap_servers: str) -> ChildProcess:
    """The command as a user starts it; it is not waited for."""
    keyset = system.keys_directory / DEAD_LETTER_PRIVATE.name
    return system.processes.start_command(
        "replay", *COMMAND, KAFKA_BOOTSTRAP_SERVERS=bootstrap_servers, DEAD_LETTER_PRIVATE_KEYSET_FILE=str(keyset)
    )


def _replay_to_the_end(system: System) -> None:
    """The same command again, as its help says; then every letter ends as a row."""
    again = _start_replay(system, system.servers.kafka.bootstrap_servers)
    code = again.wait(ENDED_SECONDS)
    again.kill()
    assert code == 0, f"the command ended with {code}"
    system.wait("every letter ends as a row", lambda: _count(system, _NOT_YET_ROWS) == 0, ENDED_SECONDS)


def _interrupted(system: System, interrupt: Callable[[System, ChildProcess], None]) -> int:
    letters = _refuse_some(system)
    system.servers.kafka_proxy.slow_down(delay_seconds=SLOW_SECONDS)
    first = _start_replay(system, f"127.0.0.1:{system.servers.kafka_proxy.port}")
    try:
        system.prove("its letters are marked as begun", lambda: _count(system, _BEGUN) == letters)
        interrupt(system, first)
    finally:
        system.servers.kafka_proxy.heal()
        first.kill()
    system.mended()
    _replay_to_the_end(system)
    return letters


@fault(
    "replay-killed-before-its-mark",
    "A replay that is killed after Kafka's acknowledgement has closed no letter; workers close them, the same command ends the"
    " rest, and each is one row.",
    recovery_seconds=30,
)
def killed_before_its_mark(system: System) -> Iterator[str]:
    """Another session's lock on the letters holds it up between acknowledgement and mark."""

    def kill(system: System, command: ChildProcess) -> None:
        with closing(psycopg2.connect(system.dsn)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT message_id FROM dead_letters WHERE reason = 'row_refused' FOR UPDATE")
            system.prove("Kafka has the records and its mark waits", lambda: _count(system, _MARK_WAITS))
            command.send_signal(Signals.SIGKILL)
            command.wait(ENDED_SECONDS)
            assert _count(system, _OPEN) == _count(system, _LETTERS), "nothing is closed"

    yield f"SIGKILL with {_interrupted(system, kill)} letters sent and none closed"


@fault(
    "replay-kafka-killed",
    "A replay while Kafka is killed closes only what was acknowledged; the same command again ends it, and each is one row.",
    recovery_seconds=60,
)
def kafka_killed(system: System) -> Iterator[str]:
    """SIGKILL to Kafka with the records under way."""

    def kill(system: System, command: ChildProcess) -> None:
        kafka = system.servers.kafka
        assert isinstance(kafka, Kafka)
        kafka.kill()
        try:
            assert _count(system, _OPEN) == _count(system, _LETTERS), "nothing is closed before it is acknowledged"
        finally:
            kafka.start()
        system.servers.kafka_proxy.heal()
        system.wait("the command has ended", lambda: command.returncode is not None, 60)

    yield f"SIGKILL with {_interrupted(system, kill)} letters under way"


@fault(
    "replay-workers-killed",
    "Workers that are killed with replayed records in hand leave them to the next: each is one row, each letter closed.",
    recovery_seconds=30,
    setup=Setup(settings={"WINDOW_SECONDS": "5"}),
)
def workers_killed(system: System) -> Iterator[str]:
    """All of them, when the letters are closed and none of their rows is written: a window stays open for 5 s."""

    def kill(system: System, command: ChildProcess) -> None:
        system.servers.kafka_proxy.heal()
        system.prove("its letters are closed", lambda: _count(system, _OPEN) == 0)
        names = system.workers
        system.freeze(*names)
        system.prove("they are not rows yet", lambda: _count(system, _NOT_YET_ROWS))
        system.kill(*names)
        for name in names:
            system.start_worker(name)
        assert command.wait(ENDED_SECONDS) == 0

    letters = _interrupted(system, kill)
    yield f"SIGKILL to all workers with {letters} letters replayed"
