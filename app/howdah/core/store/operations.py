"""Durable bulk operations as clients start, read and stop them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg.rows import namedtuple_row

from howdah.core.db.errors import translated
from howdah.core.db.queries import load
from howdah.core.store.raw_json import raw_json_cursor
from howdah.core.store.server import within_limits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from howdah.core.db.connect import Connection


class Order(NamedTuple):
    """A bulk operation that somebody asks for; see `howdah.start_operation`.

    Attributes:
        kind: `replay_dead_letters`, `purge_dead_letters`, `purge_queue` or `cancel_tasks`.
        queue: Name; None is every queue.
        filter: JSON text of an object.
        rate: Most tasks a second.
        mode: Of `cancel_tasks`: soft or hard.
        edits: JSON text of an object.
    """

    kind: str
    queue: str | None
    filter: bytes
    rate: float | None = None
    mode: str | None = None
    edits: bytes | None = None


class Matches(NamedTuple):
    """How many tasks an operation would touch; if it is not complete, at least so many."""

    matched: int
    is_complete: bool


class Operations:
    """The queries under `sql/queries/operation` that clients need."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def start(self, conn: Connection, tenant_id: int, order: Order, *, created_by: str) -> UUID:
        """Store an operation for the schedulers, and return its id.

        Raises:
            Refused: It is not allowed (validation, payload_too_large), there is no such queue (not_found), or too
                many are under way (state_conflict).
        """
        parameters = {**_written(tenant_id, order), "created_by": created_by}
        row = await self._call(conn, "operation.start", parameters)
        operation_id: UUID = row[0]
        return operation_id

    async def count(self, conn: Connection, tenant_id: int, tenant: str, order: Order) -> Matches:
        """Count what an operation would touch now, and change nothing; what its start would refuse is refused.

        Raises:
            Refused: See `start`.
            StorageUnavailable: Counting took longer than the transaction allows.
        """
        await self._call(conn, "operation.check", _written(tenant_id, order))
        parameters = {
            "kind": order.kind,
            "queue": order.queue,
            "filter": order.filter.decode(),
            "tenant": tenant,
        }
        return Matches._make(await self._call(conn, "operation.count", parameters))

    async def get(self, conn: Connection, tenant_id: int, operation_id: UUID) -> Any | None:
        """Return an operation of a tenant, or None; a named tuple of the query's columns."""
        cursor = raw_json_cursor(conn)
        cursor.row_factory = namedtuple_row
        await cursor.execute(load("operation.get", self._schema), {"tenant_id": tenant_id, "id": operation_id})
        return await cursor.fetchone()

    async def page(self, conn: Connection, tenant_id: int, *, before: UUID, row_count: int) -> list[Any]:
        """Return the next operations of a tenant below an id, newest first, as `get` does."""
        cursor = raw_json_cursor(conn)
        cursor.row_factory = namedtuple_row
        parameters = {"tenant_id": tenant_id, "before": before, "row_count": row_count}
        await cursor.execute(load("operation.page", self._schema), parameters)
        return await cursor.fetchall()

    async def cancel(self, conn: Connection, tenant: str, operation_id: UUID) -> None:
        """Stop an operation; what it did stays done.

        Raises:
            Refused: There is no such operation (not_found), or it has ended (state_conflict).
            StorageUnavailable: A page of it takes longer than the transaction waits for locks.
        """
        await self._call(conn, "operation.cancel", {"tenant": tenant, "id": operation_id})

    async def _call(self, conn: Connection, name: str, parameters: Mapping[str, object]) -> Any:
        with translated(), within_limits():
            cursor = await conn.execute(load(name, self._schema), parameters)
            row = await cursor.fetchone()
        assert row is not None, "a function call returns a row"
        return row


def _written(tenant_id: int, order: Order) -> dict[str, object]:
    return {
        "tenant_id": tenant_id,
        "kind": order.kind,
        "queue": order.queue,
        "filter": order.filter.decode(),
        "rate": order.rate,
        "mode": order.mode,
        "edits": None if order.edits is None else order.edits.decode(),
    }
