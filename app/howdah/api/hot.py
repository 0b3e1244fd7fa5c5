"""Connections with pinned plans, for what consumers over HTTP ask for and for looks at results.

They are made when they are first needed: most processes serve no consumers.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, TypeVar

from howdah.api.database import LOCK_S_MAX, STATEMENT_S_MAX
from howdah.core.db.arrays import read_raw
from howdah.core.db.connect import connect
from howdah.core.errors import DatabaseUnavailable, StorageUnavailable
from howdah.core.store.lanes import Lanes
from howdah.core.store.runs import Runs
from howdah.core.store.server import within_limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from howdah.api.database import Database
    from howdah.core.db.connect import Connection
    from howdah.core.store.server import Server

T = TypeVar("T")

# Chosen: claims of two lines, the reports and the results at once. Each statement takes milliseconds.
HOT_CONNECTIONS: Final = 4


class Desk:
    """One connection, with statements of its own: their cursors are kept with it.

    Attributes:
        conn: Hot, autocommit, reading raw, with limits.
        runs: Statements on runs.
        lanes: Statements on lanes.
    """

    conn: Connection

    def __init__(self, schema: str) -> None:
        """Prepare for a connection, which `HotPool` makes."""
        self.runs = Runs(schema)
        self.lanes = Lanes(schema)
        self.is_open = False

    async def close(self) -> None:
        """Close the connection; the next use makes another."""
        if self.is_open:
            self.is_open = False
            await self.conn.close()


class HotPool:
    """Lends desks."""

    def __init__(self, database: Database, server: Server) -> None:
        """Connect at the first use."""
        self._database = database
        self._server = server
        self._free = asyncio.Semaphore(HOT_CONNECTIONS)
        self._desks = [Desk(database.settings.schema) for _ in range(HOT_CONNECTIONS)]

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Desk]:
        """Lend a desk for one operation; an operation that fails on it has its connection closed.

        Raises:
            DatabaseUnavailable: PostgreSQL is away, or the connection was lost inside.
            StorageUnavailable: A statement reached a limit.
        """
        self._database.refuse_if_away()
        async with self._free:
            desk = self._desks.pop()
            try:
                if not desk.is_open or desk.conn.closed:
                    await self._open(desk)
                with self._database.watched(desk.conn), within_limits():
                    yield desk
            except StorageUnavailable:
                raise
            except BaseException as error:
                # Also cancelled in the middle: what the connection would answer next is unknown.
                await desk.close()
                if isinstance(error, DatabaseUnavailable):
                    self._database.doubt()
                raise
            finally:
                # Those that are open are taken first.
                self._desks.append(desk)

    async def repeat(self, work: Callable[[Desk], Awaitable[T]]) -> T:
        """Do something that may be done twice, again on another desk while only connections were lost.

        Raises:
            DatabaseUnavailable: PostgreSQL is away.
            StorageUnavailable: A statement reached a limit.
        """
        for _ in range(HOT_CONNECTIONS):
            try:
                async with self.use() as desk:
                    return await work(desk)
            except StorageUnavailable:
                raise
            except DatabaseUnavailable:
                # Each of them may have been cut while nobody used it.
                if not await self._database.is_there():
                    raise
        async with self.use() as desk:
            return await work(desk)

    async def close(self) -> None:
        """Close all connections, none of which is lent."""
        for desk in self._desks:
            await desk.close()

    async def _open(self, desk: Desk) -> None:
        desk.conn = await connect(self._database.settings, "api", purpose="hot")
        desk.is_open = True
        read_raw(desk.conn)
        await self._server.limit_session(desk.conn, statement_timeout_s=STATEMENT_S_MAX, lock_timeout_s=LOCK_S_MAX)
