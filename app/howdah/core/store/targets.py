"""Targets: what tasks run."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from howdah.core.db.errors import translated
from howdah.core.db.queries import load
from howdah.core.model import TargetRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from howdah.core.db.connect import Connection


class Named(NamedTuple):
    """What a consumer's names stand for.

    Attributes:
        queue_id: None if there is no such queue.
        is_limited: The queue has limits.
        target_ids: Of those handlers that there are.
        names: Of these, in the same order.
    """

    queue_id: int | None
    is_limited: bool
    target_ids: list[int]
    names: list[str]


class Targets:
    """The queries under `sql/queries/target`, but for those of the scheduler's chore."""

    def __init__(self, schema: str) -> None:
        """Work on the installation with this schema."""
        self._list = load("target.list", schema)
        self._find = load("target.find", schema)

    async def list(self, conn: Connection) -> list[TargetRow]:
        """Return every target, by id.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        with translated():
            cursor = await conn.execute(self._list)
            return [TargetRow(*row) for row in await cursor.fetchall()]

    async def find(self, conn: Connection, tenant_id: int, queue: str, handlers: Sequence[str]) -> Named:
        """Return what the name of a queue and those of handlers stand for in a tenant.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        parameters = {"tenant_id": tenant_id, "queue": queue, "handlers": list(handlers)}
        with translated():
            cursor = await conn.execute(self._find, parameters)
            row = await cursor.fetchone()
        assert row is not None, "a SELECT without FROM returns a row"
        return Named._make(row)
