"""Queues: make, change, read, list, count."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from howdah.api import shapes
from howdah.api.bodies import read
from howdah.api.call import Answer, json_answer
from howdah.api.paging import limit_of, query, read_cursor, write_cursor
from howdah.api.problems import Fault, Problem, invalid
from howdah.api.task_view import duration
from howdah.core import retry
from howdah.core.errors import DurationInvalid
from howdah.core.units import parse_duration
from howdah.core.wake import CatalogueChanged

if TYPE_CHECKING:
    from howdah.api.call import Call
    from howdah.core.store.queues import QueueSettings

TIMEOUT_S_DEFAULT: Final = 60.0
TIMEOUT_S_MIN: Final = 0.1
TIMEOUT_S_MAX: Final = 86_400.0
# Counting more rows of each kind would make the answer slow exactly when it is wanted.
COUNT_MAX: Final = 10_000
WINDOW_S: Final = 3_600.0

_NAME: Final = re.compile(shapes.NAME_PATTERN)
# Fields without a default are left out.
_DEFAULTS: Final[dict[str, Any]] = {
    name: value for name, value in msgspec.to_builtins(retry.DEFAULT).items() if value not in (None, [])
}


async def put(call: Call) -> Answer:
    """Make a queue, or replace its settings: what is not given gets its default."""
    name, settings = await _written(call)
    retry_json, timeout_s = _checked(settings)
    backend = call.backend
    async with backend.database.transaction() as conn:
        queue, is_new = await backend.queues.put(
            conn,
            call.key.tenant_id,
            name,
            retry=retry_json or b"{}",
            timeout_s=TIMEOUT_S_DEFAULT if timeout_s is None else timeout_s,
        )
    if is_new:
        backend.notifier.say(CatalogueChanged())
        return json_answer(201, _queue_of(queue), (b"location", f"/v1/queues/{name}".encode()))
    return json_answer(200, _queue_of(queue))


async def patch(call: Call) -> Answer:
    """Change the settings of a queue that are given."""
    name, settings = await _written(call)
    retry_json, timeout_s = _checked(settings)
    async with call.backend.database.transaction() as conn:
        queue = await call.backend.queues.patch(conn, call.key.tenant_id, name, retry=retry_json, timeout_s=timeout_s)
    if queue is None:
        raise _no_queue(name)
    return json_answer(200, _queue_of(queue))


async def get(call: Call) -> Answer:
    """Read the settings of a queue."""
    return json_answer(200, _queue_of(await _find(call)))


async def list_page(call: Call) -> Answer:
    """List the queues of the tenant by name."""
    parameters = query(call, ("limit", "cursor"))
    limit = limit_of(parameters)
    after = (read_cursor(call, parameters) or b"").decode()
    async with call.backend.database.connection() as conn:
        rows = await call.backend.queues.page(conn, call.key.tenant_id, after=after, row_count=limit)
    cursor = write_cursor(call, parameters, rows[-1].name.encode()) if len(rows) == limit else None
    return json_answer(200, shapes.QueuePage([_queue_of(row) for row in rows], cursor))


async def stats(call: Call) -> Answer:
    """Count what a queue holds now, and what happened during the last hour."""
    queue = await _find(call)
    async with call.backend.database.connection() as conn:
        counts = await call.backend.queues.stats(conn, queue.id, count_max=COUNT_MAX)
        tally = await call.backend.stats.sum(conn, queue.id, window_s=WINDOW_S)
    shown = shapes.QueueStats(
        queue=queue.name,
        queued=min(counts.queued, COUNT_MAX),
        scheduled=min(counts.scheduled, COUNT_MAX),
        retrying=min(counts.retrying, COUNT_MAX),
        blocked=min(counts.blocked, COUNT_MAX),
        running=counts.running,
        dead_letters=counts.dead_letters,
        count_max=COUNT_MAX,
        oldest_age_s=counts.oldest_age_s,
        last_hour=shapes.QueueTally(*tally),
    )
    return json_answer(200, shown)


async def _find(call: Call) -> QueueSettings:
    name: str = call.path_parameters["queue"]
    if not _NAME.fullmatch(name):
        raise _no_queue(name)
    async with call.backend.database.connection() as conn:
        queue = await call.backend.queues.get(conn, call.key.tenant_id, name)
    if queue is None:
        raise _no_queue(name)
    return queue


async def _written(call: Call) -> tuple[str, shapes.QueueWrite]:
    body = await call.body(call.backend.settings.body_bytes_max)
    settings = read(body, shapes.QueueWrite)
    name: str = call.path_parameters["queue"]
    if not _NAME.fullmatch(name):
        detail = f"must match {shapes.NAME_PATTERN}"
        raise Problem("validation", f"The name of a queue {detail}.", [Fault(detail, parameter="queue")])
    return name, settings


def _checked(settings: shapes.QueueWrite) -> tuple[bytes | None, float | None]:
    """Return the retry policy as JSON and the timeout in seconds, None for what is not given.

    Raises:
        Problem: They are not allowed; it names every field at fault.
    """
    written, timeout_s = None, None
    if settings.retry is not msgspec.UNSET:
        written = msgspec.json.encode(settings.retry)
        refusals = retry.check(msgspec.json.decode(written, type=retry.RetryPolicy), "/retry")
        if refusals:
            faults = [Fault(refusal.detail, pointer=refusal.pointer) for refusal in refusals]
            raise Problem("validation", f"{refusals[0].pointer} {refusals[0].detail}", faults)
    if settings.timeout is not msgspec.UNSET:
        try:
            timeout_s = parse_duration(settings.timeout)
        except DurationInvalid as error:
            raise invalid("/timeout", str(error)) from None
        if not TIMEOUT_S_MIN <= timeout_s <= TIMEOUT_S_MAX:
            raise invalid("/timeout", "must be a duration from 0.1 seconds to 24 hours")
    return written, timeout_s


def _queue_of(row: QueueSettings) -> shapes.Queue:
    return shapes.Queue(
        name=row.name,
        retry=_DEFAULTS | msgspec.json.decode(row.retry),
        timeout=duration(row.timeout_s),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _no_queue(name: str) -> Problem:
    return Problem("not_found", f"There is no queue {name[:128]}.")
