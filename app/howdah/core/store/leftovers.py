"""Rows that have served their time, deleted page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from howdah.core.db.queries import load

if TYPE_CHECKING:
    from howdah.core.db.connect import Connection

# The LIMIT of the statements: a page that is full is not the last.
PAGE_ROWS: Final = 10_000


class KeyPlace(NamedTuple):
    """A place in the order of dedup keys."""

    tenant_id: int = 0
    queue_id: int = 0
    key: str = ""


class Leftovers:
    """The statements that delete what is old."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def delete_idempotency_keys(self, conn: Connection) -> int:
        """Delete a page of idempotency keys older than a day; return how many."""
        return (await conn.execute(load("idempotency.delete_old", self._schema))).rowcount

    async def forget_leases(self, conn: Connection) -> int:
        """Forget a page of leases that ended without a row of history ten minutes ago; return how many."""
        return (await conn.execute(load("run.forget_ended", self._schema))).rowcount

    async def delete_dedup_keys(self, conn: Connection, after: KeyPlace) -> KeyPlace | None:
        """Delete those of a page of dedup keys that no task holds; return where it ended, None after the last page."""
        parameters: dict[str, Any] = after._asdict()
        cursor = await conn.execute(load("dedup_key.delete_free", self._schema), parameters)
        row = await cursor.fetchone()
        assert row is not None, "the statement returns a row"
        looked_count, _, *end = row
        return KeyPlace(*end) if looked_count == PAGE_ROWS else None

    async def delete_stats(self, conn: Connection, retention_s: float) -> int:
        """Delete a page of minute statistics older than `retention_s`; return how many."""
        return (await conn.execute(load("stats.delete_old", self._schema), {"retention_s": retention_s})).rowcount

    async def delete_flow_keys(self, conn: Connection) -> int:
        """Delete a page of flow keys that no live task has; return how many were looked at."""
        cursor = await conn.execute(load("flow_key.lock_idle", self._schema))
        ids = [row[0] for row in await cursor.fetchall()]
        # Only now that they are locked can no task come to have them.
        await conn.execute(load("flow_key.delete_idle", self._schema), {"ids": ids})
        return len(ids)

    async def delete_operations(self, conn: Connection, retention_s: float) -> int:
        """Delete a page of bulk operations that ended more than `retention_s` ago; return how many."""
        return (await conn.execute(load("operation.delete_old", self._schema), {"retention_s": retention_s})).rowcount

    async def delete_batch_tasks(self, conn: Connection, retention_s: float) -> int:
        """Forget a page of what batches had that were completed more than `retention_s` ago; return how many."""
        return (await conn.execute(load("batch.delete_old_tasks", self._schema), {"retention_s": retention_s})).rowcount

    async def delete_batches(self, conn: Connection, retention_s: float) -> int:
        """Delete a page of those batches themselves, once nothing of them is left; return how many."""
        return (await conn.execute(load("batch.delete_old", self._schema), {"retention_s": retention_s})).rowcount

    async def delete_workers(self, conn: Connection, retention_s: float) -> int:
        """Delete a page of workers that were last heard of before `retention_s`; return how many."""
        return (await conn.execute(load("worker.delete_old", self._schema), {"retention_s": retention_s})).rowcount

    async def delete_queues(self, conn: Connection, retention_s: float) -> int:
        """Delete a page of the rows of queues that were deleted before `retention_s`; return how many."""
        return (await conn.execute(load("queue.delete_old", self._schema), {"retention_s": retention_s})).rowcount
