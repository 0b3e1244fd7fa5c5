"""Forgets what has served its time: keys, ended leases, minute statistics, rows of workers and queues that are gone.

A page of each in a round, so that no transaction grows long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from howdah.core.store.leftovers import PAGE_ROWS, KeyPlace, Leftovers
from howdah_scheduler.chore import Chore, Pace, Round

if TYPE_CHECKING:
    from howdah.core.db.connect import Connection
    from howdah.core.store.maintenance import Held

INTERVAL_S: Final = 600.0
TICK_S: Final = 10.0
# History is kept for the rest of the day on which its task was created, and a chore may be late:
# the row of a worker or queue outlasts the history that names it.
NAMED_MARGIN_S: Final = 2 * 86_400.0


class Cleanup(Chore):
    """Deletes a page of each kind of old row."""

    name = "cleanup"
    pace = Pace(tick_s=TICK_S, statement_s_max=30.0, lock_s_max=1.0, retry_s_max=300.0)

    def __init__(self, schema: str, retention_s: float) -> None:
        """Keep statistics, operations and batches for `retention_s` seconds, workers and deleted queues longer."""
        self._retention_s = retention_s
        self._leftovers = Leftovers(schema)

    async def work(self, conn: Connection, held: Held) -> Round:
        """Delete a page of each; go on at once while a page is full.

        Dedup keys are gone through in their order, for whether one is held is not seen by its age.
        """
        deleted = [
            await self._leftovers.delete_idempotency_keys(conn),
            await self._leftovers.forget_leases(conn),
            await self._leftovers.delete_stats(conn, self._retention_s),
            await self._leftovers.delete_flow_keys(conn),
            await self._leftovers.delete_operations(conn, self._retention_s),
            await self._leftovers.delete_batch_tasks(conn, self._retention_s),
            await self._leftovers.delete_batches(conn, self._retention_s),
            await self._leftovers.delete_workers(conn, self._retention_s + NAMED_MARGIN_S),
            await self._leftovers.delete_queues(conn, self._retention_s + NAMED_MARGIN_S),
        ]
        # A pass over them that is done rests until the next one is due, whatever is left of other kinds.
        place = held.state.get("dedup_keys", ())
        end = None if place is None else await self._leftovers.delete_dedup_keys(conn, KeyPlace(*place))
        if end is None and max(deleted) < PAGE_ROWS:
            return Round(next_in_s=INTERVAL_S, state={})
        return Round(next_in_s=0, state={"dedup_keys": end and list(end)})
