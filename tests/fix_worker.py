"""A worker inside the test's own event loop, or as a process of its own.

Handlers are declared by the test with `@howdah.handler` and forgotten after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import pytest_asyncio
from psycopg.rows import dict_row

from howdah.core import metrics
from howdah.core.service import Service
from howdah.core.settings import Settings
from howdah.core.store.expired_runs import ExpiredRuns
from howdah.handlers import REGISTRY
from howdah_worker.worker import serve
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    import uuid
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

LEASE_S = 3.0

Row = dict[str, Any]


@dataclass
class Worker:
    """A worker in this event loop."""

    service: Service
    task: asyncio.Task[None]

    async def stop(self, timeout_s: float = 20.0) -> None:
        """Ask it to drain, and wait for its end; its error is raised here."""
        self.service.stop()
        async with asyncio.timeout(timeout_s):
            await self.task


@dataclass
class Workbench:
    """A database of the test's own, and the means to run workers on it and see what they did."""

    database: str
    admin: psycopg.AsyncConnection[Row]
    directory: Path
    workers: list[Worker] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    async def start(self, **settings: Any) -> Worker:
        """Start a worker in this event loop and wait until it has registered."""
        values = {"database_url": self.database, "lease_s": LEASE_S, **settings}
        service = Service(Settings(**values), "worker")
        [before] = await self.sql("SELECT count(*) AS n FROM howdah.workers")
        worker = Worker(service, asyncio.create_task(serve(service)))
        self.workers.append(worker)

        async def is_there() -> bool:
            if worker.task.done():
                worker.task.result()
            [row] = await self.sql("SELECT count(*) AS n FROM howdah.workers")
            return bool(row["n"] > before["n"])

        await eventually_async(is_there, 10, "the worker has registered")
        return worker

    def spawn(self, module: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker as a process, with handlers from a module with this source text; it logs to `log`."""
        (self.directory / "process_handlers.py").write_text(module)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("HOWDAH_")}
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "howdah", "worker"],
                env={
                    **inherited,
                    "HOWDAH_DATABASE_URL": self.database,
                    "HOWDAH_LEASE_S": str(LEASE_S),
                    "HOWDAH_HANDLERS": "process_handlers",
                    "PYTHONPATH": str(self.directory),
                    **environment,
                },
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def events(self, name: str) -> list[Row]:
        """Records of that name in the log of spawned processes."""
        lines = (self.directory / "log").read_text().splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return [record for record in records if record["event"] == name]

    async def sql(self, statement: str, *params: Any) -> list[Row]:
        """Execute SQL of the test's own."""
        cursor = await self.admin.execute(statement.encode(), params or None)
        return await cursor.fetchall() if cursor.description else []

    async def enqueue(self, handler: str, payload: object = None, *, count: int = 1, **fields: Any) -> list[uuid.UUID]:
        """Store tasks for a handler and return their ids."""
        item = {"queue": "q", "handler": handler, "payload": payload, **fields}
        return await self.enqueue_items([item] * count)

    async def enqueue_items(self, items: list[Row]) -> list[uuid.UUID]:
        """Store tasks and return their ids."""
        rows = await self.sql("SELECT * FROM howdah.enqueue_many('default', %s::json)", json.dumps(items))
        assert [row["error"] for row in rows] == [None] * len(items)
        return [row["id"] for row in rows]

    async def history(self, task_id: uuid.UUID) -> list[Row]:
        """What history has of a task, in order."""
        return await self.sql("SELECT * FROM howdah.finished_runs WHERE task_id = %s ORDER BY claim_no", task_id)

    async def ended(self, task_id: uuid.UUID, timeout_s: float = 15.0) -> Row:
        """Wait until a task has ended, and return its last row of history."""

        async def final() -> Row | None:
            rows = [row for row in await self.history(task_id) if row["is_final"]]
            return rows[0] if rows else None

        found = await eventually_async(final, timeout_s, f"task {task_id} has ended")
        assert found is not None
        return found

    async def run(self, task_id: uuid.UUID) -> Row | None:
        """The live run of a task, if there is one."""
        rows = await self.sql("SELECT * FROM howdah.runs WHERE task_id = %s", task_id)
        return rows[0] if rows else None

    async def is_running(self, task_id: uuid.UUID) -> bool:
        """Whether somebody holds a lease of the task."""
        run = await self.run(task_id)
        return run is not None and run["lease_token"] is not None

    async def drained(self, timeout_s: float = 30.0) -> None:
        """Wait until no run is left."""

        async def is_empty() -> bool:
            return not await self.sql("SELECT 1 FROM howdah.runs LIMIT 1")

        await eventually_async(is_empty, timeout_s, "all runs have ended")

    async def rescue(self) -> int:
        """Fail the runs whose lease has run out, as the scheduler does; returns how many."""
        store = ExpiredRuns("howdah")
        async with await psycopg.AsyncConnection.connect(self.database, autocommit=True) as conn, conn.transaction():
            expired = await store.lock(conn, None)
            if expired:
                await store.fail(conn, expired)
        return len(expired)

    async def rescued(self, count: int = 1, timeout_s: float = 15.0) -> None:
        """Wait until `count` leases have run out, and were rescued."""
        left = count

        async def are_all() -> bool:
            nonlocal left
            left -= await self.rescue()
            return left <= 0

        await eventually_async(are_all, timeout_s, f"{count} leases have run out")


def metric(name: str, **labels: str) -> float:
    """The value of a counter or gauge of this process."""
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def handlers() -> Iterator[None]:
    """Forget the handlers that a test declares, and the directory in which a worker looks for them."""
    before, path = dict(REGISTRY._handlers), sys.path[:]
    REGISTRY._handlers.clear()
    yield
    sys.path[:] = path
    REGISTRY._handlers.clear()
    REGISTRY._handlers.update(before)


@pytest_asyncio.fixture
async def bench(database: str, tmp_path: Path, handlers: None) -> AsyncIterator[Workbench]:
    """An empty workbench; its workers are stopped at the end."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True, row_factory=dict_row) as admin:
        made = Workbench(database, admin, tmp_path)
        try:
            yield made
        finally:
            for worker in made.workers:
                if not worker.task.done():
                    worker.service.stop()
                    worker.service.stop()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(20):
                            await worker.task
            for process in made.processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()
