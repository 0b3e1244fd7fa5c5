"""Records outcomes: batch after batch, each holding whatever arrived while the last was committed.

A run whose receiver accepted it with 202 is set to wait for its callback in the same way,
and is nobody's here from then on.

A report is repeated until PostgreSQL has answered, however long that takes; the
lease's token sees to it that each is recorded at most once. Its run is held, and
its lease renewed, until then. One whose row a stranger has locked, or whose day has
no partition of history, waits apart, so that the others do not wait with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final
from uuid import UUID

from howdah.core import metrics
from howdah.core.backoff import retry_forever
from howdah.core.db.arrays import unix_us
from howdah.core.errors import DatabaseUnavailable
from howdah.core.model import LaneKey
from howdah.core.store.reports import record
from howdah.core.store.server import Server
from howdah.core.wake import LaneReady
from howdah_worker.connection import HotConnection
from howdah_worker.run import Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from howdah.core.db.connect import Connection
    from howdah.core.model import LeaseKey
    from howdah.core.settings import Settings
    from howdah.core.store.lanes import Lanes
    from howdah.core.store.reports import Recorded
    from howdah.core.store.runs import Runs
    from howdah_worker.batch_ends import BatchEnds
    from howdah_worker.lease_keeper import LeaseKeeper
    from howdah_worker.run import Run
    from howdah_worker.tally import TallySheet
    from howdah_worker.task_logs import TaskLogs
    from howdah_worker.vacancies import Vacancies

# More rows in one statement cost no less each, and hold their locks for longer.
BATCH_MAX: Final = 1_000
# How long a batch waits for a row that is locked, before what is locked is set aside; and how often that is looked at.
LOCK_S_MAX: Final = 0.25
LOCKED_PAUSE_S: Final = 0.5
# How often reports are tried again whose day has no partition of history; each try halves their batches in vain.
DAYLESS_PAUSE_S: Final = 5.0
# At most one message to other workers in this time, the first at once.
NOTIFY_PAUSE_S: Final = 0.005

_logger = logging.getLogger(__name__)


class Finisher:
    """Takes decided runs and sees that their reports are recorded."""

    def __init__(
        self,
        settings: Settings,
        runs: Runs,
        lanes: Lanes,
        keeper: LeaseKeeper,
        tally: TallySheet,
        vacancies: Vacancies,
        batch_ends: BatchEnds,
        logs: TaskLogs,
        *,
        on_rearmed: Callable[[LaneKey, int], None],
        on_room: Callable[[], None],
    ) -> None:
        """Describe the finisher; `run` does the work.

        Args:
            settings: Tell where PostgreSQL is.
            runs: Statements that record.
            lanes: Statements that notify.
            keeper: Holds the leases until they are ended.
            tally: Counts what happened per queue.
            vacancies: Gives away what ended runs leave free.
            batch_ends: Completes batches of which they were the last.
            logs: Stores what a handler logged before its outcome.
            on_rearmed: Called with the lane and the due time of each run that waits again.
            on_room: Called after each batch.
        """
        self._connection = HotConnection(settings)
        self._server = Server(settings.schema)
        self._runs = runs
        self._lanes = lanes
        self._keeper = keeper
        self._tally = tally
        self._vacancies = vacancies
        self._batch_ends = batch_ends
        self._logs = logs
        self._on_rearmed = on_rearmed
        self._on_room = on_room
        self._pending: list[Run] = []
        self._unlogged = 0
        self._under_way: list[Run] = []
        self._locked: list[Run] = []
        self._locked_at = 0.0
        self._dayless: list[Run] = []
        self._dayless_at = 0.0
        self._words: dict[LaneKey, int] = {}
        self._notified_at = 0.0
        self._wanted = asyncio.Event()
        self._done = asyncio.Event()
        self._done.set()

    def report(self, run: Run) -> None:
        """Take over a run whose `report` is set; what it logged is stored first."""
        if run.journal is None:
            # While some are pending the loop does not wait; to wake it for each of them cost 0.1 us.
            if not self._pending:
                self._wanted.set()
            self._pending.append(run)
        else:
            self._unlogged += 1
            self._logs.close(run, lambda: self._logged(run))

    def _logged(self, run: Run) -> None:
        self._unlogged -= 1
        self._pending.append(run)
        self._wanted.set()

    def recorded(self, run: Run) -> None:
        """Take note of a run whose report its handler's own transaction has recorded."""
        self._keeper.forget([run])
        self._tally.count([run], {})
        self._vacancies.leave([run])
        self._batch_ends.leave([run])
        self._wanted.set()

    def backlog(self) -> int:
        """Return how many reports are not recorded yet."""
        return self._unlogged + len(self._pending) + len(self._under_way) + len(self._locked) + len(self._dayless)

    async def flush(self) -> None:
        """Wait until everything reported so far, and meanwhile, is recorded."""
        while self.backlog():
            self._done.clear()
            await self._done.wait()

    async def run(self, stop: asyncio.Event) -> None:
        """Record until `stop` is set, which must not be before `flush` has returned, or reports are lost.

        Raises:
            Stopped: `stop` was set while PostgreSQL was away.
        """
        stopping = asyncio.ensure_future(stop.wait())
        stopping.add_done_callback(lambda _: self._wanted.set())
        try:
            while not stop.is_set():
                await self._wait_wanted()
                # A batch that a crash of this loop left behind goes first.
                if not self._under_way:
                    self._under_way, self._pending = self._pending[:BATCH_MAX], self._pending[BATCH_MAX:]
                if self._under_way:
                    await retry_forever(self._record, "finish", stop)
                    self._under_way = []
                    self._done.set()
                    self._on_room()
                if self._vacancies:
                    await retry_forever(self._give_vacancies, "finish", stop)
                if self._batch_ends:
                    await retry_forever(self._complete_batches, "finish", stop)
                if self._locked and time.monotonic() >= self._locked_at:
                    await retry_forever(self._look_at_locked, "finish", stop)
                if self._dayless and time.monotonic() >= self._dayless_at:
                    self._pending, self._dayless = self._pending + self._dayless, []
                if self._words and time.monotonic() >= self._notified_at + NOTIFY_PAUSE_S:
                    await self._notify()
                if time.monotonic() >= self._tally.due_at:
                    await self._write_tally()
            # What was counted in a minute that is not over would be lost.
            await self._write_tally()
        finally:
            stopping.cancel()
            await self._connection.drop()

    async def _wait_wanted(self) -> None:
        if self._pending or self._under_way or self._vacancies:
            # Let handlers run: the batch is what they have done meanwhile. What a handler's own transaction has
            # recorded left its place while this loop was at something else, and comes in no batch.
            await asyncio.sleep(0)
            return
        self._wanted.clear()
        timeout_s = self._tally.due_at - time.monotonic()
        if self._locked:
            timeout_s = min(timeout_s, self._locked_at - time.monotonic())
        if self._dayless:
            timeout_s = min(timeout_s, self._dayless_at - time.monotonic())
        if self._words:
            timeout_s = self._notified_at + NOTIFY_PAUSE_S - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._wanted.wait()
        except TimeoutError:
            pass

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        async with self._connection.use() as conn:
            if self._connection.is_new:
                await self._server.limit_session(conn, statement_timeout_s=0, lock_timeout_s=LOCK_S_MAX)
            yield conn

    async def _record(self) -> None:
        batch = self._under_way
        async with self._connected() as conn:
            begun = time.monotonic()
            recorded = await record(conn, self._runs, [run.report for run in batch])
        metrics.FINISH_SECONDS.observe_many([time.monotonic() - begun])
        self._settle(batch, recorded)

    def _settle(self, batch: list[Run], recorded: Recorded) -> None:
        """Let go of the leases, count, and tell what did not go as reported."""
        if recorded.locked:
            self._locked_at = time.monotonic() + LOCKED_PAUSE_S
            batch = self._set_aside(batch, set(recorded.locked), self._locked, "reports_wait_for_locks")
        if recorded.dayless:
            self._dayless_at = time.monotonic() + DAYLESS_PAUSE_S
            batch = self._set_aside(batch, set(recorded.dayless), self._dayless, "reports_wait_for_partition")
        self._keeper.forget(batch)
        metrics.FINISH_BATCH_RUNS.observe_many([len(batch)])
        verdicts = {each.key: each for each in recorded.rearmed}
        odd = {key for part in (recorded.refused, recorded.unrecorded, recorded.already) for key, _ in part}
        # What waits for its callback has no outcome to be counted.
        uncounted = odd | {each.key for each in recorded.rearmed if each.verdict == "awaiting"}
        self._tally.count([run for run in batch if run.key not in uncounted] if uncounted else batch, verdicts)
        self._vacancies.leave(batch)
        self._batch_ends.leave(batch)
        for each in recorded.rearmed:
            if each.run_at is not None:
                self._tell(LaneKey(each.queue_id, each.priority), each.run_at)
        by_key = {run.key: run for run in batch} if odd or recorded.replaced else {}
        for key, outcome in recorded.refused:
            self._refused(by_key[key], outcome)
        for key, reason in recorded.replaced:
            self._log(by_key[key], "result_not_storable", reason=reason)
        for task_id, reason in recorded.unfollowed:
            _logger.warning(
                "follow_up_refused", extra={"fields": {"task_id": str(UUID(bytes=task_id)), "reason": reason}}
            )
        for key, reason in recorded.unrecorded:
            self._log(by_key[key], "report_not_recorded", reason=reason)

    def _set_aside(self, batch: list[Run], keys: set[LeaseKey], place: list[Run], event: str) -> list[Run]:
        """Keep in `place` what cannot be recorded now; return the rest."""
        aside = [run for run in batch if run.key in keys]
        place += aside
        self._log(aside[0], event, count=len(aside))
        return [run for run in batch if run.key not in keys]

    async def _look_at_locked(self) -> None:
        """Report again what is locked no longer."""
        async with self._connected() as conn:
            locked = set(await self._runs.find_locked(conn, [run.key for run in self._locked]))
        self._pending += [run for run in self._locked if run.key not in locked]
        self._locked = [run for run in self._locked if run.key in locked]
        self._locked_at = time.monotonic() + LOCKED_PAUSE_S

    async def _give_vacancies(self) -> None:
        async with self._connected() as conn:
            lanes = await self._vacancies.give(conn)
        for lane, run_at in lanes:
            self._tell(lane, run_at)

    async def _complete_batches(self) -> None:
        async with self._connected() as conn:
            await self._batch_ends.complete(conn)

    def _tell(self, lane: LaneKey, run_at: int) -> None:
        self._on_rearmed(lane, run_at)
        self._words[lane] = min(run_at, self._words.get(lane, run_at))

    def _refused(self, run: Run, outcome: str | None) -> None:
        if run.is_in_doubt and outcome == "succeeded":
            return  # The transaction whose end was not known has committed.
        metrics.STALE_REPORTS.inc()
        run.stage = Stage.GONE
        self._log(run, "late_report_refused", outcome=run.report.outcome, recorded=outcome)

    def _log(self, run: Run, event: str, **fields: object) -> None:
        about = {"task_id": str(UUID(bytes=run.task_id)), "run": run.claim_no, "attempt": run.attempt}
        _logger.warning(event, extra={"fields": {**about, **fields}})

    async def _notify(self) -> None:
        words = [LaneReady(lane.queue_id, lane.priority, unix_us(run_at)) for lane, run_at in self._words.items()]
        self._words = {}
        self._notified_at = time.monotonic()
        try:
            async with self._connected() as conn:
                await self._lanes.notify(conn, words)
        except DatabaseUnavailable:
            _logger.info("wake_ups_lost")  # Polls find what nobody was told of.

    async def _write_tally(self) -> None:
        try:
            async with self._connected() as conn:
                await self._tally.write(conn)
        except DatabaseUnavailable as reason:
            _logger.info("tally_delayed", extra={"fields": {"reason": str(reason)}})
