"""The chore that ends expired tasks: within a second or so, all of them, and once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from howdah.core.store.outlived_runs import PAGE_RUNS
from howdah_scheduler.expire import INTERVAL_S, Expire

if TYPE_CHECKING:
    from tests.fix_chores import Chores
    from tests.fix_queue import Queue


@pytest.fixture
def expire() -> Expire:
    """The chore."""
    return Expire("howdah")


async def test_expired_tasks_end_within_a_round(chores: Chores, queue: Queue, expire: Expire) -> None:
    """Those whose time has come end, the others stay; the next look is a second later."""
    [soon, later] = [*await queue.enqueue(expires_in="1m"), *await queue.enqueue(expires_in="1h")]
    await chores.travel("2 minutes")
    done = await chores.take(expire)

    assert done is not None
    assert done.next_in_s == INTERVAL_S
    assert [await queue.state(task) for task in (soon, later)] == ["expired", "queued"]


async def test_many_expired_tasks_end_page_by_page(chores: Chores, queue: Queue, expire: Expire) -> None:
    """No transaction grows with their number; the rounds follow one another until all have ended."""
    await queue.enqueue(PAGE_RUNS + 1, expires_in="1m")
    await chores.travel("2 minutes")
    first, second = await chores.take(expire), await chores.take(expire)
    [left] = await queue.sql("SELECT count(*) AS count FROM howdah.runs")

    assert first is not None
    assert second is not None
    assert (first.next_in_s, second.next_in_s) == (0, INTERVAL_S)
    assert left["count"] == 0


async def test_schedulers_that_come_together_end_each_task_once(chores: Chores, queue: Queue, expire: Expire) -> None:
    """One of them does it, the others pass by."""
    tasks = await queue.enqueue(50, expires_in="1m")
    await chores.travel("2 minutes")
    await asyncio.gather(*(chores.take(expire) for _ in range(4)))
    history = await queue.history()

    assert [(row["task_id"], row["outcome"]) for row in history] == [(task, "expired") for task in sorted(tasks)]
