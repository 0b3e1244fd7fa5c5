"""Works off bulk operations: replays, purges and cancels of many tasks.

A round does one page of one operation, the one that has waited longest, so that
several get on side by side and a large one does not hold up a small one. What
was done to the tasks of a page, where the next page begins and what was counted
are one transaction: a scheduler that is killed leaves all of a page or nothing,
and another goes on from there.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from howdah.core.store.operation_pages import OperationPages
from howdah_scheduler.chore import Chore, Pace, Round

if TYPE_CHECKING:
    from howdah.core.db.connect import Connection
    from howdah.core.store.maintenance import Held
    from howdah.core.store.operation_pages import PageDone, Picked

# How long a new operation waits at most, beside the tick.
IDLE_S: Final = 1.0
TICK_S: Final = 0.5

_logger = logging.getLogger(__name__)


class Operate(Chore):
    """Does one page of one bulk operation in a round."""

    name = "operations"
    pace = Pace(tick_s=TICK_S, statement_s_max=10.0, lock_s_max=1.0, retry_s_max=30.0)

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._pages = OperationPages(schema)

    async def work(self, conn: Connection, held: Held) -> Round:
        """Do the next page that is due, if one is."""
        picked = await self._pages.pick(conn)
        words = []
        if picked is not None:
            page = await self._pages.work(conn, picked)
            _tell(picked, page)
            words = list(page.words)
        wait_s = await self._pages.wait_s(conn)
        if picked is not None and wait_s is not None and wait_s <= 0:
            return Round(next_in_s=0, words=words)
        return Round(next_in_s=IDLE_S if wait_s is None else min(max(wait_s, 0.1), IDLE_S), words=words)


def _tell(picked: Picked, page: PageDone) -> None:
    fields = {"operation": str(picked.id), "kind": picked.kind, "state": page.state}
    if page.state != "running":
        _logger.info("operation_ended", extra={"fields": fields})
    if page.error is not None:
        _logger.warning("operation_error", extra={"fields": {**fields, "error": page.error}})
