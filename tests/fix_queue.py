"""The protocol by hand: each statement of a worker as one call, on a connection that the test chooses.

With it a test plays several workers in one thread and decides which of them
acts when; what one statement would do in production is one call here.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest_asyncio
from psycopg.rows import dict_row

from howdah.core.db.connect import session_settings
from howdah.core.db.dsn import connection_string
from howdah.core.db.queries import load
from howdah.core.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

FLOOR = (datetime(2000, 1, 1, tzinfo=UTC), uuid.UUID(int=0))

Row = dict[str, Any]


@dataclass
class Queue:
    """One queue named `q` with the handler `h`, and the statements that move its runs."""

    database: str
    admin: psycopg.AsyncConnection[Row]
    queue_id: int = 0
    target_id: int = 0
    connections: list[psycopg.AsyncConnection[Row]] = field(default_factory=list)

    async def connect(self) -> psycopg.AsyncConnection[Row]:
        """Open another session, with the settings of a worker's; it is closed with the fixture."""
        settings = Settings.from_env({"HOWDAH_DATABASE_URL": self.database})
        conninfo = connection_string(self.database, "test", session_settings(settings, "hot"))
        connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True, row_factory=dict_row)
        self.connections.append(connection)
        return connection

    async def run(self, name: str, /, conn: psycopg.AsyncConnection[Row] | None = None, **params: Any) -> list[Row]:
        """Execute one of the query files and return its rows."""
        cursor = await (conn or self.admin).execute(load(name, "howdah"), params)
        return await cursor.fetchall() if cursor.description else []

    async def sql(self, statement: str, *params: Any) -> list[Row]:
        """Execute SQL of the test's own."""
        cursor = await self.admin.execute(statement.encode(), params or None)
        return await cursor.fetchall() if cursor.description else []

    async def enqueue(self, count: int = 1, **fields: Any) -> list[uuid.UUID]:
        """Store tasks for the handler `h` and return their ids."""
        items = [{"queue": "q", "handler": "h", **fields}] * count
        rows = await self.sql("SELECT * FROM howdah.enqueue_many('default', %s::json)", json.dumps(items))
        assert [row["error"] for row in rows] == [None] * count
        [names] = await self.sql(
            "SELECT q.id AS queue_id, t.id AS target_id FROM howdah.queues q, howdah.targets t "
            "WHERE q.name = 'q' AND t.handler = 'h'"
        )
        self.queue_id, self.target_id = names["queue_id"], names["target_id"]
        return [row["id"] for row in rows]

    async def outlive(self, conn: psycopg.AsyncConnection[Row] | None = None, *, followed: bool = False) -> list[Row]:
        """End the tasks whose time to start has passed: those that have follow-ups, or all others."""
        return await self.run("run.expire", conn, has_follow_ups=followed, passed_by=[], run_count_max=500)

    async def claim(
        self,
        count: int = 1,
        *,
        worker_id: int = 1,
        lease_s: float = 15.0,
        grace_s: float = 1e9,
        conn: psycopg.AsyncConnection[Row] | None = None,
        horizon: tuple[datetime, uuid.UUID] = FLOOR,
        token: uuid.UUID | None = None,
        priorities: Sequence[int] = (1,),
        query: str = "run.claim",
    ) -> list[Row]:
        """Claim up to `count` runs of each priority; each row also holds its `lease_token`."""
        token = token or uuid.uuid4()
        lane_count = len(priorities)
        rows = await self.run(
            query,
            conn,
            queue_ids=[self.queue_id] * lane_count,
            priorities=list(priorities),
            horizon_run_ats=[horizon[0]] * lane_count,
            horizon_task_ids=[horizon[1]] * lane_count,
            shares=[count] * lane_count,
            target_ids=[self.target_id],
            worker_id=worker_id,
            lease_token=token,
            lease_s=lease_s,
            grace_s=grace_s,
        )
        return [{**row, "lease_token": token} for row in rows]

    async def claim_limited(self, count: int = 1, *, priorities: Sequence[int] = (4, 1), **keywords: Any) -> list[Row]:
        """Claim up to `count` runs of each priority as a queue with limits wants it."""
        rows = await self.claim(count, priorities=priorities, query="run.claim_limited", **keywords)
        return [row for row in rows if row["task_id"] is not None]

    async def settle(self, runs: Sequence[Row] = ()) -> list[Row]:
        """Give what these runs left free to those that wait for it; returns the lanes to announce."""
        keys = [run["flow_key_id"] for run in runs if run["flow_key_id"] is not None]
        return await self.run("run.settle", queue_ids=[self.queue_id], flow_key_ids=keys)

    async def complete(
        self, runs: Sequence[Row], outcome: str = "succeeded", conn: psycopg.AsyncConnection[Row] | None = None
    ) -> list[Row]:
        """Report runs as ended for good; returns those that were still held."""
        count = len(runs)
        return await self.run(
            "run.complete",
            conn,
            **_leases(runs),
            outcomes=[outcome] * count,
            results=["1"] * count,
            errors=[None] * count,
            response_statuses=[None] * count,
            response_bodies=[None] * count,
            durations_s=[0.1] * count,
        )

    async def fail(
        self,
        runs: Sequence[Row],
        outcome: str = "failed",
        *,
        retryable: bool = True,
        retry_in_s: float | None = None,
        counts_crash: bool = True,
        is_decided: bool = False,
        error_type: str = "test",
        response_status: int | None = None,
        conn: psycopg.AsyncConnection[Row] | None = None,
    ) -> list[Row]:
        """Report attempts as not succeeded; returns those that were still held, with what became of them."""
        count = len(runs)
        return await self.run(
            "run.fail",
            conn,
            **_leases(runs),
            outcomes=[outcome] * count,
            retryable=[retryable] * count,
            retry_ins_s=[retry_in_s] * count,
            counts_crash=[counts_crash] * count,
            is_decided=[is_decided] * count,
            errors=[json.dumps({"type": error_type, "message": "it failed"})] * count,
            response_statuses=[response_status] * count,
            response_bodies=[None] * count,
            durations_s=[0.1] * count,
        )

    async def release(self, runs: Sequence[Row], conn: psycopg.AsyncConnection[Row] | None = None) -> list[Row]:
        """Hand runs back."""
        return await self.run("run.release", conn, **_leases(runs))

    async def heartbeat(
        self, runs: Sequence[Row], lease_s: float = 15.0, conn: psycopg.AsyncConnection[Row] | None = None
    ) -> list[Row]:
        """Renew the leases of runs; returns a verdict for each."""
        return await self.run("run.heartbeat", conn, **_leases(runs), lease_s=lease_s, grace_s=5.0)

    async def await_callback(self, runs: Sequence[Row], conn: psycopg.AsyncConnection[Row] | None = None) -> list[Row]:
        """Report that receivers answered 202; returns those that were still held, with what became of them."""
        return await self.run("run.await", conn, **_leases(runs))

    async def extend(self, run: Row, extend_s: float | None = None) -> list[Row]:
        """Say for its receiver that a run is still under way."""
        lease = {name: run[name] for name in ("tenant_id", "task_id", "lease_token")}
        return await self.run("run.extend", **lease, extend_s=extend_s)

    async def find_recorded(self, runs: Sequence[Row]) -> list[Row]:
        """Look up in history what was recorded for these leases."""
        return await self.run("run.find_recorded", **_leases(runs))

    async def begin_alone(self, run: Row, timeout_s: float = 60.0) -> list[Row]:
        """Say that a run is executed with nothing beside it from now on; returns nothing if it must not be."""
        lease = {name: run[name] for name in ("tenant_id", "task_id", "lease_token")}
        return await self.run("run.begin_alone", **lease, timeout_s=timeout_s)

    async def expire(self, runs: Sequence[Row]) -> None:
        """Let the leases of runs end now."""
        await self.sql(
            "UPDATE howdah.runs SET lease_expires_at = howdah.now() - interval '1 second' WHERE task_id = ANY (%s)",
            [run["task_id"] for run in runs],
        )

    async def rescue(self, conn: psycopg.AsyncConnection[Row] | None = None) -> list[Row]:
        """Do what the rescue chore does with one page, in one transaction."""
        conn = conn or self.admin
        async with conn.transaction():
            expired = await self.run("run.lock_expired", conn, hold_until=None)
            return await self.fail(expired, "lost", conn=conn) if expired else []

    async def history(self) -> list[Row]:
        """All ended claims, by task and claim."""
        return await self.sql(
            "SELECT task_id, claim_no, attempt, outcome, is_final, worker_id, lease_token, error, result "
            "FROM howdah.finished_runs ORDER BY task_id, claim_no"
        )

    async def state(self, task_id: uuid.UUID) -> str:
        """State of a task as a client sees it."""
        [row] = await self.sql("SELECT howdah.task_state(1, %s) AS state", task_id)
        return str(row["state"])


def _leases(runs: Sequence[Row]) -> dict[str, list[Any]]:
    return {
        "tenant_ids": [run["tenant_id"] for run in runs],
        "task_ids": [run["task_id"] for run in runs],
        "lease_tokens": [run["lease_token"] for run in runs],
    }


@pytest_asyncio.fixture
async def queue(database: str) -> AsyncIterator[Queue]:
    """An empty queue in the test's own database."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True, row_factory=dict_row) as admin:
        made = Queue(database, admin)
        try:
            yield made
        finally:
            for connection in made.connections:
                await connection.close()
