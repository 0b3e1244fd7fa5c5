"""Idempotency-Key: a request that is repeated with its key gets the answer of the first, for 24 hours.

The whole request runs in one transaction: take the key, do the work, store the
answer. So the key and the work are there together or not at all. Connections are
of a pool of their own, because a key may have to be waited for. Only answers of
requests that were carried out are kept: one that was refused changed nothing and
may be sent again with the same key, corrected.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from typing import TYPE_CHECKING, Final, TypeAlias

from howdah.api.call import JSON_TYPE, Answer
from howdah.api.database import LOCK_S_MAX, STATEMENT_S_MAX
from howdah.api.problems import Fault, Problem
from howdah.core.db.connect import open_pool
from howdah.core.errors import StorageUnavailable
from howdah.core.store.idempotency import KeptAnswer
from howdah.core.store.server import within_limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from howdah.api.call import Call
    from howdah.api.database import Database
    from howdah.core.db.connect import Connection, ConnectionPool
    from howdah.core.store.idempotency import Idempotency
    from howdah.core.store.server import Server

Work: TypeAlias = "Callable[[Connection], Awaitable[tuple[Answer, Callable[[], None]]]]"

KEPT_POOL: Final = 4
# How long a request waits for a connection, and how long for another one with its key: its
# client shall hear within 10 s.
WAIT_S_MAX: Final = 3.0
TURN_S_MAX: Final = 8.0

_HEADER: Final = "Idempotency-Key"
_KEY: Final = re.compile(rb"[\x21-\x7e]{1,255}")


def key_of(call: Call) -> str | None:
    """Return the key that a request carries, or None.

    Raises:
        Problem: It is not 1 to 255 visible ASCII characters.
    """
    raw = call.headers.get(b"idempotency-key")
    if raw is None:
        return None
    if not _KEY.fullmatch(raw):
        detail = "must be 1 to 255 visible ASCII characters"
        raise Problem("validation", f"{_HEADER} {detail}", [Fault(detail, header=_HEADER)])
    return raw.decode("ascii")


class _Turn:
    """Requests with one key in this process: one at a time, and those behind it share its answer."""

    __slots__ = ("count", "kept", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.count = 0
        self.kept: KeptAnswer | None = None


class Keeper:
    """Carries requests out once per key."""

    def __init__(self, database: Database, store: Idempotency, server: Server) -> None:
        """Keep answers in `store`."""
        self._database = database
        self._store = store
        self._server = server
        self._pool: ConnectionPool | None = None
        self._free = asyncio.Semaphore(KEPT_POOL)
        self._turns: dict[tuple[int, str], _Turn] = {}

    async def run(self) -> None:
        """Hold the pool open until cancelled."""
        self._pool = await open_pool(self._database.settings, "api", KEPT_POOL)
        try:
            await asyncio.Event().wait()
        finally:
            await self._pool.close()

    async def once(self, call: Call, key: str, body: bytes, work: Work) -> Answer:
        """Carry a request out, or replay the answer that its key has.

        Args:
            call: The request.
            key: Its key.
            body: Its body.
            work: Does it inside a transaction; returns the answer and what to do after the commit.

        Raises:
            Problem: The key belongs to another request, or is in use for longer than a moment.
            StorageUnavailable: There was no connection within `WAIT_S_MAX`; nothing was done.
            DatabaseUnavailable: PostgreSQL is away. If it was lost meanwhile, a repeat with the key finds out.
        """
        request_hash = hash_of(call, body)
        name = (call.key.tenant_id, key)
        turn = self._turns.setdefault(name, _Turn())
        turn.count += 1
        try:
            async with _held(turn):
                if turn.kept is not None:
                    return _replay(turn.kept, request_hash)
                answer, after_commit = await self._once(call, key, request_hash, work)
                turn.kept = KeptAnswer(request_hash, answer.status, _location(answer), answer.body.decode())
        finally:
            turn.count -= 1
            if not turn.count:
                del self._turns[name]
        if after_commit is not None:
            after_commit()
        return answer

    async def _once(
        self, call: Call, key: str, request_hash: bytes, work: Work
    ) -> tuple[Answer, Callable[[], None] | None]:
        tenant_id = call.key.tenant_id
        async with self._transaction() as conn:
            if not await self._store.take(conn, tenant_id, key, request_hash):
                kept = await self._store.get(conn, tenant_id, key)
                return _replay(kept, request_hash), None
            answer, after_commit = await work(conn)
            await self._store.answer(
                conn, tenant_id, key, status=answer.status, location=_location(answer), answer=answer.body.decode()
            )
        return answer, after_commit

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        assert self._pool is not None, "the supervisor starts the keeper before requests are served"
        try:
            async with asyncio.timeout(WAIT_S_MAX):
                await self._free.acquire()
        except TimeoutError:
            raise StorageUnavailable("too many requests with an Idempotency-Key are under way") from None
        try:
            async with self._database.lent(self._pool) as conn, conn.transaction():
                await self._server.limit(conn, statement_timeout_s=STATEMENT_S_MAX, lock_timeout_s=LOCK_S_MAX)
                with within_limits():
                    yield conn
        finally:
            self._free.release()


@contextlib.asynccontextmanager
async def _held(turn: _Turn) -> AsyncIterator[None]:
    """Wait for the turn, or for so long that there is an answer to replay instead."""
    is_held = False
    try:
        async with asyncio.timeout(TURN_S_MAX):
            is_held = await turn.lock.acquire()
    except TimeoutError:
        if turn.kept is None:
            raise Problem("idempotency_key_in_use", "A request with this key is under way.") from None
    try:
        yield
    finally:
        if is_held:
            turn.lock.release()


def _location(answer: Answer) -> str | None:
    return next((value.decode() for name, value in answer.headers if name == b"location"), None)


def _replay(kept: KeptAnswer | None, request_hash: bytes) -> Answer:
    if kept is None:
        # Deleted as too old between two statements.
        raise Problem("idempotency_key_in_use", "The key has just expired.")
    if bytes(kept.request_hash) != request_hash:
        detail = "was used before with another request"
        raise Problem("idempotency_key_reused", f"{_HEADER} {detail}", [Fault(detail, header=_HEADER)])
    headers = [JSON_TYPE, (b"idempotency-replayed", b"true")]
    if kept.location is not None:
        headers.append((b"location", kept.location.encode()))
    return Answer(kept.status, kept.answer.encode(), headers)


def hash_of(call: Call, body: bytes) -> bytes:
    """Return what makes a request the same: method, path and body."""
    head = f"{call.scope['method']} {call.scope['path']}\n".encode()
    return hashlib.sha256(head + body).digest()
