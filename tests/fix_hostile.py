"""A receiver of callbacks that misbehaves on demand: the path of the request names how.

It speaks raw bytes, since no HTTP library can be made to break the protocol in
all these ways. Behaviours that never end go on until the client closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest
import uvloop

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

# What a slow receiver waits between two bytes: far shorter than a second, so
# that a client which starts its timeout anew with each byte never ends.
DRIP_S = 0.02

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Received:
    """One request as it came over the wire.

    Attributes:
        line: The request line.
        headers: Names and values in order, as sent.
        body: The bytes after the head, as many as Content-Length says.
        connection: Counts connections from 1; requests on one connection share it.
    """

    line: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int

    def header(self, name: str) -> str:
        """Return the one value of a header, in any letter case."""
        (value,) = [value for each, value in self.headers if each.lower() == name.lower()]
        return value


@dataclass
class HostileServer:
    """Listens on the loopback; `requests` and `peers` tell what came.

    Attributes:
        host: Where it listens.
        port: Where it listens.
        requests: Complete requests, in order of arrival.
        peers: The other ends of all TCP connections that were accepted, in order.
        open_count: TCP connections that the client has not closed yet.
        answers: Bytes to answer with, by path; for tests with an answer of their own.
        writers: Connections that were answered from `answers`, for the rest of the answer.
    """

    host: str
    port: int = 0
    requests: list[Received] = field(default_factory=list)
    peers: list[object] = field(default_factory=list)
    open_count: int = 0
    answers: dict[str, bytes] = field(default_factory=dict)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def connection_count(self) -> int:
        """TCP connections that were accepted so far."""
        return len(self.peers)

    def url(self, path: str = "ok", scheme: str = "http", host: str | None = None) -> str:
        """Return the URL under which the server behaves as `path` says."""
        return f"{scheme}://{host or self.host}:{self.port}/{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        """Serve one connection until either side closes it."""
        self.open_count += 1
        try:
            while (path := await self._receive(reader, connection)) is not None:
                if path in self.answers:
                    await _send(writer, self.answers[path])
                    self.writers.append(writer)
                else:
                    await BEHAVIOURS[path](reader, writer)
                if writer.is_closing():
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self.open_count -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _receive(self, reader: asyncio.StreamReader, connection: int) -> str | None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = [(name, value) for name, _, value in (each.partition(": ") for each in fields)]
        path = line.split(" ")[1].split("?")[0].removeprefix("/")
        length = sum(int(value) for name, value in headers if name.lower() == "content-length")
        body = b"" if path in READS_NO_BODY else await reader.readexactly(length)
        self.requests.append(Received(line, headers, body, connection))
        return path


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _until_closed(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass


async def _stalled(writer: asyncio.StreamWriter) -> None:
    """Read nothing more until the client closes."""
    cast("asyncio.Transport", writer.transport).pause_reading()
    await writer.wait_closed()


async def _forever(writer: asyncio.StreamWriter, data: bytes) -> None:
    while not writer.is_closing():
        await _send(writer, data)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the client gets a TCP reset."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _until_closed(reader)


async def _close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _half_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write_eof()
    await _until_closed(reader)


async def _reset_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    _reset(writer)


async def _reset_in_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _send(writer, b"HTTP/1.1 200 OK\r\nContent-Le")
    _reset(writer)


async def _reset_in_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _send(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbeginning")
    await asyncio.sleep(DRIP_S)
    _reset(writer)


async def _drip_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _send(writer, b"HTTP/1.1 200 OK\r\nX: ")
    while not writer.is_closing():
        await _send(writer, b"x")
        await asyncio.sleep(DRIP_S)


async def _drip_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _send(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not writer.is_closing():
        await _send(writer, b"x")
        await asyncio.sleep(DRIP_S)


async def _early_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer without reading the body, then let the sender wait."""
    await _send(writer, b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    await _stalled(writer)


async def _unasked_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer, and a moment later answer once more."""
    await _send(writer, _OK)
    await asyncio.sleep(DRIP_S)
    await _send(writer, b"HTTP/1.1 500 Unasked\r\nContent-Length: 0\r\n\r\n")


def _sends(data: bytes, *, then_closes: bool = False) -> Callable[..., Awaitable[None]]:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _send(writer, data)
        if then_closes:
            writer.close()

    return behave


def _sends_forever(first: bytes, again: bytes) -> Callable[..., Awaitable[None]]:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _send(writer, first)
        await _forever(writer, again)

    return behave


def _gzip_bomb(encoding: bytes) -> bytes:
    bomb = gzip.compress(bytes(16 * 1024 * 1024))
    for _ in range(encoding.count(b",")):
        bomb = gzip.compress(bomb)
    return b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s" % (encoding, len(bomb), bomb)


BEHAVIOURS: dict[str, Callable[..., Awaitable[None]]] = {
    # Good manners, for comparison.
    "ok": _sends(_OK),
    "ok-without-length": _sends(b"HTTP/1.1 200 OK\r\n\r\nok", then_closes=True),
    "early-hints": _sends(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3 + _OK),
    # No answer.
    "never": _never,
    "close": _close,
    "half-close": _half_close,
    "reset": _reset_at_once,
    "reset-in-head": _reset_in_head,
    "drip-head": _drip_head,
    # Heads without end, or without sense.
    "long-header": _sends_forever(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65_536),
    "many-headers": _sends_forever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 10_000),
    "long-reason": _sends_forever(b"HTTP/1.1 200 ", b"O" * 65_536),
    "100-forever": _sends_forever(b"", b"HTTP/1.1 100\r\n\r\n" * 8_192),
    "103-forever": _sends_forever(b"", b"HTTP/1.1 103 Hint\r\nLink: </x>\r\n\r\n" * 2_048),
    "http-0.9": _sends(b"<html>hello</html>", then_closes=True),
    "http-2": _sends(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", then_closes=True),
    "banner": _sends(b"SSH-2.0-OpenSSH_9.2p1\r\n"),
    "junk-length": _sends(b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n", then_closes=True),
    "negative-length": _sends(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", then_closes=True),
    "two-lengths": _sends(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy", then_closes=True),
    "status-99999": _sends(b"HTTP/1.1 99999 Big\r\n\r\n", then_closes=True),
    "status-word": _sends(b"HTTP/1.1 OK\r\n\r\n", then_closes=True),
    "null-in-header": _sends(b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n", then_closes=True),
    # Bodies without end, or without sense, after a good head.
    "drip-body": _drip_body,
    "endless-body": _sends_forever(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536),
    "endless-chunks": _sends_forever(_CHUNKED, b"8000\r\n" + b"x" * 32_768 + b"\r\n"),
    "ten-gigabytes": _sends_forever(b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n", b"x" * 65_536),
    "chunk-extension-forever": _sends_forever(_CHUNKED + b"1;", b"x" * 65_536),
    "trailers-forever": _sends_forever(_CHUNKED + b"0\r\n", b"X: y\r\n" * 10_000),
    "one-byte-chunks": _sends_forever(_CHUNKED, b"1\r\nx\r\n" * 10_000),
    "bad-chunk": _sends(_CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n", then_closes=True),
    "junk-encoding": _sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: banana\r\n\r\nhello", then_closes=True),
    "short-body": _sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbeginning", then_closes=True),
    "reset-in-body": _reset_in_body,
    "no-content-with-body": _sends(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"),
    "gzip-bomb": _sends(_gzip_bomb(b"gzip")),
    "gzip-gzip-bomb": _sends(_gzip_bomb(b"gzip, gzip")),
    "null-in-body": _sends(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na\x00b\xffc"),
    "switching": _sends(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n" + b"\x00" * 99),
    "early-answer": _early_answer,
    # Answers that nobody asked for.
    "unasked-with-it": _sends(_OK + b"HTTP/1.1 500 Unasked\r\nContent-Length: 0\r\n\r\n"),
    "unasked-later": _unasked_later,
}
READS_NO_BODY = frozenset({"early-answer"})


@contextlib.asynccontextmanager
async def listen(
    host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[HostileServer]:
    """Run a hostile receiver, over TLS if a context is given; its last connections are cut on leaving."""
    server = HostileServer(host)
    tasks: list[asyncio.Task[None]] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.peers.append(writer.get_extra_info("peername"))
        tasks.append(asyncio.create_task(server.serve(reader, writer, server.connection_count)))

    listener = await asyncio.start_server(accept, host, port, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            # A behaviour that failed by itself did not test what it was to test.
            if isinstance(ended, Exception):
                raise ended
        await listener.wait_closed()


@pytest.fixture
async def hostile() -> AsyncIterator[HostileServer]:
    """A hostile receiver on 127.0.0.1."""
    async with listen() as server:
        yield server


def loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return the event loops that callbacks are tested on: they read from sockets in different ways."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
