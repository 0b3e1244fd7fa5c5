"""Chores by hand: each round when the test wants it, at the time that the test wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from howdah.core.db.connect import connect
from howdah.core.settings import Settings
from howdah_scheduler.chore import Turns
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from howdah.core.db.connect import Purpose
    from howdah_scheduler.chore import Chore, Round
    from tests.fix_queue import Queue


@dataclass
class Chores:
    """Schedulers that do one round of a chore at a time, each on a connection of its own."""

    settings: Settings
    queue: Queue

    async def take(self, chore: Chore, purpose: Purpose = "hot") -> Round | None:
        """Do one round of a chore as a scheduler would; None if it is not due, is another's, or fails."""
        async with await connect(self.settings, "scheduler", purpose=purpose) as conn:
            return await Turns(self.settings).take(conn, chore)

    async def row(self, chore: str) -> dict[str, object]:
        """What `maintenance` says of a chore."""
        [row] = await self.queue.sql("SELECT * FROM howdah.maintenance WHERE chore = %s", chore)
        return row

    async def make_due(self, chore: str) -> None:
        """Let the chore's time have come."""
        await self.queue.sql("UPDATE howdah.maintenance SET next_at = howdah.now() WHERE chore = %s", chore)

    async def keep_well(self) -> None:
        """Let rescue have been done a moment ago, and the workers have leases shorter than the server is old."""

        async def is_old_enough() -> bool:
            [row] = await self.queue.sql(
                "SELECT statement_timestamp() - pg_postmaster_start_time() > interval '1 second' AS is_old"
            )
            return bool(row["is_old"])

        await eventually_async(is_old_enough, 5, "the server is a second old")
        await self.queue.sql(
            "UPDATE howdah.maintenance SET last_good_at = howdah.now(), next_at = howdah.now() WHERE chore = 'rescue'"
        )
        await self.register(lease_s=1.0)

    async def register(self, *, lease_s: float = 15.0, handlers: tuple[str, ...] = (), http: bool = False) -> int:
        """Register a worker that is live now, and return its id."""
        [row] = await self.queue.run(
            "worker.register",
            name=f"w{id(object())}",
            host="h",
            pid=1,
            version="0",
            queues=["*"],
            handlers=list(handlers),
            serves_http=http,
            concurrency=1,
            lease_s=lease_s,
        )
        worker_id: int = row["id"]
        return worker_id

    async def travel(self, interval: str) -> None:
        """Shift the database's time for this test's present session and for all later ones."""
        database = self.queue.admin.info.dbname
        await self.queue.admin.execute(
            sql.SQL("ALTER DATABASE {} SET howdah.clock_offset = {}").format(sql.Identifier(database), interval)
        )
        await self.queue.admin.execute(sql.SQL("SET howdah.clock_offset = {}").format(interval))


@pytest.fixture
def chores(queue: Queue, database: str) -> Chores:
    """Chores on the test's own database."""
    return Chores(Settings.from_env({"HOWDAH_DATABASE_URL": database}), queue)


async def listen(database: str, schema: str = "howdah") -> psycopg.AsyncConnection:
    """Open a session that hears the wake-ups of a schema."""
    conn = await psycopg.AsyncConnection.connect(database, autocommit=True)
    await conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(f"{schema}_wake")))
    return conn


async def heard(conn: psycopg.AsyncConnection) -> list[str]:
    """Return the words of all wake-ups that were committed so far."""
    return [word async for n in conn.notifies(timeout=0.05) for word in n.payload.split(" ")]
