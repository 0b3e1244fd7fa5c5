"""Tasks that expire: none starts after its expires_at, and each of them ends once."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.sql.test_task_changes import _refusal

if TYPE_CHECKING:
    import uuid

    from tests.fix_queue import Queue

FLOOR = {"horizon_run_ats": ["2000-01-01Z"], "horizon_task_ids": ["00000000-0000-0000-0000-000000000000"]}


async def _pass(queue: Queue, interval: str = "1 hour") -> None:
    """Let time pass, in this session."""
    await queue.sql("SELECT set_config('howdah.clock_offset', %s, false)", interval)


async def _expired(queue: Queue, **fields: Any) -> uuid.UUID:
    """Make a task that has expired, and that no scheduler has ended yet."""
    [task] = await queue.enqueue(expires_in="1m", **fields)
    await _pass(queue)
    return task


async def _times(queue: Queue) -> tuple[float | None, float | None]:
    """Seconds from now until the expiry of the only task and of its run."""
    [row] = await queue.sql(
        "SELECT round(extract(epoch FROM t.expires_at - t.created_at))::float AS task_s, "
        "round(extract(epoch FROM r.expires_at - t.created_at))::float AS run_s "
        "FROM howdah.tasks AS t JOIN howdah.runs AS r ON r.task_id = t.id"
    )
    return row["task_s"], row["run_s"]


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, None),
        ({"expires_in": "90s"}, 90.0),
        ({"delay": "1h", "expires_in": "90s"}, 3_690.0),
    ],
)
async def test_expires_in_counts_from_when_the_task_is_due(
    queue: Queue, fields: dict[str, str], seconds: float | None
) -> None:
    """How long it may wait for a worker, not for its time; the run knows what the task says."""
    await queue.enqueue(**fields)

    assert await _times(queue) == (seconds, seconds)


async def test_expires_in_of_a_task_with_a_time_in_the_past_counts_from_now(queue: Queue) -> None:
    """It has expired no sooner than it was made."""
    [row] = await queue.sql("SELECT to_json(howdah.now() - interval '1 hour') AS past")
    await queue.enqueue(run_at=row["past"], expires_in="30s")

    assert await _times(queue) == (30.0, 30.0)


async def test_enqueue_takes_expiry_as_an_option(queue: Queue) -> None:
    """From plain SQL it is an option like the others."""
    await queue.sql("""SELECT howdah.enqueue('q', 'h', options => '{"expires_in": "5m"}')""")

    assert await _times(queue) == (300.0, 300.0)


async def test_expiry_not_behind_its_time_is_refused(queue: Queue) -> None:
    """Nothing could ever start it."""
    [row] = await queue.sql("SELECT to_json(howdah.now() + interval '1 hour') AS at")
    item = {"queue": "q", "handler": "h", "run_at": row["at"], "expires_at": row["at"]}
    [made] = await queue.sql("SELECT error FROM howdah.enqueue_many(NULL, %s::json)", json.dumps([item]))

    assert made["error"] == "validation /expires_at must be later than now and than run_at"


async def test_claim_passes_an_expired_task_by(queue: Queue) -> None:
    """Although no scheduler has ended it, and it lies at the head of its lane."""
    await _expired(queue)
    [fresh] = await queue.enqueue()

    assert [run["task_id"] for run in await queue.claim(10)] == [fresh]


async def test_peek_passes_an_expired_task_by(queue: Queue) -> None:
    """A worker that sees work for which its claims come back empty would ask again and again."""
    await _expired(queue)
    lane = {"queue_ids": [queue.queue_id], "priorities": [1], **FLOOR, "target_ids": [queue.target_id]}

    assert await queue.run("lane.peek", **lane, ahead_s=60.0) == []


@pytest.mark.parametrize("state", ["queued", "scheduled", "blocked"])
async def test_waiting_task_expires(queue: Queue, state: str) -> None:
    """Whatever it waits for, it ends with one row of history that no worker stands in."""
    [task] = await queue.enqueue(expires_in="1m")
    if state == "blocked":
        await queue.sql("UPDATE howdah.runs SET blocked_by = 8, run_at = 'infinity'")
    elif state == "scheduled":
        await queue.sql("UPDATE howdah.runs SET run_at = run_at + '1 day', due_at = due_at + '1 day'")
    assert await queue.state(task) == state
    assert await queue.outlive() == []
    await _pass(queue)
    ended = await queue.outlive()
    [row] = await queue.history()

    assert [each["task_id"] for each in ended] == [task]
    assert await queue.state(task) == "expired"
    assert (row["claim_no"], row["attempt"], row["outcome"], row["is_final"]) == (0, 0, "expired", True)
    assert await queue.sql("SELECT 1 FROM howdah.runs") == []


async def test_task_expires_while_it_waits_for_another_attempt(queue: Queue) -> None:
    """The attempt that failed counts in its history; the one that came too late does not start."""
    [task] = await queue.enqueue(expires_in="1m", retry={"initial": "5m"})
    await queue.fail(await queue.claim())
    await _pass(queue, "2 minutes")
    await queue.outlive()
    history = [(row["claim_no"], row["attempt"], row["outcome"], row["is_final"]) for row in await queue.history()]

    assert await queue.state(task) == "expired"
    assert history == [(0, 1, "expired", True), (1, 1, "failed", False)]


async def test_running_task_goes_on_past_its_expiry(queue: Queue) -> None:
    """What was started in time may succeed."""
    [task] = await queue.enqueue(expires_in="1m")
    runs = await queue.claim()
    await _pass(queue)

    assert await queue.outlive() == []
    assert len(await queue.complete(runs)) == 1
    assert await queue.state(task) == "succeeded"


@pytest.mark.parametrize("end", ["release", "fail"])
async def test_run_that_comes_back_too_late_is_not_started_again(queue: Queue, end: str) -> None:
    """A drain or a failure past the expiry leaves a task that only expires."""
    [task] = await queue.enqueue(expires_in="1m", retry={"backoff": "fixed", "initial": "0s"})
    runs = await queue.claim()
    await _pass(queue)
    await (queue.release(runs) if end == "release" else queue.fail(runs))
    again = await queue.claim()
    await queue.outlive()

    assert again == []
    assert await queue.state(task) == "expired"


async def test_claim_and_expiry_never_take_the_same_task(queue: Queue) -> None:
    """Whoever has the row locked wins, and the other passes it by: each task starts, or expires, not both."""
    tasks = await queue.enqueue(200, expires_in="1m")
    early, late = await queue.connect(), await queue.connect()
    # For one of them it is not too late yet.
    await late.execute("SET howdah.clock_offset = '2 minutes'")
    claimed: list[uuid.UUID] = []
    expired: list[uuid.UUID] = []

    async def claim() -> None:
        while runs := await queue.claim(7, conn=early):
            claimed.extend(run["task_id"] for run in runs)

    async def expire() -> None:
        while rows := await queue.outlive(late):
            expired.extend(row["task_id"] for row in rows)

    async with late.transaction():
        # A lock on some of them keeps the claim from those, and the expiry from none.
        await late.execute("SELECT 1 FROM howdah.runs WHERE task_id = ANY (%s) FOR UPDATE", [tasks[:50]])
        await asyncio.gather(claim(), expire())

    assert len(claimed) + len(expired) == len(tasks)
    assert set(claimed) | set(expired) == set(tasks)
    assert len(expired) >= 50
    assert {row["task_id"] for row in await queue.history()} == set(expired)


async def test_expiry_waits_for_nobody(queue: Queue) -> None:
    """A row that a transaction has locked is left to the next round."""
    locked, free = await queue.enqueue(2, expires_in="1m")
    await _pass(queue)
    holder = await queue.connect()
    async with holder.transaction():
        await holder.execute("SELECT 1 FROM howdah.runs WHERE task_id = %s FOR UPDATE", [locked])
        first = await asyncio.wait_for(queue.outlive(), timeout=5)
    second = await queue.outlive()

    assert [[row["task_id"] for row in rows] for rows in (first, second)] == [[free], [locked]]


async def _change(queue: Queue, task: uuid.UUID, **changes: Any) -> None:
    await queue.sql("SELECT howdah.change(%s, %s)", task, json.dumps(changes))


async def _instant(queue: Queue, interval: str) -> str:
    [row] = await queue.sql("SELECT to_json(date_trunc('second', howdah.now()) + %s::interval) AS at", interval)
    return str(row["at"])


async def test_change_moves_the_expiry_and_takes_it_away(queue: Queue) -> None:
    """In the task and in its run, and without touching the run's place in its lane."""
    task, behind = await queue.enqueue(2)
    await _change(queue, task, expires_at=await _instant(queue, "10 minutes"))
    [moved] = await queue.sql(
        "SELECT t.expires_at - howdah.now() > interval '9 minutes' AS is_ahead, t.expires_at = r.expires_at AS is_same "
        "FROM howdah.tasks AS t JOIN howdah.runs AS r ON r.task_id = t.id WHERE t.id = %s",
        task,
    )
    await _change(queue, task, priority="normal")
    await _change(queue, task, expires_at=None)
    rows = await queue.sql("SELECT expires_at FROM howdah.tasks UNION ALL SELECT expires_at FROM howdah.runs")

    assert moved == {"is_ahead": True, "is_same": True}
    assert [row["expires_at"] for row in rows] == [None] * 4
    assert [run["task_id"] for run in await queue.claim(2)] == [task, behind]


