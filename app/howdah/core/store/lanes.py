"""Lanes: which have work, and telling others about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from howdah.core import metrics
from howdah.core.db.arrays import Instants, Int2s, Int4s, Uuids, instant_at
from howdah.core.db.errors import translated
from howdah.core.db.kept_cursor import KeptCursor
from howdah.core.db.queries import load
from howdah.core.model import Due, LaneKey
from howdah.core.wake import write_messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from howdah.core.db.connect import Connection
    from howdah.core.model import Horizon
    from howdah.core.wake import Word

LANES_PER_PEEK_MAX: Final = 1_000


class Unserved(NamedTuple):
    """Work that waits in a queue, and that no live worker takes from there."""

    tenant: str
    queue: str
    target: str
    """Name of the handler, or `http`."""
    is_parked: bool
    """No live worker serves the target in any queue."""
    since_s: float
    """Seconds since the oldest run that was seen was due."""


class Lanes:
    """The queries under `sql/queries/lane`, but for the scheduler's sweep."""

    def __init__(self, schema: str) -> None:
        """Work on the installation with this schema."""
        self._peek = KeptCursor(load("lane.peek", schema))
        self._survey = KeptCursor(load("lane.survey", schema))
        self._notify = KeptCursor(load("lane.notify", schema))
        self._unserved = load("lane.unserved", schema)

    async def peek(
        self, conn: Connection, lanes: Sequence[Horizon], target_ids: Sequence[int], *, ahead_s: float
    ) -> list[Due]:
        """Return when the next run of each lane is due, if it is soon.

        Args:
            conn: Hot, autocommit, reading raw.
            lanes: 1 to `LANES_PER_PEEK_MAX` lanes and from where on to look in each.
            target_ids: Runs of other targets are passed by.
            ahead_s: Runs that are due later than in so many seconds do not count.

        Returns:
            One item for each lane in which such a run waits, or which is closed, in no order.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        parameters: dict[str, Any] = {
            "queue_ids": Int4s([each.lane.queue_id for each in lanes]),
            "priorities": Int2s([each.lane.priority for each in lanes]),
            "horizon_run_ats": Instants([each.run_at for each in lanes]),
            "horizon_task_ids": Uuids([each.task_id for each in lanes]),
            "target_ids": Int4s(target_ids),
            "ahead_s": ahead_s,
        }
        with translated():
            rows = await self._peek.fetch(conn, parameters)
        return [Due(LaneKey(row[0], row[1]), *row[2:]) for row in rows]

    async def survey(self, conn: Connection, after: LaneKey, horizon_run_at: int) -> list[tuple[LaneKey, int]]:
        """Return a page of the lanes in which runs wait, and when the first of each is due.

        Args:
            conn: Hot, autocommit, reading raw.
            after: The last lane of the page before; queue -1 and priority -1 from the start.
            horizon_run_at: Older runs do not count.

        Returns:
            Lanes in order; fewer than `LANES_PER_PEEK_MAX` if there are no more.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        parameters = {
            "after_queue_id": after.queue_id,
            "after_priority": after.priority,
            "horizon_run_at": instant_at(horizon_run_at),
            "lane_count_max": LANES_PER_PEEK_MAX,
        }
        with translated():
            return [(LaneKey(row[0], row[1]), row[2]) for row in await self._survey.fetch(conn, parameters)]

    async def unserved(self, conn: Connection, row_count: int) -> list[Unserved]:
        """Return what waits that no live worker takes, as far as the heads of lanes tell; the longest wait first.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        with translated():
            cursor = await conn.execute(self._unserved, {"row_count": row_count})
            return [Unserved(*row) for row in await cursor.fetchall()]

    async def notify(self, conn: Connection, words: Iterable[Word]) -> None:
        """Tell the workers which lanes have work.

        Call it after the transaction that changed the runs: NOTIFY takes a
        database-wide lock at commit.

        Raises:
            DatabaseUnavailable: The connection is lost; polls will find the work.
        """
        with translated():
            for message in write_messages(words):
                await self._notify.fetch(conn, {"words": message})
                metrics.WAKEUPS.labels("sent").inc()
