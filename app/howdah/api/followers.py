"""Who follows the logs of tasks: all of a process are served by one statement a tick.

A follower has read up to some entry. Each tick asks for what is new for those who have nothing
left to send, so a slow client holds one page in memory, and nobody else up. While PostgreSQL
is away nothing comes; what was logged is sent once it is back.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from howdah.api.problems import Problem
from howdah.core.errors import DatabaseUnavailable
from howdah.core.store.task_logs import Followed

if TYPE_CHECKING:
    from uuid import UUID

    from howdah.api.database import Database
    from howdah.core.store.task_logs import TaskLogs

TICK_S: Final = 0.5
# Half of the requests that a process takes at once: the other half is for those that end.
FOLLOWERS_MAX: Final = 1_024
PAGE_ENTRIES: Final = 100

_log: Final = logging.getLogger(__name__)


class Follower:
    """One who follows the log of one task.

    Attributes:
        rows: New entries, until they are taken.
        ended_as: The task's state, once it has ended and all entries were taken.
        is_over: The process is to stop.
    """

    def __init__(self, tenant_id: int, task_id: UUID, after: tuple[int, int], level: int) -> None:
        """Follow from behind `after` (claim number and seq), entries of at least this level."""
        self.tenant_id = tenant_id
        self.task_id = task_id
        self.after = after
        self.level = level
        self.rows: list[Any] = []
        self.ended_as: str | None = None
        self.is_over = False
        self._news = asyncio.Event()

    async def news(self, timeout_s: float) -> bool:
        """Wait for something new; False if nothing came within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def take(self) -> list[Any]:
        """Return the new entries; from here on more are asked for."""
        rows, self.rows = self.rows, []
        if rows:
            self.after = (rows[-1].claim_no, rows[-1].seq)
        self._news.clear()
        return rows

    def tell(self) -> None:
        """Let `news` return."""
        self._news.set()


class Followers:
    """All followers of a process."""

    def __init__(self, database: Database, store: TaskLogs) -> None:
        """Serve them from `store`; `run` does the work."""
        self._database = database
        self._store = store
        self._followers: set[Follower] = set()
        self._some = asyncio.Event()
        self._is_over = False

    def add(self, follower: Follower) -> None:
        """Begin to serve a follower.

        Raises:
            Problem: There are too many.
        """
        if len(self._followers) >= FOLLOWERS_MAX:
            raise Problem("backpressure", f"{FOLLOWERS_MAX} clients follow logs in this process.")
        self._followers.add(follower)
        follower.is_over = self._is_over
        if self._is_over:
            follower.tell()
        self._some.set()

    def remove(self, follower: Follower) -> None:
        """Forget a follower."""
        self._followers.discard(follower)

    def count(self) -> int:
        """Return how many there are."""
        return len(self._followers)

    def end(self) -> None:
        """Let all streams end, because the process is to stop; clients come back elsewhere."""
        self._is_over = True
        for follower in self._followers:
            follower.is_over = True
            follower.tell()

    async def run(self) -> None:
        """Look for what is new every tick, until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._followers:
                try:
                    await self._look()
                except DatabaseUnavailable as reason:
                    _log.info("followers_wait", extra={"fields": {"reason": str(reason)}})
                await asyncio.sleep(TICK_S)

    async def _look(self) -> None:
        asking = [each for each in self._followers if not each.rows and each.ended_as is None]
        if not asking:
            return
        followed = [Followed(each.tenant_id, each.task_id, *each.after, each.level) for each in asking]
        async with self._database.connection() as conn:
            rows = await self._store.follow(conn, followed, row_count=PAGE_ENTRIES)
        for row in rows:
            follower = asking[row.ordinal - 1]
            if row.seq is not None:
                follower.rows.append(row)
            elif row.ended_as is not None:
                follower.ended_as = row.ended_as
        for follower in asking:
            if follower.rows or follower.ended_as is not None:
                follower.tell()
