"""A TCP proxy that can be told to be slow, silent, away, or to cut a connection at the worst moment. It knows no protocol.

Each verb changes how connections are treated from now on, those that are open included; ``heal`` undoes all of them. What it did
is counted, so that a fault can prove that it took place.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Self

from dev_servers.ports import HOST, free_port

CHUNK_BYTES = 65_536
QUEUE_CHUNKS = 64
"""Read ahead in each direction of a connection."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with 0 seconds: close sends RST
VERB_SECONDS = 10.0

_Due = tuple[float, bytes]


class Moment(Enum):
    """When a trap cuts the connection."""

    BEFORE_FORWARDING = auto()
    """The server never sees the request."""
    AFTER_FORWARDING = auto()
    """The server has the request; nobody waits for its answer."""
    AFTER_THE_ANSWER = auto()
    """The server has answered; the client never sees it."""


@dataclass(slots=True)
class Trap:
    """Cuts the connections of the next ``times`` requests that match."""

    matches: Callable[[bytes], bool]
    """Asked with each chunk that a client sends; a request of up to 64 KiB usually is one chunk."""
    moment: Moment
    times: int = 1
    answers: Callable[[bytes], Callable[[bytes], bool]] = lambda _: lambda _: True
    """Made of the request's chunk: asked with each chunk that the server sends after it, whether that holds the answer. The first
    one does, unless the protocol says otherwise."""
    sprung: int = 0
    """Requests that were caught."""
    answered: int = 0
    """Those of them that the server had answered when it was cut."""

    def catches(self, chunk: bytes) -> bool:
        """Whether it is to be cut; counted."""
        caught = self.sprung < self.times and self.matches(chunk)
        self.sprung += caught
        return caught