@pytest.mark.parametrize("interval", [None, "2 hours"])
async def test_task_that_is_given_more_time_is_claimed_again(queue: Queue, interval: str | None) -> None:
    """Also by a worker whose horizon has passed it by while it was expired: it lies above that."""
    task = await _expired(queue)
    [passing] = await queue.enqueue()
    [run] = await queue.claim(10)
    assert run["task_id"] == passing
    await _change(queue, task, expires_at=None if interval is None else await _instant(queue, interval))

    again = await queue.claim(10, horizon=(run["run_at"], run["task_id"]))

    assert [each["task_id"] for each in again] == [task]


async def test_change_refuses_an_expiry_that_cannot_be(queue: Queue) -> None:
    """Each pointing at what was asked for."""
    [task] = await queue.enqueue(delay="1h", expires_in="1h")

    for changes, pointer in (
        ({"expires_at": "soon"}, "/expires_at"),
        ({"expires_at": 5}, "/expires_at"),
        ({"expires_at": "infinity"}, "/expires_at"),
        ({"expires_at": await _instant(queue, "400 days")}, "/expires_at"),
        ({"expires_at": await _instant(queue, "-1 hour")}, "/expires_at"),
        ({"expires_at": await _instant(queue, "30 minutes")}, "/expires_at"),
        ({"run_at": await _instant(queue, "3 hours")}, "/run_at"),
        ({"run_at": await _instant(queue, "5 hours"), "expires_at": await _instant(queue, "4 hours")}, "/expires_at"),
    ):
        sqlstate, message = await _refusal(queue, "change", task, json.dumps(changes))
        assert (sqlstate, message.split(" ")[0]) == ("JQ422", pointer), changes
    assert await _times(queue) == (7_200.0, 7_200.0)


