"""The JSON of dead letters and bulk operations; see `howdah.api.shapes`."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID  # noqa: TC003 - msgspec reads the annotations

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from howdah.api.shapes import (  # noqa: TC001 - msgspec reads the annotations
    Duration,
    HttpTarget,
    Instant,
    Json,
    Moment,
    Name,
    Priority,
)

FINGERPRINT_PATTERN = "^[0-9a-f]{16}$"
DeathReason = Literal["attempts", "age", "crashes", "not_retryable"]
Kind = Literal["replay_dead_letters", "purge_dead_letters", "purge_queue", "cancel_tasks"]

Fingerprint = Annotated[
    str,
    Meta(
        description="Equal for errors of one kind: a hash of type and message without numbers, UUIDs, hexadecimal "
        "words and quoted strings.",
        extra_json_schema={"pattern": FINGERPRINT_PATTERN},
    ),
]
Tags = Annotated[dict[str, str], Meta(description="All of them, with these values.")]
Rate = Annotated[
    float,
    Meta(
        description="Most tasks a second; as fast as it goes if not given.",
        extra_json_schema={"minimum": 0.01, "maximum": 10_000},
    ),
]
DryRun = Annotated[bool, Meta(description="Only count what would be touched now.")]


class Edits(Struct, forbid_unknown_fields=True):
    """What a new task has instead of the dead letter's: a payload, and one of `handler` and `http`."""

    payload: (
        Annotated[
            Raw,
            Meta(
                description="Any JSON, at most 256 KiB and 64 levels deep; null is no payload.",
                extra_json_schema={"title": "Any JSON"},
            ),
        ]
        | UnsetType
    ) = UNSET
    handler: Name | UnsetType = UNSET
    http: HttpTarget | UnsetType = UNSET


class DeadLetterFilter(Struct, forbid_unknown_fields=True):
    """Which dead letters of the queue: all fields at once; without any, all."""

    tags: Tags | UnsetType = UNSET
    handler: Name | UnsetType = UNSET
    batch: Annotated[UUID, Meta(description="Of this batch.")] | UnsetType = UNSET
    error_type: Annotated[str, Meta(description="Of the last attempt's error.")] | UnsetType = UNSET
    fingerprint: Fingerprint | UnsetType = UNSET
    reason: DeathReason | UnsetType = UNSET
    dead_after: Annotated[Instant, Meta(description="Died then or later.")] | UnsetType = UNSET
    dead_before: Annotated[Instant, Meta(description="Died earlier.")] | UnsetType = UNSET


class WaitingFilter(Struct, forbid_unknown_fields=True):
    """Which waiting tasks of the queue: all fields at once; without any, all."""

    tags: Tags | UnsetType = UNSET
    handler: Name | UnsetType = UNSET
    batch: Annotated[UUID, Meta(description="Of this batch.")] | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    older_than: Annotated[Duration, Meta(description="Accepted so long ago, or longer.")] | UnsetType = UNSET


class LiveFilter(Struct, forbid_unknown_fields=True):
    """Which tasks that have not ended: all fields at once; without any, all of the queue."""

    tags: Tags | UnsetType = UNSET
    handler: Name | UnsetType = UNSET
    batch: Annotated[UUID, Meta(description="Of this batch.")] | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    older_than: Annotated[Duration, Meta(description="Accepted so long ago, or longer.")] | UnsetType = UNSET
    state: Literal["scheduled", "queued", "retrying", "blocked", "running"] | UnsetType = UNSET


class DeadLetterReplay(Struct, forbid_unknown_fields=True):
    """Take dead letters back to their queue, or with `edits` make a new task of each."""

    filter: DeadLetterFilter | UnsetType = UNSET
    edits: Edits | UnsetType = UNSET
    rate: Rate | UnsetType = UNSET
    dry_run: DryRun = False


class DeadLetterPurge(Struct, forbid_unknown_fields=True):
    """Drop dead letters; their tasks stay failed."""

    filter: DeadLetterFilter | UnsetType = UNSET
    rate: Rate | UnsetType = UNSET
    dry_run: DryRun = False


