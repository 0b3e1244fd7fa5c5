"""Batches: tasks whose end, of all of them together, enqueues others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from psycopg.rows import namedtuple_row

from howdah.core.db.errors import translated
from howdah.core.db.queries import load
from howdah.core.store.raw_json import raw_json_cursor
from howdah.core.store.server import within_limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from howdah.core.db.connect import Connection
    from howdah.core.model import CancelMode

# The LIMIT of batch/walk as the scheduler asks for it: a page that is full is not the last.
PAGE_BATCHES: Final = 1_000


class BatchKey(NamedTuple):
    """What identifies a batch."""

    tenant_id: int
    id: UUID


FIRST: Final = BatchKey(0, UUID(int=0))


class BatchEnd(NamedTuple):
    """A batch that was found to have no live task."""

    key: BatchKey
    is_complete: bool
    """False: it could not be completed now."""
    error: str | None
    """Why not; or of one that is complete, why a follow-up was refused."""


class Batches:
    """The queries under `sql/queries/batch`."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def open(
        self, conn: Connection, tenant_id: int, batch_id: UUID, follow_ups: bytes, *, created_by: str
    ) -> bool:
        """Open a batch; see `howdah.open_batch`.

        Args:
            conn: Any.
            tenant_id: Owner.
            batch_id: New.
            follow_ups: JSON text of an object.
            created_by: Who asks.

        Returns:
            False if there is one with this id: the answer to an earlier attempt was lost.

        Raises:
            Refused: A follow-up is not allowed.
        """
        parameters = {
            "tenant_id": tenant_id,
            "id": batch_id,
            "follow_ups": follow_ups.decode(),
            "created_by": created_by,
        }
        is_new: bool = (await self._call(conn, "batch.open", parameters))[0]
        return is_new

    async def close(self, conn: Connection, tenant: str, batch_id: UUID) -> None:
        """Let a batch take no more tasks; one without live tasks is complete then. Closing it again changes nothing.

        Raises:
            Refused: There is no such batch (not_found).
            StorageUnavailable: Another transaction is adding tasks to it, for longer than this one waits.
        """
        await self._call(conn, "batch.close", {"id": batch_id, "tenant": tenant})

    async def stop(self, conn: Connection, tenant: str, batch_id: UUID, mode: CancelMode, *, created_by: str) -> UUID:
        """Close a batch and start to cancel its tasks; return the id of the bulk operation that does it.

        Raises:
            Refused: There is no such batch (not_found), it is complete, or too many operations are under way
                (state_conflict).
            StorageUnavailable: As `close`.
        """
        parameters = {"tenant": tenant, "id": batch_id, "mode": mode, "created_by": created_by}
        operation_id: UUID = (await self._call(conn, "batch.stop", parameters))[0]
        return operation_id

    async def get(self, conn: Connection, tenant_id: int, batch_id: UUID) -> Any | None:
        """Return a batch of a tenant, or None; a named tuple of the query's columns."""
        cursor = raw_json_cursor(conn)
        cursor.row_factory = namedtuple_row
        await cursor.execute(load("batch.get", self._schema), {"tenant_id": tenant_id, "id": batch_id})
        return await cursor.fetchone()

    async def page(self, conn: Connection, tenant_id: int, *, before: UUID, row_count: int) -> list[Any]:
        """Return the next batches of a tenant below an id, newest first, as `get` does."""
        cursor = raw_json_cursor(conn)
        cursor.row_factory = namedtuple_row
        parameters = {"tenant_id": tenant_id, "before": before, "row_count": row_count}
        await cursor.execute(load("batch.page", self._schema), parameters)
        return await cursor.fetchall()

    async def walk(self, conn: Connection, after: BatchKey) -> list[BatchKey]:
        """Return the next `PAGE_BATCHES` batches behind one that are closed and not complete."""
        parameters = {"after_tenant_id": after.tenant_id, "after_id": after.id, "row_count": PAGE_BATCHES}
        cursor = await conn.execute(load("batch.walk", self._schema), parameters)
        return [BatchKey(*row) for row in await cursor.fetchall()]

    async def complete(self, conn: Connection, keys: Iterable[BatchKey]) -> list[BatchEnd]:
        """Complete those of some batches that are closed and have no live task, and enqueue their follow-ups.

        Call it after the statements that ended tasks of them; too often does no harm.
        """
        wanted = list(keys)
        parameters = {"tenant_ids": [key.tenant_id for key in wanted], "batch_ids": [key.id for key in wanted]}
        cursor = await conn.execute(load("batch.complete", self._schema), parameters)
        rows = await cursor.fetchall()
        return [BatchEnd(BatchKey(tenant_id, batch_id), *rest) for tenant_id, batch_id, *rest in rows]

    async def _call(self, conn: Connection, name: str, parameters: Mapping[str, object]) -> Any:
        with translated(), within_limits():
            cursor = await conn.execute(load(name, self._schema), parameters)
            row = await cursor.fetchone()
        assert row is not None, "a function call returns a row"
        return row


def log_fields(end: BatchEnd) -> tuple[str, dict[str, object]]:
    """Return the event and the fields by which a process logs the end of a batch that has an error."""
    event = "follow_up_refused" if end.is_complete else "batch_not_completed"
    return event, {"batch_id": str(end.key.id), "tenant": end.key.tenant_id, "reason": end.error}
