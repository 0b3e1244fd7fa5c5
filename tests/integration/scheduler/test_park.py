"""Parking: runs that no live worker can execute are put aside without spending an attempt, and come back."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import pytest

from howdah.core.wake import LaneReady, parse_message
from howdah_scheduler import park as park_module
from howdah_scheduler.park import GAP_S_MAX, GRACE_S, Park
from tests.fix_chores import heard, listen
from tests.fix_pull import pull

if TYPE_CHECKING:
    from tests.fix_chores import Chores
    from tests.fix_queue import Queue


@pytest.fixture
def park() -> Park:
    """The chore."""
    return Park("howdah")


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every round walk: on a slow machine the rest after a walk lasts several."""
    monkeypatch.setattr(park_module, "REST", 0)


async def _round(chores: Chores, park: Park | None = None) -> float:
    """Do one round, due or not, right after a good one; return when the next is due."""
    await chores.queue.sql(
        "UPDATE howdah.maintenance SET next_at = howdah.now(), last_good_at = howdah.now() WHERE chore = 'park'"
    )
    done = await chores.take(park or Park("howdah"))
    assert done is not None
    return done.next_in_s


async def _rounds(chores: Chores) -> int:
    """Do rounds until there is a pause, each by a process of its own; return how many."""
    count = 1
    while await _round(chores) == 0:
        count += 1
    return count


async def _unserved(queue: Queue, for_s: float = GRACE_S + 1) -> None:
    """Let the last worker that served any target have been seen so long ago."""
    await queue.sql(
        "UPDATE howdah.targets SET served_at = howdah.now() - make_interval(secs => %s), is_parked = false", for_s
    )
    await queue.sql("UPDATE howdah.workers SET stopped_at = howdah.now()")


async def _parked(queue: Queue) -> int:
    [row] = await queue.sql(
        "SELECT count(*) AS n FROM howdah.runs WHERE blocked_by = 8 AND run_at = 'infinity' AND lease_token IS NULL"
    )
    return int(row["n"])


async def test_run_that_nobody_serves_is_blocked_and_says_why(chores: Chores, queue: Queue) -> None:
    """A due run whose handler no live worker has is blocked for that reason, with no attempt spent."""
    [task] = await queue.enqueue()
    await _unserved(queue)
    await _round(chores)
    [shown] = await queue.sql("SELECT reason, attempt FROM howdah.tasks_blocked WHERE task_id = %s", task)

    assert await queue.state(task) == "blocked"
    assert shown == {"reason": "no live worker serves the handler h", "attempt": 0}
    assert await queue.sql("SELECT 1 FROM howdah.stuck") == []


async def test_callback_that_nobody_delivers_is_blocked_too(chores: Chores, queue: Queue) -> None:
    """Workers may have callbacks turned off: if all have, HTTP tasks wait like those of an unknown handler."""
    await queue.sql("SELECT howdah.enqueue('q', options => %s)", '{"http": {"url": "https://example.com/"}}')
    await _unserved(queue)
    await chores.register(handlers=("h",))
    await _round(chores)
    [shown] = await queue.sql("SELECT reason FROM howdah.tasks_blocked")

    assert shown == {"reason": "no live worker serves HTTP callbacks"}


async def test_run_of_a_served_target_is_left_alone(chores: Chores, queue: Queue) -> None:
    """In a lane with runs of two handlers only those are parked that nobody has."""
    [task] = await queue.enqueue()
    await queue.enqueue(3, handler="unserved")
    await _unserved(queue)
    await chores.register(handlers=("h",))
    await _round(chores)
    claimed = await queue.claim(10)

    assert await _parked(queue) == 3
    assert [run["task_id"] for run in claimed] == [task]


async def test_run_that_a_consumer_over_http_serves_is_left_alone_or_released(chores: Chores, queue: Queue) -> None:
    """A consumer of its tenant counts as a worker for a minute; another tenant's does not."""
    await queue.enqueue()
    await queue.sql("INSERT INTO howdah.tenants (name) VALUES ('other')")
    counts = []
    for tenant_id in (2, 1):
        await queue.run("worker.register_pull", **pull(tenant_id))
        await queue.sql("UPDATE howdah.targets SET served_at = howdah.now() - interval '1 minute'")
        await _round(chores)
        counts.append(await _parked(queue))
    await queue.sql("UPDATE howdah.workers SET heartbeat_at = howdah.now() - interval '61 seconds'")
    await queue.sql("UPDATE howdah.targets SET served_at = howdah.now() - interval '1 minute'")
    await _round(chores)
    counts.append(await _parked(queue))

    assert counts == [1, 0, 1]


