"""What `howdah bench` measures: how fast tasks are stored, run and started on a user's own server.

In a tenant of its own with queues of its own, by a worker of its own that takes
from no others; all of it is removed afterwards. Nobody else's tasks are touched,
but the server has more to do: it refuses to start where it would be felt.

The worker imports this module for its handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from howdah.core.clock import DatabaseClock
from howdah.core.db.connect import connect
from howdah.core.db.errors import translated
from howdah.core.db.schema_version import check_schema
from howdah.core.errors import Refused
from howdah.core.ids import IdMint
from howdah.core.store.benchmarks import Benchmarks
from howdah.core.store.lanes import Lanes
from howdah.core.store.server import Server
from howdah.core.store.tasks import Draft, Kind, Stored, Tasks
from howdah.core.store.tenants import Tenants
from howdah.core.wake import LaneReady
from howdah.handlers import handler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from howdah.core.db.connect import Connection
    from howdah.core.settings import Settings

PROCESS: Final = "bench"
HANDLER: Final = "howdah.bench"
# As many callers as storing one by one is quoted with for other queues.
SESSIONS: Final = 16
BATCH: Final = 1_000
# Tasks that are sent one at a time, each to a worker that sleeps.
LONELY: Final = 200
_PAYLOAD: Final = b'{"to":"somebody@example.com","text":"a payload of about one hundred bytes, as most are, or less"}'
_LOOK_S: Final = 0.25
_WORKER_STOP_S: Final = 40.0


@handler(HANDLER)
async def nothing(payload: Any) -> None:
    """Do nothing: what is measured is everything around it."""


class Figures(NamedTuple):
    """What was measured; rates in tasks a second, waits in seconds."""

    single_per_s: float
    """Stored one by one by `SESSIONS` sessions, each committed by itself."""
    batch_per_s: float
    """Stored in batches of `BATCH` by one session."""
    run_per_s: float
    """Run by one worker process, from the first claim to the last recorded outcome."""
    wait_p50_s: float
    """Median time from the statement that stores a task to the one that claims it, by a worker that slept."""
    wait_p99_s: float


async def measure(settings: Settings, *, count: int, may_disturb: bool) -> Figures:
    """Measure with `count` tasks, and leave nothing behind.

    Raises:
        Refused: Tasks are run, or were until a moment ago, and `may_disturb` is false;
            or the worker ended before its tasks had.
        SchemaRefused: The schema does not fit this release.
        DatabaseUnavailable: There is no connection.
    """
    async with await connect(settings, PROCESS, purpose="hot") as conn:
        with translated():
            await check_schema(conn, settings.schema)
        clock = DatabaseClock()
        await Server(settings.schema).sample_clock(conn, clock)
        benchmarks = Benchmarks(settings.schema)
        if not may_disturb and await benchmarks.is_busy(conn):
            raise Refused(
                "busy",
                "",
                "tasks are run here, or were two minutes ago, and would be slowed down; --disturb does it anyway",
            )
        async with _tenant(settings, conn, benchmarks) as (tenant_id, name):
            return await _Bench(settings, conn, benchmarks, IdMint(clock.now_ms), tenant_id, name).run(count)


@contextlib.asynccontextmanager
async def _tenant(settings: Settings, conn: Connection, benchmarks: Benchmarks) -> AsyncIterator[tuple[int, str]]:
    name = f"howdah-bench-{secrets.token_hex(4)}"
    with translated():
        tenant_id, _ = await Tenants(settings.schema).create(conn, name)
    try:
        yield tenant_id, name
    finally:
        await benchmarks.remove(conn, tenant_id)


class _Bench:
    """One benchmark in its tenant."""

    def __init__(
        self,
        settings: Settings,
        conn: Connection,
        benchmarks: Benchmarks,
        mint: IdMint,
        tenant_id: int,
        name: str,
    ) -> None:
        self._settings = settings
        self._conn = conn
        self._benchmarks = benchmarks
        self._mint = mint
        self._tenant_id = tenant_id
        self._name = name
        self._tasks = Tasks(settings.schema)

    async def run(self, count: int) -> Figures:
        batch_per_s = await self._store_batches(count)
        single_per_s = await self._store_singly(max(SESSIONS, count // 10))
        async with self._worker():
            await self._until_ended()
            await self._send_lonely()
            await self._until_ended()
        ended = await self._benchmarks.ended(self._conn, self._tenant_id)
        full, lonely = ended[f"{self._name}.full"], ended[f"{self._name}.lonely"]
        return Figures(single_per_s, batch_per_s, full.ended / full.seconds, lonely.wait_p50_s, lonely.wait_p99_s)

    async def _store(self, conn: Connection, queue: str, count: int) -> Sequence[Stored]:
        fields = b'{"queue":"%b.%b","handler":"%b"}' % (self._name.encode(), queue.encode(), HANDLER.encode())
        kind = Kind(f"{self._name}.{queue}", HANDLER, 1, None)
        drafts = [Draft(task_id, fields, _PAYLOAD, kind) for task_id in self._mint.mint_many(count)]
        stored = await self._tasks.store(conn, {self._tenant_id: drafts})
        return stored[self._tenant_id]

    async def _store_batches(self, count: int) -> float:
        await self._store(self._conn, "full", 1)  # The names are made only once.
        began = time.monotonic()
        for start in range(0, count, BATCH):
            await self._store(self._conn, "full", min(BATCH, count - start))
        return count / (time.monotonic() - began)

    async def _store_singly(self, count: int) -> float:
        """Store by so many sessions at once; each task is a transaction."""
        async with contextlib.AsyncExitStack() as opened:
            sessions = [
                await opened.enter_async_context(await connect(self._settings, PROCESS, purpose="hot"))
                for _ in range(SESSIONS)
            ]
            numbers = iter(range(count))

            async def caller(conn: Connection) -> None:
                for _ in numbers:
                    await self._store(conn, "full", 1)

            # The first call of a session makes its plans.
            await asyncio.gather(*(self._store(conn, "full", 1) for conn in sessions))
            began = time.monotonic()
            await asyncio.gather(*map(caller, sessions))
            return count / (time.monotonic() - began)

    async def _send_lonely(self) -> None:
        """Send tasks with pauses in which the worker falls asleep, and wake it as the API would."""
        lanes, spread = Lanes(self._settings.schema), random.Random(7)
        for _ in range(LONELY):
            [stored] = await self._store(self._conn, "lonely", 1)
            assert stored.queue_id is not None, "it was created"
            assert stored.priority is not None, "it was created"
            assert stored.run_at is not None, "it was created"
            await lanes.notify(self._conn, [LaneReady.at(stored.queue_id, stored.priority, stored.run_at)])
            await asyncio.sleep(spread.uniform(0.02, 0.06))

    async def _until_ended(self) -> None:
        while await self._benchmarks.has_runs(self._conn, self._tenant_id):
            if self._process.poll() is not None:
                raise Refused("worker_ended", "", f"the benchmark's worker ended with code {self._process.returncode}")
            await asyncio.sleep(_LOOK_S)

    @contextlib.asynccontextmanager
    async def _worker(self) -> AsyncIterator[None]:
        """Run a worker that serves these queues and this handler, and nothing else."""
        environment = {
            **os.environ,
            "HOWDAH_QUEUES": f"{self._name}.*",
            "HOWDAH_HANDLERS": __name__,
            "HOWDAH_CALLBACKS": "0",
            "HOWDAH_LOG_LEVEL": "warning",
            "HOWDAH_METRICS_PORT": "",
        }
        self._process = subprocess.Popen(  # noqa: ASYNC220 - takes a millisecond, before anything is measured
            [sys.executable, "-P", "-m", "howdah", "worker"], env=environment, stdout=sys.stderr
        )
        try:
            yield
        finally:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, _WORKER_STOP_S)