class Proxy:
    """Listens on ``.port`` for as long as it is entered; a thread of its own does the work, the verbs may come from any other."""

    def __init__(self, server_port: int, port: int | None = None) -> None:
        self.server_port = server_port
        self.port = free_port() if port is None else port
        self.connections = 0
        """Open now."""
        self.accepted = 0
        """Ever."""
        self.cut = 0
        """Ended by us."""
        self.held_bytes = 0
        """What came since it fell silent, and was not passed on."""
        self._delay_seconds = 0.0
        self._bytes_per_second: float | None = None
        self._traps: list[Trap] = []
        self._open: dict[_Connection, asyncio.Task[Any] | None] = {}
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._listener: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy {self.port}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def slow_down(self, *, delay_seconds: float = 0.0, bytes_per_second: float | None = None) -> None:
        """Hold back everything, in both directions, and let no more pass than this."""
        self._delay_seconds, self._bytes_per_second = delay_seconds, bytes_per_second

    def fall_silent(self) -> None:
        """Pass nothing on and answer nothing, as a network that swallows packets: connections stay, new ones are accepted."""
        self._do(self._fall_silent())

    def go_away(self) -> None:
        """Refuse new connections and end those that are open."""
        self._do(self._unlisten())
        self.cut_connections()

    def cut_connections(self, *, reset: bool = True) -> int:
        """End the open connections, by RST or FIN; how many there were. New ones are welcome."""
        return int(self._do(self._cut_all(reset=reset)))

    def trap(
        self,
        matches: Callable[[bytes], bool],
        moment: Moment,
        times: int = 1,
        answers: Callable[[bytes], Callable[[bytes], bool]] | None = None,
    ) -> Trap:
        """Lie in wait for a request; ``.sprung`` counts those that were caught, ``.answered`` those whose answer was."""
        trap = Trap(matches, moment, times) if answers is None else Trap(matches, moment, times, answers)
        self._traps.append(trap)
        return trap

    def heal(self) -> None:
        """Be a plain proxy again. What was held back in silence is passed on, as TCP would when the network is back."""
        self.slow_down()
        self._traps.clear()
        self._do(self._listen())

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(VERB_SECONDS)

    async def _listen(self) -> None:
        self._flowing.set()
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, HOST, self.port, limit=CHUNK_BYTES)

    async def _unlisten(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _fall_silent(self) -> None:
        self.held_bytes = 0
        self._flowing.clear()

    async def _leave(self) -> None:
        await self._unlisten()
        await self._cut_all(reset=True)
        await asyncio.gather(*(task for task in self._open.values() if task is not None))

    async def _cut_all(self, *, reset: bool) -> int:
        connections = list(self._open)
        for connection in connections:
            connection.end(reset=reset)
        self.cut += len(connections)
        return len(connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = _Connection(self, reader, writer)
        self._open[connection] = asyncio.current_task()
        self.connections += 1
        try:
            await connection.run()
        finally:
            del self._open[connection]
            self.connections -= 1


class _Connection:
    """One client's connection, and ours to the server in its name."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = (reader, writer)
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._caught: Trap | None = None  # waits for the server's answer
        self._is_answer: Callable[[bytes], bool] = lambda _: False

    async def run(self) -> None:
        await self._proxy._flowing.wait()
        try:
            self._server = await asyncio.open_connection(HOST, self._proxy.server_port, limit=CHUNK_BYTES)
        except OSError:
            self.end(reset=True)  # the server itself is away
            return
        requests: asyncio.Queue[_Due] = asyncio.Queue(QUEUE_CHUNKS)
        answers: asyncio.Queue[_Due] = asyncio.Queue(QUEUE_CHUNKS)
        tasks = [
            asyncio.create_task(self._read(self._client[0], requests)),
            asyncio.create_task(self._read(self._server[0], answers)),
            asyncio.create_task(self._pass_requests(requests, self._server[1])),
            asyncio.create_task(self._pass_answers(answers, self._client[1])),
        ]
        _, pending = await asyncio.wait(tasks[2:], return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks[:2], *pending):
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, OSError):
                raise outcome
        self.end(reset=False)

    def end(self, *, reset: bool) -> None:
        for side in (self._client, self._server):
            if side is None or side[1].transport.is_closing():
                continue
            if reset:
                side[1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                side[1].transport.abort()
            else:
                side[1].close()

    async def _read(self, reader: asyncio.StreamReader, chunks: "asyncio.Queue[_Due]") -> None:
        """Read ahead, so that what is delayed travels together, as on a long line."""
        now = asyncio.get_running_loop().time
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                await chunks.put((now() + self._proxy._delay_seconds, chunk))
        except OSError:
            pass  # a reset is an end, too
        await chunks.put((now(), b""))

    async def _pass_requests(self, chunks: "asyncio.Queue[_Due]", server: asyncio.StreamWriter) -> None:
        while chunk := await self._next(chunks):
            trap = None if self._caught else next((trap for trap in self._proxy._traps if trap.catches(chunk)), None)
            if trap is not None and trap.moment is Moment.BEFORE_FORWARDING:
                self._cut()
                return
            if trap is not None:
                self._is_answer = trap.answers(chunk)
                self._caught = trap
            server.write(chunk)
            await server.drain()
            if trap is not None and trap.moment is Moment.AFTER_FORWARDING:
                self._cut()
                return

    async def _pass_answers(self, chunks: "asyncio.Queue[_Due]", client: asyncio.StreamWriter) -> None:
        while chunk := await self._next(chunks):
            if self._caught is not None and self._is_answer(chunk):
                self._caught.answered += 1
                self._cut()
                return
            client.write(chunk)
            await client.drain()

    async def _next(self, chunks: "asyncio.Queue[_Due]") -> bytes:
        """The next chunk, when its time has come; empty at the end."""
        proxy = self._proxy
        due, chunk = await chunks.get()
        await asyncio.sleep(due - asyncio.get_running_loop().time())
        if proxy._bytes_per_second is not None:
            await asyncio.sleep(len(chunk) / proxy._bytes_per_second)
        if not proxy._flowing.is_set():
            proxy.held_bytes += len(chunk)
            await proxy._flowing.wait()
        return chunk

    def _cut(self) -> None:
        self._proxy.cut += 1
        self.end(reset=True)


__all__ = ["Moment", "Proxy", "Trap"]
