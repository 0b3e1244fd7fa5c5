"""Runs that two workers were lost with: each is executed alone.

A worker that dies takes along all that it holds, and the database cannot tell which of
it was to blame. So a run that was there twice is executed with nothing beside it: if
it kills this worker too, it was that run, and if it does not, it was another. Before it
begins, that is written down (`run/begin_alone`); from its claim until then, that it has
not started (`run/set_aside`), so that what another run does to this worker costs it nothing.

It waits until nothing else is held here. Neighbours may take long: it is then handed
back for a while, and waits twice as long the next time, so that it neither keeps a
worker's slots empty at first nor waits for ever.

Callbacks run no code of the user's here, and isolated handlers take their own process
along: neither is a suspect.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Final

from howdah.core.failures import error_text
from howdah.core.model import SUSPECT_CRASHES
from howdah.core.store.runs import Suspect
from howdah_worker.outcome import Ending
from howdah_worker.place import PROCESSES, Place
from howdah_worker.run import RUNNING, WAITING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from howdah_worker.run import Run

# How long a suspect waits, the first time; each claim that was handed back doubles it. An hour is longer than most
# handlers may take, so that it comes to its turn beside such as well.
WAIT_S: Final = 10.0
WAIT_S_MAX: Final = 3_600.0
_DOUBLINGS_MAX: Final = 9
# For how long it is handed back at most; meanwhile this worker does its ordinary work, and another may take it.
PUT_OFF_S_MAX: Final = 60.0


def is_suspect(run: Run, place: Place) -> bool:
    """Tell whether a run is to be executed alone."""
    return run.crashes >= SUSPECT_CRASHES and place is not PROCESSES and run.http is None


def wait_s_max(run: Run) -> float:
    """Return how long a suspect waits to be alone before it is handed back."""
    released = run.claim_no - run.attempt
    return min(WAIT_S * 2.0 ** min(released, _DOUBLINGS_MAX), WAIT_S_MAX)


def put_off(run: Run) -> Ending:
    """Say that a suspect is handed back for a while; that spends no attempt."""
    wait_s = min(wait_s_max(run), PUT_OFF_S_MAX) * random.uniform(0.5, 1.5)
    error = error_text("not_alone", "it is to be executed alone, and this worker had other runs all the time")
    return Ending("released", error=error, retry_in_s=wait_s, is_decided=True)


class Suspects:
    """Those that a worker holds: at most one of them is under way, and then nothing else is."""

    def __init__(self) -> None:
        """Begin with none."""
        self._waiting: deque[tuple[Run, Place]] = deque()
        self._fresh: list[Run] = []
        self._alone: Run | None = None

    def are_left(self) -> bool:
        """Tell whether there is any, so that nothing else may be claimed or started."""
        if self._alone is None and not self._waiting:
            return False
        self._tidy()
        return self._alone is not None or bool(self._waiting)

    def add(self, run: Run, place: Place) -> None:
        """Let a run wait until it can be executed alone."""
        self._waiting.append((run, place))
        self._fresh.append(run)

    def fresh(self) -> list[Suspect]:
        """Return those of which the database does not know yet that they wait."""
        return [Suspect(run.key, run.timeout_s, wait_s_max(run)) for run in self._fresh]

    def set_aside(self, known: Sequence[Suspect]) -> None:
        """Take note that the database knows of these that they wait."""
        keys = {suspect.key for suspect in known}
        self._fresh = [run for run in self._fresh if run.key not in keys]

    def next(self, lease_count: int) -> Run | None:
        """Return the one that may begin, if none is under way; none may while this worker holds other leases.

        Args:
            lease_count: Leases that this worker holds.
        """
        self._tidy()
        if self._alone is not None or lease_count != len(self._waiting):
            return None
        return self._waiting[0][0] if self._waiting else None

    def begin(self, run: Run) -> Place | None:
        """Let a run that `next` returned begin, and return where; None if it was handed back or lost meanwhile."""
        self._tidy()
        if not self._waiting or self._waiting[0][0] is not run:
            return None
        self._alone, place = self._waiting.popleft()
        return place

    def pop_late(self, now: float) -> list[Run]:
        """Take those that have waited for too long."""
        self._tidy()
        late = [run for run, _ in self._waiting if run.claimed_at + wait_s_max(run) <= now]
        self._waiting = deque(each for each in self._waiting if each[0] not in late)
        return late

    def pop_all(self) -> list[Run]:
        """Take all that wait."""
        runs = [run for run, _ in self._waiting]
        self._waiting.clear()
        self._fresh.clear()
        return runs

    def _tidy(self) -> None:
        """Forget those that have ended, or were handed back or lost."""
        self._waiting = deque(each for each in self._waiting if each[0].stage is WAITING)
        self._fresh = [run for run in self._fresh if run.stage is WAITING]
        if self._alone is not None and self._alone.stage not in (WAITING, RUNNING):
            self._alone = None
