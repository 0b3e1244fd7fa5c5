"""Queues that are paused, drained, resumed or deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from howdah.core.db.errors import translated
from howdah.core.db.queries import load
from howdah.core.store.server import within_limits

if TYPE_CHECKING:
    from datetime import datetime

    from howdah.core.db.connect import Connection


class QueueStates:
    """The statements, each named as its query file.

    Each raises `Refused` if there is no such queue (not_found), and `StorageUnavailable` if its row is
    locked for longer than the transaction's limit.
    """

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def pause(
        self,
        conn: Connection,
        tenant_id: int,
        name: str,
        *,
        reason: str | None,
        until: datetime | None,
        for_s: float | None,
        actor: str,
    ) -> bool:
        """Let nothing be claimed from a queue; return whether it was not paused before.

        Args:
            conn: Inside a transaction.
            tenant_id: Owner.
            name: Of the queue.
            reason: For people.
            until: When the pause ends by itself; with neither it nor `for_s`, it does not.
            for_s: The same, in seconds from now.
            actor: Who asks.

        Raises:
            Refused: Also (validation) for a reason that is too long, or an end that is too near or too far.
        """
        parameters = {
            "tenant_id": tenant_id,
            "name": name,
            "reason": reason,
            "until": until,
            "for_s": for_s,
            "actor": actor,
        }
        return await self._change(conn, "queue.pause", parameters)

    async def drain(self, conn: Connection, tenant_id: int, name: str, *, actor: str) -> bool:
        """Let a queue take no new tasks; return whether it was not drained before."""
        return await self._change(conn, "queue.drain", {"tenant_id": tenant_id, "name": name, "actor": actor})

    async def resume(self, conn: Connection, tenant_id: int, name: str) -> bool:
        """End a queue's pause and drain, and wake its workers; return whether there was one of them."""
        return await self._change(conn, "queue.resume", {"tenant_id": tenant_id, "name": name})

    async def delete(self, conn: Connection, tenant: str, name: str) -> None:
        """Delete a queue that is empty.

        Raises:
            Refused: Also (state_conflict) if it is not, saying what it holds.
        """
        with translated(), within_limits():
            await conn.execute(load("queue.delete", self._schema), {"tenant": tenant, "name": name})

    async def _change(self, conn: Connection, statement: str, parameters: dict[str, object]) -> bool:
        with translated(), within_limits():
            cursor = await conn.execute(load(statement, self._schema), parameters)
            row = await cursor.fetchone()
        assert row is not None, "a function call returns a row"
        is_changed: bool = row[0]
        return is_changed
