"""Queues as a scheduler looks after them: ends of pauses, caps, and marks of deletion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from howdah.core.db.queries import load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from howdah.core.db.connect import Connection


# So few, because the longest may take a second each, and a statement has ten.
PAGE_QUEUES: Final = 8


class PauseEnded(NamedTuple):
    """A lane of a queue whose pause is over."""

    queue_id: int
    priority: int | None
    """None if the whole queue holds nothing."""
    run_at: datetime | None
    """Of the lane's oldest run."""


class CapSeen(NamedTuple):
    """A queue that has come to one of its caps, or away from it."""

    queue_id: int
    tenant: str
    name: str
    pressure: str | None
    """Which cap: depth or age; None: away from both."""


class CapsPage(NamedTuple):
    """Some queues that have caps, measured.

    Attributes:
        turned: Those whose mark changed.
        watched_count: How many were measured; fewer than `PAGE_QUEUES` if there are no more.
        last_queue_id: The last of them; None if there is none.
    """

    turned: list[CapSeen]
    watched_count: int
    last_queue_id: int | None


class QueueWatch:
    """The statements that look after queues."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def end_pauses(self, conn: Connection) -> list[PauseEnded]:
        """End the pauses whose time is over; return the lanes to wake, and queues that hold nothing."""
        cursor = await conn.execute(load("queue.end_pauses", self._schema))
        return [PauseEnded(*row) for row in await cursor.fetchall()]

    async def watch_caps(self, conn: Connection, after_queue_id: int, mark_s: float) -> CapsPage:
        """Measure the next queues that have caps, and mark those that have reached one.

        Args:
            conn: Inside the chore's transaction.
            after_queue_id: The last one measured; 0 from the start.
            mark_s: For how long a mark counts unless it is renewed.
        """
        parameters = {"after_queue_id": after_queue_id, "queue_count_max": PAGE_QUEUES, "mark_s": mark_s}
        cursor = await conn.execute(load("queue.watch_caps", self._schema), parameters)
        rows = await cursor.fetchall()
        _, _, _, _, watched_count, last_queue_id = rows[0]
        return CapsPage([CapSeen(*row[:4]) for row in rows if row[0] is not None], watched_count, last_queue_id)

    async def revive(self, conn: Connection, queue_ids: Sequence[int]) -> list[int]:
        """Take the mark of deletion from those of the queues, in which runs wait, that have it; return which."""
        cursor = await conn.execute(load("queue.revive", self._schema), {"queue_ids": list(queue_ids)})
        return [row[0] for row in await cursor.fetchall()]
