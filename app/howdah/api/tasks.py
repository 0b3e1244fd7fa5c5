"""Tasks: create, read, list, change, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast, get_args
from uuid import UUID

import msgspec

from howdah.api import shapes
from howdah.api.bodies import check_edits, read, read_batch, read_edited, read_task
from howdah.api.bulk_create import BulkCreate
from howdah.api.call import Answer, json_answer
from howdah.api.changes import at_once, once
from howdah.api.drafts import draft, take_trace
from howdah.api.idempotency import key_of
from howdah.api.operation_shapes import Edits
from howdah.api.paging import bad_parameter, instant_of, limit_of, query, read_cursor, tag_of, uuid_of, write_cursor
from howdah.api.problems import Problem, refused
from howdah.api.task_view import holder_of, new_task, run_of, task_of
from howdah.core.store.tasks import ID_MAX, Filter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from howdah.api.call import Call
    from howdah.core.db.connect import Connection
    from howdah.core.model import CancelMode
    from howdah.core.store.tasks import Stored

    Change: TypeAlias = Callable[[Connection, str, UUID], Awaitable[str]]

_STATES: Final = frozenset(get_args(shapes.State))
LIST_PARAMETERS: Final = (
    "queue",
    "state",
    "handler",
    "tag",
    "batch",
    "created_after",
    "created_before",
    "limit",
    "cursor",
)


async def create(call: Call) -> Answer:
    """Store one task; the answer follows its commit."""
    settings = call.backend.settings
    body = await call.body(settings.body_bytes_max)
    task, payload = read_task(body, settings.payload_bytes_max, call.backend.addresses)
    take_trace(call, task)
    key = key_of(call)
    if key is not None:
        return await _create_once(call, key, body, task, payload)
    stored = await call.backend.writer.store(call.key.tenant_id, task, payload)
    if stored.is_deduplicated:
        async with call.backend.database.connection() as conn:
            return await _existing(conn, call, stored)
    return _created(call, task, payload, stored)


async def create_batch(call: Call) -> Answer:
    """Store up to 1,000 tasks, each for itself or all or none."""
    settings = call.backend.settings
    body = await call.body(settings.batch_bytes_max)
    items, is_atomic = read_batch(body, settings.payload_bytes_max, call.backend.addresses)
    bulk = BulkCreate(call, items, is_atomic)
    key = key_of(call)
    if key is not None:
        return await call.backend.keeper.once(call, key, body, bulk.work)
    return await bulk.store()


async def get(call: Call) -> Answer:
    """Read one task."""
    task_id = id_of(call)
    async with call.backend.database.connection() as conn:
        row = await call.backend.tasks.get(conn, call.key.tenant_id, task_id)
    if row is None:
        raise no_task(task_id)
    return json_answer(200, task_of(row, reads_payloads=call.key.reads_payloads))


async def explain(call: Call) -> Answer:
    """Say why a task is not running, or where else it stands."""
    task_id = id_of(call)
    async with call.backend.database.connection() as conn:
        found = await call.backend.tasks.explain(conn, call.key.tenant, task_id)
    reasons = [
        shapes.Reason(
            each.code,
            each.message,
            msgspec.UNSET if each.until is None else each.until,
            msgspec.UNSET if each.run_count is None else each.run_count,
        )
        for each in found
    ]
    return json_answer(200, shapes.Explanation(task_id, reasons))


async def list_page(call: Call) -> Answer:
    """List tasks, newest first."""
    parameters = query(call, LIST_PARAMETERS)
    limit = limit_of(parameters)
    wanted = _filter_of(parameters)
    position = read_cursor(call, parameters)
    before = ID_MAX if position is None else UUID(bytes=position)
    tasks, tenant_id = call.backend.tasks, call.key.tenant_id
    async with call.backend.database.connection() as conn:
        look = await tasks.page(conn, tenant_id, wanted, before=before, row_count=limit)
        rows = await tasks.get_many(conn, tenant_id, look.ids) if look.ids else []
    data = [task_of(row, reads_payloads=call.key.reads_payloads) for row in rows]
    cursor = None if look.before is None else write_cursor(call, parameters, look.before.bytes)
    return json_answer(200, shapes.TaskPage(data, cursor))


async def cancel(call: Call) -> Answer:
    """Cancel a task; a running one is asked to stop in the mode that the body says."""
    body = await call.body_if_any()
    mode = read(body, shapes.Cancel).mode if body else "soft"
    task_id = id_of(call)
    return await once(call, body, lambda conn: _cancel_in(conn, call, task_id, mode))


async def delete(call: Call) -> Answer:
    """Cancel a task softly."""
    task_id = id_of(call)
    return await at_once(call, lambda conn: _cancel_in(conn, call, task_id, "soft"))


async def run_now(call: Call) -> Answer:
    """Let a task that waits for its time start now."""
    return await _post(call, call.backend.task_changes.run_now)


async def retry(call: Call) -> Answer:
    """Take a dead letter back to its queue, with all its attempts, or with edits make a new task of it."""
    body = await call.body_if_any()
    edits = read_edited(body or b"{}", Edits)
    task_id = id_of(call)
    changes = call.backend.task_changes
    if edits == Edits():

        async def replay(conn: Connection) -> Answer:
            await changes.replay(conn, call.key.tenant, task_id)
            return await _shown(conn, call, task_id)

        return await once(call, body, replay)
    check_edits(edits, call.backend.settings.payload_bytes_max, call.backend.addresses, "")
    written = msgspec.json.encode(edits)

    async def replace(conn: Connection) -> Answer:
        new_id = await changes.replay_edited(conn, call.key.tenant, task_id, written)
        return await _shown(conn, call, new_id, 201, _location(str(new_id)))

    return await once(call, body, replace)


async def patch(call: Call) -> Answer:
    """Change priority, run_at, expires_at or tags of a task that waits."""
    body = await call.body(call.backend.settings.body_bytes_max)
    changes = msgspec.json.encode(read(body, shapes.TaskPatch))
    task_id = id_of(call)

    async def work(conn: Connection) -> Answer:
        await call.backend.task_changes.change(conn, call.key.tenant, task_id, changes)
        return await _shown(conn, call, task_id)

    return await at_once(call, work)


async def list_runs(call: Call) -> Answer:
    """List the runs of a task, oldest first."""
    parameters = query(call, ("limit", "cursor"))
    limit = limit_of(parameters)
    position = read_cursor(call, parameters)
    after = -1 if position is None else int.from_bytes(position, "big")
    task_id = id_of(call)
    tasks, tenant_id = call.backend.tasks, call.key.tenant_id
    async with call.backend.database.connection() as conn:
        rows = await tasks.runs(conn, tenant_id, task_id, after=after, row_count=limit)
        if not rows and await tasks.get(conn, tenant_id, task_id) is None:
            raise no_task(task_id)
    data = [run_of(row, reads_payloads=call.key.reads_payloads) for row in rows]
    is_more = len(rows) == limit
    cursor = write_cursor(call, parameters, rows[-1].claim_no.to_bytes(4, "big")) if is_more else None
    return json_answer(200, shapes.RunPage(data, cursor))


async def _create_once(call: Call, key: str, body: bytes, task: shapes.TaskCreate, payload: bytes | None) -> Answer:
    """Store one task and the answer to its key in one transaction."""
    backend = call.backend
    drafted = draft(backend.database.mint.mint(), task, payload)

    async def work(conn: Connection) -> tuple[Answer, Callable[[], None]]:
        stored = await backend.tasks.store(conn, {call.key.tenant_id: [drafted]})
        [row] = stored[call.key.tenant_id]
        answer = await _existing(conn, call, row) if row.is_deduplicated else _created(call, task, payload, row)
        return answer, lambda: backend.writer.report([row], "single")

    return await backend.keeper.once(call, key, body, work)


async def _existing(conn: Connection, call: Call, stored: Stored) -> Answer:
    """Answer the task that holds the dedup key of the one that was sent."""
    assert stored.id is not None
    rows = await call.backend.tasks.get_many(conn, call.key.tenant_id, [stored.id])
    task = holder_of(rows, stored.id, "/dedup/key")
    call.task_id = str(stored.id)
    return json_answer(200, task, _location(call.task_id))


def _created(call: Call, task: shapes.TaskCreate, payload: bytes | None, stored: Stored) -> Answer:
    if stored.error is not None:
        raise refused(stored.error, holder=stored.id)
    call.task_id = str(stored.id)
    location = _location(call.task_id)
    return json_answer(201, new_task(task, payload, stored, reads_payloads=call.key.reads_payloads), location)


def _location(task_id: str) -> tuple[bytes, bytes]:
    return b"location", b"/v1/tasks/" + task_id.encode()


async def _cancel_in(conn: Connection, call: Call, task_id: UUID, mode: CancelMode) -> Answer:
    tasks = call.backend.tasks
    state = await tasks.cancel(conn, call.key.tenant, task_id, mode)
    answer = shapes.Cancelled(task_id, cast("Literal['cancelled', 'running']", state))
    if state == "running":
        # Not `mode`: an earlier hard request stays one.
        in_force = await tasks.cancel_mode(conn, call.key.tenant_id, task_id)
        answer.cancel_requested = in_force if in_force is not None else msgspec.UNSET
    return json_answer(200, answer)


async def _post(call: Call, change: Change) -> Answer:
    """Change a task, and answer it as it stands then."""
    body = await call.body_if_any()
    if body:
        read(body, shapes.Nothing)
    task_id = id_of(call)

    async def work(conn: Connection) -> Answer:
        await change(conn, call.key.tenant, task_id)
        return await _shown(conn, call, task_id)

    return await once(call, body, work)


async def _shown(
    conn: Connection, call: Call, task_id: UUID, status: int = 200, *headers: tuple[bytes, bytes]
) -> Answer:
    """Answer the task as it stands; without payloads, for the answer may be kept, and replayed to other keys."""
    row = await call.backend.tasks.get(conn, call.key.tenant_id, task_id)
    if row is None:
        raise no_task(task_id)
    return json_answer(status, task_of(row, reads_payloads=False), *headers)


def _filter_of(parameters: dict[str, str]) -> Filter:
    state = parameters.get("state")
    if state is not None and state not in _STATES:
        raise bad_parameter("state", f"must be one of {', '.join(sorted(_STATES))}")
    return Filter(
        state=state,
        queue=parameters.get("queue"),
        handler=parameters.get("handler"),
        tag=tag_of(parameters),
        batch=uuid_of(parameters, "batch"),
        created_after=instant_of(parameters, "created_after"),
        created_before=instant_of(parameters, "created_before"),
    )


def id_of(call: Call) -> UUID:
    """Return the task id of the path.

    Raises:
        Problem: It is none.
    """
    text: str = call.path_parameters["id"]
    try:
        task_id = UUID(text)
    except ValueError:
        raise no_task(text) from None
    # Python also reads braces, urn: and missing hyphens; one task has one address.
    if str(task_id) != text:
        raise no_task(text)
    call.task_id = text
    return task_id


def no_task(task_id: UUID | str) -> Problem:
    """Return the problem with a task that the tenant does not have."""
    return Problem("not_found", f"There is no task {str(task_id)[:64]}.")
