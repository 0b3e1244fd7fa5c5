"""An HTTP client that costs the machine little: kept-alive connections, one request at a time on each.

A benchmark shares its cores with what it measures; a general client would take
most of them. Only what our own API sends is understood: a status line, headers
with a lower-case `content-length`, a body.
"""

from __future__ import annotations

import asyncio
from typing import Self, cast


class Reader:
    """Puts the messages of one side of a connection together; the next one begins after the last one's end."""

    __slots__ = ("_body_start", "_left", "_parts")

    def __init__(self) -> None:
        """Wait for a first message."""
        self._parts: list[bytes] = []
        self._left = self._body_start = 0

    def take(self, data: bytes) -> tuple[bytes, int] | None:
        """Return the message, and where its body begins, once it is whole.

        Its head is looked at once: most of an answer to a batch is body, and comes in many parts.
        """
        self._parts.append(data)
        if self._left:
            self._left -= len(data)
        else:
            message = b"".join(self._parts)
            head_end = message.find(b"\r\n\r\n")
            if head_end < 0:
                return None
            head = message[:head_end].lower()
            start = head.find(b"content-length: ")
            length = int(head[start + 16 :].partition(b"\r")[0]) if start >= 0 else 0
            self._body_start = head_end + 4
            self._left = self._body_start + length - len(message)
        if self._left > 0:
            return None
        message, self._parts = b"".join(self._parts), []
        return message, self._body_start


class Connection(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self) -> None:
        """Be connected by an event loop."""
        self._reader = Reader()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer the caller once the answer is whole."""
        whole = self._reader.take(data)
        if whole is None:
            return
        (message, body_start), waiting = whole, self._answer
        self._answer = None
        if waiting is not None and not waiting.done():
            waiting.set_result((int(message[9:12]), message[body_start:]))

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the request that is under way."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the server closed the connection"))

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Return the status and the body that answer a request.

        Raises:
            OSError: The connection was lost.
        """
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close it."""
        self._transport.close()


class Client:
    """Some connections to the API on this machine, for as many callers at once."""

    def __init__(self, key: str, connections: list[Connection]) -> None:
        """Use open connections; `connect` opens them."""
        self._head = f"Host: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n".encode()
        self._connections = connections
        self._free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
        for each in connections:
            self._free.put_nowait(each)

    @classmethod
    async def connect(cls, port: int, key: str, count: int) -> Self:
        """Open `count` connections to 127.0.0.1."""
        loop = asyncio.get_running_loop()
        made = [await loop.create_connection(Connection, "127.0.0.1", port) for _ in range(count)]
        return cls(key, [protocol for _, protocol in made])

    async def post(self, path: str, body: bytes) -> bytes:
        """Send a body and return that of the answer; callers wait for a free connection.

        Raises:
            OSError: The connection was lost.
            RuntimeError: The answer is neither 200 nor 201.
        """
        request = b"POST %b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (path.encode(), self._head, len(body), body)
        connection = await self._free.get()
        try:
            status, answer = await connection.send(request)
        finally:
            self._free.put_nowait(connection)
        if status not in (200, 201):
            raise RuntimeError(f"{path} was answered {status}: {answer[:500]!r}")
        return answer

    def close(self) -> None:
        """Close all connections."""
        for each in self._connections:
            each.close()
