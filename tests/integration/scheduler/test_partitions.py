"""Partitions: made two weeks ahead, and at once when the day's own is missing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from howdah_scheduler.partitions import MakePartitions

if TYPE_CHECKING:
    from tests.fix_chores import Chores
    from tests.fix_queue import Queue

DAYS_AHEAD = 14
PARENTS = ("tasks", "finished_runs", "task_logs")


@pytest.fixture
def chore() -> MakePartitions:
    """The chore."""
    return MakePartitions("howdah", DAYS_AHEAD)


async def _ahead(queue: Queue) -> int:
    [row] = await queue.run("partition.ahead")
    return int(row["day_count"])


async def _name(queue: Queue, parent: str, days: int = 0) -> str:
    """Return the name of a day's partition, counted from today."""
    [row] = await queue.sql(
        "SELECT %s || '_' || to_char((howdah.now() AT TIME ZONE 'UTC')::date + %s, 'YYYYMMDD') AS name", parent, days
    )
    return str(row["name"])


async def _drop(queue: Queue, parent: str, days: int = 0) -> None:
    name = sql.Identifier("howdah", await _name(queue, parent, days))
    await queue.admin.execute(sql.SQL("DROP TABLE {}").format(name))


async def test_due_round_makes_what_time_has_used_up(chores: Chores, queue: Queue, chore: MakePartitions) -> None:
    """After ten days without a round, the next one makes ten more days of both tables."""
    await chores.make_due("partitions")
    await chores.take(chore, "direct")
    full = await _ahead(queue)
    await chores.travel("10 days")
    left = await _ahead(queue)
    done = await chores.take(chore, "direct")

    assert full == DAYS_AHEAD + 1
    assert left == DAYS_AHEAD - 9
    assert done is not None
    assert await _ahead(queue) == DAYS_AHEAD + 1


async def test_round_that_is_not_due_waits_while_tomorrow_is_there(
    chores: Chores, queue: Queue, chore: MakePartitions
) -> None:
    """With today's and tomorrow's in place nothing is urgent, whatever else is missing."""
    await chores.make_due("partitions")
    await chores.take(chore, "direct")
    await _drop(queue, "tasks", days=2)

    assert await chores.take(chore, "direct") is None


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("days", [0, 1], ids=["today", "tomorrow"])
async def test_missing_partition_is_made_before_its_time(
    chores: Chores, queue: Queue, chore: MakePartitions, parent: str, days: int
) -> None:
    """A day's partition that somebody dropped is back with the next look, an hour before the chore is due."""
    await chores.make_due("partitions")
    await chores.take(chore, "direct")
    await _drop(queue, parent, days)
    done = await chores.take(chore, "direct")

    assert done is not None
    assert await _ahead(queue) == DAYS_AHEAD + 1


async def test_tasks_are_stored_after_a_long_stop(chores: Chores, queue: Queue, chore: MakePartitions) -> None:
    """A service that stood still until after its last partition refuses tasks until one look of a scheduler."""
    await chores.travel("60 days")
    with pytest.raises(psycopg.Error, match="no partition for today"):
        await queue.enqueue()
    await chores.take(chore, "direct")
    [task] = await queue.enqueue()

    assert await queue.state(task) == "queued"


async def test_open_reader_neither_delays_nor_is_blocked(
    chores: Chores, queue: Queue, chore: MakePartitions, database: str
) -> None:
    """While a report reads both tables in a long transaction, partitions are made and others read on."""
    async with await psycopg.AsyncConnection.connect(database) as reader:
        for parent in PARENTS:
            await reader.execute(f"SELECT count(*) FROM howdah.{parent}".encode())
        await chores.travel("60 days")
        done = await chores.take(chore, "direct")
        [task] = await queue.enqueue()

        assert done is not None
        assert await queue.state(task) == "queued"


async def test_name_that_is_taken_is_reported_and_keeps_no_other_day_back(
    chores: Chores, queue: Queue, chore: MakePartitions
) -> None:
    """A table that was detached by hand is neither attached nor dropped; the error says why today is missing."""
    name = await _name(queue, "tasks")
    detach = sql.SQL("ALTER TABLE howdah.tasks DETACH PARTITION {}").format(sql.Identifier("howdah", name))
    await queue.admin.execute(detach)
    await _drop(queue, "tasks", days=1)
    first = await chores.take(chore, "direct")
    second = await chores.take(chore, "direct")
    row = await chores.row("partitions")
    [tomorrow] = await queue.sql("SELECT to_regclass('howdah.' || %s) AS oid", await _name(queue, "tasks", 1))

    assert first is not None
    assert second is None
    assert "not attached" in str(row["last_error"])
    assert tomorrow["oid"] is not None


async def test_schedulers_at_once_make_each_partition_once(chores: Chores, queue: Queue, chore: MakePartitions) -> None:
    """Of several schedulers that find the day missing, one makes it and none fails."""
    await chores.travel("60 days")
    done = await asyncio.gather(*(chores.take(chore, "direct") for _ in range(5)))
    row = await chores.row("partitions")

    assert [each for each in done if each is not None]
    assert row["failures"] == 0
    assert await _ahead(queue) == DAYS_AHEAD + 1
