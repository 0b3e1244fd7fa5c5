"""The JSON of consumers that claim over HTTP, and of clients that wait for results; see `shapes`."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID  # noqa: TC003 - msgspec reads the annotations

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from howdah.api.problems import ProblemDocument  # noqa: TC001 - msgspec reads the annotations
from howdah.api.shapes import (
    CONSUMER_PATTERN,
    ENQUEUE,
    Duration,
    HttpTarget,
    Json,
    Moment,
    Name,
    State,
)


class Claim(Struct, forbid_unknown_fields=True):
    """Which runs a consumer wants to lease."""

    handlers: Annotated[
        list[Name],
        Meta(
            description="Takes tasks for these handlers; one that no task has named yet is waited for.",
            extra_json_schema={"maxItems": 100},
        ),
    ] = []
    http: Annotated[bool, Meta(description="Takes callbacks too, which workers deliver otherwise.")] = False
    max: Annotated[int, Meta(description="Most runs.", extra_json_schema={"minimum": 1, "maximum": 1000})] = 1
    lease: Annotated[Duration, Meta(description="3 seconds to 1 hour; a heartbeat renews it.")] = "30s"
    wait: Annotated[Duration, Meta(description="How long to wait if there is nothing, 60 seconds at most.")] = "0s"
    consumer: (
        Annotated[
            str,
            Meta(
                description="What it calls itself; the id of its API key if not given.",
                extra_json_schema={"pattern": CONSUMER_PATTERN},
            ),
        ]
        | UnsetType
    ) = UNSET


class PulledRun(Struct):
    """A run that is leased to the consumer. Fields that do not apply are left out."""

    task_id: UUID
    lease_token: Annotated[UUID, Meta(description="Whoever knows it may renew or end the run.")]
    lease_expires_at: Annotated[Moment, Meta(description="Somebody else gets the run then, unless it is renewed.")]
    deadline_at: Annotated[Moment, Meta(description="End of the task's timeout, past which no lease is renewed.")]
    timeout: Duration
    attempt: int
    claim_no: Annotated[int, Meta(description="Counts all claims of the task and never falls: a fence.")]
    queued_at: Moment
    handler: str | UnsetType = UNSET
    http: HttpTarget | UnsetType = UNSET
    payload: Json | UnsetType = UNSET
    tags: dict[str, str] | UnsetType = UNSET
    traceparent: str | UnsetType = UNSET
    parent_id: Annotated[UUID, Meta(description="The task whose end enqueued this one.")] | UnsetType = UNSET
    batch: Annotated[UUID, Meta(description="The batch that its task belongs to.")] | UnsetType = UNSET
    completes_batch: Annotated[UUID, Meta(description="The batch whose end enqueued its task.")] | UnsetType = UNSET
    alone: (
        Annotated[
            bool,
            Meta(description="True of a run that two workers or consumers were lost with: execute nothing beside it."),
        ]
        | UnsetType
    ) = UNSET


class Pulled(Struct):
    """Leased runs, the most urgent first; none if there was nothing in time, and one that is `alone` by itself."""

    runs: list[PulledRun]


class RunLease(Struct, forbid_unknown_fields=True):
    """A run, by the lease that the consumer holds."""

    task_id: UUID
    lease_token: UUID


class RunError(Struct, forbid_unknown_fields=True):
    """What went wrong; long texts are cut."""

    type: Annotated[str, Meta(description="For programs: the task's retry policy may go by it.")] = "failed"
    message: str = ""
    traceback: str | UnsetType = UNSET


class RunEnd(Struct, forbid_unknown_fields=True):
    """How a run ended."""

    task_id: UUID
    lease_token: UUID
    outcome: Annotated[
        Literal["succeeded", "failed", "timed_out", "cancelled", "snoozed"],
        Meta(description="snoozed: not now; it comes again after retry_in, and spends no attempt."),
    ]
    result: (
        Annotated[
            Raw,
            Meta(
                description="Of succeeded: any JSON of at most 64 KiB, kept byte for byte.",
                extra_json_schema={"title": "Any JSON"},
            ),
        ]
        | UnsetType
    ) = UNSET
    enqueue: Annotated[list[Raw], ENQUEUE] | UnsetType = UNSET
    error: Annotated[RunError, Meta(description="Not of succeeded.")] | UnsetType = UNSET
    retry_in: (
        Annotated[
            Duration, Meta(description="Of failed and timed_out, instead of the policy's delay; required of snoozed.")
        ]
        | UnsetType
    ) = UNSET
    retryable: (
        Annotated[bool, Meta(description="Of failed and timed_out, whatever the policy says; false gives the task up.")]
        | UnsetType
    ) = UNSET


class RunHeartbeats(Struct, forbid_unknown_fields=True):
    """Leases to be renewed."""

    runs: Annotated[list[RunLease], Meta(description="1 to 1,000.")]
    lease: Annotated[Duration, Meta(description="From now on, 3 seconds to 1 hour.")] = "30s"


class RunHeartbeatsEnvelope(Struct, forbid_unknown_fields=True):
    """`RunHeartbeats` whose runs are not decoded yet."""

    runs: list[Raw]
    lease: str = "30s"


class RunEnds(Struct, forbid_unknown_fields=True):
    """Runs that have ended."""

    runs: Annotated[list[RunEnd], Meta(description="1 to 1,000.")]


class RunReleases(Struct, forbid_unknown_fields=True):
    """Runs that are handed back."""

    runs: Annotated[list[RunLease], Meta(description="1 to 1,000.")]


class RunsEnvelope(Struct, forbid_unknown_fields=True):
    """`RunEnds` or `RunReleases` whose runs are not decoded yet."""

    runs: list[Raw]


class RunBeat(Struct, omit_defaults=True):
    """What a heartbeat found of one run."""

    task_id: UUID | None
    status: Annotated[
        Literal["ok", "busy", "lost", "invalid"],
        Meta(description="busy: its row is locked, ask again. lost: stop, it has ended or is somebody else's."),
    ]
    lease_expires_at: Moment | None = None
    cancel: Annotated[Literal["soft", "hard"] | None, Meta(description="The task was cancelled: stop it.")] = None
    problem: ProblemDocument | None = None


class RunBeats(Struct):
    """One result for each run, in their order."""

    results: list[RunBeat]


class RunVerdict(Struct, omit_defaults=True):
    """What became of one report."""

    task_id: UUID | None
    status: Annotated[
        Literal["ok", "already_finished", "lease_lost", "busy", "invalid"],
        Meta(
            description="already_finished: it was recorded before, as reported. busy: not recorded now, send it again. "
            "invalid: problem says why."
        ),
    ]
    state: Annotated[State | None, Meta(description="Of the task after it, if it was recorded now.")] = None
    run_at: Annotated[Moment | None, Meta(description="When its next attempt is due.")] = None
    problem: ProblemDocument | None = None


class RunVerdicts(Struct):
    """One result for each run, in their order."""

    results: list[RunVerdict]


class TaskResult(Struct):
    """How a task ended. Fields that do not apply are left out.

    `result` and `response_body` need the scope `payloads`.
    """

    id: UUID
    state: State
    outcome: Annotated[str, Meta(description="Of its last run, if history has it.")] | UnsetType = UNSET
    attempt: Annotated[int, Meta(description="Attempts that were started.")] | UnsetType = UNSET
    finished_at: Moment | UnsetType = UNSET
    result: Annotated[Json, Meta(description="What the handler returned.")] | UnsetType = UNSET
    error: Annotated[Json, Meta(description="What went wrong: type, message, …")] | UnsetType = UNSET
    response_status: Annotated[int, Meta(description="Of the callback's answer.")] | UnsetType = UNSET
    response_body: Annotated[str, Meta(description="Start of the callback's answer.")] | UnsetType = UNSET
    failed_because: Annotated[str, Meta(description="Why it was given up.")] | UnsetType = UNSET


class TaskPending(Struct):
    """The task has not ended."""

    id: UUID
    state: State
