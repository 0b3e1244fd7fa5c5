"""The dead letters of a queue: list them, and group them by kind of error."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, get_args
from uuid import UUID

import msgspec

from howdah.api import operation_shapes as shapes
from howdah.api.call import Answer, json_answer
from howdah.api.paging import bad_parameter, instant_of, limit_of, query, read_cursor, tag_of, write_cursor
from howdah.api.queues import find
from howdah.api.shapes import PRIORITIES
from howdah.core.store.tasks import ID_MAX

if TYPE_CHECKING:
    from howdah.api.call import Call

_FILTERS: Final = ("tag", "handler", "error_type", "fingerprint", "reason", "dead_after", "dead_before")
LIST_PARAMETERS: Final = (*_FILTERS, "limit", "cursor")
GROUP_PARAMETERS: Final = _FILTERS

_FINGERPRINT: Final = re.compile(shapes.FINGERPRINT_PATTERN)
_decode_tags: Final = msgspec.json.Decoder(dict[str, str]).decode


async def list_page(call: Call) -> Answer:
    """List the dead letters of a queue, newest task first."""
    parameters = query(call, LIST_PARAMETERS)
    limit = limit_of(parameters)
    wanted = _filter_of(parameters)
    position = read_cursor(call, parameters)
    before = ID_MAX if position is None else UUID(bytes=position)
    queue = await find(call)
    async with call.backend.database.connection() as conn:
        page = await call.backend.dead_letters.page(
            conn, call.key.tenant_id, queue.id, wanted, before=before, row_count=limit
        )
    cursor = None if page.before is None else write_cursor(call, parameters, page.before.bytes)
    return json_answer(200, shapes.DeadLetterList([_letter_of(row) for row in page.rows], cursor))


async def list_groups(call: Call) -> Answer:
    """Group the newest dead letters of a queue by kind of error, the largest groups first."""
    wanted = _filter_of(query(call, GROUP_PARAMETERS))
    queue = await find(call)
    async with call.backend.database.connection() as conn:
        groups = await call.backend.dead_letters.groups(conn, call.key.tenant_id, queue.id, wanted)
    data = [
        shapes.DeadLetterGroup(
            fingerprint=row.fingerprint,
            count=row.letter_count,
            first_dead_at=row.first_dead_at,
            last_dead_at=row.last_dead_at,
            last_task_id=row.task_id,
            error_type=_set(row.error_type),
            error_message=_set(row.error_message),
        )
        for row in groups.rows
    ]
    return json_answer(200, shapes.DeadLetterGroups(data, groups.group_count, groups.look_count, groups.is_complete))


def _filter_of(parameters: dict[str, str]) -> bytes:
    """Return the filter of a list, in the words of `howdah.start_operation`.

    Raises:
        Problem: A parameter is wrong.
    """
    wanted: dict[str, Any] = {name: parameters[name] for name in ("handler", "error_type") if name in parameters}
    tag = tag_of(parameters)
    if tag is not None:
        wanted["tags"] = {tag[0]: tag[1]}
    for name in ("dead_after", "dead_before"):
        instant = instant_of(parameters, name)
        if instant is not None:
            wanted[name] = _utc(name, instant)
    if "fingerprint" in parameters:
        if not _FINGERPRINT.fullmatch(parameters["fingerprint"]):
            raise bad_parameter("fingerprint", "must be 16 hexadecimal digits")
        wanted["fingerprint"] = parameters["fingerprint"]
    if "reason" in parameters:
        reasons = get_args(shapes.DeathReason)
        if parameters["reason"] not in reasons:
            raise bad_parameter("reason", f"must be one of {', '.join(reasons)}")
        wanted["reason"] = parameters["reason"]
    return msgspec.json.encode(wanted)


def _utc(name: str, instant: datetime) -> datetime:
    """Write an instant with an offset that PostgreSQL takes: it knows none of 16 hours and more."""
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise bad_parameter(name, "is too long ago, or too far ahead") from None


def _letter_of(row: Any) -> shapes.DeadLetter:
    return shapes.DeadLetter(
        id=row.task_id,
        priority=PRIORITIES[min(row.priority, len(PRIORITIES) - 1)],
        reason=row.reason,
        attempt=row.attempt,
        crashes=row.crashes,
        created_at=row.queued_at,
        dead_at=row.dead_at,
        tags={} if row.tags is None else _decode_tags(row.tags),
        fingerprint=row.fingerprint,
        handler=_set(row.handler),
        url=_set(row.url),
        error=msgspec.UNSET if row.error is None else msgspec.Raw(row.error),
    )


def _set(value: Any) -> Any:
    return msgspec.UNSET if value is None else value