async def test_scheduled_run_is_parked_only_when_it_is_due(chores: Chores, queue: Queue) -> None:
    """A run that nobody serves yet still shows when it is scheduled for."""
    [task] = await queue.enqueue(delay="5s")
    await _unserved(queue)
    await _round(chores)
    before = await queue.state(task)
    await chores.travel("6 s")
    await _round(chores)

    assert before == "scheduled"
    assert await queue.state(task) == "blocked"


async def test_run_that_falls_due_later_is_parked_as_well(chores: Chores, queue: Queue) -> None:
    """While a target is parked, what arrives for it does not stay at the head of its lane."""
    await queue.enqueue()
    await _unserved(queue)
    await _round(chores)
    await queue.enqueue(2)
    await _round(chores)

    assert await _parked(queue) == 3


async def test_walk_rests_in_proportion_to_what_it_cost(
    chores: Chores, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking for runs to park takes a bounded share of the time, but a target that turns is dealt with at once."""
    monkeypatch.setattr(park_module, "REST", 1_000_000)
    await queue.enqueue()
    await _unserved(queue)
    await _round(chores)
    await queue.enqueue()
    await _round(chores)
    resting = await _parked(queue)
    await queue.enqueue(handler="other")
    await queue.sql("UPDATE howdah.targets SET served_at = howdah.now() - interval '1 hour' WHERE NOT is_parked")
    await _round(chores)

    assert resting == 1
    assert await _parked(queue) == 3


async def test_target_is_given_its_grace(chores: Chores, queue: Queue) -> None:
    """A restart of all workers parks nothing, as long as one is back within the grace."""
    await queue.enqueue()
    await _unserved(queue, for_s=GRACE_S - 5)
    await _round(chores)
    within = await _parked(queue)
    await chores.travel("6 s")
    await _round(chores)

    assert within == 0
    assert await _parked(queue) == 1


async def test_grace_is_what_the_chore_was_given(chores: Chores, queue: Queue) -> None:
    """The grace is a parameter of the chore."""
    await queue.enqueue()
    await _unserved(queue, for_s=3)
    await _round(chores, Park("howdah", grace_s=5.0))
    longer = await _parked(queue)
    await _round(chores, Park("howdah", grace_s=2.0))

    assert longer == 0
    assert await _parked(queue) == 1


@pytest.mark.parametrize(
    "end",
    [
        "heartbeat_at = howdah.now() - interval '46 seconds'",
        "stopping_at = howdah.now()",
        "stopped_at = howdah.now()",
    ],
    ids=["silent", "stopping", "stopped"],
)
async def test_worker_that_is_not_live_serves_nothing(chores: Chores, queue: Queue, end: str) -> None:
    """Three leases without a heartbeat, or a stop under way, and a worker's handlers count as unserved."""
    await queue.enqueue()
    await chores.register(handlers=("h",), lease_s=15.0)
    await _round(chores)
    served = await _parked(queue)
    await queue.sql(f"UPDATE howdah.workers SET {end}")
    await queue.sql("UPDATE howdah.targets SET served_at = howdah.now() - interval '31 seconds'")
    await _round(chores)

    assert served == 0
    assert await _parked(queue) == 1


async def test_gap_in_the_rounds_parks_nothing_at_once(chores: Chores, queue: Queue, park: Park) -> None:
    """After an outage nobody looks served; the workers get a whole grace to come back before a backlog is parked."""
    await queue.enqueue()
    await _unserved(queue, for_s=3600)
    await queue.sql(
        "UPDATE howdah.maintenance SET last_good_at = howdah.now() - make_interval(secs => %s) WHERE chore = 'park'",
        GAP_S_MAX + 1,
    )
    await chores.take(park)
    after_gap = await _parked(queue)
    await chores.travel(f"{GRACE_S - 1} s")
    await _round(chores)
    within = await _parked(queue)
    await chores.travel(f"{GRACE_S + 1} s")
    await _round(chores)

    assert (after_gap, within) == (0, 0)
    assert await _parked(queue) == 1


async def test_worker_that_registers_releases_runs_and_their_lanes_are_told(
    chores: Chores, queue: Queue, database: str
) -> None:
    """The next round gives the runs back, above every worker's horizon, announced, with no attempt spent."""
    tasks = await queue.enqueue(2)
    await _unserved(queue)
    await _round(chores)
    [before] = await queue.sql("SELECT howdah.now() AS now")
    await chores.register(handlers=("h",))
    async with await listen(database) as listener:
        await _round(chores)
        words = [word for text in await heard(listener) for word in parse_message(text)]
    claimed = await queue.claim(10, horizon=(before["now"], uuid.UUID(int=0)))

    assert [type(word) for word in words] == [LaneReady]
    assert {run["task_id"] for run in claimed} == set(tasks)
    assert [(run["attempt"], run["claim_no"]) for run in claimed] == [(1, 1), (1, 1)]
    assert await queue.history() == []


async def test_cancelled_while_parked_is_gone(chores: Chores, queue: Queue) -> None:
    """A parked task can be cancelled, and a worker that comes later does not get it."""
    [task] = await queue.enqueue()
    await _unserved(queue)
    await _round(chores)
    await queue.sql("SELECT howdah.cancel(%s)", task)
    await chores.register(handlers=("h",))
    await _round(chores)

    assert await queue.state(task) == "cancelled"
    assert await queue.claim() == []


async def test_only_the_target_that_is_served_again_is_released(chores: Chores, queue: Queue) -> None:
    """Runs of other handlers in the same lane stay parked."""
    [task] = await queue.enqueue()
    await queue.enqueue(2, handler="unserved")
    await _unserved(queue)
    await _round(chores)
    await chores.register(handlers=("h",))
    await _round(chores)

    assert await queue.state(task) == "queued"
    assert await _parked(queue) == 2


async def test_long_lane_is_parked_and_released_to_the_last_run(
    chores: Chores, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds that have time for one page each, by a new process each, park all of 3,500 runs and release all."""
    monkeypatch.setattr(park_module, "ROUND_S", 0.0)
    await queue.enqueue(1750)
    await queue.enqueue(1750, priority="high")
    await _unserved(queue)
    for _ in range(6):
        await _round(chores, Park("howdah"))
    parked = await _parked(queue)
    await chores.register(handlers=("h",))
    rounds = await _rounds(chores)

    assert parked == 3500
    assert rounds > 2
    assert await _parked(queue) == 0


async def test_run_that_was_locked_is_released_by_the_next_walk(chores: Chores, queue: Queue) -> None:
    """A row that somebody holds during the release is not forgotten."""
    [held, free] = await queue.enqueue(2)
    await _unserved(queue)
    await _round(chores)
    await chores.register(handlers=("h",))
    holder = await queue.connect()
    async with holder.transaction():
        await holder.execute("SELECT 1 FROM howdah.runs WHERE task_id = %s FOR UPDATE", [held])
        await _rounds(chores)
        during = [await queue.state(task) for task in (held, free)]
    await _rounds(chores)

    assert during == ["blocked", "queued"]
    assert await queue.state(held) == "queued"


async def test_target_parked_again_during_its_release_keeps_the_rest_parked(
    chores: Chores, queue: Queue, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is gone before its runs were all released ends the release; nobody is woken for the others."""
    monkeypatch.setattr(park_module, "ROUND_S", 0.0)
    await queue.enqueue(1500)
    await _unserved(queue)
    for _ in range(4):
        await _round(chores)
    await chores.register(handlers=("h",))
    await _round(chores)
    released = 1500 - await _parked(queue)
    await _unserved(queue)
    monkeypatch.setattr(park_module, "ROUND_S", 60.0)
    async with await listen(database) as listener:
        await _round(chores)
        words = await heard(listener)

    assert 0 < released < 1500
    assert words == []
    assert await _parked(queue) == 1500


async def test_schedulers_at_once_do_one_round(chores: Chores, queue: Queue) -> None:
    """Of several schedulers one decides and parks."""
    await queue.enqueue(50)
    await _unserved(queue)
    await queue.sql("UPDATE howdah.maintenance SET last_good_at = howdah.now() WHERE chore = 'park'")
    await chores.make_due("park")
    done = await asyncio.gather(*(chores.take(Park("howdah")) for _ in range(5)))

    assert len([each for each in done if each is not None]) == 1
    assert await _parked(queue) == 50
