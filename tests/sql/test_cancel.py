"""Cancelling by SQL in every state, and how the state of a task is read."""

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


@pytest.mark.parametrize("state", ["queued", "scheduled", "retrying", "blocked"])
async def test_cancel_of_a_waiting_task_ends_it_at_once(queue: Queue, state: str) -> None:
    """Whatever it waits for, the task is over, with one final row of claim number 0."""
    [task] = await queue.enqueue(delay="1h" if state == "scheduled" else "0s")
    if state == "retrying":
        await queue.fail(await queue.claim())
    if state == "blocked":
        await queue.sql("UPDATE howdah.runs SET blocked_by = 8, run_at = 'infinity'")
    assert await queue.state(task) == state
    answer = await _cancel(queue, task)
    [final] = [row for row in await queue.history() if row["is_final"]]

    assert answer == "cancelled"
    assert await queue.state(task) == "cancelled"
    assert (final["claim_no"], final["outcome"], final["attempt"]) == (0, "cancelled", int(state == "retrying"))
    assert await queue.sql("SELECT 1 FROM howdah.runs") == []


@pytest.mark.parametrize(
    ("modes", "expected"),
    [(["soft"], "soft"), (["hard"], "hard"), (["soft", "hard"], "hard"), (["hard", "soft"], "hard")],
)
async def test_cancel_of_a_running_task_asks_its_worker(queue: Queue, modes: list[str], expected: str) -> None:
    """The run stays with its worker, which is asked in the mode given; hard is never taken back."""
    [task] = await queue.enqueue()
    runs = await queue.claim()
    answers = [await _cancel(queue, task, mode) for mode in modes]
    [beat] = await queue.heartbeat(runs)

    assert answers == ["running"] * len(modes)
    assert (beat["verdict"], beat["cancel_mode"]) == ("held", expected)


async def test_cancel_of_a_running_task_wakes_its_worker(queue: Queue) -> None:
    """The worker that holds the run hears of it without waiting for its next heartbeat."""
    [task] = await queue.enqueue()
    await queue.claim(worker_id=7)
    listener = await queue.connect()
    await listener.execute("LISTEN howdah_wake")
    await _cancel(queue, task)
    heard = [notify.payload async for notify in listener.notifies(timeout=10, stop_after=1)]

    assert heard == ["b7"]


async def test_cancel_of_a_cancelled_task_says_so_again(queue: Queue) -> None:
    """A repeat after a lost answer gets the same answer and records nothing."""
    [task] = await queue.enqueue()

    assert [await _cancel(queue, task), await _cancel(queue, task)] == ["cancelled", "cancelled"]
    assert len(await queue.history()) == 1


@pytest.mark.parametrize("state", ["succeeded", "failed"])
async def test_cancel_of_an_ended_task_is_refused(queue: Queue, state: str) -> None:
    """What is over cannot be cancelled; the error says how it ended."""
    [task] = await queue.enqueue(retry={"max_attempts": 1})
    runs = await queue.claim()
    await (queue.complete(runs) if state == "succeeded" else queue.fail(runs))
    with pytest.raises(psycopg.Error, match=f"it is {state}") as caught:
        await _cancel(queue, task)

    assert caught.value.sqlstate == "JQ409"
    assert await queue.state(task) == state


async def test_cancel_of_an_unknown_task_is_refused(queue: Queue) -> None:
    """An id that was never given is not found."""
    with pytest.raises(psycopg.Error, match="there is no task") as caught:
        await _cancel(queue, uuid.uuid4())

    assert caught.value.sqlstate == "JQ404"


async def test_cancel_never_reaches_the_task_of_another_tenant(queue: Queue) -> None:
    """For another tenant the task does not exist, and stays as it is."""
    [task] = await queue.enqueue()
    await queue.sql("INSERT INTO howdah.tenants (name) VALUES ('other')")
    with pytest.raises(psycopg.Error, match=f"there is no task {task}") as caught:
        await queue.sql("SELECT howdah.cancel(%s, tenant => 'other')", task)

    assert caught.value.sqlstate == "JQ404"
    assert await queue.state(task) == "queued"


@pytest.mark.parametrize("mode", ["gently", "", None])
async def test_cancel_in_an_unknown_mode_is_refused(queue: Queue, mode: str | None) -> None:
    """Modes are soft and hard; the error names the field."""
    [task] = await queue.enqueue()
    with pytest.raises(psycopg.Error, match="/mode must be soft or hard") as caught:
        await queue.sql("SELECT howdah.cancel(%s, %s)", task, mode)

    assert caught.value.sqlstate == "JQ422"


