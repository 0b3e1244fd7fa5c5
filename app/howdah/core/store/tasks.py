"""Tasks as clients make, read and cancel them."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import psycopg
from psycopg.errors import LockNotAvailable
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row

from howdah.core.db.arrays import Int2s, Int4s, Texts, Uuids
from howdah.core.db.bisect import bisected, concerns_all
from howdah.core.db.errors import is_missing_partition, retrying, translated
from howdah.core.db.kept_cursor import KeptCursor
from howdah.core.db.queries import load
from howdah.core.ids import uuid7_floor
from howdah.core.store.raw_json import raw_json_cursor
from howdah.core.store.server import within_limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from howdah.core.db.connect import Connection
    from howdah.core.model import CancelMode

# What a page looks at when a filter may pass most rows by.
LOOK_ROWS_MAX: Final = 10_000
# Of a batch, the state of each row looked at is asked for: some 50 us.
BATCH_LOOK_ROWS_MAX: Final = 2_000
# How far the time in an id that a SQL caller gave may be from the task's creation (see howdah.enqueue_rows).
_ID_AGE_MAX: Final = timedelta(hours=1)
_ID_AHEAD_MAX: Final = timedelta(minutes=1)
_ID_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 31, tzinfo=UTC)
ID_MAX: Final = UUID(int=(1 << 128) - 1)
ID_MIN: Final = UUID(int=0)

# Of a batch in which a key is another transaction's, each part waits so long while it is halved, and all of them
# together so long: every item has an attempt of its own as long as not hundreds are held up.
_KEY_S_MAX: Final = 0.005
_KEYS_S_MAX: Final = 1.0
DEDUP_KEY_IN_USE: Final = "dedup_key_in_use /dedup/key is being taken by another transaction"
FLOW_KEY_IN_USE: Final = "flow_key_in_use /flow/key is being made by another transaction"
BATCH_IN_USE: Final = "batch_in_use /batch is being closed by another transaction"
KEYS_IN_USE: Final = frozenset({DEDUP_KEY_IN_USE, FLOW_KEY_IN_USE, BATCH_IN_USE})

_log: Final = logging.getLogger(__name__)


class Kind(NamedTuple):
    """What a plain task has beside its id and payload: it runs at once, with what its queue says of retries.

    `priority` is the number; `traceparent` must be well-formed. Whether the names exist is not known.
    """

    queue: str
    handler: str
    priority: int
    traceparent: str | None


class Draft(NamedTuple):
    """A task that is to be stored.

    `fields` is the JSON object of POST /v1/tasks without `payload`;
    `payload` is the payload's JSON text as it came, None if there is none.
    `kind` says the same as `fields`, if the task is plain. `dedup_key` is its
    queue and key, if it has one; `flow_key` and `batch` likewise.
    """

    id: UUID
    fields: bytes
    payload: bytes | None
    kind: Kind | None
    dedup_key: tuple[str, str] | None = None
    flow_key: str | None = None
    batch: str | None = None

    @property
    def contended(self) -> tuple[str, str] | None:
        """What another transaction may just be taking, making or closing, so that this task has to wait for its end."""
        if self.dedup_key is not None:
            return self.dedup_key
        # No queue has such a name.
        if self.flow_key is not None:
            return "", self.flow_key
        return None if self.batch is None else ("/", self.batch)

    @property
    def refusal(self) -> str:
        """What to say of a task that has waited for that for too long."""
        if self.dedup_key is not None:
            return DEDUP_KEY_IN_USE
        return BATCH_IN_USE if self.flow_key is None else FLOW_KEY_IN_USE


class Stored(NamedTuple):
    """What became of a draft.

    `error` is "<code> <pointer> <what is allowed>" for a draft that was refused.
    `created` is false if it was refused, or if a task with its id existed already.
    `is_deduplicated`: another task, whose `id` it is, holds its dedup key and stands for it;
    so it does if the error is a `dedup_conflict`. What follows `error` is for created tasks,
    but for the lane and time that are to be announced: they may be such another task's.
    """

    ordinal: int
    id: UUID | None
    created: bool
    error: str | None
    queue_id: int | None = None
    priority: int | None = None
    run_at: datetime | None = None
    due_at: datetime | None = None
    created_at: datetime | None = None
    timeout_s: float | None = None
    max_attempts: int | None = None
    expires_at: datetime | None = None
    is_deduplicated: bool = False


class Filter(NamedTuple):
    """Which tasks a list shows; None takes all."""

    state: str | None = None
    queue: str | None = None
    handler: str | None = None
    tag: tuple[str, str] | None = None
    batch: UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    @property
    def passes_rows_by(self) -> bool:
        """Whether a row may fail to fit."""
        return any(part is not None for part in self)


class Look(NamedTuple):
    """What a page found: ids, newest first, and where the next page begins (None at the end of the list)."""

    ids: list[UUID]
    before: UUID | None


_LIVE: Final = frozenset({"scheduled", "queued", "retrying", "blocked", "running", "awaiting_callback"})


class Reason(NamedTuple):
    """One reason why a task stands where it does; see howdah.explain."""

    code: str
    message: str
    until: datetime | None
    run_count: int | None


class Tasks:
    """The statements on tasks, each named as its query file."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema
        self._enqueue_plain = KeptCursor(load("task.enqueue_plain", schema))

    async def enqueue(self, conn: Connection, tenant_id: int, drafts: Sequence[Draft]) -> list[Stored]:
        """Store tasks of one tenant in one statement; refusals come back as rows.

        Args:
            conn: In autocommit mode they are committed when this returns.
            tenant_id: Owner of all of them.
            drafts: With ids, so that a repeat after a lost connection stores nothing twice.

        Returns:
            One row for each draft, in their order.

        Raises:
            psycopg.Error: Nothing was stored, or, if the connection was lost, it is not known whether.
        """
        items = [b'{"id":"%b",%b' % (str(draft.id).encode(), draft.fields[1:]) for draft in drafts]
        parameters = {
            "tenant_id": tenant_id,
            "items": (b"[%b]" % b",".join(items)).decode(),
            "payloads": Texts([draft.payload for draft in drafts]),
        }
        cursor = conn.cursor(binary=True)
        await cursor.execute(load("task.enqueue", self._schema), parameters)
        return [
            Stored._make((*row, draft.dedup_key is not None and row[3] is None and row[1] != draft.id))
            for draft, row in zip(drafts, await cursor.fetchall(), strict=True)
        ]

    async def enqueue_plain(self, conn: Connection, tenant_id: int, drafts: Sequence[Draft]) -> list[Stored] | None:
        """Store tasks the short way if all of them are plain, new and sound, and their names exist.

        Returns:
            What `enqueue` would, or None: nothing was stored, and `enqueue` can tell what is to be
            made first, or refused.

        Raises:
            psycopg.Error: As `enqueue`; UniqueViolation if an id is there already.
        """
        numbers: dict[Kind | None, int] = {}
        kinds = [numbers.setdefault(draft.kind, len(numbers) + 1) for draft in drafts]
        known = [kind for kind in numbers if kind is not None]
        if len(known) < len(numbers):
            return None
        parameters = {
            "tenant_id": tenant_id,
            "queues": Texts([kind.queue for kind in known]),
            "handlers": Texts([kind.handler for kind in known]),
            "priorities": Int2s([kind.priority for kind in known]),
            "traceparents": Texts([kind.traceparent for kind in known]),
            "kinds": Int4s(kinds),
            "ids": Uuids([draft.id.bytes for draft in drafts]),
            "payloads": Texts([draft.payload for draft in drafts]),
        }
        rows = await self._enqueue_plain.fetch(conn, parameters)
        if not rows:
            return None
        stored = {
            number: (queue_id, kind.priority, now, now, now, timeout_s, max_attempts)
            for kind, (number, queue_id, now, timeout_s, max_attempts) in zip(known, rows, strict=True)
        }
        return [
            Stored(ordinal, draft.id, True, None, *stored[number])
            for ordinal, (draft, number) in enumerate(zip(drafts, kinds, strict=True), 1)
        ]

    async def enqueue_each(self, conn: Connection, tenant_id: int, drafts: Sequence[Draft]) -> list[Stored]:
        """Store tasks as `enqueue` does, in a transaction; one that causes an error is refused alone.

        So is one whose key another transaction has just taken: one of `KEYS_IN_USE`.

        Raises:
            psycopg.Error: The connection is lost, or the server cannot store anything now.
        """
        is_keyed = any(draft.contended for draft in drafts)
        if is_keyed:
            limit = {"lock_timeout_ms": round(_KEY_S_MAX * 1000)}
            await conn.execute(load("server.limit_locks", self._schema), limit)
        give_up_at = time.monotonic() + _KEYS_S_MAX

        def is_fatal(error: psycopg.Error) -> bool:
            if is_keyed and isinstance(error, LockNotAvailable):
                return time.monotonic() > give_up_at
            return concerns_all(error)

        async def attempt(part: Sequence[Draft]) -> list[Stored]:
            return await self.enqueue(conn, tenant_id, part)

        # Of those with one key the first finds out for all; each of a hundred would wait for itself.
        leaders: dict[object, int] = {}
        leader_of = [leaders.setdefault(draft.contended or index, index) for index, draft in enumerate(drafts)]
        firsts = list(leaders.values())
        found = await bisected(conn, [drafts[index] for index in firsts], attempt, _unstorable, is_fatal)
        rows = dict(zip(firsts, found, strict=True))
        held_up = {index for index, row in rows.items() if row.error in KEYS_IN_USE}
        rest = [index for index, leader in enumerate(leader_of) if index != leader and leader not in held_up]
        if rest:
            found = await bisected(conn, [drafts[index] for index in rest], attempt, _unstorable, is_fatal)
            rows |= zip(rest, found, strict=True)
        return [rows[index] if index in rows else rows[leader_of[index]] for index in range(len(drafts))]

    async def store(self, conn: Connection, batches: Mapping[int, Sequence[Draft]]) -> dict[int, list[Stored]]:
        """Store tasks of one or several tenants and commit them together.

        One statement and one commit as long as nothing goes wrong; a draft that
        causes an error is then refused alone.

        Args:
            conn: In autocommit mode, or inside a transaction that the caller commits.
            batches: Drafts by tenant.

        Raises:
            DatabaseUnavailable: The connection is lost; whether they were stored is unknown.
            StorageUnavailable: The server cannot store now: it has no room or no partition,
                or somebody holds a lock that it needs. Nothing was stored.
        """
        with translated(), within_limits():
            return await retrying(partial(self._store, conn, batches))

    async def _store(self, conn: Connection, batches: Mapping[int, Sequence[Draft]]) -> dict[int, list[Stored]]:
        try:
            if len(batches) == 1 and conn.info.transaction_status == TransactionStatus.IDLE:
                return await self._store_all(conn, batches)
            async with conn.transaction():
                return await self._store_all(conn, batches)
        except psycopg.Error as error:
            drafts = [draft for each in batches.values() for draft in each]
            if isinstance(error, LockNotAvailable) and any(draft.contended for draft in drafts):
                if len(drafts) == 1:
                    return {tenant_id: [_unstorable(drafts[0], error)] for tenant_id in batches}
            elif concerns_all(error) or is_missing_partition(error):
                raise
        async with conn.transaction():
            return {
                tenant_id: await self.enqueue_each(conn, tenant_id, drafts)
                for tenant_id, drafts in sorted(batches.items(), key=itemgetter(0))
            }

    async def _store_all(self, conn: Connection, batches: Mapping[int, Sequence[Draft]]) -> dict[int, list[Stored]]:
        stored = {}
        # In one order everywhere, for names and dedup keys are locked.
        for tenant_id, drafts in sorted(batches.items(), key=itemgetter(0)):
            rows = await self.enqueue_plain(conn, tenant_id, drafts)
            stored[tenant_id] = rows if rows is not None else await self.enqueue(conn, tenant_id, drafts)
        return stored

    async def find_stored(self, conn: Connection, tenant_id: int, ids: Sequence[UUID]) -> dict[UUID, Stored]:
        """Return tasks that an earlier statement stored, as it would have reported them."""
        with translated():
            rows = await self.get_many(conn, tenant_id, ids)
        return {
            row.id: Stored(
                ordinal=0,
                id=row.id,
                created=True,
                error=None,
                due_at=row.run_at,
                created_at=row.created_at,
                timeout_s=row.timeout_s,
                max_attempts=int(row.max_attempts),
                expires_at=row.expires_at,
            )
            for row in rows
        }

    async def get(self, conn: Connection, tenant_id: int, task_id: UUID) -> Any | None:
        """Return one task with everything a client may see, or None; a named tuple of the query's columns."""
        cursor = raw_json_cursor(conn)
        cursor.row_factory = namedtuple_row
        await cursor.execute(load("task.get", self._schema), {"tenant_id": tenant_id, "id": task_id})
        return await cursor.fetchone()

    async def get_many(self, conn: Connection, tenant_id: int, ids: Sequence[UUID]) -> list[Any]:
        """Return those of the tasks that exist, newest first, as `get` but with neither payload nor result."""
        cursor = raw_json_cursor(conn)
        cursor.row_factory = namedtuple_row
        await cursor.execute(load("task.get_many", self._schema), {"tenant_id": tenant_id, "ids": list(ids)})
        return await cursor.fetchall()

    async def page(self, conn: Connection, tenant_id: int, wanted: Filter, *, before: UUID, row_count: int) -> Look:
        """Find the next tasks of a list, newest first, looking at no more than `LOOK_ROWS_MAX` rows.

        Args:
            conn: Any.
            tenant_id: Whose.
            wanted: Which.
            before: The last id of the page before, or `ID_MAX`.
            row_count: Most ids to return.
        """
        look_max = LOOK_ROWS_MAX if wanted.passes_rows_by else row_count
        low, high = _id_bounds(wanted)
        parameters: dict[str, Any] = {
            "tenant_id": tenant_id,
            "before": min(before, high),
            "from": low,
            "queue": wanted.queue,
            "handler": wanted.handler,
            "tag_name": wanted.tag[0] if wanted.tag else None,
            "tag_value": wanted.tag[1] if wanted.tag else None,
            "created_after": wanted.created_after,
            "created_before": wanted.created_before,
            "look_max": look_max,
            "row_count": row_count,
        }
        name = "task.page"
        if wanted.batch is not None:
            name = "task.page_batch"
            look_max = min(look_max, BATCH_LOOK_ROWS_MAX)
            parameters |= {"batch": wanted.batch, "state": wanted.state, "look_max": look_max}
        elif wanted.state in _LIVE:
            name, parameters["state"] = "task.page_live", wanted.state
        elif wanted.state == "failed":
            name = "task.page_failed"
        elif wanted.state is not None:
            name, parameters["outcome"] = "task.page_ended", wanted.state
        cursor = conn.cursor(binary=True)
        await cursor.execute(load(name, self._schema), parameters)
        rows = await cursor.fetchall()
        ids = [row[0] for row in rows if row[0] is not None]
        _, look_count, look_end = rows[0]
        if len(ids) == row_count:
            return Look(ids, ids[-1])
        return Look(ids, look_end if look_count == look_max else None)

    async def runs(self, conn: Connection, tenant_id: int, task_id: UUID, *, after: int, row_count: int) -> list[Any]:
        """Return the ended claims of a task above `after`, oldest first, and the live one last."""
        cursor = raw_json_cursor(conn)
        cursor.row_factory = namedtuple_row
        parameters = {"tenant_id": tenant_id, "id": task_id, "after": after, "row_count": row_count}
        await cursor.execute(load("task.runs", self._schema), parameters)
        return await cursor.fetchall()

    async def explain(self, conn: Connection, tenant: str, task_id: UUID) -> list[Reason]:
        """Say why a task stands where it does, the first reason first.

        Raises:
            Refused: There is no such task (not_found).
        """
        with translated():
            cursor = await conn.execute(load("task.explain", self._schema), {"tenant": tenant, "id": task_id})
            return [Reason(*row) for row in await cursor.fetchall()]

    async def cancel(self, conn: Connection, tenant: str, task_id: UUID, mode: CancelMode) -> str:
        """Cancel a task and return its state after that: cancelled, or running while it is asked to stop.

        Raises:
            Refused: There is no such task (not_found), or it has ended (state_conflict).
            StorageUnavailable: Its run is locked for longer than the transaction's limit.
        """
        parameters = {"tenant": tenant, "id": task_id, "mode": mode}
        with translated(), within_limits():
            cursor = await conn.execute(load("task.cancel", self._schema), parameters)
            row = await cursor.fetchone()
        assert row is not None, "a function call returns a row"
        state: str = row[0]
        return state

    async def cancel_mode(self, conn: Connection, tenant_id: int, task_id: UUID) -> CancelMode | None:
        """Return how a running task was asked to stop: a soft request after a hard one changes nothing."""
        parameters = {"tenant_id": tenant_id, "id": task_id}
        with translated(), within_limits():
            cursor = await conn.execute(load("task.cancel_mode", self._schema), parameters)
            row = await cursor.fetchone()
        return row[0] if row is not None else None


def _id_bounds(wanted: Filter) -> tuple[UUID, UUID]:
    """Return the ids between which all tasks lie that were created between two instants."""
    after, before = wanted.created_after, wanted.created_before
    # Bounded first: Python has no instants beyond the years 1 and 9999 to reckon with.
    low = ID_MIN if after is None else uuid7_floor(max(after, _ID_EPOCH + _ID_AGE_MAX) - _ID_AGE_MAX)
    high = ID_MAX if before is None else uuid7_floor(max(min(before, _LAST) + _ID_AHEAD_MAX, _ID_EPOCH))
    return low, high


def _unstorable(draft: Draft, error: psycopg.Error) -> Stored:
    if is_missing_partition(error):
        raise error  # It is today's, which all of them need.
    if isinstance(error, LockNotAvailable):
        if draft.contended is None:
            raise error  # Whatever is locked, another item of the batch may need it too.
        return Stored(0, None, False, draft.refusal)
    _log.error("task_unstorable", exc_info=error, extra={"fields": {"sqlstate": error.sqlstate}})
    return Stored(0, None, False, f"internal_error / {error.sqlstate}")