async def test_retried_task_may_be_given_an_expiry_before_its_next_attempt(queue: Queue) -> None:
    """The next attempt's time was no one's wish; the task then ends without it."""
    [task] = await queue.enqueue(retry={"initial": "300s"})
    await queue.fail(await queue.claim())
    await _change(queue, task, expires_at=await _instant(queue, "60 seconds"))
    await _pass(queue, "2 minutes")
    await queue.outlive()

    assert await queue.state(task) == "expired"


async def test_expired_task_is_not_made_due(queue: Queue) -> None:
    """Before the scheduler has ended it, and after."""
    task = await _expired(queue)
    first = await _refusal(queue, "run_now", task)
    await queue.outlive()
    second = await _refusal(queue, "run_now", task)

    assert (first[0], second[0]) == ("JQ409", "JQ409")
    assert "expired" in first[1]
    assert "expired" in second[1]


async def test_dead_letter_is_not_replayed_past_its_expiry(queue: Queue) -> None:
    """Whoever said that a task is of no use after a time did not except replays; it stays a dead letter."""
    [task] = await queue.enqueue(expires_in="1m", retry={"max_attempts": 1})
    await queue.fail(await queue.claim())
    await _pass(queue)
    sqlstate, message = await _refusal(queue, "replay", task)

    assert sqlstate == "JQ409"
    assert "expired at" in message
    assert await queue.state(task) == "failed"


