"""Connections for callbacks: only to addresses that the policy lets pass, and with a limit on what comes back.

A name is resolved once, every address found is judged, and the connection goes
to one of those very addresses; the socket factory judges again what is dialled,
which also covers addresses that a URL names literally. A pooled connection was
judged when it was made, by a policy that never changes, so reusing it is safe
whatever the name resolves to by then.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.http import RawResponseMessage
    from aiohttp.streams import StreamReader

    from howdah.core.addresses import AddressPolicy

# Most servers end idle connections after 5 s (Node.js, uvicorn, Apache) or more.
# Ending them first avoids the race in which a request is sent into a connection
# that is just being closed, and keeps few idle sockets.
KEEPALIVE_S: Final = 4.0
# Chosen: a name that moves is followed within seconds, and a burst asks once.
NAME_CACHE_S: Final = 10
NAME_CACHE_COUNT_MAX: Final = 1_000
# Of thousands of addresses of one name only these are kept and dialled; all are judged.
ADDRESS_COUNT_MAX: Final = 16
# A hanging lookup holds its thread for as long as resolv.conf says (10 s and
# more), which no timeout of ours can shorten. Enough of them that one tenant's
# dead names do not keep the other tenants' names waiting.
LOOKUP_COUNT_MAX: Final = 256

# A flood of `HTTP/1.1 100` lines made a process with uvloop 204 MB larger within
# 3 s, and one of chunk extensions kept the event loop busy: aiohttp limits
# lines, fields and bodies, but not these.
INTERIM_COUNT_MAX: Final = 16
_OVERHEAD_BYTES_MAX: Final = 512 * 1024
_HEAD_END: Final = b"\r\n\r\n"

AddressInfo: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]


class BlockedAddress(OSError):
    """The address is one that the policy refuses; an OSError, so that aiohttp cleans up as after any failed dial.

    Attributes:
        what: What kind of address it is. The address itself would tell a tenant about our network.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"a special address ({what})")


class AnswerRefused(aiohttp.ClientError):
    """The receiver sends more than an answer may have, or sends without having been asked."""


