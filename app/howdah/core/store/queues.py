"""Queues: the named places where runs wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from howdah.core.db.errors import translated
from howdah.core.db.queries import load
from howdah.core.model import QueueRow
from howdah.core.store.raw_json import raw_json_cursor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from howdah.core.db.connect import Connection


class QueueSettings(NamedTuple):
    """A queue of a tenant with its settings."""

    id: int
    name: str
    retry: bytes
    """JSON object: fields of the retry policy that differ from the defaults."""
    timeout_s: float
    created_at: datetime
    updated_at: datetime


class QueueCounts(NamedTuple):
    """What a queue holds now; a count that reaches the bound of the query means "at least"."""

    queued: int
    scheduled: int
    retrying: int
    blocked: int
    running: int
    dead_letters: int
    oldest_queued_at: datetime | None
    oldest_age_s: float | None


class Queues:
    """The queries under `sql/queries/queue`."""

    def __init__(self, schema: str) -> None:
        """Work on the installation with this schema."""
        self._schema = schema
        self._list = load("queue.list", schema)

    async def list(self, conn: Connection) -> list[QueueRow]:
        """Return every queue with its tenant, by id.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        with translated():
            cursor = await conn.execute(self._list)
            return [QueueRow(*row) for row in await cursor.fetchall()]

    async def get(self, conn: Connection, tenant_id: int, name: str) -> QueueSettings | None:
        """Return a queue of a tenant by name."""
        cursor = raw_json_cursor(conn)
        await cursor.execute(load("queue.get", self._schema), {"tenant_id": tenant_id, "name": name})
        row = await cursor.fetchone()
        return None if row is None else QueueSettings._make(row)

    async def page(self, conn: Connection, tenant_id: int, *, after: str, row_count: int) -> Sequence[QueueSettings]:
        """Return the next queues of a tenant by name, beginning after `after`."""
        cursor = raw_json_cursor(conn)
        parameters = {"tenant_id": tenant_id, "after": after, "row_count": row_count}
        await cursor.execute(load("queue.page", self._schema), parameters)
        return [QueueSettings._make(row) for row in await cursor.fetchall()]

    async def put(
        self, conn: Connection, tenant_id: int, name: str, *, retry: bytes | None, timeout_s: float | None
    ) -> tuple[QueueSettings, bool]:
        """Make a queue, or change the settings that are given; return it and whether it is new."""
        cursor = raw_json_cursor(conn)
        parameters = _settings(tenant_id, name, retry, timeout_s)
        await cursor.execute(load("queue.put", self._schema), parameters)
        row = await cursor.fetchone()
        assert row is not None, "an upsert returns a row"
        return QueueSettings._make(row[:-1]), row[-1]

    async def patch(
        self, conn: Connection, tenant_id: int, name: str, *, retry: bytes | None, timeout_s: float | None
    ) -> QueueSettings | None:
        """Change the settings of a queue that are given; None if there is no such queue."""
        cursor = raw_json_cursor(conn)
        parameters = _settings(tenant_id, name, retry, timeout_s)
        await cursor.execute(load("queue.patch", self._schema), parameters)
        row = await cursor.fetchone()
        return None if row is None else QueueSettings._make(row)

    async def stats(self, conn: Connection, queue_id: int, *, count_max: int) -> QueueCounts:
        """Count what a queue holds, looking at no more than `count_max` rows of each kind."""
        parameters = {"queue_id": queue_id, "count_max": count_max}
        cursor = await conn.execute(load("queue.stats", self._schema), parameters, binary=True)
        row = await cursor.fetchone()
        assert row is not None, "an aggregate returns a row"
        return QueueCounts._make(row)


def _settings(tenant_id: int, name: str, retry: bytes | None, timeout_s: float | None) -> dict[str, object]:
    written = None if retry is None else retry.decode()
    return {"tenant_id": tenant_id, "name": name, "retry": written, "timeout_s": timeout_s}
