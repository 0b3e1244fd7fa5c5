"""Results of tasks, and waiting for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from howdah.api import run_shapes
from howdah.api.call import Answer, json_answer
from howdah.api.paging import bad_parameter, query
from howdah.api.result_waits import has_ended
from howdah.api.tasks import id_of, no_task
from howdah.core.db.arrays import instant_at
from howdah.core.errors import DurationInvalid
from howdah.core.model import jsonb_text
from howdah.core.units import parse_duration

if TYPE_CHECKING:
    from uuid import UUID

    from howdah.api.call import Call
    from howdah.core.store.results import TaskResult

WAIT_S_MAX: Final = 60.0


async def get(call: Call) -> Answer:
    """Read how a task ended, waiting for its end if it has not.

    202 with its state if it has not ended in time; ask again.
    """
    wait_s = _wait_s(query(call, ("wait",)))
    task_id = id_of(call)
    waits, task = call.backend.result_waits, (call.key.tenant_id, task_id.bytes)
    result = await waits.look(*task)
    if wait_s and not has_ended(result):
        future = waits.wait(*task)
        try:
            result = future.result() if await call.wait(future, wait_s) else await waits.look(*task)
        finally:
            waits.leave(*task, future)
    if result.state is None:
        raise no_task(task_id)
    if not has_ended(result):
        return json_answer(202, run_shapes.TaskPending(task_id, cast("Any", result.state)))
    return json_answer(200, _shown(task_id, result, reads_payloads=call.key.reads_payloads))


def _wait_s(parameters: dict[str, str]) -> float:
    text = parameters.get("wait")
    if text is None:
        return 0.0
    try:
        seconds = parse_duration(text)
    except DurationInvalid as error:
        raise bad_parameter("wait", str(error)) from None
    if seconds > WAIT_S_MAX:
        raise bad_parameter("wait", f"must be a duration of at most {WAIT_S_MAX:g} seconds")
    return seconds


def _shown(task_id: UUID, result: TaskResult, *, reads_payloads: bool) -> run_shapes.TaskResult:
    shown = run_shapes.TaskResult(
        id=task_id,
        state=cast("Any", result.state),
        outcome=_set(result.outcome),
        attempt=_set(result.attempt),
        finished_at=msgspec.UNSET if result.finished_at is None else instant_at(result.finished_at),
        # What went wrong on the way to a success is told by its runs.
        error=msgspec.UNSET if result.error is None else msgspec.Raw(jsonb_text(result.error)),
        response_status=_set(result.response_status),
        failed_because=_set(result.failed_because),
    )
    if reads_payloads:
        shown.result = msgspec.UNSET if result.result is None else msgspec.Raw(result.result)
        shown.response_body = _set(result.response_body)
    return shown


def _set(value: Any) -> Any:
    return msgspec.UNSET if value is None else value
