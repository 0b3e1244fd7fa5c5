"""Delivers tasks to HTTP targets: one signed request, one result.

The request carries the payload byte for byte and the headers of Standard
Webhooks. Nothing about a receiver can make `deliver` raise, take longer than
its timeout, read without end, follow a redirect, or reach an address that the
policy refuses; what the answer means is decided in `callback_outcome`.
"""

from __future__ import annotations

import asyncio
import io
import os
import ssl
import time
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from howdah.core import sign
from howdah.core.addresses import check_url
from howdah.core.callback_headers import METHODS, check_headers
from howdah.core.errors import Refused
from howdah_worker.callback_dial import AnswerRefused, BlockedAddress, VettedConnector, system_lookup
from howdah_worker.callback_outcome import Answer, CallbackResult, Fault, decode_body, judge_answer, judge_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from howdah.core.addresses import AddressPolicy

# From the name's lookup to the end of the TLS handshake.
CONNECT_TIMEOUT_S: Final = 5.0
# An answer up to this size leaves its connection usable; longer ones are cut off
# by closing it. Receivers of webhooks answer with a few bytes.
BODY_BYTES_MAX: Final = 64 * 1024
# Larger bodies are written piece by piece, so that copying one does not hold up the event loop.
_BODY_AT_ONCE_BYTES_MAX: Final = 512 * 1024
_ANSWER_LINE_BYTES_MAX: Final = 8 * 1024
_ANSWER_HEADER_COUNT_MAX: Final = 128

_USER_AGENT: Final = f"Howdah/{version('howdah')}"


@dataclass(frozen=True, slots=True)
class CallbackRequest:
    """What a task says about its HTTP target.

    Attributes:
        url: As the client wrote it.
        body: Sent byte for byte; empty for none.
        method: One of `METHODS`, in capitals.
        headers: The client's own headers.
        content_type: Of the body.
        success_statuses: The statuses that count as a success; empty means 200 to 299.
        timeout_s: How long the attempt may take, everything included; greater than 0.
        is_async: The receiver may answer 202 and report the outcome later.
    """

    url: str
    body: bytes
    method: str
    headers: Mapping[str, str]
    content_type: str
    success_statuses: frozenset[int]
    timeout_s: float
    is_async: bool = False


@dataclass(frozen=True, slots=True)
class AttemptContext:
    """Which attempt of which task this is, and who signs it.

    Attributes:
        task_id: The value of `webhook-id`, the same in every attempt.
        attempt: From 1; counts the attempts that were spent.
        claim_no: The fence: greater with every claim of the task.
        queue: The queue's name.
        secrets: The tenant's `whsec_` secrets that are valid now, the newest first.
        traceparent: Of the run's span, if it is traced.
        callback_token: By which the receiver may report the outcome, if it may.
        callback_url: Where to, if that is known.
        parent_id: The task whose end enqueued this one.
        batch: Id of the batch that the task belongs to.
        completes_batch: Id of the batch whose end enqueued it.
    """

    task_id: str
    attempt: int
    claim_no: int
    queue: str
    secrets: tuple[str, ...]
    traceparent: str | None
    callback_token: str | None = None
    callback_url: str | None = None
    parent_id: str | None = None
    batch: str | None = None
    completes_batch: str | None = None


