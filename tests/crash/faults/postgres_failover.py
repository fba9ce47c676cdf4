"""Postgres fails over to a standby that does not have all of it."""

from collections.abc import Iterator
from contextlib import closing

import psycopg2

from crash.faults import fault
from crash.faults.postgres_sessions import replace_workers
from crash.servers import Servers
from crash.standby import PostgresWithStandby
from crash.system import System
from dev_servers.ports import HOST

MISSED = 500
"""At least so many rows and dead letters are lost with the primary."""


@fault(
    "postgres-failover",
    "What a standby has missed when it takes over is read again from Kafka: rows and position went back together.",
    recovery_seconds=20,
    servers=lambda directory: Servers(directory, postgres=PostgresWithStandby(directory / "postgres")),
)
def failover(system: System) -> Iterator[str]:
    """The workers know both servers and take the one that can be written to."""
    postgres = system.servers.postgres
    assert isinstance(postgres, PostgresWithStandby)
    standby = postgres.standby.start()
    primary_dsn = system.dsn
    database = primary_dsn.rpartition("/")[2]
    both = primary_dsn.replace(f":{postgres.port}/", f":{postgres.port},{HOST}:{standby.port}/")
    replace_workers(system, POSTGRES_DSN=f"{both}?target_session_attrs=read-write")
    system.moment()
    standby.part()
    left_behind = _finished(standby.dsn_of(database))
    system.prove(f"the standby misses {MISSED}", lambda: system.finished() >= left_behind + MISSED)
    missed = system.finished() - _finished(standby.dsn_of(database))
    postgres.fail_over()
    system.dsn = standby.dsn_of(database)
    yield f"the standby took over without the last {missed:,} rows and dead letters"
    assert any("position_changed" in system.log(name) for name in system.workers)


def _finished(dsn: str) -> int:
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT (SELECT count(*) FROM user_logins) + (SELECT count(*) FROM dead_letters)")
        row = cursor.fetchone()
        assert row is not None
        return int(row[0])
