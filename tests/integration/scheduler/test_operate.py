"""Bulk operations at work: page by page, side by side, at their rate, and each task once whoever is killed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import pytest_asyncio
from psycopg.rows import dict_row

from howdah.core.errors import DatabaseUnavailable
from howdah.core.store import operation_pages
from howdah_scheduler.cleanup import Cleanup
from tests.fix_chores import heard, listen
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fix_operations import Operations
    from tests.fix_queue import Row


@pytest_asyncio.fixture
async def holder(database: str) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
    """A session that holds locks until it is rolled back."""
    async with await psycopg.AsyncConnection.connect(database, row_factory=dict_row) as conn:
        yield conn


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pages of 3 tasks that look at 5."""
    monkeypatch.setattr(operation_pages, "PAGE_ROWS", 3)
    monkeypatch.setattr(operation_pages, "LOOK_ROWS_MAX", 5)


async def test_replay_takes_all_that_fit_back_page_by_page(operations: Operations) -> None:
    """Each is queued with all its attempts; those that do not fit stay, also where a page finds none."""
    others = await operations.bury(7, error_type="other")
    dead = await operations.bury(7, tags={"a": "b", "c": "d"})
    started = await operations.start("replay_dead_letters", filter={"error_type": "test", "tags": {"a": "b"}})
    rounds = await operations.work_off()
    runs = await operations.queue.sql("SELECT task_id, attempt, claim_no FROM howdah.runs ORDER BY task_id")

    assert [run["task_id"] for run in runs] == dead
    assert {(run["attempt"], run["claim_no"]) for run in runs} == {(0, 1)}
    assert await operations.dead() == others
    assert await operations.counts(started) == ("done", 7, 7, 0, 0)
    assert rounds >= 4


async def test_replay_wakes_the_workers_once_it_is_committed(operations: Operations, database: str) -> None:
    """One word for the lane, though three tasks went to it."""
    await operations.bury(3)
    await operations.start("replay_dead_letters")
    async with await listen(database) as listener:
        await operations.round()
        words = await heard(listener)

    assert [word.split(".")[:2] for word in words] == [[f"q{operations.queue.queue_id}", "1"]]


async def test_a_task_that_dies_again_is_not_replayed_for_ever(operations: Operations) -> None:
    """It died after the operation began."""
    dead = await operations.bury(4)
    started = await operations.start("replay_dead_letters")
    await operations.round()
    await operations.queue.fail(await operations.queue.claim(3))
    await operations.work_off()

    assert await operations.counts(started) == ("done", 4, 4, 0, 0)
    assert await operations.dead() == dead[:3]


async def test_a_new_task_that_dies_is_not_edited_again(operations: Operations) -> None:
    """It did not exist when the operation began."""
    await operations.bury(4)
    started = await operations.start("replay_dead_letters", edits={"payload": 1})
    await operations.round()
    made = await operations.queue.sql("SELECT task_id FROM howdah.runs ORDER BY task_id")
    await operations.queue.fail(await operations.queue.claim(3), retryable=False)
    await operations.work_off()

    assert await operations.counts(started) == ("done", 4, 4, 0, 0)
    assert await operations.dead() == [row["task_id"] for row in made]


async def test_what_died_after_the_start_is_left(operations: Operations) -> None:
    """A task that existed then, but had not failed."""
    [task] = await operations.queue.enqueue(retry={"max_attempts": 1})
    started = await operations.start("replay_dead_letters")
    purge = await operations.start("purge_dead_letters")
    await operations.queue.fail(await operations.queue.claim())
    await operations.work_off()

    assert await operations.dead() == [task]
    assert await operations.counts(started) == await operations.counts(purge) == ("done", 0, 0, 0, 0)


async def test_edits_make_new_tasks_and_what_is_refused_stays(operations: Operations) -> None:
    """A handler that gets no body: a task with one is counted as failed, and says why."""
    plain = await operations.bury(2, payload=1)
    [callback] = await operations.queue.enqueue(handler="h", retry={"max_attempts": 1})
    await operations.queue.sql(
        "UPDATE howdah.tasks SET target_id = 0, http = %s, payload = NULL WHERE id = %s",
        '{"url": "https://example.com", "body": "x"}',
        callback,
    )
    await operations.queue.fail(await operations.queue.claim())
    started = await operations.start("replay_dead_letters", edits={"payload": {"a": 1}})
    await operations.work_off()
    made = await operations.queue.sql(
        "SELECT t.replayed_from, t.payload::text FROM howdah.tasks AS t JOIN howdah.runs AS r ON r.task_id = t.id "
        "ORDER BY t.replayed_from"
    )

    assert [(row["replayed_from"], row["payload"]) for row in made] == [(task, '{"a": 1}') for task in plain]
    assert await operations.dead() == [callback]
    assert await operations.counts(started) == ("done", 3, 2, 0, 1)
    assert "/http/body" in (await operations.shown(started))["last_error"]


