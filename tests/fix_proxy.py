"""A TCP proxy in front of PostgreSQL that breaks connections on demand.

What it can do to all its connections: cut them, with a reset, in the middle of
an answer (`cut_after_bytes`), or swallow everything without closing
(`blackhole`), as a firewall does that forgot a connection.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg.conninfo
import pytest_asyncio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_RESET = struct.pack("ii", 1, 0)


@dataclass
class CuttingProxy:
    """Forwards to one server; toxics take effect at once, on open connections too.

    Attributes:
        url: The server's URL through the proxy.
        port: Where it listens.
        is_blackhole: Nothing is forwarded, either way; connections stay open.
        is_refusing: New connections are reset.
        cut_if: Given what a client sent, whether its connection is cut when the answer comes.
        cut_count: Connections that were cut.
    """

    url: str = ""
    port: int = 0
    is_blackhole: bool = False
    is_refusing: bool = False
    cut_if: Callable[[bytes], bool] | None = None
    cut_count: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def cut_after(self, marker: bytes, count: int = 1) -> None:
        """Reset the next `count` connections whose client has sent `marker`, as soon as the server answers.

        By then the statement is done and, outside a transaction, committed.
        """
        left = [count]

        def matches(sent: bytes) -> bool:
            if marker not in sent or not left[0]:
                return False
            left[0] -= 1
            return True

        self.cut_if = matches

    def reset_all(self) -> None:
        """Reset every open connection."""
        for writer in list(self._writers):
            _reset(writer)
            self.cut_count += 1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str | None) -> None:
        """Forward one connection to the server until either side closes it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        if self.is_refusing:
            _reset(writer)
            return
        host, port = "127.0.0.1", self._server_port
        opened = await (asyncio.open_unix_connection(path) if path else asyncio.open_connection(host, port))
        self._writers.add(writer)
        sent: list[bytes] = []
        try:
            pumps = {
                asyncio.create_task(self._up(reader, opened[1], sent)),
                asyncio.create_task(self._down(opened[0], writer, sent)),
            }
            _, rest = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for each in rest:
                each.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            opened[1].close()
            writer.close()

    _server_port: int = 0

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: list[bytes]) -> None:
        while data := await reader.read(65_536):
            await self._pass()
            sent.append(data)
            writer.write(data)
            await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: list[bytes]) -> None:
        while data := await reader.read(65_536):
            await self._pass()
            asked, sent[:] = b"".join(sent), []
            if self.cut_if is not None and self.cut_if(asked):
                self.cut_count += 1
                _reset(writer)
                return
            writer.write(data)
            await writer.drain()

    async def _pass(self) -> None:
        while self.is_blackhole:  # noqa: ASYNC110 - set by a test at any moment
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        """End every connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest_asyncio.fixture
async def proxy(database: str) -> AsyncIterator[CuttingProxy]:
    """A proxy in front of the test's own database."""
    parameters = psycopg.conninfo.conninfo_to_dict(database)
    host, port = str(parameters.get("host", "127.0.0.1")), int(parameters.get("port") or 5432)
    path = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else None
    made = CuttingProxy()
    made._server_port = port
    server = await asyncio.start_server(lambda r, w: made.serve(r, w, path), "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    parameters |= {"host": "127.0.0.1", "port": made.port, "sslmode": "disable", "gssencmode": "disable"}
    made.url = _url(parameters)
    try:
        yield made
    finally:
        server.close()
        await made.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


def _url(parameters: dict[str, object]) -> str:
    user, password = parameters.get("user", ""), parameters.get("password")
    login = f"{user}:{password}" if password else str(user)
    options = f"sslmode={parameters['sslmode']}&gssencmode={parameters['gssencmode']}"
    return f"postgresql://{login}@{parameters['host']}:{parameters['port']}/{parameters['dbname']}?{options}"