def system_lookup(host: str) -> list[str]:
    """Resolve a name with the operating system; blocks.

    Raises:
        OSError: The name has no address, or no server answered.
    """
    # Without AI_ADDRCONFIG: all addresses are to be judged, also those that this machine has no route to.
    return [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


class VettedResolver(AbstractResolver):
    """Resolves names in threads and lets pass only those all of whose addresses may be reached."""

    def __init__(self, policy: AddressPolicy, lookup: Callable[[str], list[str]]) -> None:
        """Judge by `policy` what `lookup`, a blocking function, finds."""
        self._policy = policy
        self._lookup = lookup
        self._slots = asyncio.Semaphore(LOOKUP_COUNT_MAX)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name, ready to be dialled.

        Raises:
            BlockedAddress: At least one of them must not be reached. One is
                enough: who controls the name chooses which one is dialled.
            OSError: There is none.
        """
        addresses = await self._in_thread(host)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
        for address in addresses:
            if (what := self._policy.refusal(address)) is not None:
                raise BlockedAddress(what)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses[:ADDRESS_COUNT_MAX]
        ]

    async def close(self) -> None:
        """Do nothing: lookups under way end by themselves."""

    async def _in_thread(self, host: str) -> list[str]:
        # A daemon thread of its own, not an executor's: the interpreter waits
        # for those on exit, so that a hanging name server would delay a stop.
        async with self._slots:
            loop = asyncio.get_running_loop()
            found: asyncio.Future[list[str]] = loop.create_future()
            thread = threading.Thread(target=self._run, args=(host, loop, found), name="howdah-dns", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise OSError(errno.EAGAIN, "the system gives no more threads") from error
            return await found

    def _run(self, host: str, loop: asyncio.AbstractEventLoop, found: asyncio.Future[list[str]]) -> None:
        addresses: list[str] = []
        error: Exception | None = None
        try:
            addresses = self._lookup(host)
        except (OSError, UnicodeError) as caught:
            error = caught if isinstance(caught, OSError) else socket.gaierror(socket.EAI_NONAME, "not a name")

        def settle() -> None:
            if found.done():
                return
            if error is None:
                found.set_result(addresses)
            else:
                found.set_exception(error)

        # The loop may be closed by the time a name server answers.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle)


class AnswerHandler(ResponseHandler):
    """aiohttp's parser of answers, with limits on what it would otherwise take without end.

    It also ends a connection on which an answer comes that nobody asked for:
    kept, it would be taken for the answer to the next request.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, bytes_max: int) -> None:
        """Read at most `bytes_max` bytes of one answer, heads and framing included."""
        super().__init__(loop)
        self._bytes_max = bytes_max
        self._received_bytes = 0
        self._interim_count = 0
        self._is_answered = True
        self._is_refused = False
        self._body: StreamReader | None = None

    def set_response_params(self, **params: Any) -> None:
        """Begin to expect the answer to a request."""
        self._received_bytes = 0
        self._interim_count = 0
        self._is_answered = False
        self._body = None
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Parse what came, piece by piece, until a limit is reached.

        A head goes to the parser without what follows it. Otherwise a fault in
        the body would hide the status, but only if both came in one segment.
        """
        self._received_bytes += len(data)
        if self._received_bytes > self._bytes_max:
            self._refuse("the answer is too long")
            return
        start = 0
        while not self._is_answered and (end := data.find(_HEAD_END, start)) >= 0:
            start, piece = end + len(_HEAD_END), data[start : end + len(_HEAD_END)]
            self._parse(piece)
            if self._is_refused:
                return
        if start == 0:
            self._parse(data)
        elif start < len(data):
            self._parse(data[start:])

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Take over a parsed head, unless it is one too many."""
        status = data[0].code
        if self._is_answered:
            self._refuse("an answer came that was not asked for")
        elif 100 <= status <= 199 and status != 101:
            self._interim_count += 1
            if self._interim_count > INTERIM_COUNT_MAX:
                self._refuse("too many interim answers")
        else:
            self._is_answered = True
            self._body = data[1]
        super().feed_data(data, size)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        """End the answer early, and its body too: aiohttp lets a body with a bad chunk wait for its timeout."""
        if exc_cause is None:
            super().set_exception(exc)
        else:
            super().set_exception(exc, exc_cause)
        if self._body is not None and not self._body.is_eof():
            self._body.set_exception(aiohttp.ClientPayloadError("the body ended early"))

    def _parse(self, data: bytes) -> None:
        if not self._is_refused:
            super().data_received(data)

    def _refuse(self, why: str) -> None:
        if self._is_refused:
            return
        self._is_refused = True
        self.set_exception(AnswerRefused(why))
        if self.transport is not None:
            self.transport.abort()


class VettedConnector(aiohttp.TCPConnector):
    """A pool of connections, each of them to an address that was judged when it was dialled."""

    def __init__(self, policy: AddressPolicy, lookup: Callable[[str], list[str]], body_bytes_max: int) -> None:
        """Make an empty pool in the running loop.

        Args:
            policy: Judges addresses.
            lookup: Resolves a name; blocks, and is called in a thread.
            body_bytes_max: How much of a body the client reads before it closes the connection.
        """
        self._policy = policy
        super().__init__(
            resolver=VettedResolver(policy, lookup),
            socket_factory=self._make_socket,
            ssl=_tls_context(),
            # The executor bounds what is under way; a second queue here would hide time from its timeouts.
            limit=0,
            keepalive_timeout=KEEPALIVE_S,
            ttl_dns_cache=NAME_CACHE_S,
            dns_cache_max_size=NAME_CACHE_COUNT_MAX,
        )
        # aiohttp has no public way to choose the protocol. A release without this
        # attribute would go on without our limits, so pyproject.toml bounds the release.
        handler = partial(AnswerHandler, loop=self._loop, bytes_max=body_bytes_max + _OVERHEAD_BYTES_MAX)
        self._factory = cast("partial[ResponseHandler]", handler)

    def _make_socket(self, info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if (what := self._policy.refusal(address[0])) is not None:
            raise BlockedAddress(what)
        return socket.socket(family, kind, protocol)


def _tls_context() -> ssl.SSLContext:
    """Return a context that trusts the system's authorities (or SSL_CERT_FILE), TLS 1.2 and newer."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A receiver could otherwise keep us busy with handshakes.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context
