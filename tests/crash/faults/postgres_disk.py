"""The disk of Postgres is full."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from errno import ENOSPC
from pathlib import Path
from typing import Self

import psycopg2

from crash.faults import fault
from crash.faults.postgres import RETRIES, prove_retries, total
from crash.servers import POSTGRES_SETTINGS, Servers
from crash.system import FaultDidNotTakePlaceError, System
from dev_servers.postgres import Postgres

DATA_MEBIBYTES = 256
"""For the data directory: several databases and 64 MB of write-ahead log, with room to spare."""


@fault("postgres-disk-full", "Rows that find no room wait until there is some; none becomes a dead letter.", recovery_seconds=15)
def disk_full(system: System) -> Iterator[str]:
    """``user_logins`` lies on a disk of its own, which something else fills. Needs root, for that disk."""
    with _small_disk(system.directory / "disk", 32) as directory:
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
def _small_disk(directory: Path, mebibytes: int) -> Iterator[Path]:
    if os.geteuid() != 0:
        raise FaultDidNotTakePlaceError("only root may mount a file system that can be filled")
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,uid=nobody,mode=0700", "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


class _PostgresOnSmallDisk(Postgres):
    """Its data, the write-ahead log with it, on a disk of its own; its log file is elsewhere."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, settings={**POSTGRES_SETTINGS, "min_wal_size": "32MB", "max_wal_size": "64MB"})
        self.disk = ExitStack()

    @property
    def data(self) -> Path:
        return self._data

    def _make_cluster(self) -> None:
        super()._make_cluster()
        made = self._data.rename(self.directory / "data.made")
        self.disk.enter_context(_small_disk(self._data, DATA_MEBIBYTES))
        subprocess.run(["cp", "-a", f"{made}/.", self._data], check=True)


class _Servers(Servers):
    """With that Postgres, whose disk goes last."""

    def __init__(self, directory: Path) -> None:
        self._small = _PostgresOnSmallDisk(directory / "postgres")
        super().__init__(directory, postgres=self._small)

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            opening.enter_context(self._small.disk)
            super().__enter__()
            opening.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._small.disk:
            super().__exit__(*exception)


@fault(
    "postgres-data-disk-full",
    "A Postgres that ends because its write-ahead log finds no room has all that was committed when it is started with room again.",
    recovery_seconds=15,
    servers=_Servers,
)
def data_disk_full(system: System) -> Iterator[str]:
    """The disk of the whole data directory is full, and what room its log had is used up: it ends itself. Needs root."""
    postgres = system.servers.postgres
    assert isinstance(postgres, _PostgresOnSmallDisk)
    before = total(system, RETRIES)
    log_from = postgres.log_file.stat().st_size
    system.moment()
    ballast = postgres.data / "ballast"

    def ended() -> bool:
        with suppress(psycopg2.Error):
            system.query("SELECT pg_logical_emit_message(true, 'ballast', repeat('x', 1000000))")
        return postgres.child.returncode is not None

    try:
        _fill_with(ballast)
        system.prove("Postgres has ended itself", ended, 60)
        said = postgres.log_file.read_text()[log_from:]
        system.prove("its log found no room", lambda: "PANIC" in said and "No space left on device" in said, 0)
        prove_retries(system, before)
        system.rest(3)
    finally:
        ballast.unlink()
        postgres.stop()
        postgres.start()
    yield "the log found no room on the disk (PANIC), and Postgres ended itself"


def _fill_with(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4_096))
        except OSError as error:
            if error.errno != ENOSPC:
                raise
