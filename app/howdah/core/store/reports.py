"""Recording how runs ended: a batch at a time, each lease at most once.

Whoever knows a lease's token owns its outcome. A report whose lease is no longer
held is looked up in history by a later statement, with a fresh snapshot: in the
same one, a repeat that raced the first report would seem to have lost its lease.

A run whose receiver accepted it and will call back has no outcome yet: it is set to wait
for that, by the same token. If the callback was faster, there is nothing left to do.

A run whose row somebody else has locked, a client that forgot its transaction after
`howdah.cancel` for example, is set aside: it must not keep the others waiting.

What follows on the end of a task, its follow-ups and what its handler enqueued, is stored
in the same transaction. That may have to wait for a key that a client's open transaction
has taken, so these reports are recorded apart from all others.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg
from psycopg import errors

from howdah.core.db.bisect import bisected, concerns_all
from howdah.core.db.errors import is_missing_partition, retrying, translated
from howdah.core.errors import EnqueueRefused
from howdah.core.model import LeaseKey, Rearmed
from howdah.core.store.server import within_limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from howdah.core.db.connect import Connection
    from howdah.core.model import Report
    from howdah.core.store.runs import Runs, Statement

_COMPLETING = frozenset({"succeeded", "cancelled"})
_AWAITING = "awaiting"
# What a callback, a cancel, or the end of the wait may have made of a run by the time that its worker reports its 202.
_CALLED_BACK = frozenset({"succeeded", "failed", "timed_out", "cancelled"})
_MESSAGE_CHARS_MAX = 500
# What howdah.follow raises of a handler's own task.
_REFUSED = "JQ422"
# What is waited for a lock that a sequel needs, by all reports of a batch together, and by each statement.
_SEQUELS_S_MAX = 0.25
_SEQUEL_LOCK_MS = 20
_LIMIT_LOCKS = f"SET LOCAL lock_timeout = {_SEQUEL_LOCK_MS}"
_END_SOON = "SET LOCAL idle_in_transaction_session_timeout = 10000"


@dataclass(slots=True)
class Recorded:
    """What became of a batch of reports.

    Attributes:
        rearmed: Of those that did not end well, or not yet: what the database decided.
        already: Leases whose outcome had been recorded as reported, with what history has: a repeat of a report.
        refused: Leases that were not held any more, with what history has for them, if anything.
        replaced: Reports that could not be stored as they were, with the reason; a failure was recorded instead.
        locked: Leases whose rows somebody else has locked, or a key that their sequel needs; nothing is recorded of
            them yet.
        dayless: Leases of tasks whose day has no partition of history; nothing is recorded of them until there is one.
        unrecorded: Reports that could not be recorded at all, with the reason: their leases run out.
        unfollowed: Tasks that have ended and whose follow-up its dedup key refused, with that reason.
    """

    rearmed: list[Rearmed] = field(default_factory=list)
    already: list[tuple[LeaseKey, str]] = field(default_factory=list)
    refused: list[tuple[LeaseKey, str | None]] = field(default_factory=list)
    replaced: list[tuple[LeaseKey, str]] = field(default_factory=list)
    locked: list[LeaseKey] = field(default_factory=list)
    dayless: list[LeaseKey] = field(default_factory=list)
    unrecorded: list[tuple[LeaseKey, str]] = field(default_factory=list)
    unfollowed: list[tuple[bytes, str]] = field(default_factory=list)

    def add(self, other: Recorded) -> None:
        """Add what became of another batch."""
        for each in fields(self):
            getattr(self, each.name).extend(getattr(other, each.name))


async def record(conn: Connection, runs: Runs, reports: Sequence[Report]) -> Recorded:
    """Record how runs ended, all of them in one transaction; those with a sequel in another one.

    Safe to repeat with the same reports: what was recorded before is recognised.

    Args:
        conn: Hot, autocommit, reading raw, with a `lock_timeout`: the longest wait for a row that is locked.
        runs: The statements.
        reports: At least one.

    Raises:
        DatabaseUnavailable: The connection is lost; whether it was recorded is unknown. Repeat it.
        StorageUnavailable: The server has no room, or a table is locked. Repeat it later.
    """
    sequels = [report for report in reports if report.sequel is not None]
    if not sequels:
        return await _recorded(_Batch(conn, runs, reports))
    recorded = await _recorded(_FollowedBatch(conn, runs, sequels))
    if len(sequels) < len(reports):
        recorded.add(await _recorded(_Batch(conn, runs, [report for report in reports if report.sequel is None])))
    return recorded


async def _recorded(batch: _Batch) -> Recorded:
    with translated(), within_limits():
        try:
            await _record(batch)
        except errors.LockNotAvailable:
            if not await batch.set_aside_locked():
                raise
            await _record(batch)
    await batch.look_up()
    batch.recorded.locked = batch.locked
    return batch.recorded


async def _record(batch: _Batch) -> None:
    try:
        await retrying(batch.record_all)
    except psycopg.Error as error:
        if batch.is_fatal(error):
            raise
        await retrying(batch.record_each)


class _Batch:
    def __init__(self, conn: Connection, runs: Runs, reports: Sequence[Report]) -> None:
        self._conn = conn
        self._runs = runs
        self._completing = [report for report in reports if report.outcome in _COMPLETING]
        self._failing: list[Report] = []
        self._releasing: list[Report] = []
        self._awaiting: list[Report] = []
        if len(self._completing) < len(reports):
            self._releasing = [report for report in reports if _is_release(report)]
            self._awaiting = [report for report in reports if report.outcome == _AWAITING]
            self._failing = [report for report in reports if _is_failure(report)]
        self._unmatched: list[Report] = []
        self.locked: list[LeaseKey] = []
        self.recorded = Recorded()

    def is_fatal(self, error: psycopg.Error) -> bool:
        """Tell whether an error is no report's fault."""
        return concerns_all(error)

    async def set_aside_locked(self) -> bool:
        """Leave out what somebody else has locked; False if that is nothing."""
        keys = [report.key for report in (*self._completing, *self._failing, *self._releasing, *self._awaiting)]
        self.locked = await self._runs.find_locked(self._conn, keys)
        locked = set(self.locked)
        self._completing = [report for report in self._completing if report.key not in locked]
        self._failing = [report for report in self._failing if report.key not in locked]
        self._releasing = [report for report in self._releasing if report.key not in locked]
        self._awaiting = [report for report in self._awaiting if report.key not in locked]
        return bool(locked)

    async def record_all(self) -> None:
        """Record everything; a single statement needs no transaction around it."""
        self.recorded, self._unmatched = Recorded(), []
        kinds = [
            (self._complete, self._completing),
            (self._fail, self._failing),
            (self._release, self._releasing),
            (self._await, self._awaiting),
        ]
        present = [(write, part) for write, part in kinds if part]
        if len(present) <= 1:
            for write, part in present:
                await write(part)
            return
        async with self._conn.transaction():
            for write, part in present:
                await write(part)

    async def record_each(self) -> None:
        """Record what can be recorded, in one transaction: reports at fault become failures, or are left out."""
        self.recorded, self._unmatched = Recorded(), []
        async with self._conn.transaction():
            replaced: list[Report] = []
            if self._completing:
                await bisected(
                    self._conn, self._completing, self._completed, partial(self._replace, replaced), self.is_fatal
                )
            failing = [*self._failing, *replaced]
            if failing:
                await bisected(self._conn, failing, self._failed, self._leave_out, self.is_fatal)
            if self._releasing:
                await bisected(self._conn, self._releasing, self._released, self._leave_out)
            if self._awaiting:
                await bisected(self._conn, self._awaiting, self._awaited, self._leave_out)

    async def look_up(self) -> None:
        """Tell repeats from reports that came too late."""
        if not self._unmatched:
            return
        known = await self._runs.find_recorded(self._conn, [report.key for report in self._unmatched])
        for report in self._unmatched:
            outcome = known.get(report.key)
            if outcome is not None and _agrees(report, outcome):
                self.recorded.already.append((report.key, outcome))
            else:
                self.recorded.refused.append((report.key, outcome))

    async def _complete(self, part: Sequence[Report]) -> None:
        cursor = await self._runs.complete_on(self._conn, part)
        if cursor.rowcount != len(part):
            self._miss(part, {(row[0], row[1]) for row in await cursor.fetchall()})

    async def _fail(self, part: Sequence[Report]) -> None:
        await self._rearm(part, self._runs.fail(part))

    async def _release(self, part: Sequence[Report]) -> None:
        await self._rearm(part, self._runs.release([report.key for report in part]))

    async def _await(self, part: Sequence[Report]) -> None:
        await self._rearm(part, self._runs.await_callback([report.key for report in part]))

    async def _rearm(self, part: Sequence[Report], statement: Statement) -> None:
        cursor = await self._conn.cursor(binary=True).execute(*statement)
        rows: list[tuple[Any, ...]] = await cursor.fetchall()
        rearmed = [Rearmed(LeaseKey(row[0], row[1], row[2]), row[3], row[4], row[5], row[6]) for row in rows]
        self.recorded.rearmed += rearmed
        if len(rows) != len(part):
            self._miss(part, {(each.key.task_id, each.key.token) for each in rearmed})

    def _miss(self, part: Sequence[Report], matched: set[tuple[bytes, bytes]]) -> None:
        self._unmatched += [report for report in part if (report.task_id, report.token) not in matched]

    # `bisected` wants one result for each item; these record theirs on the side.

    async def _completed(self, part: Sequence[Report]) -> Sequence[None]:
        await self._complete(part)
        return [None] * len(part)

    async def _failed(self, part: Sequence[Report]) -> Sequence[None]:
        await self._fail(part)
        return [None] * len(part)

    async def _released(self, part: Sequence[Report]) -> Sequence[None]:
        await self._release(part)
        return [None] * len(part)

    async def _awaited(self, part: Sequence[Report]) -> Sequence[None]:
        await self._await(part)
        return [None] * len(part)

    def _replace(self, replaced: list[Report], report: Report, error: psycopg.Error) -> None:
        if is_missing_partition(error):
            # No other outcome of a task of that day can be stored either.
            self._leave_out(report, error)
            return
        reason = str(error)[:_MESSAGE_CHARS_MAX]
        kind, message = "result_invalid", f"the result cannot be stored: {reason}"
        if error.sqlstate == _REFUSED:
            kind, message = "enqueue_refused", (error.diag.message_primary or reason)[:_MESSAGE_CHARS_MAX]
        text = msgspec.json.encode({"type": kind, "message": message})
        replaced.append(
            report._replace(
                outcome="failed", result=None, error=text, response_body=None, retryable=False, is_decided=True
            )
        )
        self.recorded.replaced.append((report.key, message))

    def _leave_out(self, report: Report, error: psycopg.Error) -> None:
        if is_missing_partition(error):
            self.recorded.dayless.append(report.key)
            return
        self.recorded.unrecorded.append((report.key, str(error)[:_MESSAGE_CHARS_MAX]))


