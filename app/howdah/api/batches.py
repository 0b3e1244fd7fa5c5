"""Batches, whose end enqueues others: open, read, list, close and cancel them.

Storing many tasks with one request, which `POST /v1/tasks/batch` is for, is in `bulk_create`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec

from howdah.api import batch_shapes as shapes
from howdah.api import operations
from howdah.api.bodies import read, read_opening
from howdah.api.bulk_create import BulkCreate, in_doubt_again
from howdah.api.call import Answer, json_answer
from howdah.api.changes import once
from howdah.api.idempotency import key_of
from howdah.api.paging import limit_of, query, read_cursor, write_cursor
from howdah.api.problems import Problem
from howdah.api.shapes import FollowUp, Nothing, Task
from howdah.api.task_view import shown_follow_up
from howdah.core.store.tasks import ID_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from howdah.api.call import Call
    from howdah.api.shapes import TaskCreate
    from howdah.core.db.connect import Connection
    from howdah.core.store.tasks import Stored


class _FollowUps(msgspec.Struct, omit_defaults=True):
    """As they are stored."""

    on_complete: FollowUp | msgspec.UnsetType = msgspec.UNSET
    on_success: FollowUp | msgspec.UnsetType = msgspec.UNSET
    on_failure: FollowUp | msgspec.UnsetType = msgspec.UNSET


_decode_follow_ups: Final = msgspec.json.Decoder(_FollowUps).decode


async def create(call: Call) -> Answer:
    """Open a batch with its tasks, all of them or none; it is closed by that, unless it is to stay open."""
    settings = call.backend.settings
    body = await call.body(settings.batch_bytes_max)
    wanted, items = read_opening(body, settings.payload_bytes_max, call.backend.addresses)
    opening = _Opening(call, wanted, items)
    key = key_of(call)
    if key is not None:
        return await call.backend.keeper.once(call, key, body, opening.work)
    return await in_doubt_again(call, opening.work)


async def get(call: Call) -> Answer:
    """Read a batch: how many of its tasks have ended, and how."""
    batch_id = _id_of(call)
    async with call.backend.database.connection() as conn:
        return await _shown(conn, call, batch_id, reads_payloads=call.key.reads_payloads)


async def list_page(call: Call) -> Answer:
    """List the batches of the tenant, newest first."""
    parameters = query(call, ("limit", "cursor"))
    limit = limit_of(parameters)
    position = read_cursor(call, parameters)
    before = ID_MAX if position is None else UUID(bytes=position)
    async with call.backend.database.connection() as conn:
        rows = await call.backend.batches.page(conn, call.key.tenant_id, before=before, row_count=limit)
    cursor = write_cursor(call, parameters, rows[-1].id.bytes) if len(rows) == limit else None
    data = [_batch_of(row, reads_payloads=call.key.reads_payloads) for row in rows]
    return json_answer(200, shapes.BatchPage(data, cursor))


async def close(call: Call) -> Answer:
    """Let a batch take no more tasks: it is complete when all of its tasks have ended."""
    body = await call.body_if_any()
    read(body or b"{}", Nothing)
    batch_id = _id_of(call)

    async def work(conn: Connection) -> Answer:
        await call.backend.batches.close(conn, call.key.tenant, batch_id)
        # Without payloads, for the answer may be kept, and replayed to other keys.
        return await _shown(conn, call, batch_id, reads_payloads=False)

    return await once(call, body, work)


async def cancel(call: Call) -> Answer:
    """Cancel the tasks of a batch that have not ended, as a bulk operation, and close it."""
    body = await call.body_if_any()
    mode = read(body or b"{}", shapes.BatchCancel).mode
    batch_id = _id_of(call)

    async def work(conn: Connection) -> Answer:
        operation_id = await call.backend.batches.stop(conn, call.key.tenant, batch_id, mode, created_by=call.key.id)
        location = (b"location", f"/v1/operations/{operation_id}".encode())
        return await operations.shown(conn, call, operation_id, 202, location)

    return await once(call, body, work)


class _Opening:
    """A batch on its way into the database, with its tasks."""

    def __init__(
        self,
        call: Call,
        wanted: shapes.BatchOpenEnvelope,
        items: Sequence[tuple[TaskCreate, bytes | None] | Problem],
    ) -> None:
        self._call = call
        self._id = call.backend.database.mint.mint()
        self._is_open = wanted.open
        self._follow_ups = msgspec.json.encode(_FollowUps(wanted.on_complete, wanted.on_success, wanted.on_failure))
        for item in items:
            if not isinstance(item, Problem):
                item[0].batch = str(self._id)
        self._bulk = BulkCreate(call, items, is_atomic=True)

    async def work(self, conn: Connection) -> tuple[Answer, Callable[[], None]]:
        """Store inside a transaction; a repeat after it was committed changes nothing.

        Raises:
            Problem: A task is refused.
            Refused: A follow-up is.
        """
        call, batches = self._call, self._call.backend.batches
        await batches.open(conn, call.key.tenant_id, self._id, self._follow_ups, created_by=call.key.id)
        results, stored = await self._bulk.store_in(conn)
        if not self._is_open:
            await batches.close(conn, call.key.tenant, self._id)
        row = await batches.get(conn, call.key.tenant_id, self._id)
        batch = _batch_of(row, reads_payloads=call.key.reads_payloads)
        answer = shapes.BatchOpened(batch, [result for result in results if isinstance(result, Task)])
        location = (b"location", f"/v1/batches/{self._id}".encode())

        def report(rows: Sequence[Stored] = stored) -> None:
            call.backend.writer.report(rows, "batch")

        return json_answer(201, answer, location), report


async def _shown(conn: Connection, call: Call, batch_id: UUID, *, reads_payloads: bool) -> Answer:
    row = await call.backend.batches.get(conn, call.key.tenant_id, batch_id)
    if row is None:
        raise _no_batch(str(batch_id))
    return json_answer(200, _batch_of(row, reads_payloads=reads_payloads))


def _batch_of(row: Any, *, reads_payloads: bool) -> shapes.Batch:
    follow_ups = _decode_follow_ups(row.follow_ups)
    return shapes.Batch(
        id=row.id,
        state=row.state,
        tasks=_set(row.task_count),
        pending=_set(row.pending),
        succeeded=_set(row.succeeded),
        failed=_set(row.failed),
        cancelled=_set(row.cancelled),
        expired=_set(row.expired),
        created_at=row.created_at,
        created_by=row.created_by,
        closed_at=_set(row.closed_at),
        completed_at=_set(row.completed_at),
        on_complete=shown_follow_up(follow_ups.on_complete, reads_payloads=reads_payloads),
        on_success=shown_follow_up(follow_ups.on_success, reads_payloads=reads_payloads),
        on_failure=shown_follow_up(follow_ups.on_failure, reads_payloads=reads_payloads),
    )


def _id_of(call: Call) -> UUID:
    text: str = call.path_parameters["id"]
    try:
        batch_id = UUID(text)
    except ValueError:
        raise _no_batch(text) from None
    if str(batch_id) != text:
        raise _no_batch(text)
    return batch_id


def _no_batch(text: str) -> Problem:
    return Problem("not_found", f"There is no batch {text[:64]}.")


def _set(value: Any) -> Any:
    return msgspec.UNSET if value is None else value
