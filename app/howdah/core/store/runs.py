"""Live runs: claim, heartbeat, finish, release.

Connections are ours and read raw (`core.db.arrays.read_raw`). What both an
asynchronous and a blocking connection must do (the event loop finishes, the
keeper's thread steps in for it) comes as a `Statement` that either executes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from howdah.core.db.arrays import Bools, Float4s, Float8s, Instants, Int2s, Int4s, Int8s, Texts, Uuids
from howdah.core.db.errors import translated
from howdah.core.db.kept_cursor import KeptCursor
from howdah.core.db.queries import load
from howdah.core.model import Beat, ClaimedRun, LaneKey, LeaseKey
from howdah.core.store.batches import BatchEnd, BatchKey

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Sequence
    from datetime import datetime

    import psycopg
    from psycopg.abc import QueryNoTemplate

    from howdah.core.db.connect import Connection
    from howdah.core.model import Offer, Report

    SyncConnection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
    Statement: TypeAlias = tuple[QueryNoTemplate, dict[str, Any]]

# How far past its deadline a lease may reach: time to wait in a worker before it starts
# (1 s at most), for a cancelled handler to clean up (5 s) and for the outcome to be recorded.
GRACE_S: Final = 10.0
# Longer than any timeout: a worker ends its runs at their deadlines by itself.
UNBOUNDED_S: Final = 1e9


_TASK_ID, _QUEUE_ID, _PRIORITY = map(ClaimedRun._fields.index, ("task_id", "queue_id", "priority"))


class Claim(NamedTuple):
    """What a claim took.

    Attributes:
        rows: Runs in the order of `ClaimedRun`'s fields, as plain tuples; in no order.
        unfinished: Lanes that may have more due runs although their shares were not filled.
    """

    rows: list[tuple[Any, ...]]
    unfinished: Sequence[LaneKey] = ()


class HeldLease(NamedTuple):
    """What the database knows of a lease that is held.

    Attributes:
        queue_id: Of its run.
        held_s: Seconds since its claim.
        is_limited: The queue has limits: call `Runs.settle` when it has ended.
        flow_key_id: Of its run.
        batch_id: Of its run.
        has_follow_ups: Its report needs a `sequel`.
    """

    queue_id: int
    held_s: float
    is_limited: bool
    flow_key_id: int | None
    batch_id: bytes | None
    has_follow_ups: bool


class Extended(NamedTuple):
    """How long a receiver's lease lasts.

    Attributes:
        is_awaiting: Its 202 is recorded. Before that, the worker holds the lease, and the next two are the worker's.
        lease_expires_at: The attempt ends then unless the receiver calls.
        deadline_at: It ends then whatever heartbeats come.
    """

    is_awaiting: bool
    lease_expires_at: datetime
    deadline_at: datetime


class Suspect(NamedTuple):
    """A run that is to be executed alone.

    Attributes:
        key: The lease.
        timeout_s: How long it may take.
        wait_s: How long it may wait for that.
    """

    key: LeaseKey
    timeout_s: float
    wait_s: float


class Runs:
    """The queries under `sql/queries/run`."""

    def __init__(self, schema: str) -> None:
        """Work on the installation with this schema."""
        self._claim = KeptCursor(load("run.claim", schema))
        self._claim_limited = KeptCursor(load("run.claim_limited", schema))
        self._settle = load("run.settle", schema)
        self._complete_batches = load("batch.complete", schema)
        self._find_claimed = load("run.find_claimed", schema)
        self._complete = load("run.complete", schema)
        self._completing = KeptCursor(self._complete)
        self._fail = load("run.fail", schema)
        self._release = load("run.release", schema)
        self._find_recorded = load("run.find_recorded", schema)
        self._find_locked = load("run.find_locked", schema)
        self._heartbeat = load("run.heartbeat", schema)
        self._find_leased = load("run.find_leased", schema)
        self._await = load("run.await", schema)
        self._follow = load("run.follow", schema)
        self._set_aside = load("run.set_aside", schema)
        self._begin_alone = load("run.begin_alone", schema)
        self._extend = load("run.extend", schema)

    async def claim(
        self,
        conn: Connection,
        offers: Sequence[Offer],
        target_ids: Sequence[int],
        *,
        worker_id: int,
        lease_token: bytes,
        lease_s: float,
        limited: Container[int] = (),
        grace_s: float = UNBOUNDED_S,
    ) -> Claim:
        """Lease ready runs of the offered lanes, oldest first in each.

        One statement for lanes without limits, which waits for nobody, and one for lanes of queues that have
        some, which waits for other claims of them; each committed by itself.

        Args:
            conn: Hot, autocommit, reading raw.
            offers: 1 to 256 lanes.
            target_ids: What the worker serves.
            worker_id: Holder of the leases.
            lease_token: 16 random bytes, new for each call; by them `find_claimed` finds the runs of a lost answer.
            lease_s: Until the leases end unless renewed.
            limited: Queues that have limits, as far as is known: the plain statement passes their lanes by.
            grace_s: How far past its run's deadline a lease reaches at most.

        Returns:
            The runs, and the lanes that may have more although their shares were not filled.

        Raises:
            DatabaseUnavailable: The connection is lost; whether runs were claimed is unknown.
        """
        lease = {
            "target_ids": Int4s(target_ids),
            "worker_id": worker_id,
            "lease_token": UUID(bytes=lease_token),
            "lease_s": lease_s,
            "grace_s": grace_s,
        }
        held = [offer for offer in offers if offer.lane.queue_id in limited] if limited else []
        with translated():
            if not held:
                return Claim(await self._claim.fetch(conn, _offered(offers) | lease))
            free = [offer for offer in offers if offer.lane.queue_id not in limited]
            found = await self._claim_limited.fetch(conn, _offered(held) | lease)
            rows = [row for row in found if row[_TASK_ID] is not None]
            if free:
                rows += await self._claim.fetch(conn, _offered(free) | lease)
        return Claim(rows, [LaneKey(row[_QUEUE_ID], row[_PRIORITY]) for row in found if row[_TASK_ID] is None])

    async def find_claimed(self, conn: Connection, lease_token: bytes, worker_id: int) -> list[tuple[Any, ...]]:
        """Return the runs that a claim took whose answer was lost, as `claim` would have.

        Raises:
            DatabaseUnavailable: The connection is lost; ask again.
        """
        parameters = {"lease_token": UUID(bytes=lease_token), "worker_id": worker_id}
        return await _fetch(conn, (self._find_claimed, parameters))

    async def settle(
        self, conn: Connection, queue_ids: Collection[int], flow_key_ids: Collection[int]
    ) -> list[tuple[LaneKey, int]]:
        """Give what ended runs of queues with limits have left free to those that wait for it.

        Call it after they were recorded; too often does no harm.

        Args:
            conn: Reading raw.
            queue_ids: Their queues.
            flow_key_ids: Their flow keys.

        Returns:
            Lanes that have due runs now, to be announced, with the instant of the oldest.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        parameters = {"queue_ids": Int4s(list(queue_ids)), "flow_key_ids": Int8s(list(flow_key_ids))}
        rows = await _fetch(conn, (self._settle, parameters))
        return [(LaneKey(row[0], row[1]), row[2]) for row in rows]

    async def complete_batches(self, conn: Connection, keys: Collection[tuple[int, bytes]]) -> list[BatchEnd]:
        """Complete those of some batches that have no live task any more; see `Batches.complete`.

        Call it after the ends of their tasks were recorded; too often does no harm.

        Args:
            conn: Reading raw.
            keys: Tenants and ids, 16 bytes each.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        parameters = {
            "tenant_ids": Int4s([tenant_id for tenant_id, _ in keys]),
            "batch_ids": Uuids([batch_id for _, batch_id in keys]),
        }
        rows = await _fetch(conn, (self._complete_batches, parameters))
        return [BatchEnd(BatchKey(row[0], UUID(bytes=row[1])), row[2], row[3]) for row in rows]

    def complete(self, reports: Sequence[Report]) -> Statement:
        """Record runs that succeeded or were cancelled: their rows leave, history is appended.

        Returns rows (task_id, lease_token) of the leases that were still held.
        """
        return self._complete, _complete_parameters(reports)

    async def complete_on(self, conn: Connection, reports: Sequence[Report]) -> psycopg.AsyncCursor[tuple[Any, ...]]:
        """Execute what `complete` returns, with a cursor that is the caller's until the next time."""
        return await self._completing.execute(conn, _complete_parameters(reports))

    def fail(self, reports: Sequence[Report]) -> Statement:
        """Record attempts that failed, timed out, snoozed or were lost: each is re-armed, or its task given up.

        Returns rows (tenant_id, task_id, lease_token, verdict, queue_id, priority, run_at) of the leases that were
        still held.
        """
        columns = list(zip(*reports, strict=True))
        parameters = {
            **_report_parameters(columns),
            "retryable": Bools(columns[9]),
            "retry_ins_s": Float8s(columns[10]),
            "counts_crash": Bools(columns[11]),
            "is_decided": Bools(columns[12]),
        }
        return self._fail, parameters

    def release(self, keys: Sequence[LeaseKey]) -> Statement:
        """Hand runs back; no attempt is spent.

        Returns rows (tenant_id, task_id, lease_token, verdict, queue_id, priority, run_at) of the leases that were
        still held.
        """
        return self._release, _lease_parameters(keys)

    def await_callback(self, keys: Sequence[LeaseKey]) -> Statement:
        """Let runs wait for their callbacks, for as long as their tasks say; their leases need no heartbeat then.

        Returns rows (tenant_id, task_id, lease_token, verdict, queue_id, priority, run_at) of the leases that were
        still held. A repeat changes nothing.
        """
        return self._await, _lease_parameters(keys)

    def follow(self, ends: Sequence[tuple[LeaseKey, str, bytes | None]]) -> Statement:
        """Enqueue what follows on the end of tasks, in the transaction that has ended them.

        Args:
            ends: Lease, outcome (succeeded, failed or expired), and the JSON array of what the handler enqueued.

        Returns rows (task_id, error) of the tasks whose follow-up was refused by its dedup key.
        """
        return self._follow, {
            "tenant_ids": Int4s([key.tenant_id for key, _, _ in ends]),
            "task_ids": Uuids([key.task_id for key, _, _ in ends]),
            "outcomes": Texts([outcome for _, outcome, _ in ends]),
            "enqueues": Texts([items for _, _, items in ends]),
        }

    async def extend(self, conn: Connection, key: LeaseKey, extend_s: float | None) -> Extended | None:
        """Take note that a receiver is still at a run, and allow it to be silent for a while.

        Args:
            conn: Any but a raw one, with bounds on waits for locks.
            key: The lease.
            extend_s: Until its next sign of life; None takes the task's `heartbeat_timeout`, else its deadline.

        Returns:
            How long the lease lasts, or None if it is not held any more.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        parameters = {
            "tenant_id": key.tenant_id,
            "task_id": UUID(bytes=key.task_id),
            "lease_token": UUID(bytes=key.token),
            "extend_s": extend_s,
        }
        with translated():
            cursor = await conn.execute(self._extend, parameters)
            row = await cursor.fetchone()
        return None if row is None else Extended(*row)

    async def set_aside(self, conn: Connection, suspects: Sequence[Suspect]) -> None:
        """Take note of runs that are held and not started, because each is to be executed alone.

        Raises:
            DatabaseUnavailable: The connection is lost; repeat it.
        """
        parameters = {
            **_lease_parameters([suspect.key for suspect in suspects]),
            "timeouts_s": Float8s([suspect.timeout_s for suspect in suspects]),
            "waits_s": Float8s([suspect.wait_s for suspect in suspects]),
        }
        with translated():
            await conn.cursor(binary=True).execute(self._set_aside, parameters)

    async def begin_alone(self, conn: Connection, key: LeaseKey, timeout_s: float) -> bool:
        """Take note that a run is executed from now on with nothing beside it.

        Returns:
            False if it must not begin: its lease is not held any more, or somebody has locked its row.

        Raises:
            DatabaseUnavailable: The connection is lost; repeat it before the run begins.
        """
        parameters = {
            "tenant_id": key.tenant_id,
            "task_id": UUID(bytes=key.task_id),
            "lease_token": UUID(bytes=key.token),
            "timeout_s": timeout_s,
        }
        return bool(await _fetch(conn, (self._begin_alone, parameters)))

    async def find_outcome(self, conn: Connection, key: LeaseKey) -> str | None:
        """Return the outcome that history has for one lease, if it has one; on any connection.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        rows = await _fetch(conn, (self._find_recorded, _lease_parameters([key])))
        return rows[0][3] if rows else None

    async def find_recorded(self, conn: Connection, keys: Sequence[LeaseKey]) -> dict[LeaseKey, str]:
        """Return the outcome that history has for each of these leases, as far as it has one.

        Raises:
            DatabaseUnavailable: The connection is lost; ask again.
        """
        rows = await _fetch(conn, (self._find_recorded, _lease_parameters(keys)))
        return {LeaseKey(row[0], row[1], row[2]): row[3] for row in rows}

    async def find_locked(self, conn: Connection, keys: Sequence[LeaseKey]) -> list[LeaseKey]:
        """Return those of these leases that are held and whose rows somebody else has locked.

        Raises:
            DatabaseUnavailable: The connection is lost; ask again.
        """
        rows = await _fetch(conn, (self._find_locked, _lease_parameters(keys)))
        return [LeaseKey(*row) for row in rows]

    def heartbeat(self, conn: SyncConnection, keys: Sequence[LeaseKey], lease_s: float) -> list[Beat]:
        """Renew leases and learn what became of each run; never waits for a row lock.

        Raises:
            DatabaseUnavailable: The connection is lost; whether the leases were renewed is unknown.
        """
        return [_beat(row) for row in execute_sync(conn, self._heartbeat_of(keys, lease_s))]

    async def heartbeat_on(self, conn: Connection, keys: Sequence[LeaseKey], lease_s: float) -> list[Beat]:
        """Do what `heartbeat` does, without blocking."""
        return [_beat(row) for row in await _fetch(conn, self._heartbeat_of(keys, lease_s))]

    def _heartbeat_of(self, keys: Sequence[LeaseKey], lease_s: float) -> Statement:
        return self._heartbeat, {**_lease_parameters(keys), "lease_s": lease_s, "grace_s": GRACE_S}

    async def find_leased(self, conn: Connection, keys: Sequence[LeaseKey]) -> dict[LeaseKey, HeldLease]:
        """Return what is known of each of these leases that is held.

        Raises:
            DatabaseUnavailable: The connection is lost; ask again.
        """
        rows = await _fetch(conn, (self._find_leased, _lease_parameters(keys)))
        return {LeaseKey(row[0], row[1], row[2]): HeldLease(*row[3:]) for row in rows}


