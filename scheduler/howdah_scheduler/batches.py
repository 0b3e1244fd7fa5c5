"""Completes batches whose tasks have all ended, where that was left undone.

Whoever ends the last task of a batch completes it. What a crash left between the
two, two transactions that ended the last two tasks at the same moment, or a client
that kept something locked, is found here: one process walks over the batches that
are closed and not complete, a page at a time. The walk costs at most a fiftieth of
the time.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final
from uuid import UUID

from howdah.core.store.batches import FIRST, PAGE_BATCHES, Batches, BatchKey, log_fields
from howdah_scheduler.chore import Chore, Pace, Round

if TYPE_CHECKING:
    from collections.abc import Iterable

    from howdah.core.db.connect import Connection
    from howdah.core.store.maintenance import Held

INTERVAL_S_MIN: Final = 1.0
REST: Final = 50

_logger = logging.getLogger(__name__)


class CompleteBatches(Chore):
    """Looks at a page of batches each round."""

    name = "batches"
    pace = Pace(tick_s=INTERVAL_S_MIN, statement_s_max=10.0, lock_s_max=1.0, retry_s_max=30.0)

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._batches = Batches(schema)

    async def work(self, conn: Connection, held: Held) -> Round:
        """Look at one page, and go on where the last one ended."""
        cost_s: float = held.state.get("cost_s", 0.0)
        after = held.state.get("after")
        began = time.monotonic()
        seen = await self._batches.walk(conn, FIRST if after is None else BatchKey(after[0], UUID(after[1])))
        await complete(conn, self._batches, seen)
        cost_s += time.monotonic() - began
        if len(seen) == PAGE_BATCHES:
            last = [seen[-1].tenant_id, str(seen[-1].id)]
            return Round(next_in_s=0, state={"after": last, "cost_s": cost_s})
        return Round(next_in_s=max(INTERVAL_S_MIN, REST * cost_s), state={})


async def complete(conn: Connection, batches: Batches, keys: Iterable[BatchKey]) -> None:
    """Complete those of some batches that have no live task; tell of what could not be done."""
    wanted = set(keys)
    if not wanted:
        return
    ends = await batches.complete(conn, wanted)
    completed = [end.key for end in ends if end.is_complete]
    if completed:
        _logger.info("batches_completed", extra={"fields": {"count": len(completed), "batch_id": str(completed[0].id)}})
    for end in ends:
        if end.error is not None:
            event, fields = log_fields(end)
            _logger.warning(event, extra={"fields": fields})
