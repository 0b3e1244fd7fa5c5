"""Keeps the leases of this worker, on a thread of its own.

A handler that blocks the event loop must not lose its lease, nor those of all
others. So this thread renews them over a blocking connection of its own: it
beats every fifth of a lease and includes a run from a third of its lease on, so
that three beats may fail. What it learns goes to the event loop.

It also watches the event loop. While the loop is blocked nobody there enforces
timeouts, so at a run's timeout the keeper records `timed_out` itself and hands
back what has not started. If the loop does not answer within 5 s more, the rest is
handed back and the process ends with exit code 70, for its supervisor to
start it anew.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from howdah.core import metrics
from howdah.core.backoff import delays
from howdah.core.db.arrays import read_raw
from howdah.core.db.connect import connect_sync
from howdah.core.errors import DatabaseUnavailable
from howdah.core.service import ExitCode, abort
from howdah.core.store.reports import fail_sync
from howdah.core.store.runs import execute_sync
from howdah_worker import outcome
from howdah_worker.connection import ANSWER_S, PROCESS
from howdah_worker.run import Run, Stage

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from howdah.core.settings import Settings
    from howdah.core.store.runs import Runs, SyncConnection
    from howdah.core.store.workers import Workers
    from howdah_worker.executor import Executor

# An event loop that needs longer for one step is blocked; garbage collection and large
# results stay far below.
_BLOCKED_S: Final = 1.0
# From the timeout of a run under a blocked loop to the end of the process.
STUCK_S: Final = 5.0
# How often the loop and the timeouts are looked at while runs are held.
_LOOK_S: Final = 0.25
# However long leases are, a worker shows itself, and hears of cancels, so often.
_BEAT_S_MAX: Final = 10.0
# Hundreds of rows are renewed in a few milliseconds.
_BEAT_RUNS_MAX: Final = 2_000

_logger = logging.getLogger(__name__)


class LeaseKeeper:
    """Renews leases, tells the executor what became of them, and steps in when the event loop is blocked."""

    def __init__(
        self,
        settings: Settings,
        runs: Runs,
        workers: Workers,
        worker_id: int,
        worker_name: str,
        loop: asyncio.AbstractEventLoop,
        *,
        on_forgotten: Callable[[], None],
    ) -> None:
        """Describe the keeper; `start` begins.

        Args:
            settings: Tell where PostgreSQL is, and how long leases last.
            runs: Statements on runs.
            workers: Statements on this worker's row.
            worker_id: Of this worker.
            worker_name: What it registered as.
            loop: The event loop to watch and to tell.
            on_forgotten: Called on the event loop once the database does not know this worker any more.
        """
        self._settings = settings
        self._lease_s = settings.lease_s
        self._runs = runs
        self._workers = workers
        self._worker_id = worker_id
        self._worker_name = worker_name
        self._loop = loop
        self._on_forgotten = on_forgotten
        self._is_forgotten = False
        self._executor: Executor | None = None
        self._held: dict[Run, None] = {}
        self._conn: SyncConnection | None = None
        self._retry_at = 0.0
        self._waits: Iterator[float] = delays()
        self._beat_now = threading.Event()
        self._has_ended = False
        self._is_stopping = False
        self._good_at = time.monotonic()
        self._looked_at = 0.0
        self._asked_at: float | None = None
        self._stuck_since: float | None = None
        self._thread = threading.Thread(target=self._work, name="howdah-keeper", daemon=True)

    # Called on the event loop.

    def start(self, executor: Executor) -> None:
        """Begin, and tell `executor` what becomes of leases."""
        self._executor = executor
        self._thread.start()

    def hold(self, runs: Iterable[Run]) -> None:
        """Keep the leases of these runs from now on."""
        self._held.update(dict.fromkeys(runs))

    def forget(self, runs: Iterable[Run]) -> None:
        """Keep the leases of these runs no longer."""
        for run in runs:
            self._held.pop(run, None)

    def beat(self) -> None:
        """Beat at once: a cancel waits to be heard."""
        self._beat_now.set()

    def drain(self) -> None:
        """Show this worker as stopping from now on."""
        self._is_stopping = True
        self._beat_now.set()

    def end(self) -> None:
        """End the thread, and wait for it a moment."""
        self._has_ended = True
        self._beat_now.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1.0)

    def ending_leases(self, now: float) -> list[Run]:
        """Return the runs whose lease ends soon unless it is renewed: four fifths of it are over."""
        limit = now - self._lease_s * 0.8
        return [run for run in list(self._held) if run.renewed_at < limit]

    def fault(self) -> str | None:
        """Say that no beat succeeded for a whole lease, or in vain, for a readiness check; None if all is well."""
        if self._is_forgotten:
            return "the database does not know this worker any more"
        silent_s = time.monotonic() - self._good_at
        return f"no heartbeat for {silent_s:.0f} s" if silent_s > self._lease_s else None

    def holds(self) -> int:
        """Return how many leases are kept."""
        return len(self._held)

    # The thread.

    def _work(self) -> None:
        interval_s = min(self._lease_s / 5, _BEAT_S_MAX)
        beat_at = time.monotonic()
        while not self._has_ended:
            is_urgent = self._beat_now.is_set()
            self._beat_now.clear()
            now = time.monotonic()
            if is_urgent or now >= beat_at:
                beat_at = now + interval_s
                self._attempt(is_urgent)
            # Once the keeper has stepped in there may be nothing left to hold.
            is_watching = bool(self._held) or self._stuck_since is not None
            if is_watching:
                self._watch_loop()
            wait_s = beat_at - time.monotonic()
            self._beat_now.wait(max(0.0, min(wait_s, _LOOK_S) if is_watching else wait_s))
        if self._conn is not None:
            self._conn.close()

    def _attempt(self, is_urgent: bool) -> None:
        """Beat, unless PostgreSQL was away a moment ago; failures are counted and repeated by the next beat."""
        if time.monotonic() < self._retry_at:
            return
        try:
            conn = self._connection()
            self._beat_runs(conn, is_urgent)
            self._show(conn)
        except DatabaseUnavailable as reason:
            metrics.HEARTBEAT_FAILURES.inc()
            _logger.warning("heartbeat_failed", extra={"fields": {"reason": str(reason)}})
            self._disconnect()
            self._retry_at = time.monotonic() + min(next(self._waits), self._lease_s / 5)
            return
        except Exception:
            metrics.HEARTBEAT_FAILURES.inc()
            _logger.exception("heartbeat_crashed")
            self._disconnect()
            return
        self._waits = delays()
        self._good_at = time.monotonic()

    def _show(self, conn: SyncConnection) -> None:
        """Show this worker as live; without its row, targets that only it serves would be parked in silence."""
        if self._is_forgotten:
            return
        if not self._workers.heartbeat(conn, self._worker_id, self._worker_name, is_stopping=self._is_stopping):
            self._is_forgotten = True
            _logger.error("worker_forgotten", extra={"fields": {"worker_id": self._worker_id}})
            self._loop.call_soon_threadsafe(self._on_forgotten)

    def _beat_runs(self, conn: SyncConnection, is_urgent: bool) -> None:
        """Renew the leases that are a third over, or all of them if a cancel waits."""
        oldest = time.monotonic() - (0 if is_urgent else min(self._lease_s / 3, _BEAT_S_MAX))
        due = [run for run in list(self._held) if run.renewed_at <= oldest]
        for at in range(0, len(due), _BEAT_RUNS_MAX):
            part = {run.key: run for run in due[at : at + _BEAT_RUNS_MAX]}
            sent_at = time.monotonic()
            beats = self._runs.heartbeat(conn, list(part), self._lease_s)
            told: list[tuple[Run, str]] = []
            for beat in beats:
                run = part[beat.key]
                if beat.verdict == "held":
                    run.renewed_at = sent_at
                    if beat.cancel_mode is not None:
                        told.append((run, beat.cancel_mode))
                elif beat.verdict == "lost":
                    told.append((run, "lost"))
            if told:
                self._loop.call_soon_threadsafe(self._tell, told)

    def _tell(self, told: Sequence[tuple[Run, str]]) -> None:
        """Pass on, on the event loop, what the beat said."""
        assert self._executor is not None
        for run, what in told:
            if what == "lost":
                self._executor.lose(run)
            elif what == "hard":
                self._executor.cancel(run, "hard")
            else:
                self._executor.cancel(run, "soft")

    def _connection(self) -> SyncConnection:
        if self._conn is None or self._conn.closed:
            self._conn = connect_sync(self._settings, PROCESS, purpose="hot", answer_s=min(self._lease_s / 2, ANSWER_S))
            read_raw(self._conn)
        return self._conn

    def _disconnect(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    # Watching the event loop.

    def _watch_loop(self) -> None:
        """Ask the loop for an answer, and act if it owes one at the timeout of a run."""
        now = time.monotonic()
        was_away = now - self._looked_at > _LOOK_S + _BLOCKED_S
        self._looked_at = now
        if self._asked_at is None or was_away:
            # If this thread was not there to look (the whole process was stopped, or
            # PostgreSQL kept it waiting), what the loop did meanwhile says nothing.
            self._asked_at = now
            self._loop.call_soon_threadsafe(self._answer)
            return
        if now - self._asked_at < _BLOCKED_S:
            return
        held = list(self._held)
        overdue = [run for run in held if run.stage is Stage.RUNNING and run.deadline <= now]
        if overdue:
            self._step_in(overdue)
        if self._stuck_since is not None and now - self._stuck_since >= STUCK_S:
            self._hand_back(run for run in held if run.stage is Stage.RUNNING)
            abort(ExitCode.LOOP_STUCK, "loop_stuck")
        if any(run.renewed_at + self._lease_s <= now for run in held if run.stage is Stage.RUNNING):
            # Nobody can stop these handlers any more, and their runs are another's by now.
            abort(ExitCode.LOOP_STUCK, "loop_stuck_without_lease")

    def _answer(self) -> None:
        """Say, on the event loop, that it is not blocked."""
        self._asked_at = None
        self._stuck_since = None

    def _step_in(self, overdue: Sequence[Run]) -> None:
        """Do what the event loop cannot: end runs that are over their timeout, hand back those not started."""
        if self._stuck_since is None:
            self._stuck_since = time.monotonic()
            _logger.error("loop_blocked", extra={"fields": {"overdue": len(overdue), "held": len(self._held)}})
        now = time.monotonic()
        for run in overdue:
            run.stage = Stage.GONE
            if run.child is not None:
                run.child.kill()
            run.report = run.report_of(outcome.timed_out(run.timeout_s), now - run.started_at)
        reports = [run.report for run in overdue]
        self._end_runs(lambda conn: fail_sync(conn, self._runs, reports))
        self.forget(overdue)
        self._hand_back(run for run in list(self._held) if run.stage is Stage.WAITING)
        assert self._executor is not None
        self._loop.call_soon_threadsafe(self._executor.abandon, list(overdue))

    def _hand_back(self, runs: Iterable[Run]) -> None:
        given = list(runs)
        for run in given:
            run.stage = Stage.GONE
        if given:
            self._end_runs(lambda conn: execute_sync(conn, self._runs.release([run.key for run in given])))
        self.forget(given)

    def _end_runs(self, end: Callable[[SyncConnection], object]) -> None:
        """Record how runs ended; those of which it fails are rescued when their leases have run out."""
        try:
            end(self._connection())
        except Exception as reason:
            # Of whatever kind: this thread keeps all other leases, and must not end with it.
            _logger.error("runs_not_ended", exc_info=reason)
            self._disconnect()
