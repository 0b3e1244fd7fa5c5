"""Late, repeated and crossing statements: orders of events that `tests/models` searches, played on PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.fix_queue import Queue, Row


async def test_report_from_before_a_replay_is_refused(queue: Queue) -> None:
    """A zombie whose task was given up and replayed meanwhile ends neither the run that waits nor its new attempt."""
    [task] = await queue.enqueue(retry={"max_attempts": 1})
    zombie = await queue.claim(worker_id=1)
    await queue.expire(zombie)
    await queue.rescue()
    await queue.sql("SELECT howdah.replay(%s)", task)
    waiting = [await queue.complete(zombie), await queue.fail(zombie), await queue.release(zombie)]
    current = await queue.claim(worker_id=1)
    running = [await queue.complete(zombie), await queue.fail(zombie), await queue.release(zombie)]

    assert waiting == running == [[], [], []]
    assert len(await queue.complete(current)) == 1
    assert [row["outcome"] for row in await queue.history()] == ["lost", "succeeded"]


@pytest.mark.parametrize("kind", ["failure", "release"])
async def test_repeat_of_a_report_leaves_the_next_attempt_alone(queue: Queue, kind: str) -> None:
    """A report whose answer was lost is sent again while another has the run: it changes nothing, and is known."""
    [task] = await queue.enqueue()
    runs = await queue.claim(worker_id=1)
    report = queue.fail if kind == "failure" else queue.release
    await report(runs)
    await queue.sql("UPDATE howdah.runs SET run_at = howdah.now()")
    [current] = await queue.claim(worker_id=2)

    assert await report(runs) == []
    assert [row["outcome"] for row in await queue.find_recorded(runs)] == [
        "failed" if kind == "failure" else "released"
    ]
    assert [row["task_id"] for row in await queue.complete([current])] == [task]
    assert len(await queue.history()) == 2


async def test_repeat_that_overtakes_the_first_report_is_recognised(queue: Queue) -> None:
    """A repeat that waits for the first report, which nobody listens to any more, then finds what that recorded."""
    await queue.enqueue()
    runs = await queue.claim()
    repeated = await _during(
        queue, lambda conn: queue.complete(runs, conn=conn), lambda conn: queue.complete(runs, conn=conn)
    )

    assert repeated == []
    assert [row["outcome"] for row in await queue.find_recorded(runs)] == ["succeeded"]
    assert len(await queue.history()) == 1


async def test_claim_that_was_rescued_is_not_found_again(queue: Queue) -> None:
    """Who asks too late for the runs of a claim without an answer is not given what another worker has by now."""
    await queue.enqueue()
    token = uuid.uuid4()
    unanswered = await queue.claim(worker_id=4, token=token)
    await queue.expire(unanswered)
    await queue.rescue()
    waiting = await queue.run("run.find_claimed", lease_token=token, worker_id=4)
    await queue.claim(worker_id=4)
    running = await queue.run("run.find_claimed", lease_token=token, worker_id=4)

    assert (waiting, running) == ([], [])


async def test_heartbeat_during_a_cancel_is_busy(queue: Queue) -> None:
    """A lease is not called lost because its run is being cancelled; the next beat brings the cancel."""
    [task] = await queue.enqueue()
    runs = await queue.claim()
    other = await queue.connect()
    async with other.transaction():
        await other.execute("SELECT howdah.cancel(%s)", [task])
        [during] = await asyncio.wait_for(queue.heartbeat(runs), 5)
    [after] = await queue.heartbeat(runs)

    assert during["verdict"] == "busy"
    assert (after["verdict"], after["cancel_mode"]) == ("held", "soft")


async def test_rescue_passes_by_a_run_that_is_being_renewed(queue: Queue) -> None:
    """A heartbeat under way keeps an expired lease from rescue, and once it is committed there is nothing to rescue."""
    await queue.enqueue()
    runs = await queue.claim()
    await queue.expire(runs)
    keeper = await queue.connect()
    async with keeper.transaction():
        await queue.heartbeat(runs, conn=keeper)
        during = await asyncio.wait_for(queue.rescue(), 5)
    after = await queue.rescue()

    assert (during, after) == ([], [])
    assert len(await queue.complete(runs)) == 1


async def test_rescue_passes_by_a_run_that_is_being_cancelled(queue: Queue) -> None:
    """Of a cancel and a rescue at once the cancel is first; the next rescue ends the task as cancelled."""
    [task] = await queue.enqueue()
    runs = await queue.claim()
    await queue.expire(runs)
    other = await queue.connect()
    async with other.transaction():
        await other.execute("SELECT howdah.cancel(%s)", [task])
        during = await asyncio.wait_for(queue.rescue(), 5)
    [after] = await queue.rescue()

    assert during == []
    assert after["verdict"] == "cancelled"
    assert [row["outcome"] for row in await queue.history()] == ["cancelled"]


@pytest.mark.parametrize("kind", ["rescue", "failure"])
async def test_cancel_that_meets_a_retry_ends_the_task(queue: Queue, kind: str) -> None:
    """A cancel that waits for the end of an attempt cancels what waits for the next one: none begins."""
    [task] = await queue.enqueue()
    runs = await queue.claim()
    await queue.expire(runs)
    acts = {"rescue": queue.rescue, "failure": lambda conn: queue.fail(runs, conn=conn)}
    [answer] = await _during(queue, acts[kind], lambda conn: _cancel(conn, task))
    await queue.sql("UPDATE howdah.runs SET run_at = howdah.now()")

    assert answer == {"state": "cancelled"}
    assert await queue.claim() == []
    assert sorted(row["outcome"] for row in await queue.history()) == [
        "cancelled",
        "lost" if kind == "rescue" else "failed",
    ]


async def test_cancel_that_meets_the_last_failure_comes_too_late(queue: Queue) -> None:
    """A cancel that waits while the task becomes a dead letter is refused, and the dead letter can be replayed."""
    [task] = await queue.enqueue(retry={"max_attempts": 1})
    runs = await queue.claim()
    with pytest.raises(psycopg.Error, match="it is failed") as caught:
        await _during(queue, lambda conn: queue.fail(runs, conn=conn), lambda conn: _cancel(conn, task))

    assert caught.value.sqlstate == "JQ409"
    assert await queue.sql("SELECT howdah.replay(%s) AS state", task) == [{"state": "queued"}]


async def test_finish_that_meets_a_cancel_counts(queue: Queue) -> None:
    """A report of success that waits for a cancel is recorded: the work was done, and the cancel had only asked."""
    [task] = await queue.enqueue()
    runs = await queue.claim()
    ended = await _during(queue, lambda conn: _cancel(conn, task), lambda conn: queue.complete(runs, conn=conn))

    assert len(ended) == 1
    assert await queue.state(task) == "succeeded"


async def test_failure_that_meets_a_cancel_is_not_tried_again(queue: Queue) -> None:
    """A report of failure that waits for a cancel sees it, and ends the task."""
    [task] = await queue.enqueue()
    runs = await queue.claim()
    [ended] = await _during(queue, lambda conn: _cancel(conn, task), lambda conn: queue.fail(runs, conn=conn))

    assert ended["verdict"] == "cancelled"
    assert await queue.state(task) == "cancelled"


async def _cancel(conn: psycopg.AsyncConnection[Row], task: uuid.UUID) -> list[Row]:
    cursor = await conn.execute("SELECT howdah.cancel(%s) AS state", [task])
    return await cursor.fetchall()


async def _during(
    queue: Queue,
    first: Callable[[psycopg.AsyncConnection[Row]], Awaitable[object]],
    second: Callable[[psycopg.AsyncConnection[Row]], Awaitable[list[Row]]],
) -> list[Row]:
    """Do the second while the first is not committed yet; it commits once the second waits for it."""
    ahead, behind = await queue.connect(), await queue.connect()
    async with ahead.transaction():
        await first(ahead)
        waiting = asyncio.ensure_future(second(behind))
        pids = [behind.info.backend_pid, ahead.info.backend_pid]
        await eventually_async(
            lambda: queue.sql("SELECT 1 WHERE pg_blocking_pids(%s) = ARRAY[%s::int]", *pids), 10, "the second waits"
        )
    return await asyncio.wait_for(waiting, 10)