def execute_sync(conn: SyncConnection, statement: Statement) -> list[tuple[Any, ...]]:
    """Execute a statement on a blocking connection and return its rows.

    Raises:
        DatabaseUnavailable: The connection is lost; whether it was recorded is unknown.
        StorageUnavailable: The server has no room.
    """
    with translated():
        return conn.cursor(binary=True).execute(*statement).fetchall()


def _report_parameters(columns: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """Return what every report says; `columns` are in the order of `Report`'s fields."""
    return {
        "tenant_ids": Int4s(columns[0]),
        "task_ids": Uuids(columns[1]),
        "lease_tokens": Uuids(columns[2]),
        "outcomes": Texts(columns[3]),
        "errors": Texts(_sparse(columns[5])),
        "response_statuses": Int2s(_sparse(columns[6])),
        "response_bodies": Texts(_sparse(columns[7])),
        "durations_s": Float4s(columns[8]),
    }


def _complete_parameters(reports: Sequence[Report]) -> dict[str, Any]:
    columns = list(zip(*reports, strict=True))
    return {**_report_parameters(columns), "results": Texts(_sparse(columns[4]))}


def _sparse(column: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a column of NULLs as an empty one, which costs the server nothing to take apart: unnest() fills it up."""
    return () if column.count(None) == len(column) else column


def _offered(offers: Sequence[Offer]) -> dict[str, Any]:
    return {
        "queue_ids": Int4s([offer.lane.queue_id for offer in offers]),
        "priorities": Int2s([offer.lane.priority for offer in offers]),
        "horizon_run_ats": Instants([offer.horizon_run_at for offer in offers]),
        "horizon_task_ids": Uuids([offer.horizon_task_id for offer in offers]),
        "shares": Int4s([offer.share for offer in offers]),
    }


def _lease_parameters(keys: Sequence[LeaseKey]) -> dict[str, Any]:
    columns = list(zip(*keys, strict=True))
    return {"tenant_ids": Int4s(columns[0]), "task_ids": Uuids(columns[1]), "lease_tokens": Uuids(columns[2])}


def _beat(row: tuple[Any, ...]) -> Beat:
    return Beat(LeaseKey(row[0], row[1], row[2]), *row[3:])


async def _fetch(conn: Connection, statement: Statement) -> list[tuple[Any, ...]]:
    with translated():
        cursor = await conn.cursor(binary=True).execute(*statement)
        return await cursor.fetchall()
