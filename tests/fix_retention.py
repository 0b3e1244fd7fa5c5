"""Expired days: what a scheduler finds that keeps tasks for thirty days, forty days after they were sent."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from howdah_scheduler.retention import LOCK_S_MAX, Retention
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

    from tests.fix_chores import Chores
    from tests.fix_queue import Queue

RETENTION_S = 30 * 86_400.0


@pytest.fixture
def retention() -> Retention:
    """The chore."""
    return Retention("howdah", RETENTION_S)


@pytest.fixture
async def past(chores: Chores, queue: Queue) -> dict[str, Any]:
    """Forty days ago: twenty tasks that ended, one dead letter, one delayed for months, one that runs."""
    await chores.travel("-40 days")
    await queue.sql("SELECT howdah.make_partitions(1)")
    ended = await queue.enqueue(20)
    await queue.complete(await queue.claim(20))
    [dead] = await queue.enqueue(retry={"max_attempts": 1}, payload={"dead": 1})
    await queue.fail(await queue.claim())
    [running] = await queue.enqueue(payload={"running": 1})
    runs = await queue.claim(lease_s=60 * 86_400.0)
    [delayed] = await queue.enqueue(delay="100d", payload={"delayed": 1})
    await chores.travel("0")
    return {"ended": ended, "dead": dead, "running": running, "runs": runs, "delayed": delayed}


async def run_pass(chores: Chores, retention: Retention) -> float:
    """Do rounds until there is a pause, and return it."""
    await make_free(chores)
    for _ in range(60):
        done = await chores.take(retention, "direct")
        assert done is not None, await chores.row("retention")
        if done.next_in_s:
            return done.next_in_s
    raise AssertionError("the chore comes to no end")


async def make_free(chores: Chores) -> None:
    """Let the chore be due, and the lease of whoever died with it be over."""
    await chores.queue.sql(
        "UPDATE howdah.maintenance SET next_at = howdah.now(), leased_until = NULL WHERE chore = 'retention'"
    )


async def expired_tables(queue: Queue) -> list[str]:
    """Tables of expired days, `+` in front of those that are attached."""
    rows = await queue.sql(
        "SELECT CASE WHEN i.inhrelid IS NULL THEN '' ELSE '+' END || c.relname AS name FROM pg_class AS c "
        "LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid WHERE c.relnamespace = 'howdah'::regnamespace "
        "AND c.relkind = 'r' AND substring(c.relname FROM '[0-9]{8}')::date < current_date - 31 ORDER BY c.relname"
    )
    return [row["name"] for row in rows]


async def old_day(queue: Queue) -> str:
    """Return the day of `past` as the names of partitions have it."""
    [row] = await queue.sql("SELECT to_char((statement_timestamp() AT TIME ZONE 'UTC')::date - 40, 'YYYYMMDD') AS day")
    return str(row["day"])


async def kept_tables(queue: Queue) -> list[str]:
    """Return the tables that `past` leaves behind."""
    day = await old_day(queue)
    return [f"+finished_runs_{day}_kept", f"+task_logs_{day}_kept", f"+tasks_{day}_kept"]


@contextlib.asynccontextmanager
async def open_reader(queue: Queue, *parents: str) -> AsyncIterator[None]:
    """Keep a transaction open that has read these tables, and is older than any lock is waited for."""
    reader = await queue.connect()
    async with reader.transaction():
        for parent in parents:
            await reader.execute(f"SELECT count(*) FROM howdah.{parent}".encode())

        async def is_old() -> bool:
            rows = [await queue.run("partition.is_locked", parent=p, name=p, age_s=LOCK_S_MAX) for p in parents]
            return all(row["is_locked"] for [row] in rows)

        await eventually_async(is_old, 5, "the transaction is older than a lock is waited for")
        yield


async def task_states(queue: Queue, ids: Sequence[UUID]) -> list[str | None]:
    """Return the states that clients see, in the order of the ids; None where there is no task."""
    rows = await queue.sql(
        "SELECT howdah.task_state(1, i.id) AS state FROM unnest(%s::uuid[]) WITH ORDINALITY AS i (id, n) ORDER BY i.n",
        ids,
    )
    return [row["state"] for row in rows]