class _FollowedBatch(_Batch):
    """Reports with a sequel, which is stored right after the ends of their tasks."""

    def __init__(self, conn: Connection, runs: Runs, reports: Sequence[Report]) -> None:
        super().__init__(conn, runs, reports)
        self._sequels = {report.key: report.sequel for report in reports}
        self._patient_until = math.inf

    def is_fatal(self, error: psycopg.Error) -> bool:
        return concerns_all(error) and not isinstance(error, errors.LockNotAvailable)

    async def record_all(self) -> None:
        try:
            async with self._conn.transaction():
                await self._conn.execute(_LIMIT_LOCKS)
                await super().record_all()
        except errors.LockNotAvailable:
            await self.record_each()

    async def record_each(self) -> None:
        self.locked = []
        self._patient_until = time.monotonic() + _SEQUELS_S_MAX
        async with self._conn.transaction():
            await self._conn.execute(_LIMIT_LOCKS)
            await super().record_each()

    async def _complete(self, part: Sequence[Report]) -> None:
        self._refuse_late()
        known = len(self._unmatched)
        await super()._complete(part)
        lost = {report.key for report in self._unmatched[known:]}
        await self._follow([(report.key, report.outcome) for report in part if report.key not in lost])

    async def _rearm(self, part: Sequence[Report], statement: Statement) -> None:
        self._refuse_late()
        known = len(self.recorded.rearmed)
        await super()._rearm(part, statement)
        await self._follow([(each.key, "failed") for each in self.recorded.rearmed[known:] if each.verdict == "dead"])

    async def _follow(self, ends: list[tuple[LeaseKey, str]]) -> None:
        sequels = [(key, outcome, self._sequels[key]) for key, outcome in ends if outcome != "cancelled"]
        if sequels:
            cursor = await self._conn.cursor(binary=True).execute(*self._runs.follow(sequels))
            self.recorded.unfollowed += await cursor.fetchall()

    def _refuse_late(self) -> None:
        """Try nothing more once the batch has waited for too long: what is left is set aside."""
        if time.monotonic() > self._patient_until:
            raise errors.LockNotAvailable("the batch has waited for too long")

    def _replace(self, replaced: list[Report], report: Report, error: psycopg.Error) -> None:
        if isinstance(error, errors.LockNotAvailable):
            self.locked.append(report.key)
        else:
            super()._replace(replaced, report, error)

    def _leave_out(self, report: Report, error: psycopg.Error) -> None:
        if isinstance(error, errors.LockNotAvailable):
            self.locked.append(report.key)
        else:
            super()._leave_out(report, error)