class CallbackClient:
    """Delivers callbacks over pooled connections; one for each process and event loop.

    Use as `async with CallbackClient(...) as client`. Leaving the block closes
    every connection; deliveries still under way then fail as `connection_lost`.
    """

    def __init__(
        self,
        *,
        policy: AddressPolicy,
        now_s: Callable[[], float],
        response_bytes_max: int,
        lookup: Callable[[str], list[str]] = system_lookup,
    ) -> None:
        """Remember the rules; connections are made on demand.

        Args:
            policy: Which addresses may be reached.
            now_s: The database's time in seconds since 1970, for the signature's timestamp.
            response_bytes_max: How much of an answer's body a result keeps.
            lookup: Resolves a name to addresses, in a thread.
        """
        self._policy = policy
        self._now_s = now_s
        self._response_bytes_max = response_bytes_max
        self._body_bytes_max = max(BODY_BYTES_MAX, response_bytes_max)
        self._lookup = lookup
        self._session: aiohttp.ClientSession | None = None
        # Tasks repeat the same few URLs, and taking one apart costs as much as signing.
        self._target = lru_cache(maxsize=1_024)(self._parse_target)

    async def __aenter__(self) -> CallbackClient:
        self._session = aiohttp.ClientSession(
            connector=VettedConnector(self._policy, self._lookup, self._body_bytes_max),
            cookie_jar=aiohttp.DummyCookieJar(),
            # The attempt's own timeout is set around the whole of it, once, and
            # exact: aiohttp rounds totals above 5 s up to whole seconds.
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=16 * 1024,
            max_line_size=_ANSWER_LINE_BYTES_MAX,
            max_field_size=_ANSWER_LINE_BYTES_MAX,
            max_headers=_ANSWER_HEADER_COUNT_MAX,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def deliver(self, request: CallbackRequest, context: AttemptContext) -> CallbackResult:
        """Send a callback once and say how it went.

        Cancelling it aborts the request and closes its connection.

        Args:
            request: Where to, and what. Checked again here: not every task came through the API.
            context: The attempt that the headers name.

        Returns:
            The result, at the latest when the request's timeout is over. No
            failure of the receiver, the network or the request is raised.

        Raises:
            asyncio.CancelledError: It was cancelled.
            howdah.core.errors.ClockUnset: The database's time is not known yet.
        """
        begun = time.monotonic()
        target = self._target(request.url)
        if isinstance(target, Fault):
            return judge_fault(target, time.monotonic() - begun)
        url, origin = target
        headers = self._headers(request, context)
        if isinstance(headers, Fault):
            return judge_fault(headers, time.monotonic() - begun)
        found = await self._exchange(request, url, headers)
        duration_s = time.monotonic() - begun
        if isinstance(found, Answer):
            return judge_answer(found, request.success_statuses, self._now_s(), duration_s, is_async=request.is_async)
        return judge_fault(_fault_of(found, origin, request.timeout_s), duration_s)

    async def _exchange(self, request: CallbackRequest, url: URL, headers: dict[str, str]) -> Answer | Exception:
        """Send the request; return the answer, or what came instead of one."""
        if self._session is None:
            raise RuntimeError("a CallbackClient delivers inside its `async with` block")
        response: aiohttp.ClientResponse | None = None
        body = bytearray()
        data: bytes | io.BytesIO | None = request.body or None
        if len(request.body) > _BODY_AT_ONCE_BYTES_MAX:
            data = io.BytesIO(request.body)
        try:
            async with asyncio.timeout(request.timeout_s):
                response = await self._session.request(
                    request.method, url, headers=headers, data=data, allow_redirects=False
                )
                await self._read_body(response.content, body)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # TimeoutError is an OSError. After the head nothing here matters:
            # the status has decided, and the body is what came until then.
            if response is None:
                return error
        finally:
            if response is not None:
                # Closes the connection, unless the body came to its end: then
                # the connection is back in the pool already.
                response.close()
        get = response.headers.get
        text = decode_body(body, self._response_bytes_max)
        return Answer(response.status, get("Retry-After"), get("Location"), text, get("Howdah-Retry"))

    async def _read_body(self, content: aiohttp.StreamReader, body: bytearray) -> None:
        """Read to the end or to the limit; keep one byte more than results do, so that a cut can be told."""
        left = self._body_bytes_max
        while left > 0 and (data := await content.readany()):
            left -= len(data)
            body += data[: self._response_bytes_max + 1 - len(body)]

    def _headers(self, request: CallbackRequest, context: AttemptContext) -> dict[str, str] | Fault:
        """Return the headers to send, ours last; or why nothing must be sent."""
        if request.method not in METHODS:
            return Fault("request_invalid", f"the method must be one of {', '.join(sorted(METHODS))}")
        refused = check_headers(request.headers)
        if refused:
            # The name is the client's own text and may have any character.
            return Fault("request_invalid", f"{refused[0].pointer[:200]!a} {refused[0].detail}")
        timestamp_s = int(self._now_s())
        try:
            signature = sign.sign(context.secrets, context.task_id, timestamp_s, request.body)
        except ValueError as error:
            return Fault("signing_failed", str(error))
        headers = dict(request.headers)
        headers["Accept-Encoding"] = "identity"
        headers["User-Agent"] = _USER_AGENT
        if request.body:
            headers["Content-Type"] = request.content_type
        headers["webhook-id"] = context.task_id
        headers["webhook-timestamp"] = str(timestamp_s)
        headers["webhook-signature"] = signature
        headers["Howdah-Attempt"] = str(context.attempt)
        headers["Howdah-Fence"] = str(context.claim_no)
        headers["Howdah-Queue"] = context.queue
        if context.parent_id is not None:
            headers["Howdah-Parent"] = context.parent_id
        if context.traceparent is not None:
            headers["traceparent"] = context.traceparent
        if context.callback_token is not None:
            headers["Howdah-Callback-Token"] = context.callback_token
        if context.callback_url is not None:
            headers["Howdah-Callback-Url"] = context.callback_url
        if context.batch is not None:
            headers["Howdah-Batch"] = context.batch
        if context.completes_batch is not None:
            headers["Howdah-Completes-Batch"] = context.completes_batch
        return headers

    def _parse_target(self, url: str) -> tuple[URL, str] | Fault:
        """Return what to request, and the part of it that may be shown; or why it must not be."""
        found = check_url(url, self._policy)
        if isinstance(found, Refused):
            is_blocked = found.code == "blocked_address"
            return Fault(
                "blocked_address" if is_blocked else "request_invalid", f"the URL is refused: it {found.detail}"
            )
        # From our own parts and not from the client's text: so it cannot be read another way here.
        return URL(found.origin + found.target, encoded=True), found.origin


def _fault_of(error: Exception, origin: str, timeout_s: float) -> Fault:
    """Name the reason for which there is no answer, without showing anything of the request but its origin."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return Fault("connect_failed", f"no connection to {origin} within {CONNECT_TIMEOUT_S:g} s")
        case TimeoutError():
            return Fault("timeout", f"no answer from {origin} within {timeout_s:g} s")
        case aiohttp.ClientConnectorError(os_error=BlockedAddress(what=what)):
            return Fault("blocked_address", f"{origin} must not be reached: it is at a special address ({what})")
        case aiohttp.ClientConnectorDNSError():
            return Fault("dns_failed", f"{origin} cannot be reached: the name has no address")
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as cause):
            return Fault("tls_failed", f"the certificate of {origin} is not valid: {cause.verify_message}")
        case aiohttp.ClientSSLError():
            return Fault("tls_failed", f"no TLS with {origin}")
        case aiohttp.ClientConnectorError(os_error=OSError(errno=code)) if code is not None:
            return Fault("connect_failed", f"no connection to {origin}: {os.strerror(code)}")
        case aiohttp.ClientConnectorError(os_error=ConnectionError()):
            return Fault("connect_failed", f"no connection to {origin}: closed during the handshake")
        case aiohttp.ClientConnectorError():
            return Fault("connect_failed", f"no connection to any address of {origin}")
        case AnswerRefused():
            return Fault("response_invalid", f"{error} (from {origin})")
        case aiohttp.ClientResponseError():
            return Fault("response_invalid", f"what came from {origin} is not valid HTTP")
        case aiohttp.ClientConnectionError() | OSError():
            return Fault("connection_lost", f"{origin} closed the connection without an answer")
        case _:
            # What aiohttp refuses to put into a request line or a header.
            return Fault("request_invalid", "the request has a field that cannot be sent")
