"""What runs of queues with limits left free when they ended here, until it is given to those that wait for it.

It is given after their outcomes are recorded, in a transaction of its own: what
waits for a lock of a flow key then delays no outcome. If this process dies in
between, the scheduler comes by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from howdah.core.db.connect import Connection
    from howdah.core.model import LaneKey
    from howdah.core.store.runs import Runs
    from howdah_worker.catalogue import Catalogue
    from howdah_worker.run import Run


class Vacancies:
    """Queues and flow keys that have room, as far as this process has made it."""

    def __init__(self, runs: Runs, catalogue: Catalogue) -> None:
        """Begin with none.

        Args:
            runs: The statement that gives them away.
            catalogue: Tells which queues have limits.
        """
        self._runs = runs
        self._catalogue = catalogue
        self._queue_ids: set[int] = set()
        self._flow_key_ids: set[int] = set()

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self._queue_ids)

    def leave(self, runs: Iterable[Run]) -> None:
        """Take note of runs that do not hold a lease any more."""
        limited = self._catalogue.limited()
        if not limited:
            return
        for run in runs:
            if run.queue_id in limited:
                self._queue_ids.add(run.queue_id)
                if run.flow_key_id is not None:
                    self._flow_key_ids.add(run.flow_key_id)

    async def give(self, conn: Connection) -> list[tuple[LaneKey, int]]:
        """Give all of them to those that wait.

        Returns:
            Lanes that have due runs now, with the instant of the oldest.

        Raises:
            DatabaseUnavailable: The connection is lost; they are kept.
        """
        # What is left meanwhile, by another run of the same key perhaps, is for the next call.
        queue_ids, flow_key_ids = self._queue_ids, self._flow_key_ids
        self._queue_ids, self._flow_key_ids = set(), set()
        try:
            return await self._runs.settle(conn, queue_ids, flow_key_ids)
        except BaseException:
            self._queue_ids |= queue_ids
            self._flow_key_ids |= flow_key_ids
            raise
