"""A TCP proxy in front of PostgreSQL that breaks connections on demand.

What it can do to all its connections: cut them, with a reset, in the middle of
an answer (`cut_answers`), or swallow everything without closing
(`blackhole`), as a firewall does that forgot a connection.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg.conninfo
import pytest_asyncio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

# psycopg numbers its prepared statements; ours begin with their name.
_PREPARED = re.compile(rb"(_pg3_[0-9]+)\x00/\* howdah:([a-z_.]+) \*/")
_BOUND = re.compile(rb"(_pg3_[0-9]+)\x00")
_RESET = struct.pack("ii", 1, 0)


@dataclass
class _Asked:
    """What a client is having executed: it names our statements when it prepares them, later only by number."""

    names: dict[bytes, bytes] = field(default_factory=dict)
    executing: bytes = b""

    def take(self, data: bytes) -> None:
        """Read what the client sends."""
        self.executing = b""
        if prepared := _PREPARED.findall(data):
            self.names.update(prepared)
        elif bound := _BOUND.findall(data):
            self.executing = self.names.get(bound[-1], b"")


@dataclass
class CuttingProxy:
    """Forwards to one server; toxics take effect at once, on open connections too.

    Attributes:
        url: The server's URL through the proxy.
        port: Where it listens.
        is_blackhole: Nothing is forwarded, either way; connections stay open.
        is_refusing: New connections are reset.
        cut_count: Connections that were cut.
        on_cut: Called when an answer is cut, before its client can notice.
    """

    url: str = ""
    port: int = 0
    is_blackhole: bool = False
    is_refusing: bool = False
    _cuts: dict[bytes, int] = field(default_factory=dict)
    cut_count: int = 0
    on_cut: Callable[[], None] | None = None
    _server_port: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def cut_answers(self, statement: str, count: int = 1) -> None:
        """Reset connections instead of answering, `count` times, when they have executed one of our statements.

        By then the statement is done and, outside a transaction, committed.

        Args:
            statement: Its name, for example `run.claim`.
            count: How often.
        """
        self._cuts[statement.encode()] = count

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
        asked = _Asked()
        pumps = {
            asyncio.create_task(self._up(reader, opened[1], asked)),
            asyncio.create_task(self._down(opened[0], writer, asked)),
        }
        try:
            with suppress(asyncio.CancelledError):
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for each in pumps:
                each.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            opened[1].close()
            writer.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: _Asked) -> None:
        while data := await reader.read(65_536):
            await self._pass()
            asked.take(data)
            writer.write(data)
            await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: _Asked) -> None:
        while data := await reader.read(65_536):
            await self._pass()
            if self._cuts.get(asked.executing, 0) > 0:
                self._cuts[asked.executing] -= 1
                self.cut_count += 1
                if self.on_cut is not None:
                    self.on_cut()
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
