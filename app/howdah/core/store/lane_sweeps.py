"""Walks over the lanes in which runs wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from psycopg import errors

from howdah.core.db.queries import load

if TYPE_CHECKING:
    from datetime import datetime

    from howdah.core.db.connect import Connection


class Lane(NamedTuple):
    """What a run is claimed from."""

    queue_id: int
    priority: int


START: Final = Lane(-1, -1)
"""Before the first lane."""


class LaneSeen(NamedTuple):
    """A lane in which runs wait."""

    queue_id: int
    priority: int
    due_at: datetime | None
    """Since when its oldest run is due; None if it is not."""

    @property
    def lane(self) -> Lane:
        """The lane itself."""
        return Lane(self.queue_id, self.priority)


class LaneSweeps:
    """The statement of a walk over the lanes."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def sweep(self, conn: Connection, after: Lane, lane_count_max: int) -> list[LaneSeen] | None:
        """Return the next lanes behind `after`, in index order.

        Args:
            conn: Inside a transaction with a statement timeout.
            after: The last lane seen, or `START`.
            lane_count_max: A shorter answer was the last page.

        Returns:
            The lanes, or None if looking took longer than the statement timeout; the transaction goes on.
        """
        parameters = {
            "after_queue_id": after.queue_id,
            "after_priority": after.priority,
            "lane_count_max": lane_count_max,
        }
        try:
            async with conn.transaction():
                cursor = await conn.execute(load("lane.sweep", self._schema), parameters)
                return [LaneSeen(*row) for row in await cursor.fetchall()]
        except errors.QueryCanceled:
            return None
