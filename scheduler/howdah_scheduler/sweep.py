"""Finds due runs that lie below every worker's horizon, and publishes their lanes.

Workers do not look below the point that they have claimed up to, because the
index may be full of dead entries there. Nothing should be left below it, but
what a crash, a lost notification or a hand-written UPDATE left is found here:
one process walks over all lanes, a page at a time, and announces each that has
a due run. That lowers the workers' horizon for the lane once.

A lane may also belong to a queue that was deleted while somebody stored a task in it
(see howdah.delete_queue). The queue is then brought back.

The walk costs at most a fiftieth of the time. While a snapshot that somebody
holds keeps dead entries from being reaped, even one lane may take longer than a
statement is given; pages then shrink, and in the end the patience grows.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from howdah.core.store.lane_sweeps import START, Lane, LaneSweeps
from howdah.core.store.queue_watch import QueueWatch
from howdah.core.store.server import Server
from howdah.core.wake import CatalogueChanged, LaneReady
from howdah_scheduler.chore import Chore, Pace, Round

if TYPE_CHECKING:
    from howdah.core.db.connect import Connection
    from howdah.core.store.maintenance import Held
    from howdah.core.wake import Word

INTERVAL_S_MIN: Final = 5.0
REST: Final = 50
STATEMENT_S: Final = 0.2
STATEMENT_S_MAX: Final = 10.0
# The words of so many lanes fit into one message; more would become "any lane",
# which makes every worker look below every horizon.
PAGE_LANES: Final = 200

_logger = logging.getLogger(__name__)


class Sweep(Chore):
    """Publishes lanes with due runs, a page each round."""

    name = "sweep"
    pace = Pace(tick_s=INTERVAL_S_MIN, statement_s_max=10.0, lock_s_max=1.0, retry_s_max=60.0)

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._sweeps = LaneSweeps(schema)
        self._watch = QueueWatch(schema)
        self._server = Server(schema)

    async def work(self, conn: Connection, held: Held) -> Round:
        """Look at one page of lanes, and go on where the last one ended."""
        walk = _Walk(held.state)
        pace = self.pace
        await self._server.limit(conn, statement_timeout_s=walk.statement_s, lock_timeout_s=pace.lock_s_max)
        began = time.monotonic()
        seen = await self._sweeps.sweep(conn, walk.after, walk.lane_count)
        walk.cost_s += time.monotonic() - began
        await self._server.limit(conn, statement_timeout_s=pace.statement_s_max, lock_timeout_s=pace.lock_s_max)
        if seen is None:
            walk.shrink()
            return Round(next_in_s=max(INTERVAL_S_MIN, REST * walk.cost_s), state=walk.pause())
        words: list[Word] = [
            LaneReady.at(lane.queue_id, lane.priority, lane.due_at) for lane in seen if lane.due_at is not None
        ]
        if revived := await self._watch.revive(conn, sorted({lane.queue_id for lane in seen})):
            _logger.info("queues_revived", extra={"fields": {"count": len(revived)}})
            words.insert(0, CatalogueChanged())
        if len(seen) == walk.lane_count:
            return Round(next_in_s=0, state=walk.go_on(seen[-1].lane), words=words)
        return Round(next_in_s=max(INTERVAL_S_MIN, REST * walk.cost_s), state={}, words=words)


class _Walk:
    """Where a walk over the lanes stands; kept in `maintenance.state`."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.after = Lane(*state["after"]) if "after" in state else START
        self.lane_count: int = state.get("lane_count", PAGE_LANES)
        self.statement_s: float = state.get("statement_s", STATEMENT_S)
        self.cost_s: float = state.get("cost_s", 0.0)

    def shrink(self) -> None:
        """Ask for less at a time; if it is one lane already, give it more time."""
        if self.lane_count > 1:
            self.lane_count = max(self.lane_count // 4, 1)
        else:
            self.statement_s = min(self.statement_s * 2, STATEMENT_S_MAX)
        fields = {"lane_count": self.lane_count, "statement_s": self.statement_s, "after": list(self.after)}
        _logger.warning("sweep_slowed", extra={"fields": fields})

    def pause(self) -> dict[str, Any]:
        """Return the state for the same page after a rest that pays for what was spent."""
        return {"after": list(self.after), "lane_count": self.lane_count, "statement_s": self.statement_s}

    def go_on(self, after: Lane) -> dict[str, Any]:
        """Return the state for the next page, at twice the pace."""
        lane_count = min(self.lane_count * 2, PAGE_LANES)
        return {"after": list(after), "lane_count": lane_count, "cost_s": self.cost_s}
