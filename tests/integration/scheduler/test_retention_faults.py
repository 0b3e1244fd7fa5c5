"""Retention beside everything else: readers that hold on, schedulers that are killed, several at once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from howdah_scheduler.chore import Pace
from howdah_scheduler.retention import BUSY_S, LEASE_S, Retention
from tests.fix_retention import (
    RETENTION_S,
    expired_tables,
    kept_tables,
    make_free,
    open_reader,
    run_pass,
    task_states,
)
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from tests.fix_chores import Chores
    from tests.fix_queue import Queue

# A scheduler that is killed: at once when its statement has ended ("after"), or while it runs ("amid").
VICTIM = """
import asyncio, os, random, signal, sys
from howdah.core.db.connect import connect
from howdah.core.settings import Settings
from howdah.core.store.expired_partitions import ExpiredPartitions
from howdah_scheduler.chore import Turns
from howdah_scheduler.retention import Retention

def deadly(step):
    async def killed(*arguments):
        running = asyncio.ensure_future(step(*arguments))
        await (running if sys.argv[1] == "after" else asyncio.sleep(random.random() * 0.01))
        os.kill(os.getpid(), signal.SIGKILL)
    return killed

for name in ("keep_survivors", "purge", "detach", "finalize", "drop"):
    setattr(ExpiredPartitions, name, deadly(getattr(ExpiredPartitions, name)))

async def main():
    settings = Settings.from_env(os.environ)
    async with await connect(settings, "scheduler", purpose="direct") as conn:
        await Turns(settings).take(conn, Retention("howdah", float(sys.argv[2])))

