"""The connections that handlers get through `ctx.transaction()`: few, shared, opened when they are needed.

Async handlers and plain functions in threads draw on the same number. A
connection comes back as it was opened: the next handler, perhaps of another
tenant, finds neither settings nor a role, temporary tables or advisory locks of
the one before. One that broke, or that the server closed meanwhile, is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from howdah.core.db.connect import connect, connect_sync

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from howdah.core.db.connect import Connection
    from howdah.core.settings import Settings

SyncConnection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
# What DISCARD ALL does, but for the prepared statements, which psycopg believes to be there. RESET ALL
# leaves the role alone.
_RESET: Final = (
    "CLOSE ALL; RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; UNLISTEN *; "
    "SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
)

C = TypeVar("C", bound="psycopg.AsyncConnection[Any] | psycopg.Connection[Any]")


class KeptConnections:
    """Connections that are kept when they come back; a process that runs one handler at a time has one."""

    def __init__(self, settings: Settings, process: str) -> None:
        """Connect as `process`, when a connection is needed."""
        self._settings = settings
        self._process = process
        self._idle: list[Connection] = []
        self._idle_sync: list[SyncConnection] = []

    @contextlib.asynccontextmanager
    async def take(self) -> AsyncIterator[Connection]:
        """Lend a connection for the block.

        Raises:
            DatabaseUnavailable: There was no connection.
        """
        conn = _usable(self._idle)
        if conn is None:
            conn = await connect(self._settings, self._process, purpose="handler")
        try:
            yield conn
        finally:
            await self._put_back(conn)

    async def _put_back(self, conn: Connection) -> None:
        """Keep the connection, or close it; also if its handler is cancelled meanwhile."""
        is_reset = False
        try:
            if not conn.closed and conn.pgconn.transaction_status == TransactionStatus.IDLE:
                await conn.execute(_RESET, prepare=False)
                is_reset = True
        finally:
            if is_reset:
                self._idle.append(conn)
            else:
                await conn.close()

    @contextlib.contextmanager
    def take_sync(self) -> Iterator[SyncConnection]:
        """Lend a blocking connection to a thread for the block.

        Raises:
            DatabaseUnavailable: There was no connection.
        """
        conn = _usable(self._idle_sync)
        if conn is None:
            conn = connect_sync(self._settings, self._process, purpose="handler")
        try:
            yield conn
        finally:
            self._put_back_sync(conn)

    def _put_back_sync(self, conn: SyncConnection) -> None:
        is_reset = False
        try:
            if not conn.closed and conn.pgconn.transaction_status == TransactionStatus.IDLE:
                conn.execute(_RESET, prepare=False)
                is_reset = True
        finally:
            if is_reset:
                self._idle_sync.append(conn)
            else:
                conn.close()

    async def close(self) -> None:
        """Close what nobody uses."""
        while self._idle:
            await self._idle.pop().close()
        while self._idle_sync:
            self._idle_sync.pop().close()


class HandlerConnections(KeptConnections):
    """At most `settings.handler_pool` connections in use; asks for more wait for one, in order."""

    def __init__(self, settings: Settings, process: str) -> None:
        """Make it on the event loop that async handlers run on."""
        super().__init__(settings, process)
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(settings.handler_pool)

    @contextlib.asynccontextmanager
    async def take(self) -> AsyncIterator[Connection]:
        """Lend a connection for the block.

        Raises:
            DatabaseUnavailable: There was no connection.
        """
        async with self._slots, super().take() as conn:
            yield conn

    @contextlib.contextmanager
    def take_sync(self) -> Iterator[SyncConnection]:
        """Lend a blocking connection to a thread for the block.

        Raises:
            DatabaseUnavailable: There was no connection.
        """
        asyncio.run_coroutine_threadsafe(self._slots.acquire(), self._loop).result()
        try:
            with super().take_sync() as conn:
                yield conn
        finally:
            self._loop.call_soon_threadsafe(self._slots.release)


def _usable(idle: list[C]) -> C | None:
    """Return an idle connection that the server has not said anything on: it would say that it ends it."""
    while idle:
        conn = idle.pop()
        if conn.closed:
            continue
        poll = select.poll()
        poll.register(conn.fileno(), select.POLLIN)
        if not poll.poll(0):
            return conn
        # Closing it is a matter of the socket only: nobody waits for the server.
        conn.pgconn.finish()
    return None
