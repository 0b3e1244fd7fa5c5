"""Retention: expired days go, what still lives in them stays, and a kill at any moment loses nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from tests.fix_wait import eventually_async

from howdah_scheduler.retention import BUSY_S, INTERVAL_S, Retention

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from tests.fix_chores import Chores
    from tests.fix_queue import Queue

RETENTION_S = 30 * 86_400.0

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
        await Turns("howdah").take(conn, Retention("howdah", float(sys.argv[2])))

asyncio.run(main())
"""


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


async def _pass(chores: Chores, retention: Retention) -> float:
    """Do rounds until there is a pause, and return it."""
    await _make_free(chores)
    for _ in range(60):
        done = await chores.take(retention, "direct")
        assert done is not None, await chores.row("retention")
        if done.next_in_s:
            return done.next_in_s
    raise AssertionError("the chore comes to no end")


async def _make_free(chores: Chores) -> None:
    """Let the chore be due, and the lease of whoever died with it be over."""
    await chores.queue.sql(
        "UPDATE howdah.maintenance SET next_at = howdah.now(), leased_until = NULL WHERE chore = 'retention'"
    )


async def _tables(queue: Queue) -> list[str]:
    """Tables of expired days, `+` in front of those that are attached."""
    rows = await queue.sql(
        "SELECT CASE WHEN i.inhrelid IS NULL THEN '' ELSE '+' END || c.relname AS name FROM pg_class AS c "
        "LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid WHERE c.relnamespace = 'howdah'::regnamespace "
        "AND c.relkind = 'r' AND substring(c.relname FROM '[0-9]{8}')::date < current_date - 31 ORDER BY c.relname"
    )
    return [row["name"] for row in rows]


async def _kept(queue: Queue, days_ago: int = 40) -> list[str]:
    [row] = await queue.sql("SELECT to_char((now() AT TIME ZONE 'UTC')::date - %s, 'YYYYMMDD') AS day", days_ago)
    return [f"+finished_runs_{row['day']}_kept", f"+tasks_{row['day']}_kept"]


async def _states(queue: Queue, ids: Sequence[UUID]) -> list[str | None]:
    rows = await queue.sql(
        "SELECT howdah.task_state(1, i.id) AS state FROM unnest(%s::uuid[]) WITH ORDINALITY AS i (id, n) ORDER BY i.n",
        ids,
    )
    return [row["state"] for row in rows]


async def test_expired_days_without_survivors_are_dropped(chores: Chores, queue: Queue, retention: Retention) -> None:
    """Tasks and history that have served their time go with their partitions; younger days stay as they are."""
    await chores.travel("-40 days")
    await queue.sql("SELECT howdah.make_partitions(1)")
    old = await queue.enqueue(5)
    await queue.complete(await queue.claim(5))
    await chores.travel("0")
    young = await queue.enqueue(2)
    before = await _tables(queue)
    pause_s = await _pass(chores, retention)

    assert len(before) == 6
    assert await _tables(queue) == []
    assert pause_s == INTERVAL_S
    assert await _states(queue, [*old, *young]) == [None] * 5 + ["queued"] * 2
    assert await queue.sql("SELECT 1 FROM howdah.finished_runs") == []


async def test_day_stays_until_all_of_it_has_expired(chores: Chores, queue: Queue, retention: Retention) -> None:
    """A day's tasks are kept for the retention after its end, to the second."""
    [row] = await queue.sql(
        "SELECT (date_trunc('day', now() AT TIME ZONE 'UTC') - (now() AT TIME ZONE 'UTC'))::text AS to_midnight"
    )
    await chores.travel(f"{row['to_midnight']}")
    await queue.sql("SELECT howdah.make_partitions(0)")
    await chores.travel(f"31 days {row['to_midnight']}")
    await chores.travel("30 days 20 hours")
    await queue.sql("SET TimeZone = 'UTC'")
    await _pass(chores, retention)
    rows = await queue.sql(
        "SELECT (howdah.now() AT TIME ZONE 'UTC')::date - min(substring(c.relname FROM '[0-9]{8}')::date) AS age "
        "FROM pg_class AS c WHERE c.relname ~ '^tasks_[0-9]{8}$' AND c.relkind = 'r'"
    )

    assert rows[0]["age"] == 30


