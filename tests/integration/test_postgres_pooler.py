"""A pooler that drops the startup parameter `options`, as PgBouncer can be told to: without its role there is no session."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest
from integration.postgres_tls_front import pass_on
from psycopg2.extensions import make_dsn, parse_dsn
from pydantic import SecretStr

from dev_servers.postgres import Postgres
from pipeline.errors import FatalError
from stream_app.postgres.async_connection import connect_async
from stream_app.postgres.connection import WRITER, connect
from stream_app.postgres.settings import PostgresSettings


class _Pooler(ThreadingTCPServer):
    daemon_threads = True
    postgres_port: int


class _Session(BaseRequestHandler):
    server: _Pooler

    def handle(self) -> None:
        """Take the parameter out of the startup message, then stay out of the way."""
        client: socket.socket = self.request
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.server.postgres_port)) as postgres:
            length, version = struct.unpack("!ii", client.recv(8, socket.MSG_WAITALL))
            words = client.recv(length - 8, socket.MSG_WAITALL).rstrip(b"\0").split(b"\0")
            kept = [word for pair in zip(words[::2], words[1::2], strict=True) if pair[0] != b"options" for word in pair]
            parameters = b"\0".join(kept) + b"\0\0"
            postgres.sendall(struct.pack("!ii", len(parameters) + 8, version) + parameters)
            pass_on(client, postgres)


@pytest.fixture
def pooler_port(postgres: Postgres) -> Iterator[int]:
    with _Pooler(("127.0.0.1", 0), _Session) as server:
        server.postgres_port = postgres.port
        thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("migrated_template")
def test_session_without_its_role_or_path_is_refused(postgres: Postgres, pooler_port: int) -> None:
    """Else the login user's rights would count, here the superuser's, and what others put into the schema would be found."""
    dsn = make_dsn(**{**parse_dsn(postgres.dsn), "port": str(pooler_port), "sslmode": "disable"})
    settings = PostgresSettings(postgres_dsn=SecretStr(dsn))
    with (
        pytest.raises(FatalError, match=r"did not take the search path pg_catalog,pg_temp: does a pooler"),
        connect(settings, role=None, application_name="test"),
    ):
        pass
    with (
        pytest.raises(FatalError, match="did not take the role stream_writer"),
        connect(settings, role=WRITER, application_name="t"),
    ):
        pass
    with pytest.raises(FatalError, match="did not take the role stream_writer"):
        asyncio.run(connect_async(settings, role=WRITER, application_name="test"))
