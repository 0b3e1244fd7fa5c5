"""Records how runs ended that consumers report over HTTP: requests that come while a batch is recorded go together.

What a commit costs is shared as it is for creates, and by the same rule: no delay, a
batch is whatever has gathered. A run at fault fails alone (see `core.store.reports`), a
lease that is reported twice in one batch is recorded once and then looked up, and every
statement may be repeated: after a lost connection all of it is sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias
from uuid import UUID

from howdah.core import metrics
from howdah.core.db.arrays import instant_at
from howdah.core.errors import DatabaseUnavailable, HowdahError, StorageUnavailable
from howdah.core.model import Report
from howdah.core.store.batches import log_fields
from howdah.core.store.reports import record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from howdah.api.database import Database
    from howdah.api.hot import Desk, HotPool
    from howdah.api.notifier import Notifier
    from howdah.api.tally import Tallies
    from howdah.core.model import LeaseKey, Rearmed
    from howdah.core.store.reports import Recorded
    from howdah.core.store.runs import HeldLease

    Leased: TypeAlias = dict[LeaseKey, HeldLease]

# As a worker's finisher: more in one transaction gains nothing, and the first waits for the last.
BATCH_RUNS_MAX: Final = 500
# As the writer: if PostgreSQL is back within so long, nobody hears that it was away.
IN_DOUBT_S: Final = 1.0

Status: TypeAlias = Literal["ok", "already_finished", "lease_lost", "busy", "invalid"]
_STATES: Final = {"retry": "retrying", "dead": "failed", "cancelled": "cancelled", "released": "queued"}

_log: Final = logging.getLogger(__name__)


class Verdict(NamedTuple):
    """What became of one report.

    Attributes:
        status: ok; already_finished: it was recorded before, as reported; lease_lost; busy: its row is locked, or its
            day has no history yet, so nothing was recorded; invalid: it could not be stored.
        state: Of the task after it, if it was recorded now.
        run_at: When its next attempt is due.
        detail: What is wrong with one that is invalid.
        outcome: What history has for the attempt, if it has something: of already_finished and lease_lost.
    """

    status: Status
    state: str | None = None
    run_at: datetime | None = None
    detail: str | None = None
    outcome: str | None = None


class _Submission:
    """The reports of one request."""

    __slots__ = ("done", "left", "verdicts")

    def __init__(self, count: int) -> None:
        self.verdicts: list[Verdict | None] = [None] * count
        self.left = count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, place: int, verdict: Verdict) -> None:
        self.verdicts[place] = verdict
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: HowdahError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            # Nobody may be there to hear of it.
            self.done.exception()


class _Item(NamedTuple):
    report: Report
    submission: _Submission
    place: int


class Reporter:
    """Takes reports and sees that they are recorded."""

    def __init__(
        self,
        database: Database,
        hot: HotPool,
        notifier: Notifier,
        tallies: Tallies,
        on_ended: Callable[[Sequence[LeaseKey]], None],
    ) -> None:
        """Record over the connections of `hot`.

        Args:
            database: Knows whether PostgreSQL is there.
            hot: Connections.
            notifier: Wakes workers when a run is due again.
            tallies: Counts.
            on_ended: Called with leases whose tasks may have ended.
        """
        self._database = database
        self._hot = hot
        self._notifier = notifier
        self._tallies = tallies
        self._on_ended = on_ended
        self._waiting: deque[_Item] = deque()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._under_way = False

    async def report(self, reports: Sequence[Report]) -> list[Verdict]:
        """Record how runs ended, and return what became of each once it is committed.

        Raises:
            DatabaseUnavailable: PostgreSQL is away; part of it may be recorded. Repeat it.
            StorageUnavailable: It cannot store now; part of it may be recorded. Repeat it later.
        """
        self._database.refuse_if_away()
        submission = self._submit(reports)
        await submission.done
        return [verdict for verdict in submission.verdicts if verdict is not None]

    def release(self, keys: Sequence[LeaseKey]) -> None:
        """Hand runs back that nobody is there for; if PostgreSQL is away their leases run out."""
        self._submit([released(key) for key in keys])

    async def flush(self, timeout_s: float) -> None:
        """Wait until what was handed back is recorded, for `timeout_s` at most."""
        if self._waiting or self._under_way:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout_s)

    async def run(self) -> None:
        """Record until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                # One turn of the loop: requests that are in the sockets already come along.
                await asyncio.sleep(0)
                batch = self._take()
                self._under_way = True
                self._idle.clear()
                try:
                    await self._record(batch)
                except HowdahError as error:
                    for item in batch:
                        item.submission.fail(error)
                except BaseException:
                    # The supervisor starts this loop again, without what made it crash.
                    for item in batch:
                        item.submission.fail(DatabaseUnavailable("the reports could not be recorded"))
                    raise
                finally:
                    self._under_way = False
            self._idle.set()

    def _submit(self, reports: Sequence[Report]) -> _Submission:
        submission = _Submission(len(reports))
        self._waiting.extend(_Item(report, submission, place) for place, report in enumerate(reports))
        self._arrived.set()
        return submission

    def _take(self) -> list[_Item]:
        """Take the next batch, with each lease once: a second report of it is told by history."""
        batch: dict[LeaseKey, _Item] = {}
        again: list[_Item] = []
        while self._waiting and len(batch) < BATCH_RUNS_MAX:
            item = self._waiting.popleft()
            if item.submission.done.done():
                continue  # Another part of it has failed.
            if batch.setdefault(item.report.key, item) is not item:
                again.append(item)
        self._waiting.extendleft(reversed(again))
        return list(batch.values())

    async def _record(self, batch: Sequence[_Item]) -> None:
        if not batch:
            return
        reports = [item.report for item in batch]
        keys = [report.key for report in reports]
        leased: Leased = {}
        began = time.monotonic()
        doubt_until: float | None = None
        while True:
            try:
                async with self._hot.use() as desk:
                    # What was recorded by a try whose answer was lost is held no longer.
                    leased |= await desk.runs.find_leased(desk.conn, keys)
                    timed = [
                        report if (held := leased.get(report.key)) is None else _completed(report, held)
                        for report in reports
                    ]
                    recorded = await record(desk.conn, desk.runs, timed)
                    await self._give_room(desk, leased)
                    await self._complete_batches(desk, leased)
                break
            except StorageUnavailable:
                raise
            except DatabaseUnavailable:
                now = time.monotonic()
                doubt_until = doubt_until or now + IN_DOUBT_S
                left_s = doubt_until - now
                if left_s <= 0 or not (await self._database.is_there() or await self._database.wait_found(left_s)):
                    raise
        metrics.FINISH_SECONDS.observe_many([time.monotonic() - began])
        metrics.FINISH_BATCH_RUNS.observe_many([len(batch)])
        self._settle(batch, recorded, leased)

    async def _give_room(self, desk: Desk, leased: Leased) -> None:
        """Give what the runs have left free of their limits to those that wait for it."""
        limited = [held for held in leased.values() if held.is_limited]
        if not limited:
            return
        key_ids = {held.flow_key_id for held in limited if held.flow_key_id is not None}
        try:
            lanes = await desk.runs.settle(desk.conn, {held.queue_id for held in limited}, key_ids)
        except HowdahError as reason:
            _log.info("room_not_given", extra={"fields": {"reason": str(reason)}})  # A scheduler comes by.
            return
        for lane, run_at in lanes:
            self._notifier.wake(lane.queue_id, lane.priority, instant_at(run_at))

    async def _complete_batches(self, desk: Desk, leased: Leased) -> None:
        """Complete batches of which these runs were the last; their follow-ups are announced by the database."""
        keys = {(key.tenant_id, held.batch_id) for key, held in leased.items() if held.batch_id is not None}
        if not keys:
            return
        try:
            ends = await desk.runs.complete_batches(desk.conn, keys)
        except HowdahError as reason:
            _log.info("batches_not_completed", extra={"fields": {"reason": str(reason)}})  # A scheduler comes by.
            return
        for end in ends:
            if end.error is not None:
                event, fields = log_fields(end)
                _log.warning(event, extra={"fields": fields})

    def _settle(self, batch: Sequence[_Item], recorded: Recorded, leased: Leased) -> None:
        verdicts = _verdicts(recorded)
        rearmed = {each.key: each for each in recorded.rearmed}
        ended: list[LeaseKey] = []
        for item in batch:
            key = item.report.key
            verdict = verdicts.get(key)
            if verdict is None:
                verdict = Verdict("ok", item.report.outcome)
            if verdict.status == "ok" or key in rearmed:
                self._count(item.report, leased.get(key), rearmed.get(key))
                ended.append(key)
            item.submission.settle(item.place, verdict)
        for each in recorded.rearmed:
            if each.run_at is not None:
                self._notifier.wake(each.queue_id, each.priority, instant_at(each.run_at))
        metrics.STALE_REPORTS.inc(len(recorded.refused))
        for task_id, reason in recorded.unfollowed:
            _log.warning("follow_up_refused", extra={"fields": {"task_id": str(UUID(bytes=task_id)), "reason": reason}})
        for key, reason in (*recorded.replaced, *recorded.unrecorded):
            _log.warning("report_not_storable", extra={"fields": {"task_id": key.task_id.hex(), "reason": reason}})
        self._on_ended(ended)

    def _count(self, report: Report, held: HeldLease | None, rearmed: Rearmed | None) -> None:
        outcome = report.outcome
        if rearmed is not None and rearmed.verdict == "cancelled":
            outcome = "cancelled"
        metrics.RUNS_FINISHED.labels(outcome).inc()
        if held is None:
            return  # Ended by a try whose answer was lost, and not known to have been held before.
        metrics.RUN_SECONDS.observe_many([held.held_s])
        self._tallies.end(held.queue_id, held.held_s, outcome, None if rearmed is None else rearmed.verdict)


