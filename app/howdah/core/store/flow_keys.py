"""Flow keys of live tasks, and giving their places to those that wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from howdah.core.db.queries import load
from howdah.core.wake import LaneReady

if TYPE_CHECKING:
    from collections.abc import Sequence

    from howdah.core.db.connect import Connection


class FlowKeySeen(NamedTuple):
    """A flow key that live tasks have."""

    id: int
    is_waited_for: bool
    """Whether a run is parked until it has room."""


class FlowKeys:
    """The statements of a walk over the flow keys."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._walk = load("flow_key.walk", schema)
        self._settle = load("run.settle", schema)

    async def walk(self, conn: Connection, after_id: int, key_count_max: int) -> list[FlowKeySeen]:
        """Return the next keys behind `after_id` (0 from the start), in order; fewer than asked for were the last."""
        cursor = await conn.execute(self._walk, {"after_id": after_id, "key_count_max": key_count_max})
        return [FlowKeySeen(*row) for row in await cursor.fetchall()]

    async def settle(self, conn: Connection, queue_ids: Sequence[int], flow_key_ids: Sequence[int]) -> list[LaneReady]:
        """Give what is free of these queues and keys to those that wait; return what to announce.

        Args:
            conn: In a transaction, after the statements that ended runs of them.
            queue_ids: Queues with limits.
            flow_key_ids: Keys.
        """
        cursor = await conn.execute(self._settle, {"queue_ids": list(queue_ids), "flow_key_ids": list(flow_key_ids)})
        return [LaneReady.at(*row) for row in await cursor.fetchall()]
