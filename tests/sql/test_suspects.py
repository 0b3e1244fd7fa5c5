"""Runs that two workers were lost with: what a third loss, or its absence, proves."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.fix_queue import Queue

Row = dict[str, Any]


async def claimed_suspect(queue: Queue, **fields: Any) -> tuple[uuid.UUID, Row]:
    """Store a task, lose two workers with it, and claim it for the third time."""
    [task] = await queue.enqueue(**({"retry": {"max_attempts": 10}} | fields))
    for _ in range(2):
        await lost(queue, await again(queue))
    return task, await again(queue)


async def again(queue: Queue) -> Row:
    """Claim the only run now, whenever it is due."""
    await queue.sql("UPDATE howdah.runs SET run_at = howdah.now()")
    [run] = await queue.claim()
    return run


async def lost(queue: Queue, run: Row) -> str:
    """Let a lease run out, and return what rescue says."""
    await queue.expire([run])
    [rescued] = await queue.rescue()
    verdict: str = rescued["verdict"]
    return verdict


async def set_aside(queue: Queue, run: Row, wait_s: float = 10.0, **keywords: Any) -> None:
    """Say that a run waits to be executed alone."""
    await queue.run(
        "run.set_aside",
        tenant_ids=[run["tenant_id"]],
        task_ids=[run["task_id"]],
        lease_tokens=[run["lease_token"]],
        timeouts_s=[60.0],
        waits_s=[wait_s],
        **keywords,
    )


async def counts(queue: Queue) -> tuple[int, int, int | None]:
    """Attempts, crashes, and what is known of being alone."""
    [run] = await queue.sql("SELECT attempt, crashes, alone_state FROM howdah.runs")
    return run["attempt"], run["crashes"], run["alone_state"]


async def test_claim_tells_how_many_workers_were_lost_with_a_run(queue: Queue) -> None:
    """Who claims a run learns whether it is a suspect, in queues with limits too, and after a lost answer."""
    _, run = await claimed_suspect(queue)
    found = await queue.run("run.find_claimed", lease_token=run["lease_token"], worker_id=1)
    await queue.sql("UPDATE howdah.queues SET max_running = 5")
    await queue.release([run])
    [limited] = await queue.claim_limited()

    assert [each["crashes"] for each in (run, *found, limited)] == [2, 2, 2]


async def test_third_loss_while_it_is_executed_alone_convicts_a_run(queue: Queue) -> None:
    """Nothing else can have killed the worker: the task is a dead letter, whatever attempts are left."""
    task, run = await claimed_suspect(queue)
    await set_aside(queue, run)
    begun = await queue.begin_alone(run)
    verdict = await lost(queue, run)
    [dead] = await queue.sql("SELECT task_id, reason, crashes, attempt FROM howdah.dead_letters")

    assert len(begun) == 1
    assert verdict == "dead"
    assert dead == {"task_id": task, "reason": "crashes", "crashes": 3, "attempt": 3}


async def test_loss_of_a_suspect_that_had_not_started_costs_it_nothing(queue: Queue) -> None:
    """Whoever killed the worker was another: neither a crash nor an attempt is counted, however often it happens."""
    _, run = await claimed_suspect(queue, retry={"max_attempts": 3})
    for _ in range(4):
        await set_aside(queue, run)
        verdict = await lost(queue, run)
        seen = await counts(queue)
        run = await again(queue)

        assert (verdict, seen) == ("retry", (2, 2, None))


async def test_loss_of_a_suspect_of_which_nothing_is_known_spends_its_attempt_alone(queue: Queue) -> None:
    """A callback, or a worker of an earlier release: it may have started, so attempts end it, and never crashes."""
    _, run = await claimed_suspect(queue, retry={"max_attempts": 4})
    first = await lost(queue, run)
    seen = await counts(queue)
    second = await lost(queue, await again(queue))
    [dead] = await queue.sql("SELECT reason, crashes FROM howdah.dead_letters")

    assert (first, seen) == ("retry", (3, 2, None))
    assert (second, dead) == ("dead", {"reason": "attempts", "crashes": 2})


async def test_loss_that_counts_no_crash_convicts_nobody(queue: Queue) -> None:
    """While PostgreSQL was away no worker could renew: that says nothing of what it executed."""
    _, run = await claimed_suspect(queue)
    await queue.begin_alone(run)
    [verdict] = await queue.fail([run], "lost", counts_crash=False, is_decided=True)

    assert verdict["verdict"] == "retry"
    assert await counts(queue) == (3, 2, None)


@pytest.mark.parametrize("outcome", ["failed", "timed_out", "released"])
async def test_suspect_that_leaves_its_worker_alive_is_cleared(queue: Queue, outcome: str) -> None:
    """It was executed alone and its handler reported: the workers before were killed by something else."""
    _, run = await claimed_suspect(queue)
    await queue.begin_alone(run)
    [verdict] = await queue.fail([run], outcome, retry_in_s=0, is_decided=True)

    assert verdict["verdict"] == "retry"
    assert await counts(queue) == (2 if outcome == "released" else 3, 0, None)


async def test_suspect_that_is_handed_back_stays_one(queue: Queue) -> None:
    """A drain proves nothing, whether it had begun or waited to be alone; no attempt is spent."""
    _, run = await claimed_suspect(queue)
    await set_aside(queue, run)
    await queue.release([run])
    waited = await counts(queue)
    run = await again(queue)
    await queue.begin_alone(run)
    await queue.release([run])

    assert waited == (2, 2, None)
    assert await counts(queue) == (2, 2, None)


async def test_suspect_that_waits_keeps_its_lease_as_long_as_it_may_wait(queue: Queue) -> None:
    """The deadline leaves time to wait, and counts from the start then: the wait takes nothing from the timeout."""
    _, run = await claimed_suspect(queue)
    left = "SELECT extract(epoch FROM deadline_at - howdah.now())::float8 AS s FROM howdah.runs"
    await set_aside(queue, run, wait_s=600.0)
    [waiting] = await queue.sql(left)
    await queue.begin_alone(run)
    [started] = await queue.sql(left)

    assert waiting["s"] == pytest.approx(660, abs=5)
    assert started["s"] == pytest.approx(60, abs=5)


async def test_suspect_does_not_begin_without_its_lease_nor_while_its_row_is_locked(queue: Queue) -> None:
    """Neither statement waits for anybody, or touches a run that is another's by now."""
    _, run = await claimed_suspect(queue)
    foreign = {**run, "lease_token": uuid.uuid4()}
    other = await queue.connect()
    async with other.transaction():
        await other.execute("SELECT 1 FROM howdah.runs FOR UPDATE")
        locked = await queue.begin_alone(run)
        await set_aside(queue, run)
    await set_aside(queue, foreign)
    begun = await queue.begin_alone(foreign)

    assert (locked, begun) == ([], [])
    assert await counts(queue) == (3, 2, None)


async def test_explain_says_that_a_suspect_is_executed_alone(queue: Queue) -> None:
    """While it waits for a worker, and while its worker waits for the end of what else it has."""
    task, run = await claimed_suspect(queue)
    explain = "SELECT code, message FROM howdah.explain(%s)"
    unknown = await queue.sql(explain, task)
    await set_aside(queue, run)
    held = await queue.sql(explain, task)
    await queue.begin_alone(run)
    begun = await queue.sql(explain, task)
    await queue.release([run])
    waiting = await queue.sql(explain, task)

    assert [[row["code"] for row in rows] for rows in (unknown, held, begun)] == [["running"], ["alone"], ["running"]]
    assert held[0]["message"].startswith("2 workers were lost with it; worker ")
    assert [row["message"] for row in waiting if row["code"] == "alone"] == [
        "2 workers were lost with it: the next one executes it alone"
    ]
