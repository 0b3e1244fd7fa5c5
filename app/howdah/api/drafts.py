"""What the store is given of a task that a client has sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET

from howdah.api.bodies import read_enqueued
from howdah.api.shapes import PRIORITIES
from howdah.core.store.tasks import Draft, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from howdah.api.call import Call
    from howdah.api.shapes import TaskCreate

# W3C Trace Context, version 00 and those that may follow; a malformed one is as good as none.
TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

_encode: Final = msgspec.json.Encoder().encode
_priority_numbers: Final = {name: number for number, name in enumerate(PRIORITIES)}


def draft(task_id: UUID, task: TaskCreate, payload: bytes | None) -> Draft:
    """Write a task down for the store."""
    dedup_key = None if task.dedup is UNSET else (task.queue, task.dedup.key)
    flow_key = None if task.flow is UNSET else task.flow.key
    batch = None if task.batch is UNSET else task.batch
    return Draft(task_id, _encode(task), payload, kind_of(task), dedup_key, flow_key, batch)


def sequel_of(call: Call, items: Sequence[msgspec.Raw] | msgspec.UnsetType, place: str) -> bytes | None:
    """Write down for the store the tasks that a consumer or receiver enqueues with its success.

    Args:
        call: Who; its tenant is theirs.
        items: As they came.
        place: Where they stand in the body.

    Raises:
        Problem: Something is wrong with one of them.
    """
    if items is UNSET or not items:
        return None
    tasks = read_enqueued(items, call.backend.settings.payload_bytes_max, call.backend.addresses, place)
    ids = call.backend.database.mint.mint_many(len(tasks))
    return b"[%b]" % b",".join(_item(task_id, *task) for task_id, task in zip(ids, tasks, strict=True))


def _item(task_id: UUID, task: TaskCreate, payload: bytes | None) -> bytes:
    return b'{"id":"%b",%b%b}' % (
        str(task_id).encode(),
        _encode(task)[1:-1],
        b"" if payload is None else b',"payload":' + payload,
    )


def kind_of(task: TaskCreate) -> Kind | None:
    """Return what a plain task has beside its payload; None if it has more, or if that is to be refused."""
    if (
        task.handler is UNSET
        or task.http is not UNSET
        or task.run_at is not UNSET
        or task.delay is not UNSET
        or task.expires_at is not UNSET
        or task.expires_in is not UNSET
        or task.timeout is not UNSET
        or task.retry is not UNSET
        or task.flow is not UNSET
        or task.tags is not UNSET
        or task.dedup is not UNSET
        or task.batch is not UNSET
        or task.on_success is not UNSET
        or task.on_failure is not UNSET
    ):
        return None
    priority = 1 if task.priority is UNSET else _priority_numbers[task.priority]
    if task.traceparent is UNSET:
        return Kind(task.queue, task.handler, priority, None)
    if TRACEPARENT.fullmatch(task.traceparent) is None:
        return None
    return Kind(task.queue, task.handler, priority, task.traceparent)


def take_trace(call: Call, task: TaskCreate) -> None:
    """Let the trace context of the request count, unless the task brings one of its own."""
    header = call.headers.get(b"traceparent")
    if header is not None and task.traceparent is UNSET:
        text = header.decode("latin-1")
        if TRACEPARENT.fullmatch(text) is not None:
            task.traceparent = text
