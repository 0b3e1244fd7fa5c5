"""Queues: the named places where runs wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from howdah.core.db.errors import translated
from howdah.core.db.queries import load
from howdah.core.model import QueueRow
from howdah.core.store.raw_json import raw_json_cursor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from howdah.core.db.connect import Connection


class QueueSettings(NamedTuple):
    """A queue of a tenant with its state and settings."""

    id: int
    name: str
    state: Literal["active", "paused", "draining"]
    retry: bytes
    """JSON object: fields of the retry policy that differ from the defaults."""
    timeout_s: float
    keep_history: Literal["all", "failures", "none"]
    max_depth: int | None
    max_age_s: float | None
    max_running: int | None
    rate_limit: int | None
    """With the next two: runs started in a period, its seconds, and how many at once."""
    rate_period_s: float | None
    rate_burst: int | None
    pressure: Literal["depth", "age"] | None
    """The cap for which it refuses tasks now."""
    paused_until: datetime | None
    """With the next three only of a pause; None if it has no end."""
    pause_reason: str | None
    paused_by: str | None
    paused_at: datetime | None
    draining_at: datetime | None
    draining_by: str | None
    created_at: datetime
    updated_at: datetime


class QueueChange(NamedTuple):
    """Settings of a queue that are given; of the first three None keeps what is."""

    retry: bytes | None = None
    timeout_s: float | None = None
    keep_history: str | None = None
    sets_depth: bool = False
    max_depth: int | None = None
    """None: no cap."""
    sets_age: bool = False
    max_age_s: float | None = None
    sets_running: bool = False
    max_running: int | None = None
    """None: no limit."""
    sets_rate: bool = False
    rate: bytes | None = None
    """JSON object, as clients write it; None: no limit."""


class Window(NamedTuple):
    """What happened in a queue during some whole minutes."""

    enqueued: int
    succeeded: int
    failed: int
    retried: int
    duration_s: float


class QueueStats(NamedTuple):
    """What a queue holds now, and what it got done."""

    counts: dict[str, int]
    """Runs and dead letters by kind; see `KINDS`."""
    cut: frozenset[str]
    """Kinds of which there may be more: counting ended before all were seen."""
    oldest_age_s: float | None
    last_minute: Window
    last_5_minutes: Window
    last_hour: Window


KINDS: Final = ("queued", "scheduled", "retrying", "blocked", "running", "awaiting_callback", "dead_letters")


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

    async def put(self, conn: Connection, tenant_id: int, name: str, change: QueueChange) -> tuple[QueueSettings, bool]:
        """Make a queue, or replace all its settings; return it and whether it is new."""
        cursor = raw_json_cursor(conn)
        parameters = _parameters(tenant_id, name, change)
        for name in ("sets_depth", "sets_age", "sets_running", "sets_rate"):
            del parameters[name]
        await cursor.execute(load("queue.put", self._schema), parameters)
        row = await cursor.fetchone()
        assert row is not None, "an upsert returns a row"
        return QueueSettings._make(row[:-1]), row[-1]

    async def patch(self, conn: Connection, tenant_id: int, name: str, change: QueueChange) -> QueueSettings | None:
        """Change the settings of a queue that are given; None if there is no such queue."""
        cursor = raw_json_cursor(conn)
        await cursor.execute(load("queue.patch", self._schema), _parameters(tenant_id, name, change))
        row = await cursor.fetchone()
        return None if row is None else QueueSettings._make(row)

    async def stats(self, conn: Connection, tenant: str, name: str) -> QueueStats | None:
        """Count what a queue holds, to 10,000 of each kind, and what it got done; None if there is no such queue."""
        parameters = {"tenant": tenant, "queue": name}
        cursor = await conn.execute(load("queue.stats", self._schema), parameters, binary=True)
        row = await cursor.fetchone()
        if row is None:
            return None
        counts, cuts, oldest_age_s, *windows = row[:7], row[7:14], row[14], row[15:20], row[20:25], row[25:30]
        cut = frozenset(kind for kind, is_cut in zip(KINDS, cuts, strict=True) if is_cut)
        return QueueStats(dict(zip(KINDS, counts, strict=True)), cut, oldest_age_s, *map(Window._make, windows))


def _parameters(tenant_id: int, name: str, change: QueueChange) -> dict[str, object]:
    retry, rate = (None if written is None else written.decode() for written in (change.retry, change.rate))
    return {"tenant_id": tenant_id, "name": name, **change._asdict(), "retry": retry, "rate": rate}
