"""Runs whose lease has run out: what the rescue chore does with them.

A worker that was silent for too long is gone, and its run lost. A receiver that owes the
outcome of a run is not known to be gone: its attempt has timed out, and its retry policy
decides as on any other timeout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import psycopg
from psycopg.errors import LockNotAvailable

from howdah.core.db.bisect import concerns_all
from howdah.core.db.queries import load
from howdah.core.store.follow_ups import FollowUps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from howdah.core.db.connect import Connection
    from howdah.core.store.follow_ups import End

# The LIMIT of run/lock_expired: a page that is shorter was the last.
PAGE_RUNS: Final = 500

Silent: TypeAlias = Literal["worker", "receiver", "callback"]

_ERRORS: Final[dict[Silent, str]] = {
    "worker": '{"type": "worker_lost", "message": "the lease ran out: nothing was heard of its worker"}',
    "receiver": '{"type": "callback_timeout", "message": "accepted with 202, and then no heartbeat came in time"}',
    "callback": '{"type": "callback_timeout", "message": "accepted with 202, and then no callback came in time"}',
}


class ExpiredRun(NamedTuple):
    """A run, locked by this transaction, whose lease has run out."""

    tenant_id: int
    task_id: UUID
    lease_token: UUID
    counts_crash: bool
    queue_id: int
    is_limited: bool
    flow_key_id: int | None
    batch_id: UUID | None
    has_follow_ups: bool
    silent: Silent
    """Who was not heard of: its worker; or its receiver, which owes a heartbeat or the callback itself."""


class Rescued(NamedTuple):
    """What became of an expired run."""

    tenant_id: int
    task_id: UUID
    lease_token: UUID
    verdict: str
    """`retry`, `dead` or `cancelled`."""
    queue_id: int
    priority: int
    run_at: datetime | None
    """When it may be claimed again, if it is retried."""


class Unrescued(NamedTuple):
    """An expired run that could not be ended, and why."""

    run: ExpiredRun
    reason: str


class ExpiredRuns:
    """The statements of rescue."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema
        self._follow_ups = FollowUps(schema)

    async def lock(self, conn: Connection, hold_until: datetime | None) -> list[ExpiredRun]:
        """Lock a page of runs whose lease has ended, oldest first.

        Args:
            conn: Inside a transaction, which then ends the runs.
            hold_until: Leases that ended before it count no crash.

        Returns:
            0 to `PAGE_RUNS` runs; those that another transaction has locked are passed by.
        """
        cursor = await conn.execute(load("run.lock_expired", self._schema), {"hold_until": hold_until})
        return [ExpiredRun(*row) for row in await cursor.fetchall()]

    async def fail(self, conn: Connection, runs: Sequence[ExpiredRun]) -> tuple[list[Rescued], list[Unrescued]]:
        """End the attempts of locked runs as lost or timed out; one that cannot be ended keeps no other from it.

        What follows on the end of their tasks is stored with it.

        Args:
            conn: In the transaction that locked them.
            runs: At least one.

        Returns:
            What became of the runs, and those that could not be ended.

        Raises:
            psycopg.Error: The error concerns all: a lost connection, a full disk.
        """
        try:
            async with conn.transaction():
                rescued = await self._fail(conn, runs)
        except psycopg.Error as refusal:
            # These rows are locked already: a lock that cannot be had is a follow-up's.
            if concerns_all(refusal) and not isinstance(refusal, LockNotAvailable):
                raise
            if len(runs) == 1:
                return [], [Unrescued(runs[0], str(refusal))]
        else:
            ended = {(run.tenant_id, run.task_id) for run in rescued}
            left = [run for run in runs if (run.tenant_id, run.task_id) not in ended]
            return rescued, [Unrescued(run, "its queue is gone") for run in left]
        middle = len(runs) // 2
        first, second = await self.fail(conn, runs[:middle]), await self.fail(conn, runs[middle:])
        return first[0] + second[0], first[1] + second[1]

    async def _fail(self, conn: Connection, runs: Sequence[ExpiredRun]) -> list[Rescued]:
        count = len(runs)
        nothing = [None] * count
        parameters = {
            "tenant_ids": [run.tenant_id for run in runs],
            "task_ids": [run.task_id for run in runs],
            "lease_tokens": [run.lease_token for run in runs],
            "outcomes": ["lost" if run.silent == "worker" else "timed_out" for run in runs],
            "retryable": [True] * count,
            "retry_ins_s": nothing,
            "counts_crash": [run.counts_crash for run in runs],
            # Of losses no policy has a say.
            "is_decided": [run.silent == "worker" for run in runs],
            "errors": [_ERRORS[run.silent] for run in runs],
            "response_statuses": nothing,
            "response_bodies": nothing,
            "durations_s": nothing,
        }
        cursor = await conn.execute(load("run.fail", self._schema), parameters)
        rescued = [Rescued(*row) for row in await cursor.fetchall()]
        followed = {(run.tenant_id, run.task_id) for run in runs if run.has_follow_ups}
        ends: list[tuple[int, UUID, End]] = [
            (run.tenant_id, run.task_id, "failed")
            for run in rescued
            if run.verdict == "dead" and (run.tenant_id, run.task_id) in followed
        ]
        if ends:
            await self._follow_ups.enqueue(conn, ends)
        return rescued

    async def defer(self, conn: Connection, runs: Sequence[ExpiredRun], defer_s: float) -> None:
        """Put off the rescue of locked runs by `defer_s` seconds; whoever holds them may still end them."""
        parameters = {
            "tenant_ids": [run.tenant_id for run in runs],
            "task_ids": [run.task_id for run in runs],
            "defer_s": defer_s,
        }
        await conn.execute(load("run.defer", self._schema), parameters)