async def test_purge_of_a_queue_cancels_what_waits_and_leaves_what_runs(operations: Operations) -> None:
    """Whatever they wait for; each has a final row of history."""
    queue = operations.queue
    [running] = await queue.enqueue()
    await queue.claim()
    waiting = [*await queue.enqueue(3), *await queue.enqueue(delay="1h")]
    [blocked] = await queue.enqueue()
    await queue.sql("UPDATE howdah.runs SET blocked_by = 8, run_at = 'infinity' WHERE task_id = %s", blocked)
    started = await operations.start("purge_queue")
    [late] = await queue.enqueue()
    await operations.work_off()

    assert await operations.states([*waiting, blocked]) == ["cancelled"] * 5
    assert await operations.states([running, late]) == ["running", "queued"]
    assert await operations.counts(started) == ("done", 5, 5, 0, 0)
    history = await queue.history()
    assert [(row["claim_no"], row["outcome"], row["is_final"]) for row in history] == [(0, "cancelled", True)] * 5


async def test_cancel_asks_running_tasks_to_stop_and_wakes_their_worker(operations: Operations, database: str) -> None:
    """Those that were asked before are skipped, unless they are now to be aborted; other queues are not touched."""
    queue = operations.queue
    await queue.sql("SELECT howdah.enqueue('elsewhere', 'h')")
    asked, *others = await queue.enqueue(2)
    [waiting] = await queue.enqueue(priority="low")
    await queue.claim(2, worker_id=7)
    await queue.sql("SELECT howdah.cancel(%s)", asked)
    soft = await operations.start("cancel_tasks", mode="soft")
    await operations.work_off()
    async with await listen(database) as listener:
        hard = await operations.start("cancel_tasks", None, {"handler": "h", "state": "running"}, mode="hard")
        await operations.work_off()
        words = await heard(listener)
    modes = await queue.sql("SELECT cancel_mode FROM howdah.runs WHERE lease_token IS NOT NULL")

    assert await operations.counts(soft) == ("done", 3, 2, 1, 0)
    assert await operations.counts(hard) == ("done", 2, 2, 0, 0)
    assert words == ["b7"]
    assert [row["cancel_mode"] for row in modes] == ["hard", "hard"]
    assert await operations.states([*others, waiting]) == ["running", "cancelled"]


async def test_operations_get_on_side_by_side(operations: Operations) -> None:
    """A small one that comes later does not wait for the end of a large one."""
    await operations.bury(12, error_type="many")
    await operations.bury(2, error_type="few")
    many = await operations.start("purge_dead_letters", filter={"error_type": "many"})
    few = await operations.start("purge_dead_letters", filter={"reason": "attempts", "error_type": "few"})
    states = []
    while (await operations.counts(few))[0] == "running":
        await operations.round()
        states.append((await operations.counts(many))[0])

    assert set(states[:-1]) == {"running"}
    assert (await operations.counts(few))[:3] == ("done", 2, 2)


async def test_the_rate_bounds_what_is_done_by_then(operations: Operations) -> None:
    """At two a second: one at once, and what a second has room for later, however long nobody looked."""
    await operations.bury(9)
    started = await operations.start("purge_dead_letters", rate=2)
    done = []
    for after in ("0", "0", "600 milliseconds", "1 hour"):
        await operations.queue.sql(
            "UPDATE howdah.operations SET due_at = due_at - %s::interval WHERE id = %s", after, started
        )
        await operations.work_off()
        done.append((await operations.counts(started))[2])

    assert done[0] in {1, 2}
    assert done[1] - done[0] <= 1
    assert 1 <= done[2] - done[1] <= 3
    assert done[3] - done[2] == 3


async def test_a_dead_letter_that_is_replayed_at_the_same_moment_is_skipped(
    operations: Operations, holder: psycopg.AsyncConnection[Row]
) -> None:
    """The operation waits for the one who has it, and never replays it a second time."""
    dead = await operations.bury(2)
    started = await operations.start("replay_dead_letters")
    await holder.execute("SELECT howdah.replay(%s)", [dead[0]])
    working = asyncio.create_task(operations.round())
    await eventually_async(lambda: _waits(operations), 5, "the page waits for the lock")
    await holder.commit()
    await working

    assert await operations.counts(started) == ("done", 2, 1, 1, 0)
    assert await operations.states(dead) == ["queued", "queued"]


