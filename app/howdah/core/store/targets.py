"""Targets: what tasks run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from howdah.core.db.errors import translated
from howdah.core.db.queries import load
from howdah.core.model import TargetRow

if TYPE_CHECKING:
    from howdah.core.db.connect import Connection


class Targets:
    """The queries under `sql/queries/target` that workers use."""

    def __init__(self, schema: str) -> None:
        """Work on the installation with this schema."""
        self._list = load("target.list", schema)

    async def list(self, conn: Connection) -> list[TargetRow]:
        """Return every target, by id.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        with translated():
            cursor = await conn.execute(self._list)
            return [TargetRow(*row) for row in await cursor.fetchall()]
