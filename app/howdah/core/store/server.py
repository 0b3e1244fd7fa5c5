"""The server itself: its clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from howdah.core.db.errors import translated
from howdah.core.db.queries import load

if TYPE_CHECKING:
    from howdah.core.clock import DatabaseClock
    from howdah.core.db.connect import Connection


class Server:
    """The queries under `sql/queries/server`."""

    def __init__(self, schema: str) -> None:
        """Work on the installation with this schema."""
        self._now = load("server.now", schema)

    async def sample_clock(self, conn: Connection, clock: DatabaseClock) -> None:
        """Give the clock a sample of the database's time.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        with translated():
            before = clock.local()
            cursor = await conn.execute(self._now)
            after = clock.local()
            row = await cursor.fetchone()
        assert row is not None, "the statement returns a row"
        clock.add_sample(before, row[0], after)