def _is_release(report: Report) -> bool:
    """Tell a hand-back from a snooze, of which the policy has a say."""
    return report.outcome == "released" and report.retry_in_s is None


def _is_failure(report: Report) -> bool:
    """Tell what the retry policy decides on."""
    return report.outcome not in _COMPLETING and report.outcome != _AWAITING and not _is_release(report)


def _agrees(report: Report, recorded: str) -> bool:
    """Tell whether history has what was reported.

    A failure or hand-back of a run that was to be cancelled is a cancel there, and a snooze beyond the
    task's age a failure. A run that was to wait for its callback may be over.
    """
    if report.outcome == _AWAITING:
        return recorded in _CALLED_BACK
    if recorded == "cancelled":
        return report.outcome not in _COMPLETING or report.outcome == recorded
    if recorded == "failed" and report.outcome == "released":
        return not _is_release(report)
    return recorded == report.outcome


async def complete_in_transaction(conn: Connection, runs: Runs, report: Report) -> bool:
    """Record one run as the last statement of its handler's own transaction.

    From here on the run's row is locked, so the transaction must end at once; if
    its client vanishes, the server ends it after 10 s.

    Returns:
        Whether the lease was still held; if not, the transaction must be rolled back.

    Raises:
        DatabaseUnavailable: The connection is lost; the transaction is rolled back.
        EnqueueRefused: So is one of the tasks that the handler enqueued.
    """
    with translated():
        await conn.execute(_END_SOON)
        cursor = await conn.cursor(binary=True).execute(*runs.complete([report]))
        is_held = cursor.rowcount == 1
        if is_held and report.sequel is not None:
            with _as_refusal():
                await conn.cursor(binary=True).execute(*runs.follow([(report.key, report.outcome, report.sequel)]))
        return is_held


