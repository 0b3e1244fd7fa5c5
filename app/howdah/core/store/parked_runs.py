"""Runs whose target no live worker serves: parked, so that they do not lie at the head of a lane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from howdah.core.db.queries import load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from howdah.core.db.connect import Connection
    from howdah.core.store.lane_sweeps import Lane

# How many runs one call of park or unpark looks at; fewer rows mean that there are no more.
PAGE_RUNS: Final = 1000


class TargetSeen(NamedTuple):
    """A target about which something was learnt."""

    id: int
    handler: str | None
    """None for HTTP callbacks."""
    is_parked: bool
    was_parked: bool


class Unparked(NamedTuple):
    """A parked run that was looked at."""

    task_id: UUID
    is_released: bool
    """False if its row is locked now."""
    run_at: datetime | None
    """When it may be claimed; None if it is locked, or something else blocks it too."""


class ParkedRuns:
    """The statements that park and release runs."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def refresh_targets(self, conn: Connection, grace_s: float, *, was_away: bool) -> list[TargetSeen]:
        """Record which targets live workers serve, and decide which are parked.

        Args:
            conn: Inside the chore's transaction.
            grace_s: How long a target may be without a live worker, in seconds.
            was_away: Nobody looked for a while: the grace begins anew for all.

        Returns:
            Targets that were written; of those that turned, `is_parked` differs from `was_parked`.
        """
        cursor = await conn.execute(load("target.refresh", self._schema), {"grace_s": grace_s, "was_away": was_away})
        return [TargetSeen(*row) for row in await cursor.fetchall()]

    async def list_targets(self, conn: Connection) -> list[int]:
        """Return the targets whose due runs are parked."""
        cursor = await conn.execute(load("target.list_parked", self._schema))
        return [row[0] for row in await cursor.fetchall()]

    async def park(self, conn: Connection, lane: Lane, target_ids: Sequence[int]) -> int:
        """Park due runs of these targets among the `PAGE_RUNS` oldest of a lane; return how many."""
        parameters = {"queue_id": lane.queue_id, "priority": lane.priority, "target_ids": list(target_ids)}
        cursor = await conn.execute(load("run.park", self._schema), parameters)
        return cursor.rowcount

    async def unpark(
        self, conn: Connection, lane: Lane, target_ids: Sequence[int], after_task_id: UUID
    ) -> list[Unparked]:
        """Release the next `PAGE_RUNS` parked runs of these targets in a lane, by task id."""
        parameters = {
            "queue_id": lane.queue_id,
            "priority": lane.priority,
            "target_ids": list(target_ids),
            "after_task_id": after_task_id,
        }
        cursor = await conn.execute(load("run.unpark", self._schema), parameters)
        return [Unparked(*row) for row in await cursor.fetchall()]
