"""Counts of what this process accepted, per queue, written once a minute."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from howdah.core.errors import DatabaseUnavailable
from howdah.core.store.stats import Tally

if TYPE_CHECKING:
    from howdah.api.database import Database
    from howdah.core.store.stats import Stats

MINUTE_S: Final = 60.0

_log: Final = logging.getLogger(__name__)


class Tallies:
    """Gathers counts and appends them to the statistics of the queues."""

    def __init__(self, database: Database, store: Stats) -> None:
        """Write with `store`."""
        self._database = database
        self._store = store
        self._source = uuid4()
        self._enqueued: Counter[int] = Counter()

    def add(self, queue_id: int, task_count: int) -> None:
        """Count tasks that were stored."""
        self._enqueued[queue_id] += task_count

    async def run(self) -> None:
        """Write at the end of each minute of the database's clock, until cancelled."""
        while True:
            now_s = self._database.clock.now_s() if self._database.clock.is_set() else 0.0
            await asyncio.sleep(MINUTE_S - now_s % MINUTE_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what was counted since the last time; in an outage it is written later, or lost with the process."""
        if not self._enqueued:
            return
        counts, self._enqueued = self._enqueued, Counter()
        try:
            # A moment ago is the minute that has just ended.
            bucket_at = (self._database.clock.now() - timedelta(seconds=1)).replace(second=0, microsecond=0)
            async with self._database.connection() as conn:
                tallies = {queue_id: Tally(enqueued=count) for queue_id, count in counts.items()}
                await self._store.insert(conn, bucket_at, self._source, tallies)
        except DatabaseUnavailable as reason:
            self._enqueued += counts
            _log.info("stats_not_written", extra={"fields": {"reason": str(reason)}})
