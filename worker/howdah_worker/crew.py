"""Those who perform runs off the event loop, threads or child processes, with what waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from howdah_worker.prefetch import Prefetch
from howdah_worker.waiting import Waiting

if TYPE_CHECKING:
    from howdah_worker.run import Run


class Hands(Protocol):
    """Threads, or child processes."""

    @property
    def free(self) -> int:
        """How many runs may be given."""

    def give(self, run: Run) -> None:
        """Have a run performed; somebody must be free."""


class Crew:
    """Hands, how many runs to claim for them, and those that are claimed."""

    def __init__(self, hands: Hands, count: int) -> None:
        """Plan for `count` runs at once."""
        self.hands = hands
        self.plan = Prefetch(count)
        self.waiting = Waiting()

    def want(self, free: int) -> int:
        """Return how many runs to claim now, if the worker has `free` slots."""
        return self.plan.want(min(free, self.hands.free), self.waiting.count)
