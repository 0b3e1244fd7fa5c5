"""Wake-ups for the workers, sent after the commits that they announce.

NOTIFY inside an enqueuing transaction takes a database-wide lock at its commit:
measured at 16 clients, 26,500 inserts a second became 5,600. So the words are
gathered here and sent on a connection of their own: the first at once, then at
most one message every 5 ms. Nothing depends on their arrival.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Final

from howdah.core.db.connect import connect
from howdah.core.errors import DatabaseUnavailable
from howdah.core.wake import AllLanes, LaneReady

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from howdah.api.database import Database
    from howdah.core.store.lanes import Lanes
    from howdah.core.store.tasks import Stored
    from howdah.core.wake import Word

PAUSE_S: Final = 0.005
# A server that is there and lets nobody in is not asked in a tight loop.
RECONNECT_PAUSE_S: Final = 0.1

_log: Final = logging.getLogger(__name__)


class Notifier:
    """Gathers wake-ups and sends them."""

    def __init__(self, database: Database, store: Lanes) -> None:
        """Send with `store` on a connection that `run` opens."""
        self._database = database
        self._store = store
        self._lanes: dict[tuple[int, int], datetime] = {}
        self._others: set[Word] = set()
        self._wanted = asyncio.Event()

    def announce(self, stored: Iterable[Stored]) -> None:
        """Announce lanes in which a commit left something to start; rows that have none are passed over."""
        for row in stored:
            if row.queue_id is not None and row.priority is not None and row.run_at is not None:
                self.wake(row.queue_id, row.priority, row.run_at)

    def wake(self, queue_id: int, priority: int, run_at: datetime) -> None:
        """Announce a run of a lane, after the commit that made it ready."""
        lane = (queue_id, priority)
        known = self._lanes.get(lane)
        if known is None or run_at < known:
            self._lanes[lane] = run_at
        self._wanted.set()

    def say(self, word: Word) -> None:
        """Send any other word."""
        self._others.add(word)
        self._wanted.set()

    async def run(self) -> None:
        """Send what is wanted until cancelled."""
        while True:
            await self._wanted.wait()
            try:
                async with await connect(self._database.settings, "api", purpose="plain") as conn:
                    while True:
                        await self._wanted.wait()
                        self._wanted.clear()
                        lanes = [LaneReady.at(*lane, run_at) for lane, run_at in self._lanes.items()]
                        others, self._lanes, self._others = self._others, {}, set()
                        await self._store.notify(conn, [*lanes, *others])
                        await asyncio.sleep(PAUSE_S)
            except DatabaseUnavailable as reason:
                _log.info("wake_ups_lost", extra={"fields": {"reason": str(reason)}})
                # What was lost is made good by one word for all lanes.
                self.say(AllLanes())
                if not await self._database.is_there():
                    await self._database.wait_found(math.inf)
                await asyncio.sleep(RECONNECT_PAUSE_S)
