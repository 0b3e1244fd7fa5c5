"""A hot connection of the worker that is made when it is needed, and made again when it was lost."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from howdah.core.db.arrays import read_raw
from howdah.core.db.connect import connect
from howdah.core.errors import DatabaseUnavailable, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from howdah.core.db.connect import Connection
    from howdah.core.settings import Settings

PROCESS: Final = "worker"
# Statements take milliseconds. One that a stalled disk delays is worth waiting for; a
# server that hangs while its machine keeps acknowledging packets is not.
ANSWER_S: Final = 20.0


class HotConnection:
    """One connection for one loop."""

    def __init__(self, settings: Settings) -> None:
        """Connect at the first use."""
        self._settings = settings
        self._conn: Connection | None = None
        self.is_new = False
        """The connection of this use has not been used before."""

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """Lend the connection for one operation; an operation that loses it has it closed.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be reached, or did not answer within 20 s.
        """
        self.is_new = self._conn is None or self._conn.closed
        if self._conn is None or self._conn.closed:
            self._conn = await connect(self._settings, PROCESS, purpose="hot")
            read_raw(self._conn)
        try:
            async with asyncio.timeout(ANSWER_S):
                yield self._conn
        except StorageUnavailable:
            raise
        except TimeoutError:
            await self.drop()
            raise DatabaseUnavailable(f"PostgreSQL did not answer within {ANSWER_S:g} s") from None
        except BaseException:
            # Also cancelled in the middle: what the connection would answer next is unknown.
            await self.drop()
            raise

    async def drop(self) -> None:
        """Close the connection, if there is one; the next use makes another."""
        if self._conn is not None:
            conn, self._conn = self._conn, None
            await conn.close()
