"""Gives places of flow keys to runs that wait for them where that was left undone.

Whoever ends a run gives its place away. What a crash left between the two, or a
client that kept a key locked, is found here: one process walks over the keys that
live tasks have, a page at a time. The walk costs at most a fiftieth of the time.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from howdah.core.store.flow_keys import FlowKeys
from howdah_scheduler.chore import Chore, Pace, Round

if TYPE_CHECKING:
    from howdah.core.db.connect import Connection
    from howdah.core.store.maintenance import Held

INTERVAL_S_MIN: Final = 1.0
REST: Final = 50
PAGE_KEYS: Final = 1_000

_logger = logging.getLogger(__name__)


class Settle(Chore):
    """Settles a page of flow keys each round."""

    name = "settle"
    pace = Pace(tick_s=INTERVAL_S_MIN, statement_s_max=10.0, lock_s_max=1.0, retry_s_max=30.0)

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._keys = FlowKeys(schema)

    async def work(self, conn: Connection, held: Held) -> Round:
        """Look at one page of keys, and go on where the last one ended."""
        cost_s: float = held.state.get("cost_s", 0.0)
        began = time.monotonic()
        seen = await self._keys.walk(conn, held.state.get("after_id", 0), PAGE_KEYS)
        waited_for = [key.id for key in seen if key.is_waited_for]
        words = await self._keys.settle(conn, [], waited_for) if waited_for else []
        cost_s += time.monotonic() - began
        if words:
            _logger.warning("places_given", extra={"fields": {"lanes": len(words)}})
        if len(seen) == PAGE_KEYS:
            return Round(next_in_s=0, state={"after_id": seen[-1].id, "cost_s": cost_s}, words=words)
        return Round(next_in_s=max(INTERVAL_S_MIN, REST * cost_s), state={}, words=words)
