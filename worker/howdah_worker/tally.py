"""Counts what happened per queue, and appends it to `queue_stats` once a minute."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from howdah.core import metrics
from howdah.core.db.errors import translated
from howdah.core.store.stats import Tally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from howdah.core.clock import DatabaseClock
    from howdah.core.db.connect import Connection
    from howdah.core.model import LeaseKey, Rearmed
    from howdah.core.store.stats import Stats
    from howdah_worker.run import Run

_MINUTE_S: Final = 60


class TallySheet:
    """What this process counted in the current minute, and in the last as long as it is not written.

    Attributes:
        due_at: Monotonic instant at which `write` has something to do; infinity while nothing was counted.
    """

    def __init__(self, stats: Stats, clock: DatabaseClock) -> None:
        """Write with `stats` into the minutes of `clock`."""
        self._stats = stats
        self._clock = clock
        self._bucket_at: datetime | None = None
        self._counts: dict[int, list[float]] = {}
        self._unwritten: tuple[datetime, UUID, dict[int, Tally]] | None = None
        self.due_at = math.inf

    def count(self, runs: Sequence[Run], verdicts: Mapping[LeaseKey, Rearmed]) -> None:
        """Count runs whose reports were recorded.

        Args:
            runs: All of one batch.
            verdicts: What the database decided on those that did not end well.
        """
        if self._bucket_at is None:
            self._begin()
        outcomes: dict[str, int] = {}
        durations: list[float] = []
        for run in runs:
            report = run.report
            count = self._counts.get(run.queue_id)
            if count is None:
                count = self._counts[run.queue_id] = [0, 0, 0, 0.0]
            outcome = report.outcome
            if outcome == "succeeded":
                count[0] += 1
            elif (verdict := verdicts.get(run.key)) is not None:
                count[1] += verdict.verdict == "dead"
                count[2] += verdict.verdict == "retry"
                outcome = "cancelled" if verdict.verdict == "cancelled" else outcome
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            if report.duration_s is not None:
                count[3] += report.duration_s
                durations.append(report.duration_s)
        for outcome, number in outcomes.items():
            metrics.RUNS_FINISHED.labels(outcome).inc(number)
        metrics.RUN_SECONDS.observe_many(durations)

    async def write(self, conn: Connection) -> None:
        """Append what was counted, in general when the minute is over; call it again until it succeeds.

        Raises:
            DatabaseUnavailable: The connection is lost; a repeat counts nothing twice.
        """
        if self._unwritten is None and self._bucket_at is not None:
            tallies = {
                queue_id: Tally(0, int(count[0]), int(count[1]), int(count[2]), count[3])
                for queue_id, count in self._counts.items()
            }
            # A source of its own: a second row for the same minute must not be taken for a repeat.
            self._unwritten = self._bucket_at, uuid4(), tallies
            self._counts, self._bucket_at = {}, None
        if self._unwritten is not None:
            bucket_at, source, tallies = self._unwritten
            # Until this succeeds, the next try is a while away.
            self.due_at = time.monotonic() + 1.0
            if tallies:
                with translated():
                    await self._stats.insert(conn, bucket_at, source, tallies)
            self._unwritten = None
        self.due_at = math.inf if self._bucket_at is None else self._minute_end()

    def _begin(self) -> None:
        now = self._clock.now()
        self._bucket_at = now.replace(second=0, microsecond=0)
        if self._unwritten is None:
            self.due_at = self._minute_end()

    def _minute_end(self) -> float:
        assert self._bucket_at is not None
        left_s = (self._bucket_at + timedelta(seconds=_MINUTE_S) - self._clock.now()).total_seconds()
        return time.monotonic() + max(0.0, left_s)
