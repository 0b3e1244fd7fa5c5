"""How many runs to claim ahead of free slots. Pure.

With long runs a worker claims only what its free slots take, so that no run
waits in one process while another is idle. With short ones it claims about
100 ms of work ahead, so that slots never wait for a round trip and claims are
large.
"""

from __future__ import annotations

from typing import Final

AHEAD_S: Final = 0.1
# A larger one holds its locks for longer; from 500 to 1,000 is 5 % more runs a second.
BATCH_MAX: Final = 1_000
# Two batches: one is started while the other is claimed.
AHEAD_MAX: Final = 2_000
# Runs that a mean is made of, roughly: few enough to follow a change within one batch.
_MEMORY_RUNS: Final = 200


class Prefetch:
    """Learns how long runs take, and says how many to claim."""

    def __init__(self, slots: int) -> None:
        """Plan for so many runs at once."""
        self.slots = slots
        self._mean_s: float | None = None

    def observe(self, count: int, total_s: float) -> None:
        """Learn that `count` runs took `total_s` seconds together."""
        mean_s = total_s / count
        if self._mean_s is None:
            self._mean_s = mean_s
        else:
            self._mean_s += (mean_s - self._mean_s) * count / (count + _MEMORY_RUNS)

    def forget(self) -> None:
        """Unlearn: the estimate was wrong, and runs waited too long. Claim no more than free slots for now."""
        self._mean_s = None

    def ahead(self) -> int:
        """Return how many runs may wait for a slot."""
        if self._mean_s is None or self._mean_s > AHEAD_S:
            return 0
        # A mean of nothing would be work without end.
        return min(AHEAD_MAX, int(self.slots * AHEAD_S / max(self._mean_s, 1e-6)))

    def want(self, free: int, waiting: int) -> int:
        """Return how many runs to claim now, 0 to `BATCH_MAX`.

        Small claims cost as much as large ones, so while runs are waiting it is
        nothing until half of what may wait is used up.

        Args:
            free: Slots that no run occupies.
            waiting: Runs claimed and not started; they will take free slots first.
        """
        ahead = self.ahead()
        room = free + ahead - waiting
        if room <= 0 or (waiting and room < min(BATCH_MAX, max(1, ahead // 2))):
            return 0
        return min(room, BATCH_MAX)
