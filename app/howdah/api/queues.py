"""Queues: make, change, read, list, count, pause, drain, delete."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from howdah.api import queue_shapes, shapes
from howdah.api.bodies import read
from howdah.api.bounds import check_count, seconds_of
from howdah.api.call import Answer, json_answer
from howdah.api.changes import at_once, once
from howdah.api.paging import limit_of, query, read_cursor, write_cursor
from howdah.api.problems import Fault, Problem, invalid
from howdah.api.task_view import duration
from howdah.core import retry
from howdah.core.store.queues import KINDS, QueueChange
from howdah.core.wake import CatalogueChanged

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from howdah.api.call import Call
    from howdah.core.db.connect import Connection
    from howdah.core.store.queues import QueueSettings

    Change: TypeAlias = Callable[[Connection, int, str], Awaitable[bool]]

TIMEOUT_S_DEFAULT: Final = 60.0
TIMEOUT_S_MIN: Final = 0.1
TIMEOUT_S_MAX: Final = 86_400.0
# As the CHECK constraints of the table have it.
DEPTH_MAX: Final = 1_000_000
LIMIT_MAX: Final = 1_000_000
PERIOD_S_MAX: Final = 86_400.0
AHEAD_S_MAX: Final = 366 * 86_400.0
# As the view queue_live counts: more rows of a kind would make the answer slow exactly when it is wanted.
COUNT_MAX: Final = 10_000

_NAME: Final = re.compile(shapes.NAME_PATTERN)
# Fields without a default are left out.
_DEFAULTS: Final[dict[str, Any]] = {
    name: value for name, value in msgspec.to_builtins(retry.DEFAULT).items() if value not in (None, [])
}


async def put(call: Call) -> Answer:
    """Make a queue, or replace its settings: what is not given gets its default."""
    name, settings = await _written(call)
    change = _checked(settings)
    whole = change._replace(
        retry=change.retry or b"{}",
        timeout_s=TIMEOUT_S_DEFAULT if change.timeout_s is None else change.timeout_s,
        keep_history=change.keep_history or "all",
    )
    backend = call.backend
    async with backend.database.transaction() as conn:
        queue, is_new = await backend.queues.put(conn, call.key.tenant_id, name, whole)
    backend.notifier.say(CatalogueChanged())
    if is_new:
        return json_answer(201, _queue_of(queue), (b"location", f"/v1/queues/{name}".encode()))
    return json_answer(200, _queue_of(queue))


async def patch(call: Call) -> Answer:
    """Change the settings of a queue that are given; null takes a cap or limit away."""
    name, settings = await _written(call)
    change = _checked(settings)
    async with call.backend.database.transaction() as conn:
        queue = await call.backend.queues.patch(conn, call.key.tenant_id, name, change)
    if queue is None:
        raise _no_queue(name)
    # Workers claim from queues with limits in another way.
    if change.sets_running or change.sets_rate:
        call.backend.notifier.say(CatalogueChanged())
    return json_answer(200, _queue_of(queue))


async def delete(call: Call) -> Answer:
    """Delete a queue that holds no live task and no dead letter."""
    name = name_of(call)

    async def work(conn: Connection) -> Answer:
        await call.backend.queue_states.delete(conn, call.key.tenant, name)
        return json_answer(200, queue_shapes.QueueDeleted(name))

    return await at_once(call, work)


async def pause(call: Call) -> Answer:
    """Start nothing from a queue, until a time or until it is resumed; what runs goes on."""
    body = await call.body_if_any()
    asked = read(body, queue_shapes.QueuePause) if body else queue_shapes.QueuePause()
    until, for_s = _end_of(asked)
    reason = None if asked.reason is msgspec.UNSET else asked.reason
    states, actor = call.backend.queue_states, call.key.id

    async def change(conn: Connection, tenant_id: int, name: str) -> bool:
        return await states.pause(conn, tenant_id, name, reason=reason, until=until, for_s=for_s, actor=actor)

    return await _changed(call, body, change)


async def drain(call: Call) -> Answer:
    """Take no new tasks into a queue, until it is resumed; what waits is worked off."""
    states, actor = call.backend.queue_states, call.key.id

    async def change(conn: Connection, tenant_id: int, name: str) -> bool:
        return await states.drain(conn, tenant_id, name, actor=actor)

    return await _changed(call, await _nothing_in(call), change)


async def resume(call: Call) -> Answer:
    """End the pause and the drain of a queue; its tasks start again at once."""
    return await _changed(call, await _nothing_in(call), call.backend.queue_states.resume)


async def get(call: Call) -> Answer:
    """Read the state and settings of a queue."""
    return json_answer(200, _queue_of(await find(call)))


async def list_page(call: Call) -> Answer:
    """List the queues of the tenant by name."""
    parameters = query(call, ("limit", "cursor"))
    limit = limit_of(parameters)
    after = (read_cursor(call, parameters) or b"").decode()
    async with call.backend.database.connection() as conn:
        rows = await call.backend.queues.page(conn, call.key.tenant_id, after=after, row_count=limit)
    cursor = write_cursor(call, parameters, rows[-1].name.encode()) if len(rows) == limit else None
    return json_answer(200, queue_shapes.QueuePage([_queue_of(row) for row in rows], cursor))


async def stats(call: Call) -> Answer:
    """Count what a queue holds now, and what it got done in the last minute, 5 minutes and hour."""
    name = name_of(call)
    async with call.backend.database.connection() as conn:
        found = await call.backend.queues.stats(conn, call.key.tenant, name)
    if found is None:
        raise _no_queue(name)
    counts: dict[str, Any] = {kind: min(count, COUNT_MAX) for kind, count in found.counts.items()}
    shown = queue_shapes.QueueStats(
        queue=name,
        **counts,
        **{f"{kind}_is_at_least": kind in found.cut for kind in KINDS},
        count_max=COUNT_MAX,
        oldest_age_s=found.oldest_age_s,
        last_minute=queue_shapes.QueueTally(*found.last_minute),
        last_5_minutes=queue_shapes.QueueTally(*found.last_5_minutes),
        last_hour=queue_shapes.QueueTally(*found.last_hour),
    )
    return json_answer(200, shown)


async def _changed(call: Call, body: bytes, change: Change) -> Answer:
    """Change what a queue does, and answer it as it stands then."""
    name, tenant_id = name_of(call), call.key.tenant_id

    async def work(conn: Connection) -> Answer:
        is_changed = await change(conn, tenant_id, name)
        queue = await call.backend.queues.get(conn, tenant_id, name)
        assert queue is not None, "its row is locked"
        return json_answer(200, queue_shapes.QueueChanged(is_changed, _queue_of(queue)))

    return await once(call, body, work)


async def _nothing_in(call: Call) -> bytes:
    """Return a body that may be left out, and holds nothing."""
    body = await call.body_if_any()
    if body:
        read(body, shapes.Nothing)
    return body


async def find(call: Call) -> QueueSettings:
    """Return the queue that the path names.

    Raises:
        Problem: There is none.
    """
    name = name_of(call)
    async with call.backend.database.connection() as conn:
        queue = await call.backend.queues.get(conn, call.key.tenant_id, name)
    if queue is None:
        raise _no_queue(name)
    return queue


def name_of(call: Call) -> str:
    """Return the name of a queue that the path has; there may be none of that name.

    Raises:
        Problem: No queue can have it.
    """
    name: str = call.path_parameters["queue"]
    if not _NAME.fullmatch(name):
        raise _no_queue(name)
    return name


async def _written(call: Call) -> tuple[str, queue_shapes.QueueWrite]:
    body = await call.body(call.backend.settings.body_bytes_max)
    settings = read(body, queue_shapes.QueueWrite)
    name: str = call.path_parameters["queue"]
    if not _NAME.fullmatch(name):
        detail = f"must match {shapes.NAME_PATTERN}"
        raise Problem("validation", f"The name of a queue {detail}.", [Fault(detail, parameter="queue")])
    return name, settings


def _checked(settings: queue_shapes.QueueWrite) -> QueueChange:
    """Return the settings that are given.

    Raises:
        Problem: They are not allowed. It names every field of the retry policy at fault, or else the first field.
    """
    change = QueueChange()
    if settings.retry is not msgspec.UNSET:
        written = msgspec.json.encode(settings.retry)
        refusals = retry.check(msgspec.json.decode(written, type=retry.RetryPolicy), "/retry")
        if refusals:
            faults = [Fault(refusal.detail, pointer=refusal.pointer) for refusal in refusals]
            raise Problem("validation", f"{refusals[0].pointer} {refusals[0].detail}", faults)
        change = change._replace(retry=written)
    if settings.timeout is not msgspec.UNSET:
        allowed = "from 0.1 seconds to 24 hours"
        timeout_s = seconds_of(settings.timeout, "/timeout", TIMEOUT_S_MIN, TIMEOUT_S_MAX, allowed)
        change = change._replace(timeout_s=timeout_s)
    if settings.keep_history is not msgspec.UNSET:
        change = change._replace(keep_history=settings.keep_history)
    if settings.max_depth is not msgspec.UNSET:
        if settings.max_depth is not None:
            check_count(settings.max_depth, "/max_depth", DEPTH_MAX)
        change = change._replace(sets_depth=True, max_depth=settings.max_depth)
    if settings.max_age is not msgspec.UNSET:
        age_s = None
        if settings.max_age is not None:
            age_s = seconds_of(settings.max_age, "/max_age", 1.0, AHEAD_S_MAX, "from 1 second to 366 days")
        change = change._replace(sets_age=True, max_age_s=age_s)
    if settings.max_running is not msgspec.UNSET:
        if settings.max_running is not None:
            check_count(settings.max_running, "/max_running", LIMIT_MAX)
        change = change._replace(sets_running=True, max_running=settings.max_running)
    if settings.rate is not msgspec.UNSET:
        change = change._replace(sets_rate=True, rate=None if settings.rate is None else _rate(settings.rate))
    return change


def _rate(rate: shapes.Rate) -> bytes:
    check_count(rate.limit, "/rate/limit", LIMIT_MAX)
    if rate.burst is not msgspec.UNSET:
        check_count(rate.burst, "/rate/burst", LIMIT_MAX)
    seconds_of(rate.period, "/rate/period", 1.0, PERIOD_S_MAX, "from 1 second to 24 hours")
    return msgspec.json.encode(rate)


def _rate_of(row: QueueSettings) -> shapes.Rate | None:
    if row.rate_limit is None or row.rate_period_s is None or row.rate_burst is None:
        return None
    return shapes.Rate(row.rate_limit, duration(row.rate_period_s), row.rate_burst)


def _end_of(asked: queue_shapes.QueuePause) -> tuple[datetime | None, float | None]:
    """Return when a pause ends, or in how many seconds. Whether an instant lies ahead is the database's to say."""
    if asked.lasting is not msgspec.UNSET:
        if asked.until is not msgspec.UNSET:
            raise invalid("/for", "excludes until")
        return None, seconds_of(asked.lasting, "/for", 1.0, AHEAD_S_MAX, "from 1 second to 366 days")
    if asked.until is msgspec.UNSET:
        return None, None
    try:
        until: datetime = msgspec.convert(asked.until, shapes.Moment)
    except msgspec.ValidationError:
        raise invalid("/until", "must be an RFC 3339 timestamp with an offset") from None
    return until, None


def _queue_of(row: QueueSettings) -> queue_shapes.Queue:
    return queue_shapes.Queue(
        name=row.name,
        state=row.state,
        paused=_paused_of(row),
        draining=_draining_of(row),
        pressure=row.pressure,
        retry=_DEFAULTS | msgspec.json.decode(row.retry),
        timeout=duration(row.timeout_s),
        keep_history=row.keep_history,
        max_depth=row.max_depth,
        max_age=None if row.max_age_s is None else duration(row.max_age_s),
        max_running=row.max_running,
        rate=_rate_of(row),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _paused_of(row: QueueSettings) -> queue_shapes.Paused | None:
    if row.state != "paused" or row.paused_at is None or row.paused_by is None:
        return None
    return queue_shapes.Paused(row.paused_at, row.paused_by, row.pause_reason, row.paused_until)


def _draining_of(row: QueueSettings) -> queue_shapes.Draining | None:
    if row.draining_at is None or row.draining_by is None:
        return None
    return queue_shapes.Draining(row.draining_at, row.draining_by)


def _no_queue(name: str) -> Problem:
    return Problem("not_found", f"There is no queue {name[:128]}.")
