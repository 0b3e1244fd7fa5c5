"""The pages of durable bulk operations, as the scheduler works them off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
import psycopg

from howdah.core.db.errors import is_disconnect
from howdah.core.db.queries import load
from howdah.core.wake import BeatNow, LaneReady

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from howdah.core.db.connect import Connection
    from howdah.core.wake import Word

# A page is one transaction, whose locks others wait for: 500 take 20 to 60 ms.
PAGE_ROWS: Final = 500
# What a page looks at when its filter passes most rows by.
LOOK_ROWS_MAX: Final = 5_000

_FAILURES_MAX: Final = 10
_RETRY_S: Final = 1.0


class Picked(NamedTuple):
    """An operation whose turn it is; the transaction holds its row."""

    tenant_id: int
    id: UUID
    kind: str
    queue_id: int | None
    mode: str | None
    filter: str
    has_edits: bool
    created_at: datetime
    after_task_id: UUID
    row_max: int
    """How many tasks its rate lets it touch now."""

    @property
    def stage(self) -> str | None:
        """Which live runs it is about: those that wait, those that run, or (None) both."""
        if self.kind == "purge_queue":
            return "waiting"
        state = orjson.loads(self.filter).get("state")
        if state is None:
            return None
        return "running" if state == "running" else "waiting"


class _Found(NamedTuple):
    """The tasks of a page, and where the next one begins."""

    task_ids: list[UUID]
    look_end: UUID | None
    is_end: bool


class _Acted(NamedTuple):
    """What became of the tasks of a page; those in neither number were skipped."""

    done: int
    failed: int = 0
    error: str | None = None
    words: Sequence[Word] = ()


class PageDone(NamedTuple):
    """What a page came to."""

    state: str
    """Of the operation, after it."""
    error: str | None = None
    """Why it, or one of its tasks, could not be done."""
    words: Sequence[Word] = ()
    """Wake-ups to send after the commit."""


class OperationPages:
    """The queries under `sql/queries/operation` that schedulers need."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def pick(self, conn: Connection) -> Picked | None:
        """Take the operation that has waited longest for its next page, until the transaction ends."""
        cursor = await conn.execute(load("operation.pick", self._schema), {"page_rows": PAGE_ROWS})
        row = await cursor.fetchone()
        return None if row is None else Picked._make(row)

    async def work(self, conn: Connection, picked: Picked) -> PageDone:
        """Do the next page of an operation and record where the one after it begins, or that it could not be done.

        An error leaves the transaction as it was before the page, and is recorded with the operation: others get on.
        After ten in a row, over some eight minutes, the operation has failed.

        Raises:
            psycopg.Error: The connection is lost; nothing was done.
        """
        try:
            async with conn.transaction():
                return await self._page(conn, picked)
        except psycopg.Error as error:
            if is_disconnect(error):
                raise
            return await self._fail(conn, picked, str(error).splitlines()[0])

    async def wait_s(self, conn: Connection) -> float | None:
        """Return in how many seconds the next page of any operation is due; None if none is running."""
        cursor = await conn.execute(load("operation.next", self._schema))
        row = await cursor.fetchone()
        assert row is not None, "an aggregate returns a row"
        wait_s: float | None = row[0]
        return wait_s

    async def _page(self, conn: Connection, picked: Picked) -> PageDone:
        found = await self._find(conn, picked)
        acted = await self._act(conn, picked, found.task_ids) if found.task_ids else _Acted(0)
        skipped = len(found.task_ids) - acted.done - acted.failed
        parameters = {
            "tenant_id": picked.tenant_id,
            "id": picked.id,
            "after_task_id": found.look_end,
            "done": acted.done,
            "skipped": skipped,
            "failed": acted.failed,
            "error": acted.error,
            "is_end": found.is_end,
        }
        cursor = await conn.execute(load("operation.record", self._schema), parameters)
        row = await cursor.fetchone()
        assert row is not None, "the operation's row is locked"
        return PageDone(row[0], acted.error, acted.words)

    async def _find(self, conn: Connection, picked: Picked) -> _Found:
        parameters: dict[str, Any] = {
            "tenant_id": picked.tenant_id,
            "id": picked.id,
            "look_max": LOOK_ROWS_MAX,
            "row_max": picked.row_max,
        }
        name = "operation.find_dead"
        if not picked.kind.endswith("dead_letters"):
            name, parameters["stage"] = "operation.find_live", picked.stage
        cursor = await conn.execute(load(name, self._schema), parameters)
        row = await cursor.fetchone()
        assert row is not None, "the operation's row is locked"
        return _Found._make(row)

    async def _act(self, conn: Connection, picked: Picked, task_ids: list[UUID]) -> _Acted:
        """Do what the operation is for to these tasks."""
        match picked.kind:
            case "purge_dead_letters":
                rows = await self._rows(conn, "operation.purge_dead", picked, task_ids, died_until=picked.created_at)
                return _Acted(len(rows))
            case "replay_dead_letters":
                return await self._replay(conn, picked, task_ids)
            case _:
                return await self._cancel(conn, picked, task_ids)

    async def _replay(self, conn: Connection, picked: Picked, task_ids: list[UUID]) -> _Acted:
        if picked.has_edits:
            rows = await self._rows(
                conn, "operation.replay_edited", picked, task_ids, id=picked.id, died_until=picked.created_at
            )
        else:
            rows = await self._rows(conn, "operation.replay", picked, task_ids, died_until=picked.created_at)
        errors = [error for *_, error in rows if error is not None]
        due: dict[tuple[int, int], LaneReady] = {}
        for queue_id, priority, run_at, error in rows:
            if error is None:
                word = LaneReady.at(queue_id, priority, run_at)
                due[queue_id, priority] = min(word, due.get((queue_id, priority), word))
        return _Acted(len(rows) - len(errors), len(errors), errors[0] if errors else None, list(due.values()))

    async def _cancel(self, conn: Connection, picked: Picked, task_ids: list[UUID]) -> _Acted:
        rows = await self._rows(
            conn, "operation.cancel_runs", picked, task_ids, mode=picked.mode or "soft", stage=picked.stage
        )
        done = [(state, worker_id) for state, is_news, worker_id in rows if state == "cancelled" or is_news]
        workers = {worker_id for state, worker_id in done if state == "running"}
        return _Acted(len(done), words=[BeatNow(worker_id) for worker_id in workers])

    async def _rows(
        self, conn: Connection, name: str, picked: Picked, task_ids: list[UUID], **parameters: object
    ) -> list[Any]:
        given = {"tenant_id": picked.tenant_id, "task_ids": task_ids, **parameters}
        cursor = await conn.execute(load(name, self._schema), given)
        return await cursor.fetchall()

    async def _fail(self, conn: Connection, picked: Picked, error: str) -> PageDone:
        parameters = {
            "tenant_id": picked.tenant_id,
            "id": picked.id,
            "error": error,
            "retry_s": _RETRY_S,
            "failures_max": _FAILURES_MAX,
        }
        cursor = await conn.execute(load("operation.fail", self._schema), parameters)
        row = await cursor.fetchone()
        assert row is not None, "the operation's row is locked"
        return PageDone(row[0], error)
