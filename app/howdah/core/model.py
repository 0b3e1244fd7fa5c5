"""What modules hand each other about runs.

Ids of tasks and lease tokens are 16 bytes here and instants microseconds since
the year 2000, as they come from PostgreSQL (see `core.db.arrays`): a worker
hands tens of thousands of them on each second and looks at few.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

# A run that so many workers were lost with is a suspect: it is executed alone, and a third loss is its own doing
# (sql/queries/run/fail.sql).
SUSPECT_CRASHES: Final = 2

Verdict: TypeAlias = Literal["held", "busy", "lost"]
CancelMode: TypeAlias = Literal["soft", "hard"]


class LeaseKey(NamedTuple):
    """What identifies a lease."""

    tenant_id: int
    task_id: bytes
    token: bytes


class ClaimedRun(NamedTuple):
    """A row of run/claim; the order of its fields is the statement's."""

    tenant_id: int
    task_id: bytes
    queue_id: int
    target_id: int
    priority: int
    claim_no: int
    attempt: int
    run_at: int
    queued_at: int
    timeout_s: float
    deadline_at: int
    has_task: bool
    payload: bytes | None
    http: bytes | None
    tags: bytes | None
    traceparent: str | None
    parent_id: bytes | None
    completes_batch_id: bytes | None
    flow_key_id: int | None
    batch_id: bytes | None
    has_follow_ups: bool | None
    crashes: int


class Report(NamedTuple):
    """How a run ended, as it is to be recorded.

    Attributes:
        tenant_id: With the next two: the lease.
        task_id: 16 bytes.
        token: 16 bytes.
        outcome: succeeded, cancelled, failed, timed_out, lost or released; or awaiting, which is none yet: its
            receiver accepted it, and owes the outcome.
        result: JSON text, only of succeeded.
        error: JSON text: type, message, traceback.
        response_status: Of a callback's answer.
        response_body: Of a callback's answer, cut.
        duration_s: By the worker's monotonic clock; None if it never started.
        retryable: Only of failed, timed_out and lost: another attempt may help.
        retry_in_s: Delay asked for by the target; of released, the handler snoozed.
        counts_crash: Only of lost.
        is_decided: `retryable` and `retry_in_s` hold, whatever the retry policy says.
        sequel: Set if something is to follow on the end of its task, in the same transaction: a JSON array of the
            tasks that its handler enqueued, empty if there are only the task's own follow-ups.
    """

    tenant_id: int
    task_id: bytes
    token: bytes
    outcome: str
    result: bytes | None
    error: bytes | None
    response_status: int | None
    response_body: str | None
    duration_s: float | None
    retryable: bool
    retry_in_s: float | None
    counts_crash: bool
    is_decided: bool
    sequel: bytes | None = None

    @property
    def key(self) -> LeaseKey:
        """The lease that this ends."""
        return LeaseKey(self.tenant_id, self.task_id, self.token)


class Rearmed(NamedTuple):
    """What `run/fail` or `run/release` made of a run, or `run/await`, which may leave its lease as it is.

    Attributes:
        key: The lease.
        verdict: retry, dead, cancelled, released or awaiting.
        queue_id: Its queue.
        priority: Its priority.
        run_at: When it is due again; None if its task ended, or its outcome is awaited.
    """

    key: LeaseKey
    verdict: str
    queue_id: int
    priority: int
    run_at: int | None


class Beat(NamedTuple):
    """What a heartbeat said of one lease.

    Attributes:
        key: The lease.
        verdict: held, busy (its row is locked: ask again) or lost.
        cancel_mode: Set if the run is to be cancelled.
        lease_expires_at: Of a lease that is held.
        worker_id: Its holder.
    """

    key: LeaseKey
    verdict: Verdict
    cancel_mode: CancelMode | None
    lease_expires_at: int | None = None
    worker_id: int | None = None


class LaneKey(NamedTuple):
    """A lane: the unit that a worker claims from."""

    queue_id: int
    priority: int


class Offer(NamedTuple):
    """A lane with how many runs a claim may take from it, and where it begins to look.

    Attributes:
        lane: The lane.
        horizon_run_at: With `horizon_task_id`: nothing below it is claimable.
        horizon_task_id: 16 bytes.
        share: At least 1.
    """

    lane: LaneKey
    horizon_run_at: int
    horizon_task_id: bytes
    share: int


class Horizon(NamedTuple):
    """Where to begin to look in a lane.

    Attributes:
        lane: The lane.
        run_at: With `task_id`: nothing below it is claimable.
        task_id: 16 bytes.
    """

    lane: LaneKey
    run_at: int
    task_id: bytes


class Due(NamedTuple):
    """When a lane's next run is due, or may be.

    Attributes:
        lane: The lane.
        run_at: Of the first run at or above the lane's horizon; of a closed lane when it opens, or None.
        wait_s: Until then; negative if it is due.
        is_closed: Its queue is paused, or its limits leave no room; the lane was not looked into.
    """

    lane: LaneKey
    run_at: int | None
    wait_s: float | None
    is_closed: bool = False


class QueueRow(NamedTuple):
    """A queue of the catalogue."""

    id: int
    tenant_id: int
    tenant: str
    name: str
    is_limited: bool


class TargetRow(NamedTuple):
    """A target of the catalogue; tenant and handler are None for HTTP."""

    id: int
    tenant_id: int | None
    handler: str | None
    is_parked: bool


class TenantSecret(NamedTuple):
    """A tenant, the secret that signs its callbacks, and the key of the tokens that go with them."""

    id: int
    name: str
    secret: str
    callback_key: bytes


def jsonb_text(raw: bytes) -> bytes:
    """Return the JSON text of a jsonb that was read raw (`core.db.arrays.read_raw`)."""
    return raw[1:]