class QueuePurge(Struct, forbid_unknown_fields=True):
    """Cancel tasks of a queue that wait."""

    filter: WaitingFilter | UnsetType = UNSET
    rate: Rate | UnsetType = UNSET
    dry_run: DryRun = False


class TasksCancel(Struct, forbid_unknown_fields=True):
    """Cancel tasks of a queue, or by some filter of all queues; running ones are asked to stop."""

    queue: Name | UnsetType = UNSET
    filter: LiveFilter | UnsetType = UNSET
    mode: Annotated[
        Literal["soft", "hard"], Meta(description="Of running ones: soft tells the handler, hard aborts it.")
    ] = "soft"
    rate: Rate | UnsetType = UNSET
    dry_run: DryRun = False


class Matches(Struct):
    """What a dry run found."""

    dry_run: bool
    matched: int
    at_least: Annotated[bool, Meta(description="It looked at 100,000, and there are more.")]


class Operation(Struct):
    """A bulk operation. Fields that do not apply are left out."""

    id: UUID
    kind: Kind
    state: Annotated[
        Literal["running", "done", "cancelled", "failed"],
        Meta(description="What was done stays done in any case."),
    ]
    filter: Annotated[Json, Meta(description="As given.")]
    matched: Annotated[int, Meta(description="Tasks that fit so far: done, skipped and failed together.")]
    done: int
    skipped: Annotated[int, Meta(description="Moved by somebody else at the same moment, or asked to stop before.")]
    failed: Annotated[int, Meta(description="Could not be done: for example, a task with the edits is refused.")]
    created_at: Annotated[Moment, Meta(description="It touches only what existed then.")]
    created_by: Annotated[str, Meta(description="The id of an API key, or a role of the database.")]
    queue: str | UnsetType = UNSET
    mode: Literal["soft", "hard"] | UnsetType = UNSET
    rate: float | UnsetType = UNSET
    edited: Annotated[list[str], Meta(description="Fields that it edits.")] | UnsetType = UNSET
    finished_at: Moment | UnsetType = UNSET
    last_error: Annotated[str, Meta(description="Why a page, or a task, could not be done.")] | UnsetType = UNSET


class OperationPage(Struct):
    """A page of bulk operations, newest first; only a null cursor ends the list."""

    data: list[Operation]
    next_cursor: str | None


class DeadLetter(Struct):
    """A task that was given up. Fields that do not apply are left out."""

    id: Annotated[UUID, Meta(description="Of the task.")]
    priority: Priority
    reason: Annotated[DeathReason, Meta(description="Why it was given up.")]
    attempt: Annotated[int, Meta(description="Attempts that it spent.")]
    crashes: Annotated[int, Meta(description="Leases among them that ran out with their worker.")]
    created_at: Moment
    dead_at: Moment
    tags: dict[str, str]
    fingerprint: Fingerprint
    handler: str | UnsetType = UNSET
    url: Annotated[str, Meta(description="Of a callback.")] | UnsetType = UNSET
    error: Annotated[Json, Meta(description="Of the last attempt: type, message, …")] | UnsetType = UNSET


class DeadLetterList(Struct):
    """A page of dead letters, newest task first; only a null cursor ends the list."""

    data: list[DeadLetter]
    next_cursor: str | None


class DeadLetterGroup(Struct):
    """Dead letters whose errors are of one kind."""

    fingerprint: Fingerprint
    count: int
    first_dead_at: Moment
    last_dead_at: Moment
    last_task_id: UUID
    error_type: Annotated[str, Meta(description="Of the last one.")] | UnsetType = UNSET
    error_message: Annotated[str, Meta(description="Of the last one.")] | UnsetType = UNSET


class DeadLetterGroups(Struct):
    """The dead letters of a queue by kind of error, the largest groups first, at most 100."""

    data: list[DeadLetterGroup]
    group_count: Annotated[int, Meta(description="Groups in all.")]
    looked_at: Annotated[int, Meta(description="Of the newest tasks; at most 10,000.")]
    is_complete: Annotated[bool, Meta(description="There are no more dead letters than were looked at.")]
