"""The dead letters of a queue as clients are shown them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg.rows import namedtuple_row

from howdah.core.db.queries import load
from howdah.core.store.raw_json import raw_json_cursor
from howdah.core.store.server import within_limits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from howdah.core.db.connect import Connection

# What a page, or a look at groups, looks at when a filter passes most rows by.
LOOK_ROWS_MAX: Final = 10_000
GROUPS_MAX: Final = 100


class Page(NamedTuple):
    """Dead letters of a page, and where the next one begins; None if this was the last."""

    rows: list[Any]
    before: UUID | None


class Groups(NamedTuple):
    """Groups of dead letters, the largest first.

    `group_count` counts those that are not shown too; `look_count` the dead letters
    that were looked at, which `is_complete` says are all.
    """

    rows: list[Any]
    group_count: int
    look_count: int
    is_complete: bool


class DeadLetters:
    """The queries under `sql/queries/dead_letter`."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def page(
        self, conn: Connection, tenant_id: int, queue_id: int, wanted: bytes, *, before: UUID, row_count: int
    ) -> Page:
        """Return the next dead letters of a queue below an id, newest task first.

        Args:
            conn: Any.
            tenant_id: Owner of the queue.
            queue_id: The queue.
            wanted: JSON text of a filter, checked.
            before: The last id of the page before, or the greatest.
            row_count: Most rows to return; it looks at `LOOK_ROWS_MAX` at most.

        Raises:
            StorageUnavailable: It took longer than the transaction allows.
        """
        parameters = {"before": before, "look_max": LOOK_ROWS_MAX, "row_max": row_count}
        rows = await self._rows(conn, "dead_letter.page", tenant_id, queue_id, wanted, parameters)
        last = rows[-1]
        return Page([row for row in rows if row.task_id is not None], None if last.is_end else last.look_end)

    async def groups(self, conn: Connection, tenant_id: int, queue_id: int, wanted: bytes) -> Groups:
        """Group the newest dead letters of a queue by kind of error; see `page`."""
        parameters = {"look_max": LOOK_ROWS_MAX, "group_count": GROUPS_MAX}
        rows = await self._rows(conn, "dead_letter.groups", tenant_id, queue_id, wanted, parameters)
        last = rows[-1]
        shown = [row for row in rows if row.fingerprint is not None]
        return Groups(shown, last.group_total, last.look_count, last.is_end)

    async def _rows(
        self,
        conn: Connection,
        name: str,
        tenant_id: int,
        queue_id: int,
        wanted: bytes,
        parameters: Mapping[str, object],
    ) -> list[Any]:
        cursor = raw_json_cursor(conn)
        cursor.row_factory = namedtuple_row
        given = {"tenant_id": tenant_id, "queue_id": queue_id, "filter": wanted.decode(), **parameters}
        with within_limits():
            await cursor.execute(load(name, self._schema), given)
            return await cursor.fetchall()