async def test_dead_letter_that_is_replayed_in_time_still_expires(queue: Queue) -> None:
    """A replay gives attempts, not time."""
    [task] = await queue.enqueue(expires_in="1m", retry={"max_attempts": 1})
    await queue.fail(await queue.claim())
    await queue.sql("SELECT howdah.replay(%s)", task)
    await _pass(queue)
    await queue.outlive()

    assert await queue.state(task) == "expired"


async def test_explain_tells_when_a_waiting_task_expires(queue: Queue) -> None:
    """Last, behind what it waits for; once it is too late that is the only reason."""
    [task] = await queue.enqueue(delay="1h", expires_in="1h")
    ahead = await queue.sql("SELECT code, until FROM howdah.explain(%s)", task)
    [run] = await queue.sql("SELECT expires_at FROM howdah.runs")
    await _pass(queue, "3 hours")
    late = await queue.sql("SELECT code, message FROM howdah.explain(%s)", task)
    await queue.outlive()
    [ended] = await queue.sql("SELECT code, message FROM howdah.explain(%s)", task)

    assert [row["code"] for row in ahead] == ["not_due", "no_worker", "expires"]
    assert ahead[-1]["until"] == run["expires_at"]
    assert [row["code"] for row in late] == ["expired"]
    assert (ended["code"], ended["message"]) == ("ended", "it has ended: it is expired")


async def test_views_show_what_expires_and_what_should_have(queue: Queue) -> None:
    """The views of waiting tasks say when; stuck names a task that no scheduler has ended, and then no more."""
    [task] = await queue.enqueue(expires_in="1m")
    [shown] = await queue.sql("SELECT expires_at FROM howdah.tasks_queued")
    before = await queue.sql("SELECT 1 FROM howdah.stuck")
    await _pass(queue)
    during = await queue.sql("SELECT problem, task_id, since_s::float FROM howdah.stuck WHERE problem = 'past_expiry'")
    await queue.outlive()
    after = await queue.sql("SELECT 1 FROM howdah.stuck")
    [finished] = await queue.sql("SELECT task_id, state FROM howdah.tasks_finished")

    assert shown["expires_at"] is not None
    assert (before, after) == ([], [])
    assert [(row["problem"], row["task_id"], row["since_s"] > 3_000) for row in during] == [("past_expiry", task, True)]
    assert finished == {"task_id": task, "state": "expired"}


async def test_producer_gives_an_expiry_from_its_own_transaction(queue: Queue) -> None:
    """And may change it with the rights that it has."""
    producer = await queue.connect()
    await producer.execute("SET ROLE howdah_producer")
    cursor = await producer.execute("""SELECT howdah.enqueue('q', 'h', options => '{"expires_in": "5m"}') AS id""")
    made = await cursor.fetchone()
    assert made is not None
    await producer.execute("SELECT howdah.change(%s, %s)", [made["id"], json.dumps({"expires_at": None})])

    assert await _times(queue) == (None, None)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await producer.execute("SELECT expires_at FROM howdah.runs")
