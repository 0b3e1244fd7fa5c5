"""Tasks that a handler enqueues, written as they will be stored with its success. Pure.

What PostgreSQL judges (names, ranges, dedup keys) is refused when the success is recorded;
what can be told without it is refused here, where the handler can still do something about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from howdah.core.errors import EnqueueInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

# Of one run; they are stored by one statement, in the transaction that ends it.
TASKS_MAX: Final = 1_000
BYTES_MAX: Final = 2_097_152

# What POST /v1/tasks takes beside queue, handler and payload.
OPTIONS: Final = frozenset({
    "http", "priority", "run_at", "delay", "expires_at", "expires_in", "timeout", "retry", "flow", "tags", "dedup",
    "traceparent", "batch", "on_success", "on_failure",
})  # fmt: skip


def add(
    enqueued: list[bytes], task_id: UUID, queue: str, handler: str | None, payload: Any, options: Mapping[str, Any]
) -> None:
    """Add a task to those of a run.

    Args:
        enqueued: Those that it has so far, JSON objects.
        task_id: What the task will be called.
        queue: Its queue.
        handler: Its handler; None for one with `http` among its options.
        payload: Anything that has a JSON form; None for none.
        options: Other fields of `POST /v1/tasks`; a `datetime` or `timedelta` is written as the API reads it, and
            None is left out.

    Raises:
        EnqueueInvalid: A field is unknown or has no JSON form, or there are too many tasks.
    """
    unknown = options.keys() - OPTIONS
    if unknown:
        raise EnqueueInvalid(f"{min(unknown)} is not a field of a task; take {', '.join(sorted(OPTIONS))}")
    fields: dict[str, Any] = {"id": str(task_id), "queue": queue}
    if handler is not None:
        fields["handler"] = handler
    fields |= {name: value for name, value in options.items() if value is not None}
    if payload is not None:
        fields["payload"] = payload
    try:
        item = msgspec.json.encode(fields)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EnqueueInvalid(f"the task cannot be written as JSON: {error}") from error
    if b"\\u0000" in item:
        raise EnqueueInvalid("the task must not contain \\u0000")
    if len(enqueued) >= TASKS_MAX:
        raise EnqueueInvalid(f"a run enqueues at most {TASKS_MAX} tasks")
    if sum(map(len, enqueued)) + len(item) > BYTES_MAX:
        raise EnqueueInvalid(f"what a run enqueues has at most {BYTES_MAX} bytes")
    enqueued.append(item)