async def test_survivors_stay_readable_and_claimable(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any]
) -> None:
    """Live tasks and dead letters of an expired day keep payload, history and the way to their end."""
    await _pass(chores, retention)
    survivors = [past["dead"], past["running"], past["delayed"]]
    states = await _states(queue, [*past["ended"], *survivors])
    payloads = await queue.sql("SELECT payload::text AS text FROM howdah.tasks ORDER BY id")
    finished = await queue.complete(past["runs"])
    await queue.sql("UPDATE howdah.runs SET run_at = howdah.now()")
    claimed = await queue.claim()
    again = await queue.fail(claimed)

    assert await _tables(queue) == await _kept(queue)
    assert states == [None] * 20 + ["failed", "running", "scheduled"]
    # Byte for byte as they came: the fixture's spaces are the client's.
    assert [row["text"] for row in payloads] == ['{"dead": 1}', '{"running": 1}', '{"delayed": 1}']
    assert [row["task_id"] for row in finished] == [past["running"]]
    assert [(run["task_id"], run["has_task"]) for run in claimed] == [(past["delayed"], True)]
    assert [row["verdict"] for row in again] in (["retry"], ["dead"])
    assert [row["outcome"] for row in await queue.history()] == ["failed", "succeeded", "failed"]


async def test_kept_partition_is_emptied_and_dropped_in_the_end(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any]
) -> None:
    """What ends later leaves with the next pass, and the partition with its last task."""
    await _pass(chores, retention)
    await queue.complete(past["runs"])
    await _pass(chores, retention)
    some = await _states(queue, [past["dead"], past["running"], past["delayed"]])
    history = [row["task_id"] for row in await queue.history()]
    await queue.sql("SELECT howdah.cancel(%s)", past["delayed"])
    await queue.sql("DELETE FROM howdah.dead_letters")
    await _pass(chores, retention)

    assert some == ["failed", None, "scheduled"]
    assert history == [past["dead"]]
    assert await _tables(queue) == []


async def test_live_task_is_never_without_its_row(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any]
) -> None:
    """While a day is exchanged, others see its survivors all the time, and can write their history."""
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
    await _pass(chores, retention)
    is_over.set()
    await looking

    assert seen == {1}


async def test_open_reader_delays_retention_and_nothing_else(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any]
) -> None:
    """A transaction that has read tasks keeps partitions from going; the service works on, and later they go."""
    reader = await queue.connect()
    async with reader.transaction():
        await reader.execute("SELECT count(*) FROM howdah.tasks")
        pause_s = await _pass(chores, retention)
        during = await _tables(queue)
        new = await queue.enqueue()
        made = await queue.sql("SELECT * FROM howdah.make_partitions(20)")
        states = await _states(queue, [past["delayed"], past["dead"], *new])
    await _pass(chores, retention)
    await _pass(chores, retention)

    assert pause_s == BUSY_S
    assert [name for name in during if name.startswith("+tasks")] != []
    assert len(made) == 12
    assert states == ["scheduled", "failed", "queued"]
    assert await _tables(queue) == await _kept(queue)


async def test_partition_that_somebody_else_detached_is_left_alone(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any]
) -> None:
    """An operator may detach an old day to archive it: it is theirs, and stays."""
    [first, *_] = [name[1:] for name in await _tables(queue) if name.startswith("+tasks")]
    await queue.sql(f"ALTER TABLE howdah.tasks DETACH PARTITION howdah.{first}")
    await _pass(chores, retention)

    assert first in await _tables(queue)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["after", "amid"])
async def test_kill_at_any_step_loses_nothing(
    chores: Chores, queue: Queue, past: dict[str, Any], database: str, moment: str
) -> None:
    """Schedulers that are killed one after the other, each at its first step, come to the end that one comes to."""
    environment = {**os.environ, "HOWDAH_DATABASE_URL": database}
    codes = []
    while await _tables(queue) != await _kept(queue) and len(codes) < 40:
        await _make_free(chores)
        # The statement of a client that was killed ends by itself; until then it holds its locks.
        await eventually_async(lambda: _is_idle(queue), 20, "the statement of the one before has ended")
        victim = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", VICTIM, moment, str(RETENTION_S)], check=False, env=environment
        )
        codes.append(victim.returncode)
    await _pass(chores, Retention("howdah", RETENTION_S))
    survivors = [past["dead"], past["running"], past["delayed"]]

    assert len(codes) > 5
    assert set(codes) == {-signal.SIGKILL}
    assert await _tables(queue) == await _kept(queue)
    assert await _states(queue, [*past["ended"], *survivors]) == [None] * 20 + ["failed", "running", "scheduled"]
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
        await _pass(chores, retention)
        pending = await queue.sql("SELECT 1 FROM pg_inherits WHERE inhdetachpending")
    await _pass(chores, retention)

    assert len(pending) == 1
    assert await _tables(queue) == []


async def test_lease_keeps_others_off_until_it_ends(chores: Chores, queue: Queue, retention: Retention) -> None:
    """While a scheduler may be at work no other begins; if nothing was heard of it for a lease, another does."""
    await queue.sql(
        "UPDATE howdah.maintenance SET leased_until = howdah.now() + interval '10 minutes' WHERE chore = 'retention'"
    )
    during = await chores.take(retention, "direct")
    await chores.travel("11 minutes")
    after = await chores.take(retention, "direct")

    assert during is None
    assert after is not None


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
