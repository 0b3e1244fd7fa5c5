"""Queues: the named places where runs wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from howdah.core.db.errors import translated
from howdah.core.db.queries import load
from howdah.core.model import QueueRow

if TYPE_CHECKING:
    from howdah.core.db.connect import Connection


class Queues:
    """The queries under `sql/queries/queue`."""

    def __init__(self, schema: str) -> None:
        """Work on the installation with this schema."""
        self._list = load("queue.list", schema)

    async def list(self, conn: Connection) -> list[QueueRow]:
        """Return every queue with its tenant, by id.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        with translated():
            cursor = await conn.execute(self._list)
            return [QueueRow(*row) for row in await cursor.fetchall()]
