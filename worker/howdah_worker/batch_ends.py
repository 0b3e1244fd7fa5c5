"""Batches of which runs have ended here, until somebody has looked whether they were the last ones.

That is done after their outcomes are recorded, in a transaction of its own: no lock of
a batch delays an outcome. If this process dies in between, the scheduler comes by.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from howdah.core.store.batches import log_fields

if TYPE_CHECKING:
    from collections.abc import Iterable

    from howdah.core.db.connect import Connection
    from howdah.core.store.runs import Runs
    from howdah_worker.run import Run

_logger = logging.getLogger(__name__)


class BatchEnds:
    """Batches that may be complete, as far as this process has ended runs of them."""

    def __init__(self, runs: Runs) -> None:
        """Begin with none; `runs` has the statement that looks."""
        self._runs = runs
        self._keys: set[tuple[int, bytes]] = set()

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self._keys)

    def leave(self, runs: Iterable[Run]) -> None:
        """Take note of runs that do not hold a lease any more."""
        for run in runs:
            if run.batch_id is not None:
                self._keys.add((run.tenant_id, run.batch_id))

    async def complete(self, conn: Connection) -> None:
        """Complete those that have no live task any more; their follow-ups are announced by the database.

        Raises:
            DatabaseUnavailable: The connection is lost; all are kept.
        """
        keys = set(self._keys)
        for end in await self._runs.complete_batches(conn, keys):
            if end.error is not None:
                event, fields = log_fields(end)
                _logger.warning(event, extra={"fields": fields})
        self._keys -= keys
