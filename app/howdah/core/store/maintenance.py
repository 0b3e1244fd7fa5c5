"""The periodic chores: who does one now, how it went, when it is due again.

A chore is a row of `maintenance`. Whoever locks the row, with SKIP LOCKED, does
the chore: for as long as the transaction lasts, or, where the work cannot run
inside one, under a lease that is written into the row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from howdah.core.db.queries import load

if TYPE_CHECKING:
    from datetime import datetime

    from howdah.core.db.connect import Connection


class Held(NamedTuple):
    """A chore that this transaction has taken."""

    chore: str
    hold_until: datetime | None
    """Rescue only: leases that ended before count no crash."""
    state: dict[str, Any]
    """Where a resumable chore goes on."""
    failures: int
    """Failures since the last good run."""
    since_good_s: float | None
    """Seconds since the last good run, or since the end of a hold; None if there was none."""
    since_start_s: float
    """Seconds since the server's start."""


class ChoreStatus(NamedTuple):
    """How a chore is doing."""

    chore: str
    next_at: datetime
    leased_until: datetime | None
    hold_until: datetime | None
    last_good_at: datetime | None
    last_cost_s: float | None
    last_error: str | None
    failures: int
    overdue_s: float
    """Seconds since it became due; negative while it is not."""


class Maintenance:
    """The statements on `maintenance`, each named as its query file."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def lock(self, conn: Connection, chore: str) -> Held | None:
        """Take a chore until the transaction ends; None if it is not due or another process has it."""
        cursor = await conn.execute(load("maintenance.lock", self._schema), {"chore": chore})
        row = await cursor.fetchone()
        return None if row is None else Held(*row)

    async def lease(self, conn: Connection, chore: str, lease_s: float) -> datetime:
        """Keep a locked chore after the transaction; return the end of the lease, by which it is known."""
        parameters = {"chore": chore, "lease_s": lease_s}
        cursor = await conn.execute(load("maintenance.lease", self._schema), parameters)
        row = await cursor.fetchone()
        assert row is not None, f"the chore {chore} is locked, so its row exists"
        leased_until: datetime = row[0]
        return leased_until

    async def renew(self, conn: Connection, chore: str, leased_until: datetime, lease_s: float) -> datetime | None:
        """Prolong a lease; return its new end, or None if the chore is another process's now."""
        parameters = {"chore": chore, "leased_until": leased_until, "lease_s": lease_s}
        cursor = await conn.execute(load("maintenance.renew", self._schema), parameters)
        row = await cursor.fetchone()
        return None if row is None else row[0]

    async def finish(
        self, conn: Connection, chore: str, *, next_in_s: float, cost_s: float, state: dict[str, Any] | None
    ) -> None:
        """Record a good run, and when the chore is due again; state None keeps the old one."""
        written = None if state is None else orjson.dumps(state).decode()
        parameters = {"chore": chore, "next_in_s": next_in_s, "cost_s": cost_s, "state": written}
        await conn.execute(load("maintenance.finish", self._schema), parameters)

    async def fail(self, conn: Connection, chore: str, *, retry_s: float, retry_s_max: float, error: str) -> int:
        """Record a failed run; it is tried again after `retry_s`, doubled with each failure up to `retry_s_max`.

        Returns:
            How many failures there were in a row.
        """
        parameters = {
            "chore": chore,
            "retry_s": retry_s,
            "retry_s_max": retry_s_max,
            # PostgreSQL stores no NUL, and a failure must never fail to be recorded.
            "error": error.replace("\0", ""),
        }
        cursor = await conn.execute(load("maintenance.fail", self._schema), parameters)
        row = await cursor.fetchone()
        return 0 if row is None else row[0]

    async def hold(self, conn: Connection, hold_s: float) -> None:
        """Make rescue count no crash for leases that end within the next `hold_s` seconds."""
        await conn.execute(load("maintenance.hold", self._schema), {"hold_s": hold_s})

    async def hurry(self, conn: Connection, chore: str) -> bool:
        """Make a chore due now; False if it is due already, or waits after a failure."""
        cursor = await conn.execute(load("maintenance.hurry", self._schema), {"chore": chore})
        return cursor.rowcount > 0

    async def list(self, conn: Connection) -> list[ChoreStatus]:
        """Return how every chore is doing."""
        cursor = await conn.execute(load("maintenance.list", self._schema))
        return [ChoreStatus(*row) for row in await cursor.fetchall()]

    async def lease_max(self, conn: Connection) -> float:
        """Return the longest lease, in seconds, of workers that may still hold runs; 0 if there are none."""
        cursor = await conn.execute(load("worker.lease_max", self._schema))
        row = await cursor.fetchone()
        assert row is not None, "an aggregate returns a row"
        lease_s: float = row[0]
        return lease_s
