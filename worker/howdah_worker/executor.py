"""Runs what was claimed: on the event loop, in threads, in child processes.

Async handlers and callbacks run on the event loop, plain functions in threads, isolated
handlers in child processes. At most `concurrency` runs are under way, at most `threads` of them in threads and
`processes` in child processes; what was claimed ahead waits here in order. The outcome
of each goes to the finisher. A handler that must stop is told (`ctx.cancelled`); one on
the event loop is then cancelled, one in a child process killed with it; one in a thread
cannot be: its outcome is recorded all the same, and it keeps its slot until it returns.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from typing import TYPE_CHECKING, Any, Final

from howdah.core import metrics
from howdah_worker import outcome
from howdah_worker.crew import Crew
from howdah_worker.handler_threads import HandlerThreads
from howdah_worker.judgement import judge, judge_taskless
from howdah_worker.performer import Performer
from howdah_worker.place import LOOP, PROCESSES, THREADS, Place
from howdah_worker.prefetch import Prefetch
from howdah_worker.run import REPORTED, RUNNING, WAITING, Run, Stage, Stop
from howdah_worker.starters import Starters
from howdah_worker.suspects import Suspects, is_suspect, put_off
from howdah_worker.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from howdah.core.model import CancelMode
    from howdah_worker.catalogue import Catalogue
    from howdah_worker.delivery import Delivery
    from howdah_worker.finisher import Finisher
    from howdah_worker.isolation.children import Children
    from howdah_worker.lease_keeper import LeaseKeeper
    from howdah_worker.outcome import Ending
    from howdah_worker.run_context import Surroundings
    from howdah_worker.task_logs import TaskLogs

# A handler that is cancelled gets this long to clean up before its outcome is recorded without it.
CLEANUP_S: Final = 5.0
# A soft cancel that a handler ignores for so long becomes a hard one.
SOFT_CANCEL_S: Final = 30.0
# A callback ends by its own timeout; this is for one that does not.
_CALLBACK_SLACK_S: Final = 1.0
# A run that waited for a slot for so long was claimed too early: another worker may be idle.
_WAIT_S_MAX: Final = 1.0
# Outcomes that wait to be recorded; with more, PostgreSQL is the bottleneck and more claims would not help.
_BACKLOG_MAX: Final = 2_000

_logger = logging.getLogger(__name__)


class Executor:
    """Holds the runs of this worker from their claim to their outcome."""

    def __init__(
        self,
        *,
        concurrency: int,
        threads: int,
        children: Children,
        catalogue: Catalogue,
        around: Surroundings,
        logs: TaskLogs,
        finisher: Finisher,
        keeper: LeaseKeeper,
        delivery: Delivery,
        on_room: Callable[[], None],
    ) -> None:
        """Make an executor on the running event loop.

        Args:
            concurrency: Runs under way at once.
            threads: How many of them may be plain functions.
            children: Perform those that are isolated.
            catalogue: Knows the handlers.
            around: What contexts are made of.
            logs: Stores what isolated handlers say of their tasks.
            finisher: Takes the outcomes.
            keeper: Keeps the leases.
            delivery: Runs HTTP targets.
            on_room: Called when more runs could be claimed.
        """
        self._loop = asyncio.get_running_loop()
        self._catalogue = catalogue
        self._finisher = finisher
        self._keeper = keeper
        self._on_room = on_room
        # A context that no handler sees: what one sets must not be seen by another.
        performer = Performer(around, delivery, contextvars.copy_context())
        self._threads = HandlerThreads(threads, self._loop, performer.perform, self._end_threads)
        children.employ(catalogue, around.clock, logs=logs, on_ended=self._end_child, on_recorded=finisher.recorded)
        self._concurrency = self._free = concurrency
        self._for_loop = Waiting()
        self._loop_plan = Prefetch(concurrency)
        self._crews = {
            THREADS: Crew(self._threads, min(threads, concurrency)),
            PROCESSES: Crew(children, min(children.free, concurrency)),
        }
        # False if nothing waits for a crew: to ask each of them before each run of the event loop cost 0.1 us.
        self._crews_wait = False
        self._starters = Starters(
            performer,
            self._loop_plan,
            take=self._take,
            on_waiting=self._go_on_without,
            end=self._end,
            on_room=self._refill,
        )
        self.suspects = Suspects()
        """Runs that are executed alone: while there are any, nothing else is claimed or started."""
        self._taskless: set[Run] = set()
        self._running: dict[Run, None] = {}
        self._check_at = math.inf
        self._check_timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    # What the claimer asks and gives.

    def want(self, place: Place) -> int:
        """Return how many runs to claim now for a place; 0 for none."""
        if self._takes_no_more():
            return 0
        if place is LOOP:
            return self._loop_plan.want(self._free, self._for_loop.count)
        return self._crews[place].want(self._free)

    def want_beside(self, place: Place) -> int:
        """Return how many runs of tenants that have none waiting may be claimed although `want` says none.

        As many as there are slots, if these are soon free: with long runs they would wait here while another worker
        is idle.
        """
        plan, waiting = self._plan(place), self._waiting(place)
        if self._takes_no_more():
            return 0
        return max(0, plan.ahead() + plan.slots - waiting.count) if plan.ahead() else 0

    def _takes_no_more(self) -> bool:
        return self._is_closed or self._finisher.backlog() > _BACKLOG_MAX or self.suspects.are_left()

    def has_waiting(self, place: Place, tenant_id: int) -> bool:
        """Tell whether runs of a tenant wait for a slot in a place."""
        return self._waiting(place).has_tenant(tenant_id)

    def accept(self, rows: Sequence[tuple[Any, ...]], token: bytes, claimed_at: float, place: Place) -> None:
        """Take over claimed runs; as many as there are slots are started in the next turn of the event loop.

        Args:
            rows: Of run/claim.
            token: Their lease token.
            claimed_at: Monotonic instant before the claim was sent.
            place: Where they are performed.
        """
        runs = [Run(row, token, claimed_at, self._catalogue) for row in rows]
        self._keeper.hold(runs)
        self._idle.clear()
        if suspects := {run for run in runs if run.crashes and run.has_task and is_suspect(run, place)}:
            for run in suspects:
                self.suspects.add(run, place)
            runs = [run for run in runs if run not in suspects]
        self._await_slots([run for run in runs if run.has_task], place)
        for run in [run for run in runs if not run.has_task]:
            self._taskless.add(run)
            wait_s, ending = judge_taskless(run)
            self._loop.call_later(wait_s, self._hand_back, run, ending)
        if self._is_closed:
            self.hand_back_waiting()
        elif self.suspects.are_left():
            self._hand_back_ordinary()
        # Not here: the next claim should be on its way first, and a handler that blocks must not do it in a claim.
        self._loop.call_soon(self._fill)

    def next_suspect(self) -> Run | None:
        """Return a run that may begin to be executed alone: nothing else is under way, and no other lease is held."""
        if self._free < self._concurrency or self._finisher.backlog():
            return None
        return self.suspects.next(self._keeper.holds())

    def start_suspect(self, run: Run) -> None:
        """Start what `next_suspect` returned, unless it was cancelled, handed back or lost meanwhile."""
        place = self.suspects.begin(run)
        if place is not None:
            metrics.RUNS_ALONE.inc()
            _logger.warning("run_alone", extra={"fields": {**run.log_fields(), "crashes": run.crashes}})
            self._await_slots([run], place)
            self._fill()

    def _await_slots(self, runs: list[Run], place: Place) -> None:
        self._waiting(place).extend(runs)
        self._crews_wait |= place is not LOOP

    # What the keeper and the drain tell.

    def cancel(self, run: Run, mode: CancelMode) -> None:
        """Cancel a run by request: one that waits ends at once, a handler is told, and stopped if it is hard."""
        if run.stage is WAITING:
            self._hand_back(run)
        elif run.stage is RUNNING and run.stop is None:
            if mode == "hard":
                self._stop(run, Stop.CANCEL)
            elif not run.is_told:
                run.tell()
                self._loop.call_later(SOFT_CANCEL_S, self.cancel, run, "hard")

    def lose(self, run: Run) -> None:
        """Stop a run whose lease is no longer held; nothing is reported."""
        if run.stage in (REPORTED, Stage.GONE) or run.is_in_doubt:
            return  # Its outcome, which has just been recorded, is why the lease is gone.
        metrics.LEASES_LOST.inc()
        _logger.warning("lease_lost", extra={"fields": run.log_fields()})
        self._keeper.forget([run])
        if run.stage is WAITING:
            run.stage = Stage.GONE
        else:
            self._stop(run, Stop.LOST)

    def fence(self, run: Run) -> None:
        """Stop a run whose lease could not be renewed and is about to end."""
        if run.stage is WAITING:
            self._hand_back(run)
        elif run.stage is RUNNING and run.stop is None and not run.is_fenced:
            run.is_fenced = True
            _logger.warning("lease_not_renewed", extra={"fields": run.log_fields()})
            self._stop(run, Stop.FENCE)

    def abandon(self, runs: Sequence[Run]) -> None:
        """Stop handlers whose runs the keeper has ended while the event loop was blocked."""
        for run in runs:
            if run.task is not None:
                run.tell()
                run.task.cancel()

    def close(self) -> None:
        """Take no more runs, and hand back those that have not started."""
        self._is_closed = True
        self.hand_back_waiting()

    def hand_back_waiting(self) -> None:
        """Release everything that has not started."""
        self._hand_back_ordinary()
        for run in self.suspects.pop_all():
            self._hand_back(run)
        self._check_idle()

    def _hand_back_ordinary(self) -> None:
        """Release everything that waits for a slot."""
        for waiting, _ in self._queues():
            for run in waiting.pop_all():
                self._hand_back(run)
        for run in list(self._taskless):
            self._hand_back(run)

    def stop_running(self) -> None:
        """Cancel every handler and release its run, because the process ends."""
        for run in list(self._running):
            if run.stage is RUNNING:
                self._stop(run, Stop.DRAIN)

    def give_up_running(self) -> None:
        """Report every run that has no outcome yet, without waiting for its handler any longer."""
        for run in list(self._running):
            if run.stage is RUNNING and not run.is_overdue:
                self._give_up(run)

    def end(self) -> None:
        """Let the threads end that have nothing to do; nothing can be started after that."""
        self._threads.end()

    def running_count(self) -> int:
        """Return how many runs have an outcome yet to come."""
        return sum(run.stage is RUNNING for run in self._running)

    async def until_idle(self) -> None:
        """Wait until no run has an outcome yet to come; handlers that outlive their outcome do not count."""
        await self._idle.wait()

    def look_after(self, now: float) -> None:
        """Hand back what has waited too long for a slot; called a few times a second."""
        if self.suspects.are_left():
            # Nothing else waits. One that could not begin because its row was locked for a moment can now.
            for run in self.suspects.pop_late(now):
                self._hand_back(run, put_off(run))
            self._on_room()
        else:
            for waiting, plan in self._queues():
                for run in waiting.pop_older(now - _WAIT_S_MAX):
                    plan.forget()
                    self._hand_back(run)
        metrics.RUNS_RUNNING.set(len(self._running))

    def _waiting(self, place: Place) -> Waiting:
        return self._for_loop if place is LOOP else self._crews[place].waiting

    def _plan(self, place: Place) -> Prefetch:
        return self._loop_plan if place is LOOP else self._crews[place].plan

    def _queues(self) -> list[tuple[Waiting, Prefetch]]:
        """Return what waits, and the plan that had it claimed."""
        return [(self._for_loop, self._loop_plan), *((each.waiting, each.plan) for each in self._crews.values())]

    # Starting.

    def _fill(self) -> None:
        """Start what a crew performs, and see that what waits for the event loop is started, while slots are free."""
        if self._crews_wait:
            self._start_crews()
        self._starters.need(min(self._free, self._for_loop.count))

    def _refill(self) -> None:
        """Start what waits for slots that are free again, and let more be claimed."""
        self._fill()
        self._on_room()

    def _start_crews(self) -> None:
        for crew in self._crews.values():
            self._start_crew(crew)
        self._crews_wait = any(crew.waiting.count for crew in self._crews.values())

    def _start_crew(self, crew: Crew) -> None:
        """Have performed what was claimed before the first run that waits for the event loop."""
        loop_first = self._for_loop.next_at()
        while self._free and crew.hands.free and crew.waiting.count:
            if crew.waiting.next_at() > loop_first:
                return
            run = crew.waiting.pop()
            if self._start(run):
                self._watch(run)
                crew.hands.give(run)

    def _take(self) -> Run | None:
        """Start the run that is next for the event loop, if there is a slot for it: its handler is to be called."""
        while True:
            if self._crews_wait:
                self._start_crews()
            if not self._for_loop.count or not self._free:
                return None
            run = self._for_loop.pop()
            if self._start(run):
                return run

    def _go_on_without(self, run: Run) -> None:
        """See that others are started while the handler of this run waits."""
        self._watch(run)
        self._fill()

    def _start(self, run: Run) -> bool:
        """Give a slot to a run, if it is still to be run."""
        if run.stage is not WAITING:
            return False
        run.handler = handler = self._catalogue.handler(run.target_id)
        if handler is not None:
            if handler.timeout_s is not None and handler.timeout_s < run.timeout_s:
                run.timeout_s = handler.timeout_s
            limit_s = run.timeout_s
        elif run.http is not None:
            limit_s = run.timeout_s + _CALLBACK_SLACK_S
        else:
            self._hand_back(run)  # The target vanished between claim and start.
            return False
        self._free -= 1
        run.started_at = time.monotonic()
        run.deadline = run.started_at + limit_s
        run.stage = RUNNING
        return True

    def _watch(self, run: Run) -> None:
        """Enter a run that has begun, and will end later."""
        self._running[run] = None
        if run.deadline < self._check_at:
            self._check_by(run.deadline)

    # Ending.

    def _end_threads(self, ended: Sequence[tuple[Run, Ending]]) -> None:
        total_s = sum(self._end(run, ending, False) for run, ending in ended)
        self._crews[THREADS].plan.observe(len(ended), total_s)
        self._refill()

    def _end_child(self, run: Run, ending: Ending, is_interrupted: bool) -> None:
        self._crews[PROCESSES].plan.observe(1, self._end(run, ending, is_interrupted))
        self._refill()

    def _end(self, run: Run, ending: Ending, is_interrupted: bool) -> float:
        """Take the outcome of a handler that has ended, and free its slot; returns how long it took."""
        self._running.pop(run, None)  # It is not there if it never waited.
        run.task = None
        self._free += 1
        duration_s = time.monotonic() - run.started_at
        if run.stage is RUNNING:
            is_plain = run.stop is None and not run.has_seen
            self._report(run, ending if is_plain else judge(run, ending, is_interrupted), duration_s)
        elif run.is_overdue:
            metrics.SLOTS_OVERDUE.dec()
            _logger.warning("handler_returned_late", extra={"fields": {**run.log_fields(), "took_s": duration_s}})
        elif run.stage is REPORTED and ending.error is not None:
            # `ctx.transaction()` has recorded the success: this line is all that will be known of the error.
            fields = {**run.log_fields(), "error": ending.error.decode()}
            _logger.warning("handler_failed_after_success", extra={"fields": fields})
        if self._is_closed:
            self._check_idle()
        return duration_s

    def _report(self, run: Run, ending: Ending | None, duration_s: float | None) -> None:
        if ending is None:
            run.stage = Stage.GONE
        else:
            run.stage = REPORTED
            run.report = run.report_of(ending, duration_s)
            self._finisher.report(run)
        if self._is_closed:
            self._check_idle()

    def _hand_back(self, run: Run, ending: Ending = outcome.RELEASED) -> None:
        self._taskless.discard(run)
        if run.stage is WAITING:
            self._report(run, ending, None)

    def _check_idle(self) -> None:
        if any(waiting.count for waiting, _ in self._queues()):
            return
        if not any(run.stage is RUNNING for run in self._running):
            self._idle.set()

    # Stopping.

    def _stop(self, run: Run, reason: Stop) -> None:
        """Make a handler stop; it has `CLEANUP_S` to do so if it is on the event loop, a child process `GRACE_S`."""
        run.tell()
        if run.task is not None:
            run.stop = reason
            run.task.cancel()
            run.deadline = time.monotonic() + CLEANUP_S
            self._check_by(run.deadline)
        elif run.child is not None:
            run.stop = reason
            # Once the lease is another's nothing may go on.
            run.child.stop(at_once=reason in (Stop.LOST, Stop.FENCE))
            run.deadline = time.monotonic() + CLEANUP_S
            self._check_by(run.deadline)
        # A plain function that ends before its lease does may still report.
        elif reason is not Stop.FENCE:
            run.stop = reason
            self._give_up(run)

    def _give_up(self, run: Run) -> None:
        """Do not wait any longer for a handler that does not end; report its run unless that was done."""
        duration_s = time.monotonic() - run.started_at
        run.is_overdue = True
        if run.child is not None:
            run.child.kill()
        metrics.SLOTS_OVERDUE.inc()
        reason = run.stop.value if run.stop is not None else "stop"
        _logger.warning("handler_overdue", extra={"fields": {**run.log_fields(), "reason": reason}})
        if run.stage is RUNNING:
            self._report(run, judge(run, outcome.SUCCEEDED, True), duration_s)

    def _check_by(self, deadline: float) -> None:
        """Look at running handlers at `deadline` at the latest: one timer serves all of them."""
        if deadline < self._check_at:
            self._check_at = deadline
            if self._check_timer is not None:
                self._check_timer.cancel()
            self._check_timer = self._loop.call_later(deadline - time.monotonic(), self._check_deadlines)

    def _check_deadlines(self) -> None:
        self._check_at, self._check_timer = math.inf, None
        now, next_at = time.monotonic(), math.inf
        for run in list(self._running):
            if run.deadline <= now and not run.is_overdue:
                if run.stop is None:
                    self._stop(run, Stop.TIMEOUT)
                else:
                    self._give_up(run)
            if not run.is_overdue:
                next_at = min(next_at, run.deadline)
        if next_at < math.inf:
            self._check_by(next_at)
