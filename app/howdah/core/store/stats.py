"""What happened per queue and minute."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from howdah.core.db.arrays import Float8s, Int4s
from howdah.core.db.queries import load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from howdah.core.db.connect import Connection


class Tally(NamedTuple):
    """What one process counted in a queue's minute."""

    enqueued: int = 0
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    duration_s: float = 0.0


class Stats:
    """The queries under `sql/queries/stats` that do not delete."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def insert(self, conn: Connection, bucket_at: datetime, source: UUID, tallies: Mapping[int, Tally]) -> None:
        """Append what one process counted per queue in one minute; a repeat adds nothing."""
        columns = list(zip(*tallies.values(), strict=True))
        parameters = {
            "bucket_at": bucket_at,
            "source": source,
            "queue_ids": Int4s(tallies),
            "enqueued": Int4s(columns[0]),
            "succeeded": Int4s(columns[1]),
            "failed": Int4s(columns[2]),
            "retried": Int4s(columns[3]),
            "durations_s": Float8s(columns[4]),
        }
        await conn.execute(load("stats.insert", self._schema), parameters)
