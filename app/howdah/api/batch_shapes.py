"""The JSON of batches, whose end enqueues others; see `howdah.api.shapes`.

`BatchCreate` there is another thing: many tasks that are stored with one request.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID  # noqa: TC003 - msgspec reads the annotations

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from howdah.api.shapes import (  # noqa: TC001 - msgspec reads the annotations
    FollowUp,
    Moment,
    Task,
    TaskCreate,
)

_ON_COMPLETE = Meta(
    description="Enqueued when it is closed and all of its tasks have ended, in whatever way. Without a payload it "
    "gets the counts."
)
_ON_SUCCESS = Meta(description="Enqueued then if all of its tasks have succeeded.")
_ON_FAILURE = Meta(description="Enqueued then if one of its tasks has failed for good or expired.")


class BatchOpen(Struct, forbid_unknown_fields=True):
    """A batch, with tasks that are stored together with it, all or none."""

    tasks: Annotated[
        list[TaskCreate], Meta(description="As for POST /v1/tasks; 1 to 1,000, or none if it stays open.")
    ] = []
    on_complete: Annotated[FollowUp, _ON_COMPLETE] | UnsetType = UNSET
    on_success: Annotated[FollowUp, _ON_SUCCESS] | UnsetType = UNSET
    on_failure: Annotated[FollowUp, _ON_FAILURE] | UnsetType = UNSET
    open: Annotated[bool, Meta(description="Takes more tasks, by their field `batch`, until it is closed.")] = False


class BatchOpenEnvelope(Struct, forbid_unknown_fields=True):
    """`BatchOpen` whose tasks are not decoded yet."""

    tasks: list[Raw] = []
    on_complete: FollowUp | UnsetType = UNSET
    on_success: FollowUp | UnsetType = UNSET
    on_failure: FollowUp | UnsetType = UNSET
    open: bool = False


class Batch(Struct):
    """A batch as it stands; of a complete one, as it stood then. Fields that do not apply are left out.

    So are the counts, in lists, of those that are not complete.
    """

    id: UUID
    state: Annotated[
        Literal["open", "running", "complete"],
        Meta(description="open: takes tasks. running: closed, and some of its tasks have not ended."),
    ]
    created_at: Moment
    created_by: Annotated[str, Meta(description="The id of an API key, or a role of the database.")]
    tasks: Annotated[int, Meta(description="How many it has: the next five together.")] | UnsetType = UNSET
    pending: Annotated[int, Meta(description="Tasks that have not ended: what it waits for.")] | UnsetType = UNSET
    succeeded: int | UnsetType = UNSET
    failed: Annotated[int, Meta(description="Given up, as dead letters.")] | UnsetType = UNSET
    cancelled: Annotated[int, Meta(description="Or replaced by another task with their dedup key.")] | UnsetType = UNSET
    expired: int | UnsetType = UNSET
    closed_at: Moment | UnsetType = UNSET
    completed_at: Moment | UnsetType = UNSET
    on_complete: Annotated[FollowUp, Meta(description="As given; payloads need their scope.")] | UnsetType = UNSET
    on_success: Annotated[FollowUp, Meta(description="As given; payloads need their scope.")] | UnsetType = UNSET
    on_failure: Annotated[FollowUp, Meta(description="As given; payloads need their scope.")] | UnsetType = UNSET


class BatchOpened(Struct):
    """A batch and the tasks that came with it, in their order."""

    batch: Batch
    tasks: Annotated[
        list[Task], Meta(description="One that is `deduplicated` is another task, and not one of the batch.")
    ]


class BatchCancel(Struct, forbid_unknown_fields=True):
    """How the running tasks of a batch are to be stopped."""

    mode: Annotated[Literal["soft", "hard"], Meta(description="soft tells the handler, hard aborts it.")] = "soft"


class BatchPage(Struct):
    """A page of batches, newest first; only a null cursor ends the list."""

    data: list[Batch]
    next_cursor: str | None
