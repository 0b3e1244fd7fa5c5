"""Group commit: single creates that arrive while a commit runs are stored together by the next one.

No artificial delay: a batch is whatever has gathered. A request is answered after
the commit that holds its task.

If the connection is lost while a batch is under way, nobody knows whether it was
committed. The batch is sent again with the same ids, which stores nothing twice,
if PostgreSQL is there within `IN_DOUBT_S`. While it is away, all else is refused
at once.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final

from howdah.api.database import LOCK_S_MAX, STATEMENT_S_MAX
from howdah.api.drafts import draft
from howdah.core import metrics
from howdah.core.db.connect import connect
from howdah.core.errors import DatabaseUnavailable, HowdahError, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from howdah.api.database import Database
    from howdah.api.shapes import TaskCreate
    from howdah.core.db.connect import Connection
    from howdah.core.store.server import Server
    from howdah.core.store.tasks import Draft, Stored, Tasks

# Measured, a statement for 64 tasks costs 45 us a task and one for 16 costs 100; past
# some hundred nothing is gained, and the first of them waits for the last.
BATCH_TASKS_MAX: Final = 256
IN_DOUBT_S: Final = 1.0
RECONNECT_PAUSE_S: Final = 0.02


class Entry:
    """A task on its way to a commit; it gets its id with its batch."""

    __slots__ = ("id", "name", "payload", "refuse_at", "stored", "task", "tenant_id")

    def __init__(
        self, tenant_id: int, name: tuple[int, str, str | None], task: TaskCreate, payload: bytes | None
    ) -> None:
        self.tenant_id = tenant_id
        self.name = name
        self.task = task
        self.payload = payload
        self.refuse_at = math.inf
        self.id: UUID | None = None
        self.stored: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()


class Committer:
    """Commits what is submitted over one connection, batch after batch."""

    def __init__(
        self,
        database: Database,
        tasks: Tasks,
        server: Server,
        report: Callable[[Sequence[Stored]], None],
        *,
        by_name: bool = False,
        lock_s_max: float = LOCK_S_MAX,
    ) -> None:
        """Describe it; `run` connects.

        Args:
            database: Knows whether PostgreSQL is there.
            tasks: Stores.
            server: Limits the session.
            report: Called with what each commit stored.
            by_name: Commit the tasks of each queue and handler by themselves.
            lock_s_max: How long a batch waits for each lock of another transaction.
        """
        self._database = database
        self._tasks = tasks
        self._server = server
        self._report = report
        self._by_name = by_name
        self._lock_s_max = lock_s_max
        self._waiting: list[Entry] = []
        self._under_way: list[Entry] = []
        self._doubt_until: float | None = None
        self._arrived = asyncio.Event()

    def submit(self, entry: Entry) -> None:
        """Commit a task with the next batch; its future tells the result."""
        self._waiting.append(entry)
        self._arrived.set()

    async def run(self) -> None:
        """Commit until cancelled, through outages of any length."""
        while True:
            try:
                async with await connect(self._database.settings, "api", purpose="hot") as conn:
                    await self._server.limit_session(
                        conn, statement_timeout_s=STATEMENT_S_MAX, lock_timeout_s=self._lock_s_max
                    )
                    with self._database.watched(conn):
                        await self._serve(conn)
            except DatabaseUnavailable as reason:
                await self._wait_out(reason)

    async def _serve(self, conn: Connection) -> None:
        if self._under_way:
            await self._commit(conn, self._under_way)
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                # One turn of the loop: what the last commit let go is answered, and requests that
                # are in the sockets already come along.
                await asyncio.sleep(0)
                self._under_way = self._take()
                if self._under_way:
                    await self._commit(conn, self._under_way)

    def _take(self) -> list[Entry]:
        if not self._by_name:
            batch, self._waiting = self._waiting[:BATCH_TASKS_MAX], self._waiting[BATCH_TASKS_MAX:]
            return batch
        name = self._waiting[0].name
        batch = [entry for entry in self._waiting if entry.name == name][:BATCH_TASKS_MAX]
        taken = set(map(id, batch))
        self._waiting = [entry for entry in self._waiting if id(entry) not in taken]
        return batch

    async def _commit(self, conn: Connection, batch: Sequence[Entry]) -> None:
        began = time.perf_counter()
        try:
            rows = await self._store(conn, batch)
            repeated = await self._find_stored(conn, batch, rows)
        except StorageUnavailable as error:
            self._under_way, self._doubt_until = [], None
            _fail(batch, error)
            return
        self._under_way, self._doubt_until = [], None
        metrics.ENQUEUE_SECONDS.observe_many((time.perf_counter() - began,))
        metrics.ENQUEUE_BATCH_TASKS.observe_many((len(batch),))
        if repeated:
            rows = [row if row.id is None or row.is_deduplicated else repeated.get(row.id, row) for row in rows]
        self._report(rows)
        for entry, row in zip(batch, rows, strict=True):
            self._deliver(entry, row)

    def _deliver(self, entry: Entry, row: Stored) -> None:
        if not entry.stored.done():
            entry.stored.set_result(row)

    async def _store(self, conn: Connection, batch: Sequence[Entry]) -> list[Stored]:
        new = [entry for entry in batch if entry.id is None]
        for entry, task_id in zip(new, self._database.mint.mint_many(len(new)), strict=True):
            entry.id = task_id
        batches: dict[int, list[Draft]] = {}
        for entry in batch:
            assert entry.id is not None
            batches.setdefault(entry.tenant_id, []).append(draft(entry.id, entry.task, entry.payload))
        stored = await self._tasks.store(conn, batches)
        if len(stored) == 1:
            return stored[batch[0].tenant_id]
        rows = {tenant_id: iter(tenant_rows) for tenant_id, tenant_rows in stored.items()}
        return [next(rows[entry.tenant_id]) for entry in batch]

    async def _find_stored(
        self, conn: Connection, batch: Sequence[Entry], rows: Sequence[Stored]
    ) -> dict[UUID, Stored]:
        """Look up tasks that an earlier statement stored, whose answer was lost."""
        found: dict[UUID, Stored] = {}
        repeated = [
            (entry.tenant_id, row.id)
            for entry, row in zip(batch, rows, strict=True)
            if not row.created and row.error is None and row.id is not None and not row.is_deduplicated
        ]
        for tenant in {tenant_id for tenant_id, _ in repeated}:
            ids = [task_id for tenant_id, task_id in repeated if tenant_id == tenant]
            found |= await self._tasks.find_stored(conn, tenant, ids)
        return found

    async def _wait_out(self, reason: DatabaseUnavailable) -> None:
        """Return once PostgreSQL is there.

        If it is away, what was not sent is refused at once; what was sent is given a
        chance to be sent again.
        """
        now = time.monotonic()
        if self._under_way and self._doubt_until is None:
            self._doubt_until = now + IN_DOUBT_S
        if not await self._database.is_there():
            waiting, self._waiting = self._waiting, []
            _fail(waiting, reason)
            await self._database.wait_found(self._doubt_left_s())
        if self._under_way and self._doubt_left_s() == 0:
            _fail(self._under_way, reason)
            self._under_way, self._doubt_until = [], None
        await self._database.wait_found(math.inf)
        # There, but perhaps without a free connection: not asked in a tight loop.
        await asyncio.sleep(RECONNECT_PAUSE_S)

    def _doubt_left_s(self) -> float:
        return max(0.0, (self._doubt_until or 0.0) - time.monotonic())


def _fail(entries: Sequence[Entry], error: HowdahError) -> None:
    for entry in entries:
        if not entry.stored.done():
            entry.stored.set_exception(error)
