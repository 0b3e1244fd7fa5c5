"""Bulk operations: start them, or only count; read, list and stop them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

import msgspec

from howdah.api import operation_shapes as shapes
from howdah.api.bodies import check_edits, read_edited
from howdah.api.call import Answer, json_answer
from howdah.api.changes import LOCK_S_MAX, once
from howdah.api.paging import limit_of, query, read_cursor, write_cursor
from howdah.api.problems import Problem
from howdah.api.queues import name_of
from howdah.api.shapes import Nothing
from howdah.core.store.operations import Order
from howdah.core.store.tasks import ID_MAX

if TYPE_CHECKING:
    from howdah.api.call import Call
    from howdah.core.db.connect import Connection

T = TypeVar("T")

# Fingerprints of 100,000 long messages take 4 s; a client shall hear within 10.
COUNT_S_MAX: Final = 8.0


async def replay_dead_letters(call: Call) -> Answer:
    """Take dead letters of a queue back to it, with all their attempts, or with edits as new tasks."""
    queue = name_of(call)
    body, wanted = await _read(call, shapes.DeadLetterReplay)
    edits = None
    if wanted.edits is not msgspec.UNSET:
        settings = call.backend.settings
        check_edits(wanted.edits, settings.payload_bytes_max, call.backend.addresses, "/edits")
        edits = msgspec.json.encode(wanted.edits)
    order = Order("replay_dead_letters", queue, _json(wanted.filter), _rate(wanted.rate), edits=edits)
    return await _start(call, body, order, is_dry=wanted.dry_run)


async def purge_dead_letters(call: Call) -> Answer:
    """Drop dead letters of a queue; their tasks stay failed."""
    queue = name_of(call)
    body, wanted = await _read(call, shapes.DeadLetterPurge)
    order = Order("purge_dead_letters", queue, _json(wanted.filter), _rate(wanted.rate))
    return await _start(call, body, order, is_dry=wanted.dry_run)


async def purge_queue(call: Call) -> Answer:
    """Cancel tasks of a queue that wait."""
    queue = name_of(call)
    body, wanted = await _read(call, shapes.QueuePurge)
    order = Order("purge_queue", queue, _json(wanted.filter), _rate(wanted.rate))
    return await _start(call, body, order, is_dry=wanted.dry_run)


async def cancel_tasks(call: Call) -> Answer:
    """Cancel tasks of a queue, or by some filter of all queues; running ones are asked to stop."""
    body, wanted = await _read(call, shapes.TasksCancel)
    queue = None if wanted.queue is msgspec.UNSET else wanted.queue
    order = Order("cancel_tasks", queue, _json(wanted.filter), _rate(wanted.rate), mode=wanted.mode)
    return await _start(call, body, order, is_dry=wanted.dry_run)


async def get(call: Call) -> Answer:
    """Read a bulk operation: how far it is, and what it came to."""
    operation_id = _id_of(call)
    async with call.backend.database.connection() as conn:
        return await shown(conn, call, operation_id, 200)


async def list_page(call: Call) -> Answer:
    """List the bulk operations of the tenant, newest first."""
    parameters = query(call, ("limit", "cursor"))
    limit = limit_of(parameters)
    position = read_cursor(call, parameters)
    before = ID_MAX if position is None else UUID(bytes=position)
    async with call.backend.database.connection() as conn:
        rows = await call.backend.operations.page(conn, call.key.tenant_id, before=before, row_count=limit)
    cursor = write_cursor(call, parameters, rows[-1].id.bytes) if len(rows) == limit else None
    return json_answer(200, shapes.OperationPage([_operation_of(row) for row in rows], cursor))


async def cancel(call: Call) -> Answer:
    """Stop a bulk operation before its next page; what it did stays done."""
    body, _ = await _read(call, Nothing)
    operation_id = _id_of(call)

    async def work(conn: Connection) -> Answer:
        await call.backend.operations.cancel(conn, call.key.tenant, operation_id)
        return await shown(conn, call, operation_id, 200)

    return await once(call, body, work)


async def _read(call: Call, shape: type[T]) -> tuple[bytes, T]:
    """Read a body that may be left out: then nothing is said in it."""
    body = await call.body_if_any()
    return body, read_edited(body or b"{}", shape)


async def _start(call: Call, body: bytes, order: Order, *, is_dry: bool) -> Answer:
    operations = call.backend.operations

    async def work(conn: Connection) -> Answer:
        if is_dry:
            await call.backend.server.limit(conn, statement_timeout_s=COUNT_S_MAX, lock_timeout_s=LOCK_S_MAX)
            found = await operations.count(conn, call.key.tenant_id, call.key.tenant, order)
            return json_answer(200, shapes.Matches(dry_run=True, matched=found.matched, at_least=not found.is_complete))
        operation_id = await operations.start(conn, call.key.tenant_id, order, created_by=call.key.id)
        return await shown(conn, call, operation_id, 202, (b"location", f"/v1/operations/{operation_id}".encode()))

    return await once(call, body, work)


async def shown(conn: Connection, call: Call, operation_id: UUID, status: int, *headers: tuple[bytes, bytes]) -> Answer:
    """Answer an operation as it stands."""
    row = await call.backend.operations.get(conn, call.key.tenant_id, operation_id)
    if row is None:
        raise _no_operation(str(operation_id))
    return json_answer(status, _operation_of(row), *headers)


def _operation_of(row: Any) -> shapes.Operation:
    return shapes.Operation(
        id=row.id,
        kind=row.kind,
        state=row.state,
        filter=msgspec.Raw(row.filter),
        matched=row.matched,
        done=row.done,
        skipped=row.skipped,
        failed=row.failed,
        created_at=row.created_at,
        created_by=row.created_by,
        queue=_set(row.queue),
        mode=_set(row.mode),
        rate=_set(row.rate),
        edited=_set(row.edited),
        finished_at=_set(row.finished_at),
        last_error=_set(row.last_error),
    )


def _id_of(call: Call) -> UUID:
    text: str = call.path_parameters["id"]
    try:
        operation_id = UUID(text)
    except ValueError:
        raise _no_operation(text) from None
    if str(operation_id) != text:
        raise _no_operation(text)
    return operation_id


def _no_operation(text: str) -> Problem:
    return Problem("not_found", f"There is no operation {text[:64]}.")


def _json(wanted: object) -> bytes:
    return b"{}" if wanted is msgspec.UNSET else msgspec.json.encode(wanted)


def _rate(rate: float | msgspec.UnsetType) -> float | None:
    return None if rate is msgspec.UNSET else rate


def _set(value: Any) -> Any:
    return msgspec.UNSET if value is None else value
