"""The JSON by which receivers report the outcomes of what they accepted with 202."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID  # noqa: TC003 - msgspec reads the annotations

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from howdah.api.shapes import ENQUEUE, Duration, Moment

ERROR_TYPE_LENGTH_MAX = 200
ERROR_MESSAGE_LENGTH_MAX = 2_000

_ERROR_TYPE_SCHEMA: dict[str, Any] = {"minLength": 1, "maxLength": ERROR_TYPE_LENGTH_MAX}


class CallbackComplete(Struct, forbid_unknown_fields=True):
    """The task has succeeded."""

    result: (
        Annotated[
            Raw,
            Meta(
                description="Any JSON, as large as a payload; kept byte for byte. null is no result.",
                extra_json_schema={"title": "Any JSON"},
            ),
        ]
        | UnsetType
    ) = UNSET
    enqueue: Annotated[list[Raw], ENQUEUE] | UnsetType = UNSET


class CallbackError(Struct, forbid_unknown_fields=True):
    """What went wrong."""

    type: Annotated[
        str, Meta(description="A name for programs; `errors` of a retry policy.", extra_json_schema=_ERROR_TYPE_SCHEMA)
    ] = "callback_failed"
    message: Annotated[
        str, Meta(description="For people.", extra_json_schema={"maxLength": ERROR_MESSAGE_LENGTH_MAX})
    ] = ""


class CallbackFail(Struct, forbid_unknown_fields=True):
    """The attempt has failed; unless `retryable` or `retry_in` is given, the retry policy says what follows."""

    error: CallbackError | UnsetType = UNSET
    retryable: (
        Annotated[bool, Meta(description="Whether another attempt may help; false gives the task up.")] | UnsetType
    ) = UNSET
    retry_in: (
        Annotated[Duration, Meta(description="When to try again, at most 24 hours from now, if attempts are left.")]
        | UnsetType
    ) = UNSET


class CallbackHeartbeat(Struct, forbid_unknown_fields=True):
    """The receiver is still at it."""

    extend: (
        Annotated[
            Duration,
            Meta(
                description="When it will call again at the latest, 1 second to 7 days from now; the attempt times out "
                "otherwise. If not given, `http.heartbeat_timeout`, without which the deadline alone counts."
            ),
        ]
        | UnsetType
    ) = UNSET


class CallbackAnswer(Struct):
    """What a report led to; `already_finished` answers the repeat of one that was recorded."""

    status: Literal["ok", "already_finished"]
    task_id: UUID
    outcome: Annotated[
        Literal["succeeded", "failed", "cancelled"],
        Meta(description="Of this attempt. A failure of a task that was to be cancelled is cancelled."),
    ]
    retry_at: Annotated[Moment, Meta(description="When another attempt is due, if there is one.")] | UnsetType = UNSET


class HeartbeatAnswer(Struct):
    """The attempt is still the receiver's; times are left out until its 202 has been recorded."""

    status: Literal["ok"]
    task_id: UUID
    lease_expires_at: (
        Annotated[Moment, Meta(description="When it times out unless the receiver calls.")] | UnsetType
    ) = UNSET
    deadline_at: Annotated[Moment, Meta(description="When it times out whatever heartbeats come.")] | UnsetType = UNSET
