"""One request and its answer, as handlers see them.

Starlette's Request is made for all that HTTP can do; measured, it costs more
than a handler of ours. A `Call` reads what the routes declare and no more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from howdah.api.gate import BODY_S_MAX
from howdah.api.problems import Fault, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from starlette.types import Receive, Scope, Send

    from howdah.api.auth import Credential
    from howdah.api.backend import Backend

# Of a body that is too large, so much more is read and thrown away: a client that still sends
# when its connection is closed never gets to see the answer. Larger ones are cut off.
DRAINED_BYTES_MAX: Final = 16 * 1024 * 1024

# How long a client may take to read a part of a stream.
PART_S_MAX: Final = 30.0

JSON_TYPE: Final = (b"content-type", b"application/json")
_JSON_HEADERS: Final = [JSON_TYPE]
_encode: Final = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """What is sent back; `headers` are without the length and the request id."""

    status: int
    body: bytes
    headers: Sequence[tuple[bytes, bytes]] = _JSON_HEADERS


class Stream(NamedTuple):
    """An answer whose body comes part by part, for as long as the client stays."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    parts: AsyncIterator[bytes]
    close: Callable[[], None]
    """Called at the end, whatever ended it."""


def json_answer(status: int, value: object, *headers: tuple[bytes, bytes]) -> Answer:
    """Answer with JSON; structs are written as they are declared, `Raw` parts byte for byte."""
    return Answer(status, _encode(value), [JSON_TYPE, *headers] if headers else _JSON_HEADERS)


class ClientGone(Exception):
    """The client closed the connection before its request was complete, or while its answer was waited for."""


class Call:
    """A request on its way through the process.

    Attributes:
        backend: What the process works with.
        scope: The ASGI scope.
        request_id: Names the request in answers and logs.
        headers: By lower-case name; of repeated ones the last.
        key: Who asks; set once the route has checked it.
        route: The path's template, for logs and metrics.
        task_id: The task that it is about, for the log.
        status: Of the answer, 0 before it was sent.
        body_bytes: How much of the process's memory for bodies it holds.
    """

    __slots__ = (
        "_receive",
        "backend",
        "body_bytes",
        "headers",
        "key",
        "request_id",
        "route",
        "scope",
        "status",
        "task_id",
    )

    def __init__(
        self, backend: Backend, scope: Scope, receive: Receive, request_id: str, headers: dict[bytes, bytes]
    ) -> None:
        """Take a request in; `headers` are the scope's, by lower-case name."""
        self.backend = backend
        self.scope = scope
        self.request_id = request_id
        self.headers = headers
        self.route = ""
        self.task_id = ""
        self.body_bytes = 0
        self.status = 0
        self.key: Credential = None  # type: ignore[assignment]
        self._receive = receive

    @property
    def path_parameters(self) -> dict[str, Any]:
        """What the route's pattern found in the path."""
        found: dict[str, Any] = self.scope["path_params"]
        return found

    async def stream(self, send: Send, stream: Stream) -> None:
        """Send an answer part by part, until it ends or the client goes."""
        self.status = stream.status
        headers = [*stream.headers, (b"x-request-id", self.request_id.encode())]
        sending = asyncio.create_task(self._send_parts(send, stream, headers))
        leaving = asyncio.create_task(self._until_gone())
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            stream.close()
        if not sending.cancelled():
            sending.result()

    async def _send_parts(self, send: Send, stream: Stream, headers: list[tuple[bytes, bytes]]) -> None:
        await send({"type": "http.response.start", "status": stream.status, "headers": headers})
        async for part in stream.parts:
            # A client that reads nothing must not hold its place for ever.
            try:
                async with asyncio.timeout(PART_S_MAX):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            except TimeoutError:
                raise ClientGone from None
        await send({"type": "http.response.body", "body": b""})

    def has_body(self) -> bool:
        """Tell whether the request announces a body that is not empty."""
        return b"transfer-encoding" in self.headers or self.headers.get(b"content-length", b"0") != b"0"

    async def send(self, send: Send, answer: Answer) -> None:
        """Send the answer, with its length and the request's id."""
        self.status = answer.status
        headers = [
            *answer.headers,
            (b"content-length", str(len(answer.body)).encode()),
            (b"x-request-id", self.request_id.encode()),
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def wait(self, future: asyncio.Future[Any], timeout_s: float) -> bool:
        """Wait, after the body was read, until something has happened.

        Returns:
            False if it did not happen in time, or the process is to stop.

        Raises:
            ClientGone: The client gave up before.
            Problem: Too many requests wait in this process.
        """
        gone = asyncio.create_task(self._until_gone())
        ends = {future, gone, self.backend.ending}
        try:
            with self.backend.gate.waiting():
                await asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                return True
            if gone.done():
                raise ClientGone
            return False
        finally:
            gone.cancel()

    async def is_gone(self) -> bool:
        """Tell whether the client has closed the connection, as far as is known at this moment."""
        gone = asyncio.create_task(self._until_gone())
        # Two turns of the loop: the task begins in the first, and a disconnect that is known ends it.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        is_known = gone.done()
        gone.cancel()
        return is_known

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def body_if_any(self) -> bytes:
        """Return the body of a request that may have none, as `body` does with the usual bound; empty without one."""
        return await self.body(self.backend.settings.body_bytes_max) if self.has_body() else b""

    async def body(self, bytes_max: int) -> bytes:
        """Return the body of a request with JSON.

        Args:
            bytes_max: Larger ones are refused, and never held in memory.

        Raises:
            Problem: It is no plain JSON, too large, or did not arrive in time.
            ClientGone: The client gave up.
        """
        self._refuse_media_type()
        declared = self.headers.get(b"content-length")
        if declared is not None and int(declared) > bytes_max + DRAINED_BYTES_MAX:
            raise _too_large(bytes_max)
        task = asyncio.current_task()
        assert task is not None, "an ASGI server serves each request in a task"
        gate = self.backend.gate
        gate.begin_reading(task)
        try:
            return await self._read(bytes_max)
        finally:
            if gate.end_reading(task):
                task.uncancel()
                raise Problem("request_timeout", f"The body did not arrive within {BODY_S_MAX:g} s.") from None

    async def _read(self, bytes_max: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part: bytes = message.get("body", b"")
            size += len(part)
            if size <= bytes_max:
                self._hold(len(part))
                parts.append(part)
            elif size > bytes_max + DRAINED_BYTES_MAX:
                raise _too_large(bytes_max)
            if not message.get("more_body", False):
                if size > bytes_max:
                    raise _too_large(bytes_max)
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def _hold(self, size: int) -> None:
        """Count bytes against what the process may hold of all bodies."""
        self.body_bytes += size
        self.backend.gate.hold(size)

    def _refuse_media_type(self) -> None:
        content_type = self.headers.get(b"content-type", b"")
        if content_type != b"application/json":
            media_type, _, parameters = content_type.partition(b";")
            is_json = media_type.strip().lower() == b"application/json"
            charset = parameters.strip().lower().replace(b'"', b"")
            if not is_json or charset not in (b"", b"charset=utf-8"):
                raise _unsupported("Content-Type", "must be application/json, in UTF-8")
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise _unsupported("Content-Encoding", "must be left out: the body must not be compressed")


def _too_large(bytes_max: int) -> Problem:
    detail = f"must have at most {bytes_max} bytes"
    return Problem("payload_too_large", f"the body {detail}", [Fault(detail, pointer="")])


def _unsupported(header: str, detail: str) -> Problem:
    return Problem("unsupported_media_type", f"{header} {detail}", [Fault(detail, header=header)])
