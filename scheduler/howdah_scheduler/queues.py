"""Looks after queues: ends pauses whose time is over, and shuts and opens queues that have caps.

Claims judge by themselves whether a pause is over. What this does about it is for
latency: it wakes the lanes, from their oldest runs on, and takes the pause off the row.

A cap is measured here, not by whoever enqueues: a count of what waits costs as much as
the queue is long, and queues without caps shall pay nothing. A queue that has reached a
cap is marked, and refuses tasks while the mark counts; it is renewed while the cap is
reached. So a queue takes as many tasks more as arrive between two looks at it. If no
scheduler runs, what is marked opens again by itself: better too many tasks than none.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from howdah.core.store.queue_watch import PAGE_QUEUES, QueueWatch
from howdah.core.wake import LaneReady
from howdah_scheduler.chore import Chore, Pace, Round

if TYPE_CHECKING:
    from howdah.core.db.connect import Connection
    from howdah.core.store.maintenance import Held
    from howdah.core.store.queue_watch import CapSeen

INTERVAL_S: Final = 1.0
# Where there are caps, rounds come twice as often. A look at all of them rests for so many times as long as it took.
CAPS_S: Final = 0.5
REST: Final = 10
ROUND_S: Final = 0.5
# How long a mark counts: several looks, but no less than this. Chosen.
MARK_S: Final = 10.0
MARK_LOOKS: Final = 4

_logger = logging.getLogger(__name__)


class Queues(Chore):
    """Ends pauses and watches caps."""

    name = "queues"
    pace = Pace(tick_s=CAPS_S, statement_s_max=10.0, lock_s_max=1.0, retry_s_max=10.0)

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._watch = QueueWatch(schema)

    async def work(self, conn: Connection, held: Held) -> Round:
        """End the pauses that are over, then go on with the look at queues that have caps."""
        ended = await self._watch.end_pauses(conn)
        if ended:
            _logger.info("pauses_ended", extra={"fields": {"count": len({lane.queue_id for lane in ended})}})
        words = [
            LaneReady.at(lane.queue_id, lane.priority, lane.run_at)
            for lane in ended
            if lane.priority is not None and lane.run_at is not None
        ]
        look = _Look.read(held.state)
        has_more = await self._go_on(conn, look)
        next_in_s = 0.0 if has_more else CAPS_S if look.has_caps else INTERVAL_S
        return Round(next_in_s=next_in_s, state=asdict(look), words=words)

    async def _go_on(self, conn: Connection, look: _Look) -> bool:
        """Measure queues for about half a second; return whether some of this look are left."""
        if look.rest_rounds > 0:
            look.rest_rounds -= 1
            return False
        until = time.monotonic() + ROUND_S
        while time.monotonic() < until:
            began = time.monotonic()
            page = await self._watch.watch_caps(conn, look.after_queue_id, look.mark_s())
            look.cost_s += time.monotonic() - began
            _tell(page.turned)
            if page.last_queue_id is None or page.watched_count < PAGE_QUEUES:
                look.end(has_caps=page.last_queue_id is not None or look.after_queue_id > 0)
                return False
            look.after_queue_id = page.last_queue_id
        return True


@dataclass(slots=True)
class _Look:
    """How far a look at all queues that have caps has come; kept in `maintenance.state`.

    Attributes:
        after_queue_id: The queue behind which it goes on.
        cost_s: Seconds that it has taken so far.
        rest_rounds: Rounds to leave out before the next one.
        period_s: Seconds from one look to the next.
        has_caps: The last look found queues that have caps.
    """

    after_queue_id: int = 0
    cost_s: float = 0.0
    rest_rounds: int = 0
    period_s: float = 0.0
    has_caps: bool = False

    @classmethod
    def read(cls, state: dict[str, Any]) -> _Look:
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in state.items() if name in known})

    def mark_s(self) -> float:
        return max(MARK_S, MARK_LOOKS * self.period_s)

    def end(self, *, has_caps: bool) -> None:
        """All were measured."""
        self.has_caps = has_caps
        self.rest_rounds = math.floor(REST * self.cost_s / CAPS_S) if has_caps else 0
        self.period_s = self.cost_s + (1 + self.rest_rounds) * CAPS_S
        self.after_queue_id, self.cost_s = 0, 0.0


def _tell(turned: list[CapSeen]) -> None:
    for queue in turned:
        level = logging.INFO if queue.pressure is None else logging.WARNING
        about = {"tenant": queue.tenant, "queue": queue.name, "pressure": queue.pressure}
        _logger.log(level, "queue_pressure", extra={"fields": about})
