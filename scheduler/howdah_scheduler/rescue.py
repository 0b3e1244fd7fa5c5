"""Takes runs back from workers that are gone: leases that have run out are ended as lost.

So are those of receivers that accepted a run and did not call back in time, as timed out.

While PostgreSQL was away, or no scheduler ran, workers may have been unable to
renew: their leases look as if they were gone. So after a gap in its own work, or
soon after a start of the server, rescue waits for one lease first (a minute at most),
and leases that end during that wait count no crash.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from howdah.core import metrics
from howdah.core.store.batches import Batches, BatchKey
from howdah.core.store.expired_runs import PAGE_RUNS, ExpiredRuns
from howdah.core.store.flow_keys import FlowKeys
from howdah.core.store.maintenance import Maintenance
from howdah.core.wake import LaneReady
from howdah_scheduler.batches import complete
from howdah_scheduler.chore import Chore, Pace, Round

if TYPE_CHECKING:
    from collections.abc import Sequence

    from howdah.core.db.connect import Connection
    from howdah.core.store.expired_runs import ExpiredRun, Rescued, Unrescued
    from howdah.core.store.maintenance import Held

INTERVAL_S: Final = 1.0
# Three rounds missed: more than a slow commit, less than the shortest lease.
GAP_S_MAX: Final = 3.0
# However long leases are, workers renew them every 10 s; this leaves them time to find the server again:
# 20 s for a connection that does not answer, 5 s to the next try, 5 s for each host.
HOLD_S_MAX: Final = 60.0
# A run that cannot be ended must neither be tried every second nor be forgotten.
DEFER_S: Final = 60.0

_RESULTS: Final = {"retry": "retry", "dead": "dead_letter", "cancelled": "cancelled"}

_logger = logging.getLogger(__name__)


class Rescue(Chore):
    """Ends runs whose lease has run out, a page each round."""

    name = "rescue"
    pace = Pace(tick_s=INTERVAL_S, statement_s_max=10.0, lock_s_max=1.0, retry_s_max=5.0)

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._runs = ExpiredRuns(schema)
        self._keys = FlowKeys(schema)
        self._batches = Batches(schema)
        self._store = Maintenance(schema)

    async def work(self, conn: Connection, held: Held) -> Round:
        """Rescue one page of runs, or begin a hold."""
        hold_s = await self._hold_s(conn, held)
        if hold_s > 0:
            await self._store.hold(conn, hold_s)
            _logger.info("rescue_held", extra={"fields": {"hold_s": hold_s, "since_good_s": held.since_good_s}})
            return Round(next_in_s=hold_s)
        expired = await self._runs.lock(conn, held.hold_until)
        rescued, unrescued = await self._runs.fail(conn, expired) if expired else ([], [])
        if unrescued:
            await self._defer(conn, unrescued)
        callbacks = {(run.tenant_id, run.task_id) for run in expired if run.silent != "worker"}
        _report([run for run in rescued if (run.tenant_id, run.task_id) not in callbacks])
        _report_callbacks([run for run in rescued if (run.tenant_id, run.task_id) in callbacks])
        words = [LaneReady.at(run.queue_id, run.priority, run.run_at) for run in rescued if run.run_at is not None]
        words += await self._settle(conn, expired)
        left = [BatchKey(run.tenant_id, run.batch_id) for run in expired if run.batch_id is not None]
        await complete(conn, self._batches, left)
        return Round(next_in_s=0 if len(expired) == PAGE_RUNS else INTERVAL_S, words=words)

    async def _hold_s(self, conn: Connection, held: Held) -> float:
        """Return how long workers must be given to renew their leases; 0 if they could all the time."""
        hold_s = min(await self._store.lease_max(conn), HOLD_S_MAX)
        was_away = held.since_good_s is None or held.since_good_s > GAP_S_MAX
        return hold_s if was_away or held.since_start_s < hold_s else 0.0

    async def _settle(self, conn: Connection, expired: Sequence[ExpiredRun]) -> list[LaneReady]:
        """Give what the runs have left free of their limits to those that wait for it."""
        limited = [run for run in expired if run.is_limited]
        if not limited:
            return []
        key_ids = {run.flow_key_id for run in limited if run.flow_key_id is not None}
        return await self._keys.settle(conn, sorted({run.queue_id for run in limited}), sorted(key_ids))

    async def _defer(self, conn: Connection, unrescued: Sequence[Unrescued]) -> None:
        """Let no run that cannot be ended stand in the way of those behind it."""
        await self._runs.defer(conn, [each.run for each in unrescued], DEFER_S)
        first = unrescued[0]
        fields = {
            "count": len(unrescued),
            "again_in_s": DEFER_S,
            "task_id": str(first.run.task_id),
            "tenant": first.run.tenant_id,
            "reason": first.reason,
        }
        _logger.error("runs_not_rescued", extra={"fields": fields})


def _report(rescued: Sequence[Rescued]) -> None:
    if not rescued:
        return
    counts = Counter(_RESULTS[run.verdict] for run in rescued)
    for result, count in counts.items():
        metrics.RUNS_RESCUED.labels(result).inc(count)
    _logger.warning("runs_rescued", extra={"fields": {**counts, "task_id": str(rescued[0].task_id)}})


def _report_callbacks(timed_out: Sequence[Rescued]) -> None:
    """Tell of attempts whose receivers did not call back; they say nothing of our own workers."""
    if not timed_out:
        return
    metrics.RUNS_FINISHED.labels("timed_out").inc(len(timed_out))
    counts = Counter(_RESULTS[run.verdict] for run in timed_out)
    _logger.warning("callbacks_timed_out", extra={"fields": {**counts, "task_id": str(timed_out[0].task_id)}})
