"""A Postgres with a standby that follows it, asynchronously, and can take over without its last commits."""

import os
import pwd
import shutil
from contextlib import closing
from pathlib import Path
from signal import Signals

import psycopg2

from crash.servers import POSTGRES_SETTINGS
from dev_servers.ports import HOST
from dev_servers.postgres import SUPERUSER, Postgres, program
from dev_servers.process import ChildProcess, Launch

BASE_BACKUP_SECONDS = 60.0


class Standby(Postgres):
    """Copied from a running primary; follows it from its start on."""

    def __init__(self, directory: Path, primary: Postgres) -> None:
        super().__init__(directory, settings=POSTGRES_SETTINGS)
        self._primary = primary

    def part(self) -> None:
        """Receive nothing more, as when the network between the two is cut."""
        self._run("ALTER SYSTEM SET primary_conninfo = ''")
        self._run("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Become a primary, with what has been received."""
        self._run("SELECT pg_promote(wait => true)")

    def _run(self, statement: str) -> None:
        with closing(psycopg2.connect(self.dsn)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)

    def _make_cluster(self) -> None:
        making = self.directory / "data.new"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        shutil.copy(self._primary._password_file, self._password_file)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(making, nobody.pw_uid, nobody.pw_gid)
        base_backup = ChildProcess(
            "pg_basebackup",
            Launch(
                [
                    program("pg_basebackup"), "-D", making, "-h", HOST, "-p", str(self._primary.port), "-U", SUPERUSER,
                    "--no-password", "--checkpoint=fast", "--write-recovery-conf", "--no-sync",
                ],
                environment={"PGPASSWORD": self._password_file.read_text().strip()},
                directory=self.directory,
                leave_root=True,
            ),
            self.log_file,
        )  # fmt: skip
        assert base_backup.wait(BASE_BACKUP_SECONDS) == 0, f"pg_basebackup failed: see {self.log_file}"
        making.rename(self._data)


class PostgresWithStandby(Postgres):
    """The primary; after :meth:`fail_over`, what was its standby."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, settings=POSTGRES_SETTINGS)
        self.standby = Standby(directory / "standby", self)

    def fail_over(self) -> None:
        """The primary is killed and never comes back."""
        super().stop(Signals.SIGKILL)
        self.standby.promote()
        self.port = self.standby.port

    def stop(self, number: Signals | None = None, *, mode: str | None = None) -> None:
        """Stop both."""
        self.standby.stop()
        super().stop(number, mode=mode)
