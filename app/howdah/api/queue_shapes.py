"""The JSON of queues; see `shapes`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from howdah.api.shapes import Duration, Instant, Moment, Rate, Retry  # noqa: TC001 - msgspec reads the annotations

KeepHistory = Literal["all", "failures", "none"]


class QueueWrite(Struct, forbid_unknown_fields=True):
    """Settings of a queue, for tasks that bring none of their own, and caps on what waits in it."""

    retry: Retry | UnsetType = UNSET
    timeout: Annotated[Duration, Meta(description="For one attempt, 0.1 seconds to 24 hours.")] | UnsetType = UNSET
    keep_history: (
        Annotated[
            KeepHistory,
            Meta(
                description="Whether runs leave a record: all do, none of those that succeeded (`failures`), or none. "
                "A task that was cancelled always leaves one."
            ),
        ]
        | UnsetType
    ) = UNSET
    max_depth: (
        Annotated[
            int,
            Meta(
                description="With so many tasks waiting it takes no more (429 `backpressure`).",
                extra_json_schema={"minimum": 1, "maximum": 1_000_000},
            ),
        ]
        | UnsetType
        | None
    ) = UNSET
    max_age: (
        Annotated[
            Duration,
            Meta(
                description="While its oldest due task has waited for as long, it takes no more; 1 second to 366 days."
            ),
        ]
        | UnsetType
        | None
    ) = UNSET
    max_running: (
        Annotated[
            int,
            Meta(
                description="At most so many of its runs go on at once, over all workers.",
                extra_json_schema={"minimum": 1, "maximum": 1_000_000},
            ),
        ]
        | UnsetType
        | None
    ) = UNSET
    rate: Annotated[Rate, Meta(description="How fast its runs start, over all workers.")] | UnsetType | None = UNSET


class QueuePause(Struct, forbid_unknown_fields=True):
    """A pause; without `until` and `for` it ends when someone resumes the queue."""

    reason: Annotated[str, Meta(description="For people.", extra_json_schema={"maxLength": 500})] | UnsetType = UNSET
    until: Annotated[Instant, Meta(description="When it ends by itself; at most 366 days ahead.")] | UnsetType = UNSET
    lasting: (
        Annotated[Duration, Meta(description="The same, from now on: 1 second to 366 days. Excludes `until`.")]
        | UnsetType
    ) = msgspec.field(name="for", default=UNSET)


class Paused(Struct):
    """A pause that is on."""

    since: Moment
    by: Annotated[str, Meta(description="The id of an API key, or a database role.")]
    reason: str | None
    until: Annotated[Moment | None, Meta(description="When it ends by itself; null: when someone resumes the queue.")]


class Draining(Struct):
    """A drain that is on."""

    since: Moment
    by: Annotated[str, Meta(description="The id of an API key, or a database role.")]


class Queue(Struct):
    """A queue with its state and the settings in force."""

    name: str
    state: Annotated[
        Literal["active", "paused", "draining"],
        Meta(description="Nothing is started from a paused queue; a draining one takes no new tasks. It may be both."),
    ]
    paused: Paused | None
    draining: Draining | None
    pressure: Annotated[Literal["depth", "age"] | None, Meta(description="The cap for which it refuses tasks now.")]
    retry: Annotated[dict[str, Any], Meta(description="The whole policy, defaults filled in.")]
    timeout: Duration
    keep_history: KeepHistory
    max_depth: int | None
    max_age: Duration | None
    max_running: int | None
    rate: Rate | None
    created_at: Moment
    updated_at: Moment


class QueueChanged(Struct):
    """A queue after it was paused, drained or resumed."""

    changed: Annotated[bool, Meta(description="False: it was so already.")]
    queue: Queue


class QueueDeleted(Struct):
    """A queue that is gone."""

    name: str
    deleted: Literal[True] = True


class QueuePage(Struct):
    """A page of queues by name; only a null cursor ends the list."""

    data: list[Queue]
    next_cursor: str | None


class QueueTally(Struct):
    """What happened in a queue during whole minutes, the last of which ended at least five seconds ago."""

    enqueued: Annotated[int, Meta(description="Over HTTP.")]
    succeeded: int
    failed: Annotated[int, Meta(description="Given up as dead letters.")]
    retried: int
    duration_s: Annotated[float, Meta(description="Seconds that finished runs took, added up.")]


class QueueStats(Struct):
    """What a queue holds now, and what it got done. Counting ends at `count_max` rows of a kind."""

    queue: str
    queued: int
    queued_is_at_least: Annotated[bool, Meta(description="Counting ended before all were seen; so for the others.")]
    scheduled: int
    scheduled_is_at_least: bool
    retrying: int
    retrying_is_at_least: bool
    blocked: int
    blocked_is_at_least: bool
    running: int
    running_is_at_least: bool
    awaiting_callback: int
    awaiting_callback_is_at_least: bool
    dead_letters: int
    dead_letters_is_at_least: bool
    count_max: int
    oldest_age_s: Annotated[float | None, Meta(description="How long the oldest due run has waited.")]
    last_minute: QueueTally
    last_5_minutes: QueueTally
    last_hour: QueueTally
