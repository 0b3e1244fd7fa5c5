"""Every route: what it is called, who may use it, what it takes and answers.

The table is the only place that says so. Starlette's routes, the check of scopes
and the OpenAPI document are made from it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from starlette.routing import BaseRoute, Route

from howdah.api import (
    auth,
    batch_shapes,
    batches,
    callback_shapes,
    callbacks,
    dead_letters,
    health,
    logs,
    operation_shapes,
    operations,
    queue_shapes,
    queues,
    results,
    run_shapes,
    runs,
    shapes,
    tasks,
    tenants,
    workers,
)
from howdah.api.call import Stream
from howdah.api.paging import query
from howdah.api.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from howdah.api.call import Answer, Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    Attributes:
        method: GET, POST, …
        path: Template; parameters in braces.
        handler: Answers it. Its docstring's first sentence is the summary.
        scope: What a key needs; `any` for every valid key, None for routes without one.
        takes: Shape of the body.
        body_optional: It may be left out.
        answers: Shape by status; None for an answer that is not JSON.
        problems: Codes besides those that every route with a key, or with a body, may answer.
        parameters: Names of query parameters.
        repeat: What an Idempotency-Key is good for, if it is a POST.
    """

    method: str
    path: str
    handler: Callable[[Call], Awaitable[Answer | Stream]]
    scope: auth.Scope | Literal["any"] | None
    answers: dict[int, type | None]
    takes: type | None = None
    body_optional: bool = False
    problems: tuple[str, ...] = ()
    parameters: tuple[str, ...] = field(default=())
    repeat: str = "A repeat with the same key gets the answer of the first request, for 24 hours."


# The token stands for a key.
CALLBACK_PROBLEMS: Final = ("not_found", "lease_lost", "cancelled", "storage_unavailable")

# What may be wrong with a task besides its fields.
TASK_PROBLEMS: Final = (
    "blocked_address",
    "dedup_conflict",
    "dedup_key_in_use",
    "flow_key_in_use",
    "batch_in_use",
    "queue_draining",
    "not_found",
    "state_conflict",
)

OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/v1/tasks",
        handler=tasks.create,
        scope="producer",
        takes=shapes.TaskCreate,
        answers={201: shapes.Task, 200: shapes.Task},
        problems=TASK_PROBLEMS,
    ),
    Operation(
        method="GET",
        path="/v1/tasks",
        handler=tasks.list_page,
        scope="viewer",
        answers={200: shapes.TaskPage},
        parameters=tasks.LIST_PARAMETERS,
    ),
    Operation(
        method="GET",
        path="/v1/ping",
        handler=tenants.ping,
        scope="any",
        answers={200: shapes.Pong},
    ),
    Operation(
        method="POST",
        path="/v1/tasks/batch",
        handler=tasks.create_batch,
        scope="producer",
        takes=shapes.BatchCreate,
        answers={200: shapes.BatchAnswer},
        problems=TASK_PROBLEMS,
    ),
    Operation(
        method="POST",
        path="/v1/tasks/cancel",
        handler=operations.cancel_tasks,
        scope="operator",
        takes=operation_shapes.TasksCancel,
        answers={200: operation_shapes.Matches, 202: operation_shapes.Operation},
        problems=("not_found", "state_conflict"),
    ),
    Operation(
        method="GET",
        path="/v1/tasks/{id}",
        handler=tasks.get,
        scope="viewer",
        answers={200: shapes.Task},
        problems=("not_found",),
    ),
    Operation(
        method="DELETE",
        path="/v1/tasks/{id}",
        handler=tasks.delete,
        scope="producer",
        answers={200: shapes.Cancelled},
        problems=("not_found", "state_conflict"),
    ),
    Operation(
        method="POST",
        path="/v1/tasks/{id}/cancel",
        handler=tasks.cancel,
        scope="producer",
        takes=shapes.Cancel,
        body_optional=True,
        answers={200: shapes.Cancelled},
        problems=("not_found", "state_conflict"),
    ),
    Operation(
        method="PATCH",
        path="/v1/tasks/{id}",
        handler=tasks.patch,
        scope="producer",
        takes=shapes.TaskPatch,
        answers={200: shapes.Task},
        problems=("not_found", "state_conflict"),
    ),
    Operation(
        method="POST",
        path="/v1/tasks/{id}/run-now",
        handler=tasks.run_now,
        scope="producer",
        takes=shapes.Nothing,
        body_optional=True,
        answers={200: shapes.Task},
        problems=("not_found", "state_conflict"),
    ),
    Operation(
        method="POST",
        path="/v1/tasks/{id}/retry",
        handler=tasks.retry,
        scope="operator",
        takes=operation_shapes.Edits,
        body_optional=True,
        answers={200: shapes.Task, 201: shapes.Task},
        problems=("not_found", "state_conflict", "dedup_conflict", "blocked_address"),
    ),
    Operation(
        method="GET",
        path="/v1/tasks/{id}/explain",
        handler=tasks.explain,
        scope="viewer",
        answers={200: shapes.Explanation},
        problems=("not_found",),
    ),
    Operation(
        method="GET",
        path="/v1/tasks/{id}/runs",
        handler=tasks.list_runs,
        scope="viewer",
        answers={200: shapes.RunPage},
        problems=("not_found",),
        parameters=("limit", "cursor"),
    ),
    Operation(
        method="POST",
        path="/v1/callbacks/{token}/complete",
        handler=callbacks.complete,
        scope=None,
        takes=callback_shapes.CallbackComplete,
        body_optional=True,
        answers={200: callback_shapes.CallbackAnswer},
        problems=(*CALLBACK_PROBLEMS, "unauthorized", "forbidden", "blocked_address", "payload_too_large"),
    ),
    Operation(
        method="POST",
        path="/v1/callbacks/{token}/fail",
        handler=callbacks.fail,
        scope=None,
        takes=callback_shapes.CallbackFail,
        body_optional=True,
        answers={200: callback_shapes.CallbackAnswer},
        problems=CALLBACK_PROBLEMS,
    ),
    Operation(
        method="POST",
        path="/v1/callbacks/{token}/heartbeat",
        handler=callbacks.heartbeat,
        scope=None,
        takes=callback_shapes.CallbackHeartbeat,
        body_optional=True,
        answers={200: callback_shapes.HeartbeatAnswer},
        problems=CALLBACK_PROBLEMS,
    ),
    Operation(
        method="GET",
        path="/v1/tasks/{id}/result",
        handler=results.get,
        scope="viewer",
        answers={200: run_shapes.TaskResult, 202: run_shapes.TaskPending},
        problems=("not_found",),
        parameters=("wait",),
    ),
    Operation(
        method="POST",
        path="/v1/queues/{queue}/claim",
        handler=runs.claim,
        scope="worker",
        takes=run_shapes.Claim,
        answers={200: run_shapes.Pulled},
        problems=("not_found",),
        repeat="For 24 hours a repeat with the same key gets those runs of the first that are still leased.",
    ),
    Operation(
        method="POST",
        path="/v1/runs/heartbeat",
        handler=runs.heartbeat,
        scope="worker",
        takes=run_shapes.RunHeartbeats,
        answers={200: run_shapes.RunBeats},
        repeat="Not needed: a heartbeat may be repeated.",
    ),
    Operation(
        method="POST",
        path="/v1/runs/finish",
        handler=runs.finish,
        scope="worker",
        takes=run_shapes.RunEnds,
        answers={200: run_shapes.RunVerdicts},
        repeat="Not needed: by the leases a repeat is recognised for ever.",
    ),
    Operation(
        method="POST",
        path="/v1/runs/release",
        handler=runs.release,
        scope="worker",
        takes=run_shapes.RunReleases,
        answers={200: run_shapes.RunVerdicts},
        repeat="Not needed: by the leases a repeat is recognised for ever.",
    ),
    Operation(
        method="GET",
        path="/v1/tasks/{id}/logs",
        handler=logs.list_page,
        scope="viewer",
        answers={200: shapes.LogPage},
        problems=("not_found",),
        parameters=logs.PARAMETERS,
    ),
    Operation(
        method="GET",
        path="/v1/queues",
        handler=queues.list_page,
        scope="viewer",
        answers={200: queue_shapes.QueuePage},
        parameters=("limit", "cursor"),
    ),
    Operation(
        method="GET",
        path="/v1/queues/{queue}",
        handler=queues.get,
        scope="viewer",
        answers={200: queue_shapes.Queue},
        problems=("not_found",),
    ),
    Operation(
        method="PUT",
        path="/v1/queues/{queue}",
        handler=queues.put,
        scope="operator",
        takes=queue_shapes.QueueWrite,
        answers={200: queue_shapes.Queue, 201: queue_shapes.Queue},
    ),
    Operation(
        method="PATCH",
        path="/v1/queues/{queue}",
        handler=queues.patch,
        scope="operator",
        takes=queue_shapes.QueueWrite,
        answers={200: queue_shapes.Queue},
        problems=("not_found",),
    ),
    Operation(
        method="DELETE",
        path="/v1/queues/{queue}",
        handler=queues.delete,
        scope="operator",
        answers={200: queue_shapes.QueueDeleted},
        problems=("not_found", "state_conflict"),
    ),
    Operation(
        method="POST",
        path="/v1/queues/{queue}/pause",
        handler=queues.pause,
        scope="operator",
        takes=queue_shapes.QueuePause,
        body_optional=True,
        answers={200: queue_shapes.QueueChanged},
        problems=("not_found",),
    ),
    Operation(
        method="POST",
        path="/v1/queues/{queue}/resume",
        handler=queues.resume,
        scope="operator",
        takes=shapes.Nothing,
        body_optional=True,
        answers={200: queue_shapes.QueueChanged},
        problems=("not_found",),
    ),
    Operation(
        method="POST",
        path="/v1/queues/{queue}/drain",
        handler=queues.drain,
        scope="operator",
        takes=shapes.Nothing,
        body_optional=True,
        answers={200: queue_shapes.QueueChanged},
        problems=("not_found",),
    ),
    Operation(
        method="GET",
        path="/v1/queues/{queue}/stats",
        handler=queues.stats,
        scope="viewer",
        answers={200: queue_shapes.QueueStats},
        problems=("not_found",),
    ),
    Operation(
        method="POST",
        path="/v1/queues/{queue}/purge",
        handler=operations.purge_queue,
        scope="operator",
        takes=operation_shapes.QueuePurge,
        body_optional=True,
        answers={200: operation_shapes.Matches, 202: operation_shapes.Operation},
        problems=("not_found", "state_conflict"),
    ),
    Operation(
        method="GET",
        path="/v1/queues/{queue}/dlq",
        handler=dead_letters.list_page,
        scope="viewer",
        answers={200: operation_shapes.DeadLetterList},
        problems=("not_found",),
        parameters=dead_letters.LIST_PARAMETERS,
    ),
    Operation(
        method="GET",
        path="/v1/queues/{queue}/dlq/groups",
        handler=dead_letters.list_groups,
        scope="viewer",
        answers={200: operation_shapes.DeadLetterGroups},
        problems=("not_found",),
        parameters=dead_letters.GROUP_PARAMETERS,
    ),
    Operation(
        method="POST",
        path="/v1/queues/{queue}/dlq/replay",
        handler=operations.replay_dead_letters,
        scope="operator",
        takes=operation_shapes.DeadLetterReplay,
        body_optional=True,
        answers={200: operation_shapes.Matches, 202: operation_shapes.Operation},
        problems=("not_found", "state_conflict", "blocked_address"),
    ),
    Operation(
        method="POST",
        path="/v1/queues/{queue}/dlq/purge",
        handler=operations.purge_dead_letters,
        scope="operator",
        takes=operation_shapes.DeadLetterPurge,
        body_optional=True,
        answers={200: operation_shapes.Matches, 202: operation_shapes.Operation},
        problems=("not_found", "state_conflict"),
    ),
    Operation(
        method="POST",
        path="/v1/batches",
        handler=batches.create,
        scope="producer",
        takes=batch_shapes.BatchOpen,
        answers={201: batch_shapes.BatchOpened},
        problems=TASK_PROBLEMS,
    ),
    Operation(
        method="GET",
        path="/v1/batches",
        handler=batches.list_page,
        scope="viewer",
        answers={200: batch_shapes.BatchPage},
        parameters=("limit", "cursor"),
    ),
    Operation(
        method="GET",
        path="/v1/batches/{id}",
        handler=batches.get,
        scope="viewer",
        answers={200: batch_shapes.Batch},
        problems=("not_found",),
    ),
    Operation(
        method="POST",
        path="/v1/batches/{id}/close",
        handler=batches.close,
        scope="producer",
        takes=shapes.Nothing,
        body_optional=True,
        answers={200: batch_shapes.Batch},
        problems=("not_found",),
    ),
    Operation(
        method="POST",
        path="/v1/batches/{id}/cancel",
        handler=batches.cancel,
        scope="producer",
        takes=batch_shapes.BatchCancel,
        body_optional=True,
        answers={202: operation_shapes.Operation},
        problems=("not_found", "state_conflict"),
    ),
    Operation(
        method="GET",
        path="/v1/operations",
        handler=operations.list_page,
        scope="viewer",
        answers={200: operation_shapes.OperationPage},
        parameters=("limit", "cursor"),
    ),
    Operation(
        method="GET",
        path="/v1/operations/{id}",
        handler=operations.get,
        scope="viewer",
        answers={200: operation_shapes.Operation},
        problems=("not_found",),
    ),
    Operation(
        method="POST",
        path="/v1/operations/{id}/cancel",
        handler=operations.cancel,
        scope="operator",
        takes=shapes.Nothing,
        body_optional=True,
        answers={200: operation_shapes.Operation},
        problems=("not_found", "state_conflict"),
    ),
    Operation(
        method="GET",
        path="/v1/workers",
        handler=workers.list_page,
        scope="viewer",
        answers={200: shapes.WorkerPage},
        parameters=("limit", "cursor"),
    ),
    Operation(
        method="GET",
        path="/v1/tenant/callback-secret",
        handler=tenants.get_callback_secret,
        scope="admin",
        answers={200: shapes.CallbackSecret},
    ),
    Operation(method="GET", path="/healthz", handler=health.healthz, scope=None, answers={200: shapes.Health}),
    Operation(
        method="GET",
        path="/readyz",
        handler=health.readyz,
        scope=None,
        answers={200: shapes.Ready, 503: shapes.Ready},
    ),
    Operation(method="GET", path="/metrics", handler=health.get_metrics, scope=None, answers={200: None}),
    Operation(method="GET", path="/openapi.json", handler=health.get_openapi, scope=None, answers={200: None}),
    Operation(method="GET", path="/docs", handler=health.get_docs, scope=None, answers={200: None}),
)