def _completed(report: Report, held: HeldLease) -> Report:
    """Add what only the database knows of a run."""
    sequel = b"[]" if report.sequel is None and held.has_follow_ups else report.sequel
    return report._replace(duration_s=held.held_s, sequel=sequel)


def released(key: LeaseKey) -> Report:
    """Return the report of a run that is handed back; no attempt is spent."""
    return Report(*key, "released", None, None, None, None, None, True, None, False, False)


def _verdicts(recorded: Recorded) -> dict[LeaseKey, Verdict]:
    """Return what became of every report that did not just end its task as reported."""
    found: dict[LeaseKey, Verdict] = {}
    for each in recorded.rearmed:
        run_at = None if each.run_at is None else instant_at(each.run_at)
        found[each.key] = Verdict("ok", _STATES[each.verdict], run_at)
    found |= {key: Verdict("already_finished", outcome=outcome) for key, outcome in recorded.already}
    found |= {key: Verdict("lease_lost", outcome=outcome) for key, outcome in recorded.refused}
    found |= {key: Verdict("busy") for key in (*recorded.locked, *recorded.dayless)}
    for key, reason in recorded.replaced:
        state = found[key].state if key in found else None
        found[key] = Verdict("invalid", state, None, reason)
    for key, reason in recorded.unrecorded:
        found[key] = Verdict("invalid", None, None, f"it cannot be stored: {reason}")
    return found
