"""Runs that waited until their task's `expires_at`: what the expire chore does with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from psycopg.errors import LockNotAvailable

from howdah.core.db.queries import load
from howdah.core.store.follow_ups import FollowUps

if TYPE_CHECKING:
    from uuid import UUID

    from howdah.core.db.connect import Connection

PAGE_RUNS: Final = 500


class Expired(NamedTuple):
    """A task that ended because it was not started in time."""

    tenant_id: int
    task_id: UUID
    queue_id: int
    left_key_id: int | None
    """Flow key of which it held a place."""
    batch_id: UUID | None


class OutlivedRuns:
    """The statement that ends them."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._expire = load("run.expire", schema)
        self._follow_ups = FollowUps(schema)

    async def expire(self, conn: Connection) -> list[Expired]:
        """End a page of tasks whose `expires_at` has passed while they wait, the longest expired first.

        Runs that somebody else has locked, a claim for example, are passed by. What has follow-ups is ended by
        itself, with them: one of which a key cannot be had waits for the next page.

        Args:
            conn: Inside a transaction, whose commit ends them.

        Returns:
            Tasks; as long as they are `PAGE_RUNS` or more, there may be others.
        """
        ended = await self._page(conn, PAGE_RUNS)
        passed_by: list[UUID] = []
        for _ in range(PAGE_RUNS):
            try:
                async with conn.transaction():
                    found = await self._page(conn, 1, passed_by)
                    if not found:
                        break
                    await self._follow_ups.enqueue(conn, [(found[0].tenant_id, found[0].task_id, "expired")])
                    ended += found
            except LockNotAvailable:
                passed_by += [run.task_id for run in found]
        return ended

    async def _page(self, conn: Connection, run_count_max: int, passed_by: list[UUID] | None = None) -> list[Expired]:
        parameters = {
            "has_follow_ups": passed_by is not None,
            "passed_by": passed_by or [],
            "run_count_max": run_count_max,
        }
        cursor = await conn.execute(self._expire, parameters)
        return [Expired(*row) for row in await cursor.fetchall()]
