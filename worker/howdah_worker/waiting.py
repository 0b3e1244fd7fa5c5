"""Runs that are claimed and wait for a slot: each tenant's in order, tenants in turns. Pure.

A worker with short runs has claimed up to 2,000 ahead, 100 ms of work. If they all are
of one tenant, another's run goes before them.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from howdah_worker.run import Run


class Waiting:
    """A queue of runs that is fair to tenants.

    Attributes:
        count: How many wait. Each run that is started asks for it, and `len` would cost 0.05 us.
    """

    __slots__ = ("_by_tenant", "_turns", "count")

    def __init__(self) -> None:
        """Begin empty."""
        self.count = 0
        self._by_tenant: dict[int, deque[Run]] = {}
        # The same, in the order of their turns; none is empty.
        self._turns: deque[deque[Run]] = deque()

    def has_tenant(self, tenant_id: int) -> bool:
        """Tell whether runs of a tenant wait."""
        return tenant_id in self._by_tenant

    def next_at(self) -> float:
        """Return when the run that is next was claimed; infinity if none waits."""
        return self._turns[0][0].claimed_at if self.count else math.inf

    def extend(self, runs: Iterable[Run]) -> None:
        """Add each run behind those of its tenant; a tenant that had none has its turn now."""
        by_tenant = self._by_tenant
        for run in runs:
            own = by_tenant.get(run.tenant_id)
            if own is None:
                own = by_tenant[run.tenant_id] = deque()
                self._turns.appendleft(own)
            own.append(run)
            self.count += 1

    def pop(self) -> Run:
        """Take the run that is next; its tenant's next turn comes after one of every other tenant."""
        turns = self._turns
        runs = turns[0]
        run = runs.popleft()
        self.count -= 1
        if not runs:
            del self._by_tenant[run.tenant_id]
            turns.popleft()
        elif len(turns) > 1:
            turns.rotate(-1)
        return run

    def pop_older(self, claimed_before: float) -> Iterator[Run]:
        """Take what was claimed earlier than that."""
        for tenant_id, runs in list(self._by_tenant.items()):
            while runs and runs[0].claimed_at < claimed_before:
                self.count -= 1
                yield runs.popleft()
            if not runs:
                del self._by_tenant[tenant_id]
                self._turns.remove(runs)  # None other is empty, so none other is equal.

    def pop_all(self) -> Iterator[Run]:
        """Take everything."""
        while self.count:
            yield self.pop()
