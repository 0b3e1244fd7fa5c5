"""Retires the partitions of days that have expired, of tasks, their history and their logs.

A day of which nothing is left to do is detached and dropped, at the cost of two
short transactions, however many tasks it had. Where some are still live, or wait
as dead letters, the partition is exchanged for one that holds only those; each
is deleted when the retention has passed since its end, and the partition dropped
with the last. History and logs follow their tasks.

A round takes one step with one partition, outside of a transaction and under a
lease, for DETACH … CONCURRENTLY runs in none. What the next step is comes from
the catalogue, so another scheduler goes on where this one was killed, also while
its last statement is still under way in the server: the locks keep them apart.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from howdah.core.store.expired_partitions import ExpiredPartitions
from howdah.core.store.server import Server
from howdah_scheduler.chore import Chore, Pace, Round

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from datetime import date

    from howdah.core.db.connect import Connection
    from howdah.core.store.expired_partitions import ExpiredPartition
    from howdah.core.store.maintenance import Held

INTERVAL_S: Final = 3_600.0
# Partitions that were in use are tried again.
BUSY_S: Final = 60.0
STATEMENT_S_MAX: Final = 600.0
LOCK_S_MAX: Final = 0.1
# Renewed while a statement runs, so it need not be as long as one.
LEASE_S: Final = 30.0

_logger = logging.getLogger(__name__)


class Retention(Chore):
    """Takes one step with one expired partition in a round, until there is none left to take."""

    name = "retention"
    pace = Pace(tick_s=10.0, statement_s_max=10.0, lock_s_max=1.0, retry_s_max=600.0, lease_s=LEASE_S)

    def __init__(self, schema: str, retention_s: float) -> None:
        """Keep tasks for `retention_s` seconds after the day on which they were created."""
        self._retention_s = retention_s
        self._partitions = ExpiredPartitions(schema)
        self._server = Server(schema)

    async def work(self, conn: Connection, held: Held) -> Round:
        """Take the next step of this pass over all expired partitions."""
        await self._server.limit_session(conn, statement_timeout_s=STATEMENT_S_MAX, lock_timeout_s=LOCK_S_MAX)
        done = set(held.state.get("done", ()))
        busy = set(held.state.get("busy", ()))
        partitions = await self._partitions.list(conn, self._retention_s)
        visible = {(each.parent, each.day, each.is_kept) for each in partitions if each.status == "attached"}
        for partition in partitions:
            if partition.name in done | busy:
                continue
            step = await self._step(conn, partition, visible)
            if step is None:
                done.add(partition.name)
                continue
            if step == "busy":
                busy.add(partition.name)
            else:
                fields = {"partition": partition.name, "step": step}
                _logger.info("partition_retired", extra={"fields": fields})
            return Round(next_in_s=0, state={"done": sorted(done), "busy": sorted(busy)})
        if busy:
            _logger.warning("partitions_busy", extra={"fields": {"partitions": sorted(busy), "again_in_s": BUSY_S}})
        return Round(next_in_s=BUSY_S if busy else INTERVAL_S, state={})

    async def _step(
        self, conn: Connection, partition: ExpiredPartition, visible: AbstractSet[tuple[str, date, bool]]
    ) -> str | None:
        """Take one step with a partition.

        Args:
            conn: Outside of a transaction.
            partition: What to work on.
            visible: Parent, day, and whether it holds only survivors, of all that are attached.

        Returns:
            The name of the step; `busy` if the partition is in use; None if there is nothing to do.
        """
        match partition.status:
            case "pending":
                return "finalized" if await self._partitions.finalize(conn, partition) else "busy"
            case "detached":
                return "dropped" if await self._partitions.drop(conn, partition) else "busy"
        if partition.parent != "tasks" and ("tasks", partition.day, False) in visible:
            return None  # Its tasks go first: without history they would all seem to have succeeded.
        if not await self._has_rest(conn, partition, visible):
            return "detached" if await self._partitions.detach(conn, partition) else "busy"
        if partition.is_kept:
            return "purged" if await self._partitions.purge(conn, partition, self._retention_s) else None
        # Everybody would wait behind the exchange while it waits for such a transaction.
        if await self._partitions.is_locked(conn, partition, LOCK_S_MAX):
            return "busy"
        return "exchanged" if await self._partitions.keep_survivors(conn, partition) else "busy"

    async def _has_rest(
        self, conn: Connection, partition: ExpiredPartition, visible: AbstractSet[tuple[str, date, bool]]
    ) -> bool:
        """Tell whether anything of a partition must be kept; once false, that stays so."""
        if partition.parent != "tasks":
            return ("tasks", partition.day, True) in visible
        if partition.is_kept:
            return await self._partitions.has_tasks(conn, partition)
        return await self._partitions.has_survivors(conn, partition)
