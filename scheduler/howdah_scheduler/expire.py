"""Ends tasks whose `expires_at` has passed before a worker took them.

No claim starts such a task, so this may be late without harm: the task then shows
as waiting for so much longer. What runs when its `expires_at` passes runs on; if
it is to be tried again, it is ended here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from howdah.core import metrics
from howdah.core.store.batches import Batches, BatchKey
from howdah.core.store.flow_keys import FlowKeys
from howdah.core.store.outlived_runs import PAGE_RUNS, OutlivedRuns
from howdah_scheduler.batches import complete
from howdah_scheduler.chore import Chore, Pace, Round

if TYPE_CHECKING:
    from howdah.core.db.connect import Connection
    from howdah.core.store.maintenance import Held

INTERVAL_S: Final = 1.0

_logger = logging.getLogger(__name__)


class Expire(Chore):
    """Ends expired tasks, a page each round."""

    name = "expire"
    pace = Pace(tick_s=INTERVAL_S, statement_s_max=10.0, lock_s_max=1.0, retry_s_max=5.0)

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._runs = OutlivedRuns(schema)
        self._keys = FlowKeys(schema)
        self._batches = Batches(schema)

    async def work(self, conn: Connection, held: Held) -> Round:
        """End a page of expired tasks; go on at once while a page is full."""
        ended = await self._runs.expire(conn)
        if ended:
            metrics.TASKS_EXPIRED.inc(len(ended))
            _logger.info("tasks_expired", extra={"fields": {"count": len(ended), "task_id": str(ended[0].task_id)}})
        left_key_ids = sorted({run.left_key_id for run in ended if run.left_key_id is not None})
        words = await self._keys.settle(conn, [], left_key_ids) if left_key_ids else []
        left = [BatchKey(run.tenant_id, run.batch_id) for run in ended if run.batch_id is not None]
        await complete(conn, self._batches, left)
        return Round(next_in_s=0 if len(ended) >= PAGE_RUNS else INTERVAL_S, words=words)