asyncio.run(main())
"""


async def test_live_task_is_never_without_its_row(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any]
) -> None:
    """While a day is exchanged, others see its survivors all the time."""
    reader = await queue.connect()
    is_over = asyncio.Event()
    seen = set()

    async def look() -> None:
        while not is_over.is_set():
            cursor = await reader.execute("SELECT count(*) AS n FROM howdah.tasks WHERE id = %s", [past["delayed"]])
            row = await cursor.fetchone()
            assert row is not None
            seen.add(row["n"])

    looking = asyncio.create_task(look())
    await run_pass(chores, retention)
    is_over.set()
    await looking

    assert seen == {1}


async def test_open_reader_delays_retention_and_nothing_else(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any]
) -> None:
    """A transaction that has read tasks keeps partitions from going; the service works on, and later they go."""
    async with open_reader(queue, "tasks"):
        pause_s = await run_pass(chores, retention)
        during = await expired_tables(queue)
        new = await queue.enqueue()
        made = await queue.sql("SELECT * FROM howdah.make_partitions(20)")
        states = await task_states(queue, [past["delayed"], past["dead"], *new])
    await run_pass(chores, retention)
    await run_pass(chores, retention)

    assert pause_s == BUSY_S
    assert [name for name in during if name.startswith("+tasks")] != []
    assert len(made) == 18
    assert states == ["scheduled", "failed", "queued"]
    assert await expired_tables(queue) == await kept_tables(queue)


async def test_nobody_waits_behind_a_round_that_waits_for_a_reader(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any]
) -> None:
    """While a reader holds an expired day, no other transaction is kept waiting for as long as 50 ms."""
    client = await queue.connect()
    await client.execute("SET lock_timeout = '50ms'")
    is_over = asyncio.Event()
    count = 0

    async def work() -> None:
        nonlocal count
        while not is_over.is_set():
            await client.execute("SELECT howdah.enqueue('q', 'h')")
            await client.execute("SELECT count(*) FROM howdah.tasks WHERE id = %s", [past["delayed"]])
            count += 1

    async with open_reader(queue, "tasks", "finished_runs"):
        working = asyncio.create_task(work())
        pauses = [await run_pass(chores, retention) for _ in range(2)]
        is_over.set()
        await working

    assert pauses == [BUSY_S] * 2
    assert count > 10


async def test_schedulers_at_once_come_to_the_end_that_one_comes_to(
    chores: Chores, queue: Queue, past: dict[str, Any]
) -> None:
    """Three schedulers that look all the time take turns, and none of them fails."""
    await make_free(chores)

    async def schedule() -> int:
        chore, count = Retention("howdah", RETENTION_S), 0
        while await expired_tables(queue) != await kept_tables(queue):
            count += await chores.take(chore, "direct") is not None
        return count

    counts = await asyncio.wait_for(asyncio.gather(*(schedule() for _ in range(3))), 60)
    row = await chores.row("retention")

    assert sum(counts) > 5
    assert row["failures"] == 0
    assert await task_states(queue, [past["dead"], past["running"], past["delayed"]]) == [
        "failed",
        "running",
        "scheduled",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["after", pytest.param("amid", marks=pytest.mark.one_server)])
async def test_kill_at_any_step_loses_nothing(
    chores: Chores, queue: Queue, past: dict[str, Any], database: str, moment: str
) -> None:
    """Schedulers that are killed one after the other, each at its first step, come to the end that one comes to."""
    environment = {**os.environ, "HOWDAH_DATABASE_URL": database}
    codes = []
    while await expired_tables(queue) != await kept_tables(queue) and len(codes) < 40:
        await make_free(chores)
        # The statement of a client that was killed ends by itself; until then it holds its locks.
        await eventually_async(lambda: _is_idle(queue), 20, "the statement of the one before has ended")
        victim = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", VICTIM, moment, str(RETENTION_S)], check=False, env=environment
        )
        codes.append(victim.returncode)
    await run_pass(chores, Retention("howdah", RETENTION_S))
    survivors = [past["dead"], past["running"], past["delayed"]]

    assert len(codes) > 5
    assert set(codes) == {-signal.SIGKILL}
    assert await expired_tables(queue) == await kept_tables(queue)
    assert await task_states(queue, [*past["ended"], *survivors]) == [None] * 20 + ["failed", "running", "scheduled"]
    assert [row["task_id"] for row in await queue.history()] == [past["dead"]]
    assert len(await queue.complete(past["runs"])) == 1


async def _is_idle(queue: Queue) -> bool:
    rows = await queue.sql(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'howdah-scheduler'"
    )
    return rows == []


async def test_detachment_that_was_interrupted_is_finalized(
    chores: Chores, queue: Queue, retention: Retention, database: str
) -> None:
    """A detachment that ended half-way, for its scheduler died or gave up waiting, is completed by the next pass."""
    await chores.travel("-40 days")
    await queue.sql("SELECT howdah.make_partitions(0)")
    await chores.travel("0")
    async with await psycopg.AsyncConnection.connect(database) as reader:
        await reader.execute("SELECT count(*) FROM howdah.tasks")
        await run_pass(chores, retention)
        pending = await queue.sql("SELECT 1 FROM pg_inherits WHERE inhdetachpending")
    await run_pass(chores, retention)

    assert len(pending) == 1
    assert await expired_tables(queue) == []


@pytest.mark.slow
async def test_killed_scheduler_keeps_others_off_for_half_a_minute(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any], database: str
) -> None:
    """While a scheduler may be at work no other begins; one that was killed is not waited for longer than its lease."""
    environment = {**os.environ, "HOWDAH_DATABASE_URL": database}
    command = [sys.executable, "-c", VICTIM, "after", str(RETENTION_S)]
    victim = await asyncio.to_thread(subprocess.run, command, check=False, env=environment)
    at_once = await chores.take(retention, "direct")
    await chores.travel(f"{LEASE_S - 10} seconds")
    before = await chores.take(retention, "direct")
    await chores.travel(f"{LEASE_S} seconds")
    after = await chores.take(retention, "direct")

    assert victim.returncode == -signal.SIGKILL
    assert at_once is None
    assert before is None
    assert after is not None
    assert LEASE_S <= 30


async def test_lease_is_renewed_while_a_round_works(
    chores: Chores, queue: Queue, retention: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round that takes longer than its lease keeps the chore all the time, and is recorded in the end."""
    work, lease_s = retention.work, 0.6
    monkeypatch.setattr(Retention, "pace", Pace(10.0, 10.0, 1.0, 600.0, lease_s=lease_s))

    async def slow(*arguments: Any) -> Any:
        first = (await chores.row("retention"))["leased_until"]

        async def has_outlived_it() -> bool:
            [row] = await queue.sql(
                "SELECT leased_until > howdah.now() AND howdah.now() > %s + make_interval(secs => %s) AS is_so "
                "FROM howdah.maintenance WHERE chore = 'retention'",
                first,
                lease_s,
            )
            taken.append(await chores.take(Retention("howdah", RETENTION_S), "direct"))
            return bool(row["is_so"])

        await eventually_async(has_outlived_it, 20, "two leases are over")
        return await work(*arguments)

    taken: list[object] = []
    monkeypatch.setattr(retention, "work", slow)
    done = await chores.take(retention, "direct")
    row = await chores.row("retention")

    assert taken
    assert set(taken) == {None}
    assert done is not None
    assert row["last_good_at"] is not None
    assert row["leased_until"] is None


async def test_scheduler_that_lost_its_lease_records_nothing(
    chores: Chores, queue: Queue, retention: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes back after another took the chore over leaves the other's lease alone."""
    work = retention.work

    async def stalled(*arguments: Any) -> Any:
        done = await work(*arguments)
        await queue.sql(
            "UPDATE howdah.maintenance SET leased_until = howdah.now() + interval '1 hour' WHERE chore = 'retention'"
        )
        return done

    monkeypatch.setattr(retention, "work", stalled)
    done = await chores.take(retention, "direct")
    row = await chores.row("retention")

    assert done is None
    assert row["leased_until"] is not None
    assert row["last_good_at"] is None
