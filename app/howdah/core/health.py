"""Health, readiness and metrics over HTTP, for processes that serve nothing else.

Deliberately small: GET and HEAD of three fixed paths, one request a connection.
A client that sends too much, too slowly, or does not read its answer, loses its
connection; the work of the process never waits for one.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import orjson

from howdah.core import metrics
from howdah.core.errors import SettingInvalid

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD_BYTES_MAX: Final = 8_192
EXCHANGE_S_MAX: Final = 5.0
CONNECTIONS_MAX: Final = 32

_JSON: Final = "application/json"
_logger = logging.getLogger(__name__)


class Readiness:
    """Named checks that decide whether a process should be given work."""

    def __init__(self) -> None:
        """Begin without checks: ready."""
        self._checks: dict[str, Callable[[], str | None]] = {}
        self._warnings: dict[str, str] = {}

    def add(self, name: str, check: Callable[[], str | None]) -> None:
        """Add a check, which returns None or says in a few words why the process is not ready.

        It must not wait: it looks at what the process knows already.
        """
        self._checks[name] = check

    def warn(self, name: str, text: str) -> None:
        """Show a fact that does not make the process unready, for example a server that may lose commits."""
        self._warnings[name] = text

    def report(self) -> tuple[bool, dict[str, object]]:
        """Ask every check.

        Returns:
            Whether all are well, and what /readyz answers.
        """
        checks: dict[str, str] = {}
        is_ready = True
        for name, check in self._checks.items():
            try:
                fault = check()
            except Exception as error:
                _logger.exception("readiness_check_failed", extra={"fields": {"check": name}})
                fault = f"the check failed: {type(error).__name__}"
            is_ready = is_ready and fault is None
            checks[name] = "ok" if fault is None else fault
        return is_ready, {"ready": is_ready, "checks": checks, "warnings": dict(self._warnings)}


class HealthServer:
    """Serves /healthz, /readyz and /metrics on a port of its own."""

    def __init__(self, readiness: Readiness) -> None:
        """Answer /readyz from `readiness`."""
        self._readiness = readiness
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen.

        Returns:
            The port, also where 0 asked for a free one.

        Raises:
            SettingInvalid: Nothing can listen there.
        """
        try:
            self._server = await asyncio.start_server(self._accept, host, port, limit=HEAD_BYTES_MAX)
        except OSError as error:
            raise SettingInvalid("HOWDAH_METRICS_PORT", f"cannot listen on {host}:{port}: {error.strerror}") from error
        bound: int = self._server.sockets[0].getsockname()[1]
        _logger.info("metrics_port_opened", extra={"fields": {"host": host, "port": bound}})
        return bound

    async def stop(self) -> None:
        """Close the port and all connections."""
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            async with asyncio.timeout(EXCHANGE_S_MAX):
                writer.write(await self._exchange(reader))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # Nobody awaits this task; until Python 3.12 asyncio complains of one that was cancelled.
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        line, _, rest = head.partition(b"\r\n")
        words = line.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST)
        if words[0] not in (b"GET", b"HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, extra="Allow: GET, HEAD\r\n")
        answer = self._answer(words[1].split(b"?")[0], rest)
        return answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if words[0] == b"HEAD" else answer

    def _answer(self, path: bytes, headers: bytes) -> bytes:
        if path == b"/healthz":
            # That this is answered at all shows that the event loop turns.
            return _response(HTTPStatus.OK, b'{"status":"ok"}')
        if path == b"/readyz":
            is_ready, body = self._readiness.report()
            return _response(HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE, orjson.dumps(body))
        if path == b"/metrics":
            body_text, content_type = metrics.render(_header(headers, b"accept"))
            return _response(HTTPStatus.OK, body_text, content_type)
        return _response(HTTPStatus.NOT_FOUND)


def _header(headers: bytes, wanted: bytes) -> str:
    for line in headers.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == wanted:
            return value.strip().decode("latin-1")
    return ""


def _response(status: HTTPStatus, body: bytes = b"", content_type: str = _JSON, *, extra: str = "") -> bytes:
    body = body or orjson.dumps({"status": status.phrase})
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        f"Cache-Control: no-store\r\nConnection: close\r\n{extra}\r\n"
    )
    return head.encode("latin-1") + body
