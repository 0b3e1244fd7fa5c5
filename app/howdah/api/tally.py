"""Counts of what this process accepted, and recorded for consumers over HTTP, per queue, written once a minute."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
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
        # Runs by queue and how they ended: succeeded, dead or retry.
        self._ended: Counter[tuple[int, str]] = Counter()
        self._durations_s: defaultdict[int, float] = defaultdict(float)

    def add(self, queue_id: int, task_count: int) -> None:
        """Count tasks that were stored."""
        self._enqueued[queue_id] += task_count

    def end(self, queue_id: int, duration_s: float, outcome: str, verdict: str | None) -> None:
        """Count a run whose end was recorded.

        Args:
            queue_id: Its queue.
            duration_s: Seconds since its claim.
            outcome: As it was reported.
            verdict: What the database decided if it did not end well: retry, dead, cancelled or released.
        """
        self._ended[queue_id, verdict or outcome] += 1
        self._durations_s[queue_id] += duration_s

    async def run(self) -> None:
        """Write at the end of each minute of the database's clock, until cancelled."""
        while True:
            now_s = self._database.clock.now_s() if self._database.clock.is_set() else 0.0
            await asyncio.sleep(MINUTE_S - now_s % MINUTE_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what was counted since the last time; in an outage it is written later, or lost with the process."""
        if not self._enqueued and not self._ended:
            return
        enqueued, self._enqueued = self._enqueued, Counter()
        ended, self._ended = self._ended, Counter()
        durations_s, self._durations_s = self._durations_s, defaultdict(float)
        try:
            # A moment ago is the minute that has just ended.
            bucket_at = (self._database.clock.now() - timedelta(seconds=1)).replace(second=0, microsecond=0)
            async with self._database.connection() as conn:
                tallies = {
                    queue_id: Tally(
                        enqueued[queue_id],
                        ended[queue_id, "succeeded"],
                        ended[queue_id, "dead"],
                        ended[queue_id, "retry"],
                        durations_s[queue_id],
                    )
                    for queue_id in enqueued.keys() | durations_s.keys()
                }
                await self._store.insert(conn, bucket_at, self._source, tallies)
        except DatabaseUnavailable as reason:
            self._enqueued.update(enqueued)
            self._ended.update(ended)
            for queue_id, duration_s in durations_s.items():
                self._durations_s[queue_id] += duration_s
            _log.info("stats_not_written", extra={"fields": {"reason": str(reason)}})
