"""The sweeper: due runs that lie below every horizon are announced, page by page, at a bounded cost."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from howdah.core.wake import LaneReady, parse_message
from howdah_scheduler.sweep import INTERVAL_S_MIN, PAGE_LANES, REST, STATEMENT_S, Sweep
from tests.fix_chores import heard, listen

if TYPE_CHECKING:
    from tests.fix_chores import Chores
    from tests.fix_queue import Queue


@pytest.fixture
def sweep() -> Sweep:
    """The chore."""
    return Sweep("howdah")


async def _make_lanes(queue: Queue, count: int) -> None:
    """Store one due task in each of `count` queues."""
    items = json.dumps([{"queue": f"q{number}", "handler": "h"} for number in range(count)])
    await queue.sql("SELECT 1 FROM howdah.enqueue_many('default', %s::json)", items)


async def _round(chores: Chores, sweep: Sweep, database: str) -> tuple[float, list[LaneReady]]:
    """Do one round, due or not, and return when the next is due and what was announced."""
    await chores.make_due("sweep")
    async with await listen(database) as listener:
        done = await chores.take(sweep)
        words = [word for text in await heard(listener) for word in parse_message(text)]
    assert done is not None
    lanes = [word for word in words if isinstance(word, LaneReady)]
    assert len(lanes) == len(words)
    return done.next_in_s, lanes


async def test_run_below_the_horizon_is_found_again(chores: Chores, queue: Queue, sweep: Sweep, database: str) -> None:
    """A run that no claim reaches any more is claimed from where the sweeper says that its lane begins."""
    [hidden, _] = await queue.enqueue(2)
    await queue.sql("UPDATE howdah.runs SET run_at = howdah.now() - interval '1 hour' WHERE task_id = %s", hidden)
    [row] = await queue.sql("SELECT howdah.now() - interval '1 minute' AS horizon_at")
    above = await queue.claim(10, horizon=(row["horizon_at"], uuid.UUID(int=0)))
    _, [word] = await _round(chores, sweep, database)
    word_at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=word.run_at_us)
    found = await queue.claim(10, horizon=(word_at, uuid.UUID(int=0)))

    assert hidden not in {run["task_id"] for run in above}
    assert (word.queue_id, word.priority) == (queue.queue_id, 1)
    assert [run["task_id"] for run in found] == [hidden]


async def test_only_lanes_with_due_work_are_announced(
    chores: Chores, queue: Queue, sweep: Sweep, database: str
) -> None:
    """Lanes whose runs are all scheduled, blocked or running wake nobody."""
    await queue.enqueue(1, delay="1h", priority="low")
    await queue.enqueue(1, priority="high")
    await queue.sql("UPDATE howdah.runs SET blocked_by = 8, run_at = 'infinity' WHERE priority = 2")
    await queue.enqueue(1)
    await queue.claim()
    _, running = await _round(chores, sweep, database)
    await queue.enqueue(1, priority="critical")
    _, due = await _round(chores, sweep, database)

    assert running == []
    assert [word.priority for word in due] == [3]


async def test_many_lanes_take_several_rounds_without_a_pause(
    chores: Chores, queue: Queue, sweep: Sweep, database: str
) -> None:
    """Each lane is announced once in a walk, by pages that go on at once, also in another process after a crash."""
    await _make_lanes(queue, 2 * PAGE_LANES + 10)
    rounds = [await _round(chores, Sweep("howdah"), database) for _ in range(3)]
    lanes = [(word.queue_id, word.priority) for _, words in rounds for word in words]

    assert [len(words) for _, words in rounds] == [PAGE_LANES, PAGE_LANES, 10]
    assert len(set(lanes)) == len(lanes)
    assert [next_in_s for next_in_s, _ in rounds] == [0, 0, INTERVAL_S_MIN]


async def test_walk_begins_anew_after_the_last_lane(chores: Chores, queue: Queue, sweep: Sweep, database: str) -> None:
    """A lane that is still due in the next walk is announced again."""
    await _make_lanes(queue, 3)
    _, first = await _round(chores, sweep, database)
    _, second = await _round(chores, sweep, database)

    assert len(first) == 3
    assert second == first


async def test_statement_that_takes_too_long_is_given_up_and_asks_for_less(
    chores: Chores, queue: Queue, sweep: Sweep, database: str
) -> None:
    """A page that outlasts its time is ended, costs a rest fifty times as long, and comes back smaller."""
    await _make_lanes(queue, 60)
    async with await psycopg.AsyncConnection.connect(database) as blocker:
        await blocker.execute("LOCK TABLE howdah.runs IN ACCESS EXCLUSIVE MODE")
        slow_in_s, nothing = await _round(chores, sweep, database)
    row = await chores.row("sweep")
    pages = [await _round(chores, sweep, database) for _ in range(2)]

    assert nothing == []
    assert REST * STATEMENT_S <= slow_in_s < 5 * REST * STATEMENT_S
    assert row["failures"] == 0
    assert [len(words) for _, words in pages] == [50, 10]


async def test_single_lane_that_takes_too_long_gets_more_time(
    chores: Chores, queue: Queue, sweep: Sweep, database: str
) -> None:
    """When no smaller page is left, patience grows, so that one bad lane does not end the walk for good."""
    await queue.enqueue()
    await queue.sql(
        """UPDATE howdah.maintenance SET state = '{"lane_count": 1, "after": [-1, -1]}' WHERE chore = 'sweep'"""
    )
    async with await psycopg.AsyncConnection.connect(database) as blocker:
        await blocker.execute("LOCK TABLE howdah.runs IN ACCESS EXCLUSIVE MODE")
        costs = [(await _round(chores, sweep, database))[0] for _ in range(2)]
    rounds = [await _round(chores, sweep, database) for _ in range(2)]

    assert costs[1] > 1.5 * costs[0]
    assert [len(words) for _, words in rounds] == [1, 0]


async def test_schedulers_at_once_announce_a_lane_once(chores: Chores, queue: Queue, database: str) -> None:
    """One sweeper serves the fleet: of several that start together one does the round."""
    await queue.enqueue()
    await chores.make_due("sweep")
    async with await listen(database) as listener:
        done = await asyncio.gather(*(chores.take(Sweep("howdah")) for _ in range(5)))
        words = await heard(listener)

    assert len([each for each in done if each is not None]) == 1
    assert len(words) == 1