def fail_sync(conn: psycopg.Connection[tuple[Any, ...]], runs: Runs, reports: Sequence[Report]) -> None:
    """Record attempts that did not succeed, with what follows where that ends their tasks, on a blocking connection.

    Raises:
        DatabaseUnavailable: The connection is lost; whether it was recorded is unknown.
        StorageUnavailable: The server has no room.
    """
    with translated(), conn.transaction():
        rows = conn.cursor(binary=True).execute(*runs.fail(reports)).fetchall()
        followed = {report.key for report in reports if report.sequel is not None}
        keys = [LeaseKey(row[0], row[1], row[2]) for row in rows if row[3] == "dead"]
        sequels = [(key, "failed", None) for key in keys if key in followed]
        if sequels:
            conn.cursor(binary=True).execute(*runs.follow(sequels))


def complete_in_transaction_sync(conn: psycopg.Connection[tuple[Any, ...]], runs: Runs, report: Report) -> bool:
    """Do what `complete_in_transaction` does, on a blocking connection."""
    with translated():
        conn.execute(_END_SOON)
        is_held = conn.cursor(binary=True).execute(*runs.complete([report])).rowcount == 1
        if is_held and report.sequel is not None:
            with _as_refusal():
                conn.cursor(binary=True).execute(*runs.follow([(report.key, report.outcome, report.sequel)]))
        return is_held


@contextmanager
def _as_refusal() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate != _REFUSED:
            raise
        raise EnqueueRefused(error.diag.message_primary or str(error)) from None
