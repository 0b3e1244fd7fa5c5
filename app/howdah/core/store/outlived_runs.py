"""Runs that waited until their task's `expires_at`: what the expire chore does with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from howdah.core.db.queries import load

if TYPE_CHECKING:
    from uuid import UUID

    from howdah.core.db.connect import Connection

# The LIMIT of run/expire: a page that is shorter was the last.
PAGE_RUNS: Final = 500


class Expired(NamedTuple):
    """A task that ended because it was not started in time."""

    tenant_id: int
    task_id: UUID
    queue_id: int
    left_key_id: int | None
    """Flow key of which it held a place."""


class OutlivedRuns:
    """The statement that ends them."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._expire = load("run.expire", schema)

    async def expire(self, conn: Connection) -> list[Expired]:
        """End a page of tasks whose `expires_at` has passed while they wait, the longest expired first.

        Runs that somebody else has locked, a claim for example, are passed by.

        Args:
            conn: Inside a transaction, whose commit ends them.

        Returns:
            0 to `PAGE_RUNS` tasks.
        """
        cursor = await conn.execute(self._expire)
        return [Expired(*row) for row in await cursor.fetchall()]
