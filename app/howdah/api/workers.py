"""Worker processes, as an operator wants to see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from howdah.api import shapes
from howdah.api.call import Answer, json_answer
from howdah.api.paging import limit_of, query, read_cursor, write_cursor

if TYPE_CHECKING:
    from howdah.api.call import Call
    from howdah.core.store.workers import WorkerRow

_ID_MAX: Final = 2**31 - 1


async def list_page(call: Call) -> Answer:
    """List worker processes, which serve all tenants, and the tenant's own consumers over HTTP, newest first."""
    parameters = query(call, ("limit", "cursor"))
    limit = limit_of(parameters)
    position = read_cursor(call, parameters)
    before_id = _ID_MAX if position is None else int.from_bytes(position, "big")
    async with call.backend.database.connection() as conn:
        rows = await call.backend.workers.page(conn, call.key.tenant_id, before_id=before_id, row_count=limit)
    cursor = write_cursor(call, parameters, rows[-1].id.to_bytes(4, "big")) if len(rows) == limit else None
    return json_answer(200, shapes.WorkerPage([_worker_of(row) for row in rows], cursor))


def _worker_of(row: WorkerRow) -> shapes.Worker:
    return shapes.Worker(
        kind=row.kind,
        name=row.name,
        state=row.state,
        host=row.host,
        pid=row.pid,
        version=row.version,
        queues=row.queues,
        handlers=row.handlers,
        serves_http=row.serves_http,
        concurrency=row.concurrency,
        lease_s=row.lease_s,
        started_at=row.started_at,
        heartbeat_at=row.heartbeat_at,
        stopping_at=row.stopping_at,
        stopped_at=row.stopped_at,
    )
