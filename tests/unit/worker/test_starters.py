"""Starters: each run is started once, in turns of the event loop that stay short."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from howdah_worker.outcome import SUCCEEDED, Ending
from howdah_worker.prefetch import Prefetch
from howdah_worker.starters import Starters
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class FakeRun:
    """What starters look at of a run."""

    task: asyncio.Task[Any] | None = None


class Bench:
    """Starters, the runs that wait for them, and what became of those."""

    def __init__(self, count: int, begin: Callable[[], Ending | Awaitable[Any]]) -> None:
        self.waiting = deque(FakeRun() for _ in range(count))
        self.begun = 0
        self.ended = 0
        self._begin = begin
        fake: Any = self
        self.starters = Starters(
            fake, Prefetch(count), take=fake.take, on_waiting=self.fill, end=fake.end, on_room=self.fill
        )

    # The performer's part.

    def begin(self, run: FakeRun) -> Ending | Awaitable[Any]:
        """Take the first step of a run."""
        self.begun += 1
        return self._begin()

    @staticmethod
    def ending_of(run: FakeRun, returned: Any) -> Ending:
        """Every run succeeds."""
        return SUCCEEDED

    # The executor's part.

    def take(self) -> FakeRun | None:
        """Give the next run."""
        return self.waiting.popleft() if self.waiting else None

    def end(self, run: FakeRun, ending: Ending, is_interrupted: bool) -> float:
        """Count a run that has ended."""
        self.ended += 1
        return 0.001

    def fill(self, _: Any = None) -> None:
        """Ask for starters of all that waits."""
        self.starters.need(len(self.waiting))


async def test_handlers_that_work_before_they_wait_leave_others_their_turns() -> None:
    """However many wait to be started, one turn of the event loop starts no more than fit into its slice."""
    turn = 0
    started: Counter[int] = Counter()

    def begin() -> Awaitable[Any]:
        started[turn] += 1
        until = time.monotonic() + 0.006
        while time.monotonic() < until:
            pass
        return asyncio.sleep(0)

    bench = Bench(30, begin)
    bench.fill()
    while bench.ended < 30:
        await asyncio.sleep(0)
        turn += 1

    # Two of 6 ms are more than the slice of 10 ms.
    assert max(started.values()) <= 2


async def test_starter_that_is_cancelled_before_it_begins_is_replaced() -> None:
    """A handler that cancels every task it can find must not keep all later runs from being started."""
    bench = Bench(3, lambda: SUCCEEDED)
    bench.fill()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await eventually_async(lambda: bench.ended == 3, 10, "all runs have ended")

    assert bench.begun == 3
