"""Retention: expired days go, and what still lives in them stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from howdah_scheduler.retention import INTERVAL_S, Retention
from tests.fix_retention import (
    expired_tables,
    kept_tables,
    make_free,
    old_day,
    open_reader,
    run_pass,
    task_states,
)

if TYPE_CHECKING:
    from tests.fix_chores import Chores
    from tests.fix_queue import Queue


async def test_expired_days_without_survivors_are_dropped(chores: Chores, queue: Queue, retention: Retention) -> None:
    """Tasks and history that have served their time go with their partitions; younger days stay as they are."""
    await chores.travel("-40 days")
    await queue.sql("SELECT howdah.make_partitions(1)")
    old = await queue.enqueue(5)
    await queue.complete(await queue.claim(5))
    await chores.travel("0")
    young = await queue.enqueue(2)
    before = await expired_tables(queue)
    pause_s = await run_pass(chores, retention)

    assert len(before) == 9
    assert await expired_tables(queue) == []
    assert pause_s == INTERVAL_S
    assert await task_states(queue, [*old, *young]) == [None] * 5 + ["queued"] * 2
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
    await run_pass(chores, retention)
    rows = await queue.sql(
        "SELECT (howdah.now() AT TIME ZONE 'UTC')::date - min(substring(c.relname FROM '[0-9]{8}')::date) AS age "
        "FROM pg_class AS c WHERE c.relname ~ '^tasks_[0-9]{8}$' AND c.relkind = 'r'"
    )

    assert rows[0]["age"] == 30


async def test_survivors_stay_readable_and_claimable(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any]
) -> None:
    """Live tasks and dead letters of an expired day keep payload, history and the way to their end."""
    await run_pass(chores, retention)
    survivors = [past["dead"], past["running"], past["delayed"]]
    states = await task_states(queue, [*past["ended"], *survivors])
    payloads = await queue.sql("SELECT payload::text AS text FROM howdah.tasks ORDER BY id")
    finished = await queue.complete(past["runs"])
    await queue.sql("UPDATE howdah.runs SET run_at = howdah.now()")
    claimed = await queue.claim()
    again = await queue.fail(claimed)

    assert await expired_tables(queue) == await kept_tables(queue)
    assert states == [None] * 20 + ["failed", "running", "scheduled"]
    # Byte for byte as they came: the fixture's spaces are the client's.
    assert [row["text"] for row in payloads] == ['{"dead": 1}', '{"running": 1}', '{"delayed": 1}']
    assert [row["task_id"] for row in finished] == [past["running"]]
    assert [(run["task_id"], run["has_task"]) for run in claimed] == [(past["delayed"], True)]
    assert [row["verdict"] for row in again] in (["retry"], ["dead"])
    assert [row["outcome"] for row in await queue.history()] == ["failed", "succeeded", "failed"]


async def test_dead_letter_that_comes_back_to_life_is_claimed_whole(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any]
) -> None:
    """A dead letter of an expired day can be re-armed as the same task, with what its client sent."""
    await run_pass(chores, retention)
    await queue.sql(
        "WITH gone AS (DELETE FROM howdah.dead_letters RETURNING *) INSERT INTO howdah.runs "
        "(tenant_id, task_id, queue_id, target_id, priority, claim_no, run_at, queued_at, due_at) "
        "SELECT tenant_id, task_id, queue_id, target_id, priority, claim_no, howdah.now(), queued_at, howdah.now() "
        "FROM gone"
    )
    claimed = await queue.claim()
    await queue.complete(claimed)
    [shown] = await queue.run("task.get", tenant_id=1, id=past["dead"])

    assert [(run["task_id"], run["has_task"]) for run in claimed] == [(past["dead"], True)]
    assert (shown["state"], shown["claim_no"], shown["payload"]) == ("succeeded", 2, {"dead": 1})


async def test_survivor_that_ends_is_kept_for_the_retention(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any]
) -> None:
    """The result of a task that outlived its day can be read for as long as any other, and then it goes."""
    ids = [past["dead"], past["running"], past["delayed"]]
    await run_pass(chores, retention)
    await queue.complete(past["runs"])
    await run_pass(chores, retention)
    soon = await task_states(queue, ids)
    await chores.travel("31 days")
    await run_pass(chores, retention)
    late = await task_states(queue, ids)
    history = [row["task_id"] for row in await queue.history()]

    assert soon == ["failed", "succeeded", "scheduled"]
    assert late == ["failed", None, "scheduled"]
    assert history == [past["dead"]]
    assert [name for name in await expired_tables(queue) if name.endswith("_kept")] == await kept_tables(queue)


async def test_kept_partition_is_dropped_with_its_last_task(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any]
) -> None:
    """A day whose dead letters were purged and whose live tasks ended leaves nothing behind."""
    await run_pass(chores, retention)
    await queue.complete(past["runs"])
    await queue.sql("SELECT howdah.cancel(%s)", past["delayed"])
    await queue.sql("DELETE FROM howdah.dead_letters")
    await chores.travel("31 days")
    await run_pass(chores, retention)

    assert await expired_tables(queue) == []
    assert await queue.history() == []


async def test_task_that_ends_between_the_exchanges_keeps_its_history(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any]
) -> None:
    """History is kept for the tasks that were kept, not for those that are still live by then."""
    await make_free(chores)
    while f"+tasks_{await old_day(queue)}_kept" not in await expired_tables(queue):
        await chores.take(retention, "direct")
    await queue.sql("SELECT howdah.cancel(%s)", past["delayed"])
    await run_pass(chores, retention)

    assert await expired_tables(queue) == await kept_tables(queue)
    assert await task_states(queue, [past["delayed"]]) == ["cancelled"]


async def test_history_waits_for_its_tasks(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any]
) -> None:
    """While the tasks of a day cannot go, neither does their history, which says how they ended."""
    async with open_reader(queue, "tasks"):
        await run_pass(chores, retention)
        during = await task_states(queue, past["ended"])
        tables = await expired_tables(queue)

    assert during == ["succeeded"] * 20
    assert f"+finished_runs_{await old_day(queue)}" in tables
    assert len(await queue.history()) == 21


async def test_partition_that_somebody_else_detached_is_left_alone(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any]
) -> None:
    """An operator may detach an old day to archive it: it is theirs, and stays."""
    [first, *_] = [name[1:] for name in await expired_tables(queue) if name.startswith("+tasks")]
    await queue.sql(f"ALTER TABLE howdah.tasks DETACH PARTITION howdah.{first}")
    await run_pass(chores, retention)

    assert first in await expired_tables(queue)


async def test_logs_go_with_their_tasks(
    chores: Chores, queue: Queue, retention: Retention, past: dict[str, Any]
) -> None:
    """What was logged of tasks that are kept is kept, and all else goes; so does the rest when they have ended."""
    log = "INSERT INTO howdah.task_logs (tenant_id, task_id, claim_no, seq, level, logged_at, message) "
    await queue.sql(log + "SELECT tenant_id, id, 1, 1, 20, howdah.now(), 'said' FROM howdah.tasks")
    await run_pass(chores, retention)
    kept = await queue.sql("SELECT task_id FROM howdah.task_logs ORDER BY task_id")
    await queue.sql("SELECT howdah.cancel(%s)", past["delayed"])
    await chores.travel("31 days")
    await run_pass(chores, retention)
    left = await queue.sql("SELECT task_id FROM howdah.task_logs ORDER BY task_id")

    assert [row["task_id"] for row in kept] == sorted([past["dead"], past["running"], past["delayed"]])
    assert [row["task_id"] for row in left] == sorted([past["dead"], past["running"]])
