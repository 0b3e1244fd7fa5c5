"""Tasks and their runs as clients are shown them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

import msgspec

from howdah.api import shapes
from howdah.api.problems import Fault, Problem
from howdah.core.entries import LEVELS
from howdah.core.state import BlockedBy
from howdah.core.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from howdah.core.store.tasks import Stored

_decode_http: Final = msgspec.json.Decoder(shapes.HttpTarget).decode
_decode_flow: Final = msgspec.json.Decoder(shapes.Flow).decode


class _FollowUps(msgspec.Struct):
    """As they are stored."""

    on_success: shapes.FollowUp | msgspec.UnsetType = msgspec.UNSET
    on_failure: shapes.FollowUp | msgspec.UnsetType = msgspec.UNSET


_decode_follow_ups: Final = msgspec.json.Decoder(_FollowUps).decode
_decode_retry: Final = msgspec.json.Decoder(shapes.Retry).decode
_decode_dedup: Final = msgspec.json.Decoder(shapes.Dedup).decode
_LEVEL_NAMES: Final = {number: cast("shapes.LogLevel", name) for name, number in LEVELS.items()}
_decode_tags: Final = msgspec.json.Decoder(dict[str, str]).decode


def new_task(task: shapes.TaskCreate, payload: bytes | None, stored: Stored, *, reads_payloads: bool) -> shapes.Task:
    """Show a task that was just stored as GET would."""
    assert stored.id is not None
    assert stored.due_at is not None
    assert stored.created_at is not None
    assert stored.timeout_s is not None
    assert stored.max_attempts is not None
    return shapes.Task(
        id=stored.id,
        state="scheduled" if stored.due_at > stored.created_at else "queued",
        queue=task.queue,
        priority=task.priority if task.priority is not msgspec.UNSET else "normal",
        run_at=stored.due_at,
        created_at=stored.created_at,
        attempt=0,
        max_attempts=stored.max_attempts,
        timeout=duration(stored.timeout_s),
        tags=task.tags if task.tags is not msgspec.UNSET else {},
        handler=task.handler,
        http=_shown_http(task.http, reads_payloads=reads_payloads),
        payload=msgspec.Raw(payload) if reads_payloads and payload is not None else msgspec.UNSET,
        retry=task.retry,
        flow=task.flow,
        dedup=task.dedup,
        expires_at=_set(stored.expires_at),
        traceparent=task.traceparent,
        batch=msgspec.UNSET if task.batch is msgspec.UNSET else UUID(task.batch),
        on_success=shown_follow_up(task.on_success, reads_payloads=reads_payloads),
        on_failure=shown_follow_up(task.on_failure, reads_payloads=reads_payloads),
    )


def task_of(row: Any, *, reads_payloads: bool) -> shapes.Task:
    """Show a row of task/get or task/get_many."""
    task = shapes.Task(
        id=row.id,
        state=row.state,
        queue=row.queue,
        priority=shapes.PRIORITIES[row.priority],
        run_at=row.run_at,
        created_at=row.created_at,
        attempt=row.attempt,
        max_attempts=int(row.max_attempts),
        timeout=duration(row.timeout_s),
        tags=_decode_tags(row.tags) if row.tags is not None else {},
        handler=_set(row.handler),
        retry=_decode_retry(row.retry) if row.retry is not None else msgspec.UNSET,
        flow=_decode_flow(row.flow) if row.flow is not None else msgspec.UNSET,
        dedup=_decode_dedup(row.dedup) if row.dedup is not None else msgspec.UNSET,
        traceparent=_set(row.traceparent),
        expires_at=_set(row.expires_at),
        replayed_from=_set(row.replayed_from),
        parent_id=_set(row.parent_id),
        batch=_set(row.batch_id),
        completes_batch=_set(row.completes_batch_id),
        worker=_set(row.worker),
        lease_expires_at=_set(row.lease_expires_at),
        deadline_at=_set(row.deadline_at),
        cancel_requested=_set(row.cancel_mode),
        finished_at=_set(row.finished_at),
        response_status=_set(row.response_status),
        # What went wrong on the way to a success is told by its runs.
        error=_raw(row.error) if row.state != "succeeded" else msgspec.UNSET,
        failed_because=_set(row.dead_reason),
    )
    if row.http is not None:
        task.http = _shown_http(_decode_http(row.http), reads_payloads=reads_payloads)
    if row.follow_ups is not None:
        follow_ups = _decode_follow_ups(row.follow_ups)
        task.on_success = shown_follow_up(follow_ups.on_success, reads_payloads=reads_payloads)
        task.on_failure = shown_follow_up(follow_ups.on_failure, reads_payloads=reads_payloads)
    if row.blocked_by:
        task.blocked_by = [cast("Any", bit.name).lower() for bit in BlockedBy(row.blocked_by)]
    if getattr(row, "progress_at", None) is not None:
        task.progress = shapes.Progress(_fraction(row.progress_fraction), row.progress_message, row.progress_at)
    if reads_payloads:
        task.payload = _raw(getattr(row, "payload", None))
        task.result = _raw(getattr(row, "result", None))
    return task


def holder_of(rows: Sequence[Any], holder: UUID, pointer: str) -> shapes.Task:
    """Show the task that holds the dedup key of another, without payloads: see `_shown` of the routes.

    Args:
        rows: Of task/get_many; `holder` among them, unless it is gone.
        holder: Its id.
        pointer: To the key, in the body.

    Raises:
        Problem: It holds the key for longer than it is kept.
    """
    for row in rows:
        if row.id == holder:
            task = task_of(row, reads_payloads=False)
            task.deduplicated = True
            return task
    detail = f"is held by task {holder}, which is not kept any more"
    raise Problem("dedup_conflict", f"{pointer} {detail}", [Fault(detail, pointer=pointer)], task_id=holder)


def log_entry_of(row: Any, *, reads_payloads: bool) -> shapes.LogEntry:
    """Show a row of log/page or log/follow."""
    entry = shapes.LogEntry(row.claim_no, row.seq, _LEVEL_NAMES[row.level], row.logged_at, row.message)
    if row.fraction is not None:
        entry.progress = _fraction(row.fraction)
    if reads_payloads:
        entry.fields = _raw(row.fields)
    return entry


def run_of(row: Any, *, reads_payloads: bool) -> shapes.Run:
    """Show a row of task/runs."""
    run = shapes.Run(
        claim_no=row.claim_no,
        attempt=row.attempt,
        outcome=row.outcome,
        is_final=row.is_final,
        queued_at=row.queued_at,
        worker=row.worker,
        claimed_at=row.claimed_at,
        finished_at=row.finished_at,
        duration_s=row.duration_s,
        response_status=row.response_status,
        error=_raw(row.error),
    )
    if reads_payloads:
        run.result = _raw(row.result)
        run.response_body = _set(row.response_body)
    return run


def _shown_http(
    http: shapes.HttpTarget | msgspec.UnsetType, *, reads_payloads: bool
) -> shapes.HttpTarget | msgspec.UnsetType:
    """Leave out what may be secret: headers carry credentials, and the body is a payload."""
    if http is msgspec.UNSET or reads_payloads:
        return http
    return msgspec.structs.replace(http, headers=msgspec.UNSET, body=msgspec.UNSET)


def shown_follow_up(
    task: shapes.FollowUp | msgspec.UnsetType, *, reads_payloads: bool
) -> shapes.FollowUp | msgspec.UnsetType:
    """Leave out of a follow-up, and of its own, what only those may see who read payloads."""
    if task is msgspec.UNSET or reads_payloads:
        return task
    return msgspec.structs.replace(
        task,
        payload=msgspec.UNSET,
        http=_shown_http(task.http, reads_payloads=False),
        on_success=shown_follow_up(task.on_success, reads_payloads=False),
        on_failure=shown_follow_up(task.on_failure, reads_payloads=False),
    )


def _fraction(stored: float) -> float:
    """Read a fraction that is stored as real, which has seven digits; the eighth is noise."""
    return float(f"{stored:.7g}")


@lru_cache(maxsize=1024)
def duration(seconds: float) -> str:
    """Write a duration that is stored as real, which has seven digits; the eighth is noise."""
    return format_duration(float(f"{seconds:.7g}"))


def _set(value: Any) -> Any:
    return msgspec.UNSET if value is None else value


def _raw(value: bytes | None) -> msgspec.Raw | msgspec.UnsetType:
    return msgspec.UNSET if value is None else msgspec.Raw(value)
