"""The daily partitions of tasks, history and logs: made ahead of time, retired when their day has expired."""

from __future__ import annotations

from typing import TYPE_CHECKING

from howdah.core.db.queries import load

if TYPE_CHECKING:
    from howdah.core.db.connect import Connection


class Partitions:
    """The statements on partitions."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def check(self, conn: Connection) -> bool:
        """Tell whether the partitions of today and tomorrow are there; cheap enough for every second."""
        cursor = await conn.execute(load("partition.check", self._schema))
        row = await cursor.fetchone()
        assert row is not None, "an aggregate returns a row"
        is_ready: bool = row[0]
        return is_ready

    async def ahead(self, conn: Connection) -> int:
        """Count the days, from today on, whose partitions exist without a gap: 0 means that none is there today."""
        cursor = await conn.execute(load("partition.ahead", self._schema))
        row = await cursor.fetchone()
        assert row is not None, "an aggregate returns a row"
        day_count: int = row[0]
        return day_count

    async def make(self, conn: Connection, days_ahead: int) -> list[str]:
        """Make the partitions that are missing from yesterday to `days_ahead` days from now; return their names."""
        cursor = await conn.execute(load("partition.make", self._schema), {"days_ahead": days_ahead})
        return [row[0] for row in await cursor.fetchall()]
