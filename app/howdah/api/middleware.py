"""Around every request: its id, the bound on requests under way, metrics, one line in the log, and problems.

Pure ASGI: Starlette's BaseHTTPMiddleware was measured to take six sevenths of
the throughput away.
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time
from typing import TYPE_CHECKING, Final

import msgspec

from howdah.api.call import Answer, Call, ClientGone
from howdah.api.problems import Problem, of_exception
from howdah.core import log, metrics
from howdah.core.callback_tokens import mask_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from howdah.api.backend import Backend

# Nginx's word for a client that closed the connection before it got an answer.
CLIENT_GONE: Final = 499

# What ids of others are made of: UUIDs, ULIDs, trace ids, base64, AWS's `Root=1-…`. Nothing in it can end a line,
# a header, or a JSON string. nginx/howdah.conf has the same rule.
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_.:/+=@-]{1,128}")
_log: Final = logging.getLogger(__name__)


class Edge:
    """The outermost part of the application.

    Attributes:
        backend: What requests work with; set when the lifespan begins.
    """

    backend: Backend

    def __init__(self, app: ASGIApp) -> None:
        """Stand around `app`."""
        self._app = app
        # Unique over all processes, and cheaper than a random number for each request.
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._counters: dict[tuple[str, str, int], Callable[[], None]] = {}
        self._timers: dict[str, Callable[[float], None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's event: requests here, all else (the lifespan) inside."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            request_id = given.decode()
        else:
            request_id = f"{self._prefix}-{next(self._numbers):x}"
        backend = self.backend
        call = scope["howdah.call"] = Call(backend, scope, receive, request_id, headers)
        try:
            backend.gate.enter()
            if b"%" in scope["raw_path"]:
                # No path of ours needs an escape, and proxies disagree about what they mean.
                raise Problem("not_found", "There is nothing at this path.")
            await self._app(scope, receive, send)
        except ClientGone:
            call.status = CLIENT_GONE
        except Exception as error:
            await self._send_problem(call, send, error)
        finally:
            backend.gate.leave(call.body_bytes)
            self._record(call, time.perf_counter() - began)

    async def _send_problem(self, call: Call, send: Send, error: Exception) -> None:
        problem = of_exception(error)
        if problem is None:
            with log.bound(request_id=call.request_id):
                _log.error("request_crashed", exc_info=error, extra={"fields": {"route": call.route}})
            problem = Problem("internal_error", "An unexpected error; the log has it under the request id.")
        if call.status:
            # The answer has begun: nothing else can be said on this connection.
            raise error
        body = msgspec.json.encode(problem.document(call.request_id))
        await call.send(send, Answer(problem.status, body, problem.all_headers()))

    def _record(self, call: Call, duration_s: float) -> None:
        method: str = call.scope["method"]
        name = (call.route, method, call.status)
        count = self._counters.get(name)
        if count is None:
            route = call.route or "unmatched"
            known_method = method if method in _METHODS else "other"
            count = metrics.HTTP_REQUESTS.labels(route, known_method, str(call.status)).inc
            if method in _METHODS:
                self._counters[name] = count
        count()
        observe = self._timers.get(call.route)
        if observe is None:
            observe = metrics.HTTP_REQUEST_SECONDS.labels(call.route or "unmatched").observe
            self._timers[call.route] = observe
        observe(duration_s)
        if _log.isEnabledFor(logging.INFO):
            _log.info("request_answered", extra={"fields": _fields(call, method, duration_s)})


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _fields(call: Call, method: str, duration_s: float) -> dict[str, object]:
    fields: dict[str, object] = {
        "request_id": call.request_id,
        "method": method,
        "route": call.route or None,
        "status": call.status,
        "duration_ms": round(duration_s * 1_000, 2),
    }
    if call.key is not None:
        fields["tenant"] = call.key.tenant
        fields["key"] = call.key.id
    if call.task_id:
        fields["task_id"] = call.task_id
    if not call.route:
        # A path that is nearly a callback's has a token in it.
        fields["path"] = mask_tokens(call.scope["path"][:200])
    return fields