async def test_cancel_that_is_rolled_back_leaves_the_task_waiting(queue: Queue) -> None:
    """A cancel is part of the caller's transaction."""
    [task] = await queue.enqueue()
    async with queue.admin.transaction(force_rollback=True):
        await _cancel(queue, task)

    assert await queue.state(task) == "queued"
    assert await queue.history() == []


async def test_cancel_while_the_task_is_being_claimed_asks_the_worker(queue: Queue) -> None:
    """A cancel that meets an open claim waits for it, and then sees that the task runs."""
    [task] = await queue.enqueue()
    answer = await _cancel_during(queue, task, lambda conn: queue.claim(worker_id=3, conn=conn))
    [run] = await queue.sql("SELECT worker_id, cancel_mode FROM howdah.runs")

    assert answer == "running"
    assert run == {"worker_id": 3, "cancel_mode": "soft"}


async def test_cancel_while_the_task_is_being_released_ends_it(queue: Queue) -> None:
    """A cancel that meets an open release waits for it, and then cancels a task that waits."""
    [task] = await queue.enqueue()
    runs = await queue.claim()
    answer = await _cancel_during(queue, task, lambda conn: queue.release(runs, conn=conn))

    assert answer == "cancelled"
    assert [row["outcome"] for row in await queue.history()] == ["cancelled", "released"]


async def test_cancel_while_the_task_is_finishing_comes_too_late(queue: Queue) -> None:
    """A cancel that meets an open finish waits for it, and then is refused; one outcome is recorded."""
    [task] = await queue.enqueue()
    runs = await queue.claim()
    with pytest.raises(psycopg.Error, match="it is succeeded") as caught:
        await _cancel_during(queue, task, lambda conn: queue.complete(runs, conn=conn))

    assert caught.value.sqlstate == "JQ409"
    assert [row["outcome"] for row in await queue.history()] == ["succeeded"]


async def test_claim_passes_by_a_task_that_is_being_cancelled(queue: Queue) -> None:
    """No worker waits for a cancel, and none starts the task afterwards."""
    [task] = await queue.enqueue()
    other = await queue.connect()
    async with other.transaction():
        await other.execute("SELECT howdah.cancel(%s)", [task])
        during = await asyncio.wait_for(queue.claim(), 5)
    after = await queue.claim()

    assert (during, after) == ([], [])


async def test_state_is_read_from_the_run_before_all_else(queue: Queue) -> None:
    """Run, dead letter, final history, task: the first that there is decides; nothing means no task."""
    [task] = await queue.enqueue()
    await queue.fail(await queue.claim(), retryable=False)
    await queue.sql(
        "INSERT INTO howdah.runs (tenant_id, task_id, queue_id, target_id, priority, run_at, queued_at, due_at) "
        "SELECT tenant_id, task_id, queue_id, target_id, 1, dead_at, queued_at, dead_at FROM howdah.dead_letters"
    )
    await queue.sql("UPDATE howdah.finished_runs SET outcome = 'cancelled'")
    states = [await queue.state(task)]
    for table in ("runs", "dead_letters", "finished_runs", "tasks"):
        await queue.sql(f"DELETE FROM howdah.{table}")
        states.append(await queue.state(task))

    assert states == ["queued", "failed", "cancelled", "succeeded", "None"]


async def _cancel(
    queue: Queue, task: uuid.UUID, mode: str = "soft", conn: psycopg.AsyncConnection[Row] | None = None
) -> object:
    cursor = await (conn or queue.admin).execute("SELECT howdah.cancel(%s, %s) AS state", [task, mode])
    row = await cursor.fetchone()
    assert row is not None
    return row["state"]


async def _cancel_during(
    queue: Queue, task: uuid.UUID, act: Callable[[psycopg.AsyncConnection[Row]], Awaitable[object]]
) -> object:
    """Cancel while another session has acted on the task and not committed yet; it commits once the cancel waits."""
    acting, cancelling = await queue.connect(), await queue.connect()
    async with acting.transaction():
        await act(acting)
        cancel = asyncio.create_task(_cancel(queue, task, conn=cancelling))
        pids = [cancelling.info.backend_pid, acting.info.backend_pid]
        await eventually_async(
            lambda: queue.sql("SELECT 1 WHERE pg_blocking_pids(%s) = ARRAY[%s::int]", *pids), 10, "the cancel waits"
        )
    return await asyncio.wait_for(cancel, 10)