class Endpoint:
    """The ASGI application of one path: chooses by method, checks the key, answers."""

    def __init__(self, operations: dict[str, Operation]) -> None:
        """Serve these methods of one path; HEAD as GET."""
        self._path = next(iter(operations.values())).path
        self._operations = operations
        if "GET" in operations:
            self._operations = {**operations, "HEAD": operations["GET"]}
        self._allow = ", ".join(sorted(self._operations)).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that the router sent here; problems are the middleware's to write."""
        call: Call = scope["howdah.call"]
        call.route = self._path
        operation = self._operations.get(scope["method"])
        if operation is None:
            raise Problem(
                "method_not_allowed", f"{scope['method']} is not allowed here.", headers=[(b"allow", self._allow)]
            )
        if operation.scope is not None:
            call.key = await call.backend.keys.check(call.headers)
            if operation.scope != "any":
                auth.refuse_without(call.key, operation.scope)
        if not operation.parameters:
            query(call, ())
        answer = await operation.handler(call)
        if isinstance(answer, Stream):
            await call.stream(send, answer)
        else:
            await call.send(send, answer)


def routes() -> list[BaseRoute]:
    """Return Starlette's routes, one for each path, in the order of the table."""
    by_path: defaultdict[str, dict[str, Operation]] = defaultdict(dict)
    for operation in OPERATIONS:
        by_path[operation.path][operation.method] = operation
    return [Route(path, Endpoint(operations), name=path) for path, operations in by_path.items()]


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every other path."""
    raise Problem("not_found", "There is nothing at this path.")
