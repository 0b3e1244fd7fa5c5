"""Makes the daily partitions of tasks, history and logs ahead of time.

Without the partition of the day no task can be stored. So they are made two
weeks ahead, and within a second or two if today's or tomorrow's is missing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from howdah.core.store.partitions import Partitions
from howdah_scheduler.chore import Chore, Pace, Round

if TYPE_CHECKING:
    from howdah.core.db.connect import Connection
    from howdah.core.store.maintenance import Held

INTERVAL_S: Final = 3_600.0
TICK_S: Final = 1.0

_logger = logging.getLogger(__name__)


class MakePartitions(Chore):
    """Makes all partitions that are missing, in one round."""

    name = "partitions"
    # Attaching waits for maintenance of the parent table (vacuum, a detach), and keeps no query waiting.
    pace = Pace(tick_s=TICK_S, statement_s_max=60.0, lock_s_max=5.0, retry_s_max=10.0)

    def __init__(self, schema: str, days_ahead: int) -> None:
        """Make partitions for today and `days_ahead` more days."""
        self._days_ahead = days_ahead
        self._partitions = Partitions(schema)

    async def is_urgent(self, conn: Connection) -> bool:
        """Tell whether today's or tomorrow's partition is missing."""
        return not await self._partitions.check(conn)

    async def work(self, conn: Connection, held: Held) -> Round:
        """Make what is missing.

        Raises:
            RuntimeError: Today's or tomorrow's is missing all the same.
        """
        made = await self._partitions.make(conn, self._days_ahead)
        # Whatever was made is kept: the error, which would undo it, waits for the next round.
        if not made and not await self._partitions.check(conn):
            raise RuntimeError(
                "today's or tomorrow's partition is missing: a table that is not attached to its parent has its name"
            )
        if made:
            _logger.info("partitions_made", extra={"fields": {"count": len(made), "first": made[0], "last": made[-1]}})
        return Round(next_in_s=INTERVAL_S)
