"""Starts async handlers and callbacks in as few asyncio tasks as can be.

A starter, an asyncio task, starts runs one after another, until the handler of one
waits: from then on it is the task of that run, and another starter goes on. So
handlers that never wait cost no task each, and cannot be seen running: nothing else
happens on the event loop between their start and their end.
"""

from __future__ import annotations

import asyncio
import sys
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from howdah_worker import outcome
from howdah_worker.outcome import Ending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from howdah_worker.performer import Performer
    from howdah_worker.prefetch import Prefetch
    from howdah_worker.run import Run

# Runs that one starter starts before the event loop gets a turn: less than a millisecond of our own work.
_SLICE: Final = 100
# How long their handlers may have worked together when the event loop gets its turn: with more, heartbeats and
# timeouts of all runs would wait for handlers that take 10 ms each and never wait.
_SLICE_S: Final = 0.01


class Starters:
    """Makes starters as they are needed, on the running event loop."""

    def __init__(
        self,
        performer: Performer,
        plan: Prefetch,
        *,
        take: Callable[[], Run | None],
        on_waiting: Callable[[Run], None],
        end: Callable[[Run, Ending, bool], float],
        on_room: Callable[[], None],
    ) -> None:
        """Describe what starters do.

        Args:
            performer: Performs runs.
            plan: Learns how long they took.
            take: Gives the run to be started next, with a slot; None if none waits or no slot is free.
            on_waiting: Called with a run whose handler waits; its `task` is set.
            end: Called with a run that has ended, its ending and whether it was interrupted; returns how long it took.
            on_room: Called when slots are free again.
        """
        self._loop = asyncio.get_running_loop()
        self._performer = performer
        self._plan = plan
        self._take = take
        self._on_waiting = on_waiting
        self._end = end
        self._on_room = on_room
        self._due: set[asyncio.Task[None]] = set()
        # How long starters have worked in this turn of the event loop, and whether some were put off to the next.
        self._turn_s = 0.0
        self._is_put_off = False
        # The handler started last has waited; so will those that follow, most likely, and each needs a starter.
        self._are_waiting = False

    def need(self, count: int) -> None:
        """Make starters for so many runs, or for as many as one turn may start, in the next turn of the event loop."""
        for _ in range(len(self._due), min(count, _SLICE if self._are_waiting else 1)):
            task = self._loop.create_task(self._serve())
            self._due.add(task)
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        """See that another starter is made for one that was cancelled before it began."""
        if task in self._due:
            self._due.remove(task)
            self._on_room()

    async def _serve(self) -> None:
        """Start runs one after another; from the first on whose handler waits, this is the task of that run alone."""
        task = asyncio.current_task()
        assert task is not None
        self._due.remove(task)
        if self._is_turn_over():
            return
        started_at = time.monotonic()
        begun = self._start_until_one_waits(task)
        self._turn_s += time.monotonic() - started_at
        if begun is not None:
            run, rest = begun
            is_interrupted = False
            try:
                ending = self._performer.ending_of(run, await rest)
            except asyncio.CancelledError as error:
                is_interrupted = True
                ending = outcome.of_error(error)
            except GeneratorExit:
                raise  # The event loop is gone.
            except BaseException as error:
                ending = outcome.of_error(error)
            self._plan.observe(1, self._end(run, ending, is_interrupted))
        self._on_room()

    def _is_turn_over(self) -> bool:
        """Tell whether starters have worked for so long that others get their turn first; they go on in the next."""
        if self._turn_s == 0.0:
            self._loop.call_soon(self._begin_turn)
        self._is_put_off |= self._turn_s > _SLICE_S
        return self._is_put_off

    def _begin_turn(self) -> None:
        self._turn_s = 0.0
        if self._is_put_off:
            self._is_put_off = False
            self._on_room()

    def _start_until_one_waits(self, task: asyncio.Task[Any]) -> tuple[Run, Awaitable[Any]] | None:
        """Start runs in `task`; returns the first whose handler waits, with the rest of it, if there is one."""
        holders = _holders(task)
        count, total_s = 0, 0.0
        begun: tuple[Run, Awaitable[Any]] | None = None
        for _ in range(_SLICE):
            run = self._take()
            if run is None:
                break
            ending = self._performer.begin(run)
            if not isinstance(ending, Ending):
                begun = run, ending
                break
            count += 1
            total_s += self._end(run, ending, False)
            if _is_touched(task, holders):
                break  # The handler has cancelled its task, or has kept it to do so: it must not be another's.
            if self._due or total_s > _SLICE_S:
                break  # Each that is due will start one, or their slices would add up to a long turn.
        if count:
            self._plan.observe(count, total_s)
            self._are_waiting = False
        if begun is not None:
            begun[0].task = task
            self._are_waiting = True
            self._on_waiting(begun[0])
        return begun


def _holders(task: asyncio.Task[Any]) -> int:
    """Count what refers to a task: if that grows, somebody has kept it, and may cancel it later."""
    return sys.getrefcount(task) + weakref.getweakrefcount(task)


def _is_touched(task: asyncio.Task[Any], holders: int) -> bool:
    """Tell whether the next wait of a task is to be cancelled, or more refer to it than `_holders` has counted.

    It counts by itself: a call for each run that never waits costs 0.06 us, and as many references as here.
    """
    if sys.getrefcount(task) + weakref.getweakrefcount(task) != holders:
        return True
    # Before Python 3.13, uncancel() does not undo that the next wait is to be cancelled.
    return bool(task.cancelling() or getattr(task, "_must_cancel", False))
