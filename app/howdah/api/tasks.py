"""Tasks: create, read, list, cancel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, cast, get_args
from uuid import UUID

import msgspec

from howdah.api import shapes
from howdah.api.bodies import read, read_batch, read_task
from howdah.api.call import Answer, json_answer
from howdah.api.idempotency import key_of
from howdah.api.paging import bad_parameter, limit_of, query, read_cursor, write_cursor
from howdah.api.problems import Problem, refused
from howdah.api.task_view import new_task, run_of, task_of
from howdah.api.writer import IN_DOUBT_S, draft
from howdah.core.errors import DatabaseUnavailable, StorageUnavailable
from howdah.core.store.tasks import ID_MAX, Filter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from howdah.api.call import Call
    from howdah.core.db.connect import Connection
    from howdah.core.model import CancelMode
    from howdah.core.store.tasks import Draft, Stored

CANCEL_LOCK_S_MAX: Final = 1.0

_encode: Final = msgspec.json.Encoder().encode

# W3C Trace Context, version 00 and those that may follow; a malformed one is as good as none.
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_STATES: Final = frozenset(get_args(shapes.State))
LIST_PARAMETERS: Final = ("queue", "state", "handler", "tag", "created_after", "created_before", "limit", "cursor")


async def create(call: Call) -> Answer:
    """Store one task; the answer follows its commit."""
    settings = call.backend.settings
    body = await call.body(settings.body_bytes_max)
    task, payload = read_task(body, settings.payload_bytes_max, call.backend.addresses)
    _take_trace(call, task)
    key = key_of(call)
    if key is not None:
        return await _create_once(call, key, body, task, payload)
    handler = task.handler if isinstance(task.handler, str) else None
    stored = await call.backend.writer.store(call.key.tenant_id, task.queue, handler, _encode(task), payload)
    return _created(call, task, payload, stored)


async def create_batch(call: Call) -> Answer:
    """Store up to 1,000 tasks, each for itself or all or none."""
    settings = call.backend.settings
    body = await call.body(settings.batch_bytes_max)
    items, is_atomic = read_batch(body, settings.payload_bytes_max, call.backend.addresses)
    batch = _Batch(call, items, is_atomic)
    key = key_of(call)
    if key is not None:
        return await call.backend.keeper.once(call, key, body, batch.work)
    return await batch.store()


async def get(call: Call) -> Answer:
    """Read one task."""
    task_id = _id_of(call)
    async with call.backend.database.connection() as conn:
        row = await call.backend.tasks.get(conn, call.key.tenant_id, task_id)
    if row is None:
        raise _no_task(task_id)
    return json_answer(200, task_of(row, reads_payloads=call.key.reads_payloads))


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
    body = await call.body(call.backend.settings.body_bytes_max) if call.has_body() else b""
    mode = read(body, shapes.Cancel).mode if body else "soft"
    task_id = _id_of(call)
    key = key_of(call)
    if key is None:
        return await _cancel(call, task_id, mode)

    async def work(conn: Connection) -> tuple[Answer, Callable[[], None]]:
        return await _cancel_in(conn, call, task_id, mode), _nothing

    return await call.backend.keeper.once(call, key, body, work)


async def delete(call: Call) -> Answer:
    """Cancel a task softly."""
    return await _cancel(call, _id_of(call), "soft")


async def list_runs(call: Call) -> Answer:
    """List the runs of a task, oldest first."""
    parameters = query(call, ("limit", "cursor"))
    limit = limit_of(parameters)
    position = read_cursor(call, parameters)
    after = -1 if position is None else int.from_bytes(position, "big")
    task_id = _id_of(call)
    tasks, tenant_id = call.backend.tasks, call.key.tenant_id
    async with call.backend.database.connection() as conn:
        rows = await tasks.runs(conn, tenant_id, task_id, after=after, row_count=limit)
        if not rows and await tasks.get(conn, tenant_id, task_id) is None:
            raise _no_task(task_id)
    data = [run_of(row, reads_payloads=call.key.reads_payloads) for row in rows]
    is_more = len(rows) == limit
    cursor = write_cursor(call, parameters, rows[-1].claim_no.to_bytes(4, "big")) if is_more else None
    return json_answer(200, shapes.RunPage(data, cursor))


async def _create_once(call: Call, key: str, body: bytes, task: shapes.TaskCreate, payload: bytes | None) -> Answer:
    """Store one task and the answer to its key in one transaction."""
    backend = call.backend
    drafted = draft(backend.database.mint.mint(), _encode(task), payload)

    async def work(conn: Connection) -> tuple[Answer, Callable[[], None]]:
        stored = await backend.tasks.store(conn, {call.key.tenant_id: [drafted]})
        [row] = stored[call.key.tenant_id]
        return _created(call, task, payload, row), lambda: backend.writer.report([row], "single")

    return await backend.keeper.once(call, key, body, work)


class _Batch:
    """A batch of tasks on its way into the database."""

    def __init__(
        self, call: Call, items: Sequence[tuple[shapes.TaskCreate, bytes | None] | Problem], is_atomic: bool
    ) -> None:
        self._call = call
        self._items = items
        self._is_atomic = is_atomic
        if is_atomic:
            _raise_all([item for item in items if isinstance(item, Problem)])
        self._good = [item for item in items if not isinstance(item, Problem)]
        for task, _ in self._good:
            _take_trace(call, task)
        ids = call.backend.database.mint.mint_many(len(self._good))
        self._drafts: list[Draft] = [
            draft(task_id, _encode(task), payload) for task_id, (task, payload) in zip(ids, self._good, strict=True)
        ]

    async def store(self) -> Answer:
        """Store in a transaction of its own; once more, with the same ids, if its connection was lost."""
        try:
            return await self._store()
        except StorageUnavailable:
            raise
        except DatabaseUnavailable:
            database = self._call.backend.database
            if not await database.is_there() and not await database.wait_found(IN_DOUBT_S):
                raise
            return await self._store()

    async def _store(self) -> Answer:
        async with self._call.backend.database.transaction() as conn:
            answer, after_commit = await self.work(conn)
        after_commit()
        return answer

    async def work(self, conn: Connection) -> tuple[Answer, Callable[[], None]]:
        """Store inside a transaction.

        Raises:
            Problem: All were to be stored or none, and some are refused.
        """
        call, tasks, tenant_id = self._call, self._call.backend.tasks, self._call.key.tenant_id
        stored: list[Stored] = []
        if self._drafts:
            stored = (await tasks.store(conn, {tenant_id: self._drafts}))[tenant_id]
        repeated = [row.id for row in stored if row.id is not None and row.error is None and not row.created]
        if repeated:
            known = await tasks.find_stored(conn, tenant_id, repeated)
            stored = [row if row.id is None else known.get(row.id, row) for row in stored]
        rows = iter(stored)
        good = iter(self._good)
        results: list[Problem | shapes.Task] = []
        for index, item in enumerate(self._items):
            results.append(item if isinstance(item, Problem) else _result(call, index, *next(good), next(rows)))
        if self._is_atomic:
            _raise_all([result for result in results if isinstance(result, Problem)])
        answers = [
            shapes.BatchResult(result.status, problem=result.document(call.request_id))
            if isinstance(result, Problem)
            else shapes.BatchResult(201, task=result)
            for result in results
        ]
        return json_answer(200, shapes.BatchAnswer(answers)), lambda: call.backend.writer.report(stored, "batch")


def _result(
    call: Call, index: int, task: shapes.TaskCreate, payload: bytes | None, stored: Stored
) -> Problem | shapes.Task:
    if stored.error is not None:
        return refused(stored.error, f"/tasks/{index}")
    return new_task(task, payload, stored, reads_payloads=call.key.reads_payloads)


def _raise_all(problems: Sequence[Problem]) -> None:
    """Refuse a request for everything that is wrong with its parts; the first decides the code."""
    if problems:
        faults = [fault for problem in problems for fault in problem.errors]
        first = problems[0]
        detail = first.detail if len(problems) == 1 else f"{len(problems)} tasks were refused; first: {first.detail}"
        raise Problem(first.code, detail, faults)


def _created(call: Call, task: shapes.TaskCreate, payload: bytes | None, stored: Stored) -> Answer:
    if stored.error is not None:
        raise refused(stored.error)
    call.task_id = str(stored.id)
    location = (b"location", b"/v1/tasks/" + call.task_id.encode())
    return json_answer(201, new_task(task, payload, stored, reads_payloads=call.key.reads_payloads), location)


async def _cancel(call: Call, task_id: UUID, mode: CancelMode) -> Answer:
    # A worker that records the run's outcome holds its row for milliseconds.
    async with call.backend.database.transaction(lock_s_max=CANCEL_LOCK_S_MAX) as conn:
        return await _cancel_in(conn, call, task_id, mode)


async def _cancel_in(conn: Connection, call: Call, task_id: UUID, mode: CancelMode) -> Answer:
    tasks = call.backend.tasks
    state = await tasks.cancel(conn, call.key.tenant, task_id, mode)
    answer = shapes.Cancelled(task_id, cast("Literal['cancelled', 'running']", state))
    if state == "running":
        # Not `mode`: an earlier hard request stays one.
        in_force = await tasks.cancel_mode(conn, call.key.tenant_id, task_id)
        answer.cancel_requested = in_force if in_force is not None else msgspec.UNSET
    return json_answer(200, answer)


def _nothing() -> None:
    """Do nothing after a commit."""


def _filter_of(parameters: dict[str, str]) -> Filter:
    state = parameters.get("state")
    if state is not None and state not in _STATES:
        raise bad_parameter("state", f"must be one of {', '.join(sorted(_STATES))}")
    tag = parameters.get("tag")
    name, separator, value = (tag or "").partition(":")
    if tag is not None and not (name and separator):
        raise bad_parameter("tag", "must be name:value")
    return Filter(
        state=state,
        queue=parameters.get("queue"),
        handler=parameters.get("handler"),
        tag=None if tag is None else (name, value),
        created_after=_instant(parameters, "created_after"),
        created_before=_instant(parameters, "created_before"),
    )


def _instant(parameters: dict[str, str], name: str) -> datetime | None:
    text = parameters.get(name)
    if text is None:
        return None
    try:
        instant: datetime = msgspec.convert(text, shapes.Moment)
    except msgspec.ValidationError:
        raise bad_parameter(name, "must be an RFC 3339 timestamp with an offset") from None
    return instant


def _id_of(call: Call) -> UUID:
    text: str = call.path_parameters["id"]
    try:
        task_id = UUID(text)
    except ValueError:
        raise _no_task(text) from None
    # Python also reads braces, urn: and missing hyphens; one task has one address.
    if str(task_id) != text:
        raise _no_task(text)
    call.task_id = text
    return task_id


def _no_task(task_id: UUID | str) -> Problem:
    return Problem("not_found", f"There is no task {str(task_id)[:64]}.")


def _take_trace(call: Call, task: shapes.TaskCreate) -> None:
    """Let the trace context of the request count, unless the task brings one of its own."""
    header = call.headers.get(b"traceparent")
    if header is not None and task.traceparent is msgspec.UNSET and _TRACEPARENT.fullmatch(header):
        task.traceparent = header.decode("ascii")
