"""The disk of Postgres is full."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from crash.faults import fault
from crash.faults.postgres import RETRIES, prove_retries, total
from crash.system import FaultDidNotTakePlaceError, System


@fault("postgres-disk-full", "Rows that find no room wait until there is some; none becomes a dead letter.", recovery_seconds=15)
def disk_full(system: System) -> Iterator[str]:
    """``user_logins`` lies on a disk of its own, which something else fills. Needs root, for that disk."""
    with _small_disk(system.directory / "disk") as directory:
        tablespace = f"small_{secrets.token_hex(4)}"
        system.query(f"CREATE TABLESPACE {tablespace} LOCATION '{directory}'")
        try:
            system.query(f"ALTER TABLE user_logins SET TABLESPACE {tablespace}")
            system.wait_flowing()
            before = total(system, RETRIES, sqlstate_class="53")
            system.moment()
            system.query(f"CREATE TABLE ballast (filling text) WITH (autovacuum_enabled = off) TABLESPACE {tablespace}")
            try:
                _fill(system)
                prove_retries(system, before, sqlstate_class="53")
                system.rest(3)
            finally:
                system.query("DROP TABLE ballast")
            yield "the disk had no room left (53100)"
        finally:
            system.query("ALTER TABLE user_logins SET TABLESPACE pg_default")
            system.query(f"DROP TABLESPACE {tablespace}")


def _fill(system: System) -> None:
    try:
        system.query("INSERT INTO ballast SELECT repeat('x', 2000) FROM generate_series(1, 1000000)")
    except psycopg2.errors.DiskFull:
        return  # what it took until then stays taken
    raise FaultDidNotTakePlaceError("the disk is larger than it should be")


@contextmanager
def _small_disk(directory: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        raise FaultDidNotTakePlaceError("only root may mount a file system that can be filled")
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,uid=nobody,mode=0700", "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)
