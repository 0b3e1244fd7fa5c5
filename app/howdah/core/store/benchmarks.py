"""What `howdah bench` asks of the database besides what every producer does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from howdah.core.db.errors import translated
from howdah.core.db.queries import load

if TYPE_CHECKING:
    from howdah.core.db.connect import Connection


class Ended(NamedTuple):
    """What became of the tasks of one queue; see benchmark/ended.sql."""

    queue: str
    ended: int
    seconds: float
    wait_p50_s: float
    wait_p99_s: float


class Benchmarks:
    """The queries under `sql/queries/benchmark`, each named as its file."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def is_busy(self, conn: Connection) -> bool:
        """Tell whether runs are under way, or some ended within the last two minutes."""
        with translated():
            cursor = await conn.execute(load("benchmark.is_busy", self._schema))
            row = await cursor.fetchone()
        return row is not None and bool(row[0])

    async def has_runs(self, conn: Connection, tenant_id: int) -> bool:
        """Tell whether a tenant has tasks that have not ended."""
        with translated():
            cursor = await conn.execute(load("benchmark.has_runs", self._schema), {"tenant_id": tenant_id})
            row = await cursor.fetchone()
        return row is not None and bool(row[0])

    async def ended(self, conn: Connection, tenant_id: int) -> dict[str, Ended]:
        """Return what the history says of each of a tenant's queues in which something succeeded."""
        with translated():
            cursor = await conn.execute(load("benchmark.ended", self._schema), {"tenant_id": tenant_id}, binary=True)
            return {row[0]: Ended._make(row) for row in await cursor.fetchall()}

    async def remove(self, conn: Connection, tenant_id: int) -> None:
        """Remove a tenant with everything that it has, in one transaction."""
        with translated():
            await conn.execute(load("benchmark.remove", self._schema), {"tenant_id": tenant_id})