async def test_two_schedulers_killed_in_mid_page_leave_nothing_twice_or_forgotten(
    operations: Operations, holder: psycopg.AsyncConnection[Row]
) -> None:
    """Each loses its connection while it waits inside a page; a third does the rest, and the counts are exact."""
    dead = await operations.bury(9)
    started = await operations.start("replay_dead_letters")
    await operations.round()
    for victim in (dead[3], dead[5]):
        # The last of a page: those before it are locked already.
        await holder.execute("SELECT 1 FROM howdah.dead_letters WHERE task_id = %s FOR UPDATE", [victim])
        working = asyncio.create_task(operations.round())
        pid = await eventually_async(lambda: _waits(operations), 5, "the page waits for the lock")
        await operations.queue.sql("SELECT pg_terminate_backend(%s)", pid)
        with pytest.raises(DatabaseUnavailable):
            await working
        await holder.rollback()
        assert await operations.counts(started) == ("running", 3, 3, 0, 0)
    await operations.work_off()

    assert await operations.counts(started) == ("done", 9, 9, 0, 0)
    assert await operations.states(dead) == ["queued"] * 9


async def test_schedulers_at_the_same_time_do_each_page_once(operations: Operations) -> None:
    """Who finds the chore taken passes by."""
    dead = await operations.bury(15)
    started = await operations.start("replay_dead_letters")
    while (await operations.counts(started))[0] == "running":
        await asyncio.gather(*(operations.round() for _ in range(3)))

    assert await operations.counts(started) == ("done", 15, 15, 0, 0)
    assert await operations.states(dead) == ["queued"] * 15


async def test_an_operation_that_cannot_get_on_does_not_hold_up_others(
    operations: Operations, holder: psycopg.AsyncConnection[Row]
) -> None:
    """A lock is waited for so long; the error is shown, the page tried again, and with the lock gone all is done."""
    dead = await operations.bury(2, error_type="held")
    await operations.bury(1)
    await holder.execute("SELECT 1 FROM howdah.dead_letters WHERE task_id = %s FOR UPDATE", [dead[0]])
    held = await operations.start("purge_dead_letters", filter={"error_type": "held"})
    other = await operations.start("purge_dead_letters", filter={"error_type": "test"})
    await operations.work_off()
    shown = await operations.shown(held)
    done = await operations.counts(other)
    await holder.rollback()
    await operations.queue.sql("UPDATE howdah.operations SET due_at = howdah.now() WHERE id = %s", held)
    await operations.work_off()

    assert (shown["state"], shown["done"]) == ("running", 0)
    assert "lock timeout" in shown["last_error"]
    assert done[:3] == ("done", 1, 1)
    assert (await operations.counts(held))[:3] == ("done", 2, 2)
    assert (await operations.shown(held))["last_error"] is None


async def test_an_operation_that_always_fails_ends_as_failed(operations: Operations) -> None:
    """After ten tries, with the reason; what it had done stays done."""
    queue = operations.queue
    dead = await operations.bury(5)
    started = await operations.start("replay_dead_letters")
    await operations.round()
    await queue.sql(f"ALTER TABLE howdah.runs ADD CONSTRAINT broken CHECK (task_id <> '{dead[4]}')")
    tries = 0
    while (await operations.counts(started))[0] == "running":
        await queue.sql("UPDATE howdah.operations SET due_at = howdah.now()")
        await operations.round()
        tries += 1

    assert tries == 10
    assert await operations.counts(started) == ("failed", 3, 3, 0, 0)
    assert "broken" in (await operations.shown(started))["last_error"]
    assert await operations.dead() == dead[3:]


async def test_old_operations_are_forgotten(operations: Operations) -> None:
    """With the retention of history; those that are under way are not."""
    await operations.queue.enqueue()
    old, new, running = [await operations.start("purge_queue") for _ in range(3)]
    for operation, age in ((old, "2 hours"), (new, "1 minute")):
        await operations.queue.sql(
            "UPDATE howdah.operations SET state = 'done', finished_at = howdah.now() - %s::interval WHERE id = %s",
            age,
            operation,
        )
    await operations.chores.make_due("cleanup")
    await operations.chores.take(Cleanup("howdah", 3_600.0), "direct")
    left = await operations.queue.sql("SELECT id FROM howdah.operations ORDER BY id")

    assert [row["id"] for row in left] == sorted([new, running])


async def _waits(operations: Operations) -> Any:
    """The server process of a scheduler that waits for a lock, if there is one."""
    rows = await operations.queue.sql(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'howdah-scheduler' AND wait_event_type = 'Lock'"
    )
    return rows[0]["pid"] if rows else None
