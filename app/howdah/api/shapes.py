"""The JSON that clients send and get; the OpenAPI document is generated from these.

Types and field names are checked here, while decoding. What values are allowed is
checked by `howdah.enqueue_rows` for tasks, so that HTTP and SQL cannot differ;
patterns and bounds stand here for readers of the document.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID  # noqa: TC003 - msgspec reads the annotations

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from howdah.api.problems import ProblemDocument  # noqa: TC001 - msgspec reads the annotations

NAME_PATTERN = "^[a-z0-9][a-z0-9_.-]{0,127}$"

BATCH_PATTERN = "^(parent|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$"

CONSUMER_PATTERN = "^[A-Za-z0-9][A-Za-z0-9_.:@-]{0,127}$"

DURATION_PATTERN = "^([0-9]+(\\.[0-9]+)?(ms|s|m|h|d)|P[0-9TWDHMS.]+)$"

Name = Annotated[str, Meta(extra_json_schema={"pattern": NAME_PATTERN})]
Duration = Annotated[
    str,
    Meta(
        description='A duration: "250ms", "30s", "5m", "1.5h", "7d", or ISO 8601 without years and months ("PT5M").',
        extra_json_schema={"pattern": DURATION_PATTERN},
    ),
]
Instant = Annotated[
    str,
    Meta(
        description="An RFC 3339 timestamp with its offset.",
        extra_json_schema={"format": "date-time"},
    ),
]
Moment = Annotated[datetime, Meta(tz=True)]
Json = Annotated[Raw, Meta(description="Any JSON value.", extra_json_schema={"title": "Any JSON"})]
Priority = Literal["critical", "high", "normal", "low"]
State = Literal[
    "scheduled",
    "queued",
    "blocked",
    "running",
    "retrying",
    "awaiting_callback",
    "succeeded",
    "failed",
    "cancelled",
    "expired",
]
Method = Literal["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"]

ENQUEUE = Meta(
    description="Of a success: tasks as for POST /v1/tasks that are stored in the same transaction, 1,000 at most. "
    "Needs a key with the scope producer. If one of them is refused, the attempt has failed.",
    extra_json_schema={"maxItems": 1000, "items": {"$ref": "#/components/schemas/TaskCreate"}},
)
LogLevel = Literal["debug", "info", "warning", "error"]

PRIORITIES: tuple[Priority, ...] = ("low", "normal", "high", "critical")


class HttpTarget(Struct, forbid_unknown_fields=True):
    """A callback: the request that is sent when the task runs. `payload` is its body, or `body` here."""

    url: Annotated[
        str,
        Meta(description="http or https; at most 2,048 ASCII characters, no user, no fragment, no private address."),
    ]
    method: Annotated[Method, Meta(description="POST if not given.")] | UnsetType = UNSET
    headers: (
        Annotated[
            dict[str, str],
            Meta(description="At most 64, 6 KiB in all; those that frame or sign the message are reserved."),
        ]
        | UnsetType
    ) = UNSET
    body: Annotated[str, Meta(description="Sent as it is; excludes payload.")] | UnsetType = UNSET
    content_type: Annotated[str, Meta(description="Media type of body.")] | UnsetType = UNSET
    success_statuses: (
        Annotated[list[int], Meta(description="Statuses that count as success; otherwise 2xx do.")] | UnsetType
    ) = UNSET
    mode: (
        Annotated[
            Literal["sync", "async"],
            Meta(description="sync if not given. async: the receiver may answer 202 and report the outcome later."),
        ]
        | UnsetType
    ) = UNSET
    callback_timeout: (
        Annotated[
            Duration,
            Meta(description="Of async: for that report, from the 202 on; 1 second to 7 days, 1 hour if not given."),
        ]
        | UnsetType
    ) = UNSET
    heartbeat_timeout: (
        Annotated[
            Duration,
            Meta(description="Of async: how long the receiver may be silent meanwhile, 1 second to 7 days."),
        ]
        | UnsetType
    ) = UNSET


class Retry(Struct, forbid_unknown_fields=True):
    """When a failed attempt is repeated. Fields that are not given take the queue's, then the defaults."""

    max_attempts: (
        Annotated[int, Meta(description="Attempts in all.", extra_json_schema={"minimum": 1, "maximum": 1000})]
        | UnsetType
    ) = UNSET
    max_age: Annotated[Duration, Meta(description="No attempt starts later than this.")] | UnsetType = UNSET
    backoff: (
        Annotated[Literal["exponential", "linear", "fixed", "list"], Meta(description="How delays grow.")] | UnsetType
    ) = UNSET
    initial: Annotated[Duration, Meta(description="The first delay.")] | UnsetType = UNSET
    max: Annotated[Duration, Meta(description="The longest delay, before jitter.")] | UnsetType = UNSET
    factor: (
        Annotated[
            float,
            Meta(description="Growth of exponential delays.", extra_json_schema={"minimum": 1, "maximum": 100}),
        ]
        | UnsetType
    ) = UNSET
    jitter: (
        Annotated[
            float,
            Meta(description="Spreads delays by this share.", extra_json_schema={"minimum": 0, "maximum": 1}),
        ]
        | UnsetType
    ) = UNSET
    delays: Annotated[list[Duration], Meta(description="The delays of backoff list.")] | UnsetType = msgspec.field(
        name="list", default=UNSET
    )
    statuses: (
        Annotated[
            list[Annotated[int, Meta(extra_json_schema={"minimum": 100, "maximum": 599})]],
            Meta(
                description="Answers of a callback with another attempt, instead of 408, 409, 423, 425, 429 and 5xx; "
                "all others are final.",
                extra_json_schema={"minItems": 1, "maxItems": 100},
            ),
        ]
        | UnsetType
    ) = UNSET
    errors: (
        Annotated[
            list[Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": 200})]],
            Meta(
                description="Types of errors that have another attempt, as the runs show them: names of exceptions, "
                "timed_out, or without an answer to a callback timeout, connect_failed, …; all others are final.",
                extra_json_schema={"minItems": 1, "maxItems": 100},
            ),
        ]
        | UnsetType
    ) = UNSET


class Rate(Struct, forbid_unknown_fields=True):
    """How fast runs may start: in any span of t at most burst + limit * t / period of them."""

    limit: Annotated[
        int, Meta(description="Starts in each period.", extra_json_schema={"minimum": 1, "maximum": 1_000_000})
    ]
    period: Annotated[Duration, Meta(description="1 second to 24 hours.")]
    burst: (
        Annotated[
            int,
            Meta(
                description="Starts at once after a rest; the limit if not given.",
                extra_json_schema={"minimum": 1, "maximum": 1_000_000},
            ),
        ]
        | UnsetType
    ) = UNSET


class Flow(Struct, forbid_unknown_fields=True):
    """Bounds how many tasks with the same key go on at once, or how fast their runs start; one of the two, or both."""

    key: Annotated[
        str,
        Meta(
            description="Shared by all queues of the tenant. The limits of its newest task hold.",
            extra_json_schema={"minLength": 1, "maxLength": 255},
        ),
    ]
    concurrency: (
        Annotated[
            int,
            Meta(
                description="So many tasks hold a place, from the first attempt to the end; 1 runs them in order.",
                extra_json_schema={"minimum": 1, "maximum": 1_000_000},
            ),
        ]
        | UnsetType
    ) = UNSET
    rate: Rate | UnsetType = UNSET


class Dedup(Struct, forbid_unknown_fields=True):
    """What must not be there twice: of the tasks of a queue with the same key, one is in force at a time."""

    key: Annotated[
        str,
        Meta(
            description="1 to 255 characters, compared byte by byte; no control characters.",
            extra_json_schema={"minLength": 1, "maxLength": 255},
        ),
    ]
    until: (
        Annotated[
            str,
            Meta(
                description="The task holds the key until it is `started` (claimed for the first time) or `finished` "
                "(in whatever way, or dead-lettered), or for a duration of 1 second to 366 days from its creation; "
                "finished if not given."
            ),
        ]
        | UnsetType
    ) = UNSET
    on_conflict: (
        Annotated[
            Literal["return_existing", "reject", "replace"],
            Meta(
                description="If another task holds the key: answer with that one, refuse this one, or cancel that one, "
                "as long as it waits; return_existing if not given."
            ),
        ]
        | UnsetType
    ) = UNSET


class FollowUp(Struct, forbid_unknown_fields=True):
    """A task that the end of another one enqueues: exactly one of `handler` and `http` says what it runs."""

    queue: Annotated[Name, Meta(description="Made on its first use.")]
    handler: Annotated[Name, Meta(description="Name of a Python handler.")] | UnsetType = UNSET
    http: HttpTarget | UnsetType = UNSET
    payload: (
        Annotated[
            Raw,
            Meta(
                description="Any JSON, at most 256 KiB and 64 levels deep; kept byte for byte. null is no payload.",
                extra_json_schema={"title": "Any JSON"},
            ),
        ]
        | UnsetType
    ) = UNSET
    priority: Annotated[Priority, Meta(description="normal if not given.")] | UnsetType = UNSET
    delay: Annotated[Duration, Meta(description="From when it is enqueued on.")] | UnsetType = UNSET
    expires_in: (
        Annotated[
            Duration,
            Meta(description="From when it is due on, 1 ms to 366 days; if it waits then, it ends as expired."),
        ]
        | UnsetType
    ) = UNSET
    timeout: (
        Annotated[Duration, Meta(description="For one attempt, 0.1 seconds to 24 hours; else the queue's.")] | UnsetType
    ) = UNSET
    retry: Retry | UnsetType = UNSET
    flow: Flow | UnsetType = UNSET
    tags: (
        Annotated[dict[str, str], Meta(description="At most 32, to find the task by; values of 256 characters.")]
        | UnsetType
    ) = UNSET
    dedup: Dedup | UnsetType = UNSET
    traceparent: (
        Annotated[str, Meta(description="W3C trace context for the target; else the request's header counts.")]
        | UnsetType
    ) = UNSET
    batch: (
        Annotated[
            str,
            Meta(
                description="Id of a batch that it joins, if that is open; of what a task enqueues, `parent` is the "
                "batch of that task.",
                extra_json_schema={"pattern": BATCH_PATTERN},
            ),
        ]
        | UnsetType
    ) = UNSET
    on_success: (
        Annotated[FollowUp, Meta(description="Enqueued when it succeeds, in the same transaction.")] | UnsetType
    ) = UNSET
    on_failure: (
        Annotated[FollowUp, Meta(description="Enqueued when it fails for good or expires; not when it is cancelled.")]
        | UnsetType
    ) = UNSET


class TaskCreate(FollowUp, forbid_unknown_fields=True):
    """A task to be stored: exactly one of `handler` and `http` says what it runs."""

    run_at: (
        Annotated[
            Instant,
            Meta(description="Instead of delay: not started before; at most 1 day ago and 366 days ahead."),
        ]
        | UnsetType
    ) = UNSET
    expires_at: (
        Annotated[
            Instant,
            Meta(
                description="Instead of expires_in: no attempt starts from then on; if it waits then, it ends as "
                "expired. Later than run_at; at most 366 days ahead."
            ),
        ]
        | UnsetType
    ) = UNSET


class Progress(Struct):
    """What the handler said last of how much is done, in the latest claim."""

    fraction: Annotated[float, Meta(description="0 to 1.")]
    message: str
    at: Moment


class Task(Struct):
    """A task as it stands. Fields that do not apply are left out.

    `payload`, `result` and the headers and body of `http` need the scope `payloads`;
    lists leave payload and result out.
    """

    id: UUID
    state: State
    queue: str
    priority: Priority
    run_at: Annotated[Moment, Meta(description="When its next attempt is, or was, due.")]
    created_at: Moment
    attempt: Annotated[int, Meta(description="Attempts that were started.")]
    max_attempts: int
    timeout: Duration
    tags: dict[str, str]
    handler: str | UnsetType = UNSET
    http: HttpTarget | UnsetType = UNSET
    payload: Json | UnsetType = UNSET
    retry: Annotated[Retry, Meta(description="As given.")] | UnsetType = UNSET
    flow: Flow | UnsetType = UNSET
    dedup: Annotated[Dedup, Meta(description="As given.")] | UnsetType = UNSET
    traceparent: str | UnsetType = UNSET
    expires_at: Annotated[Moment, Meta(description="No attempt starts from then on.")] | UnsetType = UNSET
    on_success: Annotated[FollowUp, Meta(description="As given; payloads need their scope.")] | UnsetType = UNSET
    on_failure: Annotated[FollowUp, Meta(description="As given; payloads need their scope.")] | UnsetType = UNSET
    parent_id: Annotated[UUID, Meta(description="The task whose end enqueued this one.")] | UnsetType = UNSET
    batch: Annotated[UUID, Meta(description="The batch that it belongs to.")] | UnsetType = UNSET
    completes_batch: Annotated[UUID, Meta(description="The batch whose end enqueued it.")] | UnsetType = UNSET
    replayed_from: (
        Annotated[UUID, Meta(description="The dead letter that it was made from, by a replay with edits.")] | UnsetType
    ) = UNSET
    blocked_by: (
        Annotated[
            list[Literal["steps", "approval", "flow_key", "no_worker"]],
            Meta(description="flow_key: its key has no room; no_worker: no live worker serves its target."),
        ]
        | UnsetType
    ) = UNSET
    worker: Annotated[str, Meta(description="Runs it now.")] | UnsetType = UNSET
    lease_expires_at: Moment | UnsetType = UNSET
    deadline_at: (
        Annotated[Moment, Meta(description="End of this attempt's timeout, or of the wait for its callback.")]
        | UnsetType
    ) = UNSET
    cancel_requested: (
        Annotated[Literal["soft", "hard"], Meta(description="It runs, and was asked to stop.")] | UnsetType
    ) = UNSET
    progress: Annotated[Progress, Meta(description="Not in lists.")] | UnsetType = UNSET
    finished_at: Moment | UnsetType = UNSET
    result: Annotated[Json, Meta(description="What the handler returned.")] | UnsetType = UNSET
    response_status: Annotated[int, Meta(description="Of the callback's answer.")] | UnsetType = UNSET
    error: (
        Annotated[
            Json,
            Meta(description="Of the last attempt that failed: type, message, …; not of a task that succeeded."),
        ]
        | UnsetType
    ) = UNSET
    failed_because: (
        Annotated[
            Literal["attempts", "age", "crashes", "not_retryable"],
            Meta(description="Why it was given up."),
        ]
        | UnsetType
    ) = UNSET
    deduplicated: (
        Annotated[
            bool,
            Meta(description="True in the answer to a create: it holds the dedup key, and nothing was stored."),
        ]
        | UnsetType
    ) = UNSET


class Reason(Struct):
    """Why a task stands where it does. More codes may come."""

    code: Annotated[
        str,
        Meta(
            description="not_due, retry_wait, paused, flow_key_full, flow_rate, queue_full, queue_rate, no_worker, "
            "unserved, behind, next, alone, expires, expired, running, cancel_requested, lease_expired, "
            "awaiting_callback, callback_overdue or ended."
        ),
    ]
    message: Annotated[str, Meta(description="For people.")]
    until: Annotated[Moment, Meta(description="When it ends by itself, if that is known.")] | UnsetType = UNSET
    run_count: Annotated[int, Meta(description="Of behind: how many come before it.")] | UnsetType = UNSET


class Explanation(Struct):
    """Why a task is not running, or where else it stands: the first reason first."""

    id: UUID
    reasons: list[Reason]


class TaskPage(Struct):
    """A page of tasks, newest first; only a null cursor ends the list."""

    data: list[Task]
    next_cursor: str | None


class BatchCreate(Struct, forbid_unknown_fields=True):
    """Tasks to be stored together."""

    tasks: Annotated[list[TaskCreate], Meta(description="1 to 1,000.")]
    atomic: Annotated[bool, Meta(description="Store all or none.")] = False


class BatchEnvelope(Struct, forbid_unknown_fields=True):
    """A `BatchCreate` whose tasks are not decoded yet."""

    tasks: list[Raw]
    atomic: bool = False


class BatchResult(Struct, omit_defaults=True):
    """What became of one task: 201 with the task, 200 with the one that holds its dedup key, or a problem."""

    status: int
    task: Task | None = None
    problem: ProblemDocument | None = None


class BatchAnswer(Struct):
    """One result for each task, in their order."""

    results: list[BatchResult]


class TaskPatch(Struct, forbid_unknown_fields=True):
    """What is to be changed of a task that waits. Fields that are not given stay."""

    priority: Priority | UnsetType = UNSET
    run_at: (
        Annotated[Instant, Meta(description="Of a task between two attempts: when the next one is due.")] | UnsetType
    ) = UNSET
    expires_at: (
        Annotated[Instant | None, Meta(description="Later than run_at; null: it does not expire any more.")] | UnsetType
    ) = UNSET
    tags: Annotated[dict[str, str], Meta(description="Instead of those it has.")] | UnsetType = UNSET


class Nothing(Struct, forbid_unknown_fields=True):
    """An empty object: nothing is to be said."""


class Cancel(Struct, forbid_unknown_fields=True):
    """How to cancel: soft tells a running handler, hard aborts it."""

    mode: Literal["soft", "hard"] = "soft"


class Cancelled(Struct):
    """What a cancel led to: the task is `cancelled`, or still `running` and its worker is asked to stop it."""

    id: UUID
    state: Literal["cancelled", "running"]
    cancel_requested: (
        Annotated[Literal["soft", "hard"], Meta(description="The cancel is pending: how its worker was asked to stop.")]
        | UnsetType
    ) = UNSET


class Run(Struct):
    """One claim of a task; `outcome` is null while it runs."""

    claim_no: int
    attempt: int
    outcome: Literal["succeeded", "failed", "released", "lost", "timed_out", "cancelled", "expired"] | None
    is_final: bool
    queued_at: Moment
    worker: str | None
    claimed_at: Moment | None
    finished_at: Moment | None
    duration_s: float | None
    response_status: int | None
    error: Annotated[Json, Meta(description="What went wrong: type, message, …")] | UnsetType = UNSET
    result: Annotated[Json, Meta(description="Needs the scope payloads.")] | UnsetType = UNSET
    response_body: (
        Annotated[str, Meta(description="Start of the callback's answer; needs the scope payloads.")] | UnsetType
    ) = UNSET


class RunPage(Struct):
    """A page of a task's runs, oldest first; only a null cursor ends the list."""

    data: list[Run]
    next_cursor: str | None


class LogEntry(Struct):
    """What a handler logged of its task. Fields that do not apply are left out."""

    claim_no: Annotated[int, Meta(description="Which claim of the task said so.")]
    seq: Annotated[int, Meta(description="Order within the claim; numbers may be missing.")]
    level: LogLevel
    at: Moment
    message: str
    progress: Annotated[float, Meta(description="How much is done, 0 to 1.")] | UnsetType = UNSET
    fields: Annotated[Json, Meta(description="What was added to it; needs the scope payloads.")] | UnsetType = UNSET


class LogPage(Struct):
    """A page of a task's log, oldest first; only a null cursor ends the list."""

    data: list[LogEntry]
    next_cursor: str | None


class LogEnd(Struct):
    """The last event of a log that is followed: the task has ended."""

    state: str


class Worker(Struct):
    """A worker process, or a consumer that claims over HTTP (`pull`), once for each queue and set of handlers.

    `silent` was not heard of for three of its leases, or for a minute if it is a consumer.
    """

    kind: Literal["worker", "pull"]
    name: str
    state: Literal["live", "stopping", "stopped", "silent"]
    host: Annotated[str | None, Meta(description="null for a consumer, as pid and version.")]
    pid: int | None
    version: str | None
    queues: list[str]
    handlers: list[str]
    serves_http: bool
    concurrency: int
    lease_s: float
    started_at: Moment
    heartbeat_at: Moment
    stopping_at: Moment | None
    stopped_at: Moment | None


class WorkerPage(Struct):
    """A page of workers, newest first; only a null cursor ends the list."""

    data: list[Worker]
    next_cursor: str | None


class CallbackSecret(Struct):
    """The Standard Webhooks secret that signs this tenant's callbacks."""

    tenant: str
    callback_secret: str


class Pong(Struct):
    """Whose key it is."""

    tenant: str


class Health(Struct):
    """The process answers."""

    status: Literal["ok"]


class Ready(Struct):
    """Whether the process should be given work; a check says ok or what is wrong."""

    ready: bool
    checks: dict[str, str]
    warnings: dict[str, str]


def encode(value: object) -> bytes:
    """Write a struct as JSON."""
    return msgspec.json.encode(value)
