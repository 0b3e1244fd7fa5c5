"""Parks due runs that no live worker can execute, and releases them when one can.

A run whose handler nobody serves would lie at the head of its lane, and every
claim would walk past it. Parked (`blocked_by` says why), it is out of the way,
spends no attempt, and shows its reason to whoever looks.

Which targets are parked is decided at the start of each round, for all of them;
what follows from it is done in walks over the lanes, about half a second of them
in a round. A target that is served again stands in the chore's state, by
the transaction that decided so, until all lanes were walked and none of its runs
was left behind: after a crash another scheduler goes on.

While PostgreSQL was away, or no scheduler ran, workers may have been unable to
heartbeat: all targets look unserved. So after a gap in these rounds the grace
begins anew, else a backlog would be parked and released again for nothing.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from howdah.core.store.lane_sweeps import START, Lane, LaneSweeps
from howdah.core.store.parked_runs import PAGE_RUNS, ParkedRuns
from howdah.core.wake import LaneReady
from howdah_scheduler.chore import Chore, Pace, Round

if TYPE_CHECKING:
    from collections.abc import Iterable

    from howdah.core.db.connect import Connection
    from howdah.core.store.lane_sweeps import LaneSeen
    from howdah.core.store.maintenance import Held
    from howdah.core.store.parked_runs import TargetSeen, Unparked

INTERVAL_S: Final = 1.0
GRACE_S: Final = 30.0
# An outage that is shorter leaves enough of the grace: a target that is served may have been
# written 10 s before it, and workers need 5 s to come back after it.
GAP_S_MAX: Final = 10.0
ROUND_S: Final = 0.5
# A walk that looks for runs to park rests for so many times as long as it took.
REST: Final = 20
PAGE_LANES: Final = 200

# A worker that is gone may leave thousands; a line in the log names some.
_SHOWN_MAX: Final = 20
_FIRST_ID: Final = UUID(int=0)

_logger = logging.getLogger(__name__)


class Park(Chore):
    """Parks and releases runs by whether a live worker serves their target."""

    name = "park"
    pace = Pace(tick_s=INTERVAL_S, statement_s_max=10.0, lock_s_max=1.0, retry_s_max=30.0)

    def __init__(self, schema: str, grace_s: float = GRACE_S) -> None:
        """Park targets that no live worker has served for `grace_s` seconds."""
        self._grace_s = grace_s
        self._runs = ParkedRuns(schema)
        self._sweeps = LaneSweeps(schema)

    async def work(self, conn: Connection, held: Held) -> Round:
        """Decide which targets are parked, then go on with the walks."""
        walks = _Walks.read(held.state)
        was_away = held.since_good_s is None or held.since_good_s > GAP_S_MAX
        walks.decide(await self._runs.refresh_targets(conn, self._grace_s, was_away=was_away))
        until = time.monotonic() + ROUND_S
        due: dict[Lane, LaneReady] = {}
        if walks.released:
            await self._release(conn, walks, until, due)
        await self._park(conn, walks, until)
        return Round(next_in_s=0 if walks.has_more else INTERVAL_S, state=walks.write(), words=list(due.values()))

    async def _release(self, conn: Connection, walks: _Walks, until: float, due: dict[Lane, LaneReady]) -> None:
        """Go on with the walk that releases runs of targets that are served again."""
        while True:
            lanes = await self._page(conn, walks.release_after)
            for seen in lanes:
                after_id = walks.release_id if seen.lane == walks.release_lane else _FIRST_ID
                while True:
                    page = await self._runs.unpark(conn, seen.lane, sorted(walks.released), after_id)
                    _gather(due, seen.lane, page)
                    walks.has_skipped |= any(not run.is_released for run in page)
                    if len(page) < PAGE_RUNS:
                        break
                    after_id = page[-1].task_id
                    walks.release_lane, walks.release_id = seen.lane, after_id
                    if walks.must_stop(until):
                        return
                walks.release_after = seen.lane
                if walks.must_stop(until):
                    return
            if len(lanes) < PAGE_LANES:
                walks.end_release()
                return

    async def _park(self, conn: Connection, walks: _Walks, until: float) -> None:
        """Go on with the walk that parks due runs of targets that nobody serves."""
        if walks.rest_rounds > 0:
            walks.rest_rounds -= 1
            return
        parked = await self._runs.list_targets(conn)
        if not parked:
            walks.end_park()
            return
        began = time.monotonic()
        is_over = await self._park_until(conn, walks, parked, until)
        walks.park_cost_s += time.monotonic() - began
        if is_over:
            walks.end_park()

    async def _park_until(self, conn: Connection, walks: _Walks, parked: list[int], until: float) -> bool:
        """Park lane by lane; return whether the last lane was seen."""
        while True:
            lanes = await self._page(conn, walks.park_after)
            for seen in lanes:
                # While they lie close together at the head of the lane there are likely more behind them.
                while seen.due_at is not None and await self._runs.park(conn, seen.lane, parked) > PAGE_RUNS // 2:
                    if walks.must_stop(until):
                        return False
                walks.park_after = seen.lane
                if walks.must_stop(until):
                    return False
            if len(lanes) < PAGE_LANES:
                return True

    async def _page(self, conn: Connection, after: Lane) -> list[LaneSeen]:
        lanes = await self._sweeps.sweep(conn, after, PAGE_LANES)
        if lanes is None:
            raise TimeoutError(f"looking at {PAGE_LANES} lanes took longer than {self.pace.statement_s_max:g} s")
        return lanes


@dataclass
class _Walks:
    """Where both walks stand; kept in `maintenance.state`.

    Attributes:
        released: Targets whose parked runs are being released.
        release_after: The lane behind which the release goes on.
        release_lane: The lane that is half done, up to the run `release_id`.
        has_skipped: A run was locked by somebody, so the release walks once more.
        park_after: The lane behind which parking goes on.
        park_cost_s: Seconds that this walk has taken so far.
        rest_rounds: Rounds to leave out before the next walk.
        has_more: A walk ran out of time in this round; not kept.
    """

    released: set[int]
    release_after: Lane
    release_lane: Lane
    release_id: UUID
    has_skipped: bool
    park_after: Lane
    park_cost_s: float
    rest_rounds: int
    has_more: bool = False

    @classmethod
    def read(cls, state: dict[str, Any]) -> _Walks:
        return cls(
            released=set(state.get("released", ())),
            release_after=Lane(*state.get("release_after", START)),
            release_lane=Lane(*state.get("release_lane", START)),
            release_id=UUID(state.get("release_id", str(_FIRST_ID))),
            has_skipped=state.get("has_skipped", False),
            park_after=Lane(*state.get("park_after", START)),
            park_cost_s=state.get("park_cost_s", 0.0),
            rest_rounds=state.get("rest_rounds", 0),
        )

    def write(self) -> dict[str, Any]:
        return {
            "released": sorted(self.released),
            "release_after": list(self.release_after),
            "release_lane": list(self.release_lane),
            "release_id": str(self.release_id),
            "has_skipped": self.has_skipped,
            "park_after": list(self.park_after),
            "park_cost_s": self.park_cost_s,
            "rest_rounds": self.rest_rounds,
        }

    def decide(self, seen: Iterable[TargetSeen]) -> None:
        """Take in which targets turned."""
        turned = [target for target in seen if target.is_parked != target.was_parked]
        parked = {target.id: _name(target) for target in turned if target.is_parked}
        served = {target.id: _name(target) for target in turned if not target.is_parked}
        if parked:
            _logger.warning("targets_parked", extra={"fields": _shown(parked)})
        if served:
            _logger.info("targets_served_again", extra={"fields": _shown(served)})
        self.released = (self.released | served.keys()) - parked.keys()
        if served or not self.released:
            self._restart_release()
        if parked:
            self.rest_rounds = 0

    def must_stop(self, until: float) -> bool:
        """Tell whether this round's time is over, and if so remember that there is more."""
        is_over = time.monotonic() > until
        self.has_more |= is_over
        return is_over

    def end_release(self) -> None:
        """The walk has seen every lane."""
        if not self.has_skipped:
            self.released = set()
        self._restart_release()

    def end_park(self) -> None:
        """The walk has seen every lane, or has nothing to look for."""
        self.rest_rounds = math.floor(REST * self.park_cost_s / INTERVAL_S)
        self.park_after, self.park_cost_s = START, 0.0

    def _restart_release(self) -> None:
        self.release_after, self.release_lane, self.release_id, self.has_skipped = START, START, _FIRST_ID, False


def _name(target: TargetSeen) -> str:
    return "http" if target.handler is None else target.handler


def _shown(targets: dict[int, str]) -> dict[str, object]:
    return {"count": len(targets), "targets": sorted(targets.values())[:_SHOWN_MAX]}


def _gather(due: dict[Lane, LaneReady], lane: Lane, page: Iterable[Unparked]) -> None:
    """Keep the earliest wake-up of each lane."""
    for run in page:
        if run.run_at is not None:
            word = LaneReady.at(lane.queue_id, lane.priority, run.run_at)
            due[lane] = min(word, due.get(lane, word))
