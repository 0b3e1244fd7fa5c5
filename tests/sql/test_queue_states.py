"""Queues that are paused, drained, capped and deleted, by SQL."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.fix_chores import heard, listen
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from tests.fix_queue import Queue, Row

PAUSE = "SELECT howdah.pause('q', 'the mail provider is down', howdah.now() + interval '1 hour') AS changed"


async def _changed(queue: Queue, call: str, *params: Any) -> bool:
    [row] = await queue.sql(f"SELECT {call} AS changed", *params)
    return bool(row["changed"])


async def _refusal(queue: Queue, statement: str, *params: Any) -> tuple[str | None, str]:
    with pytest.raises(psycopg.Error) as caught:
        await queue.sql(statement, *params)
    return caught.value.sqlstate, str(caught.value).splitlines()[0]


async def _shown(queue: Queue) -> Row:
    [row] = await queue.sql("SELECT * FROM howdah.queue_states WHERE queue = 'q'")
    return row


async def _enqueue_many(queue: Queue, *names: str) -> list[str | None]:
    items = json.dumps([{"queue": name, "handler": "h"} for name in names])
    return [
        row["error"]
        for row in await queue.sql("SELECT error FROM howdah.enqueue_many(NULL, %s::json) ORDER BY ordinal", items)
    ]


async def _peek(queue: Queue) -> list[Row]:
    return await queue.run(
        "lane.peek",
        queue_ids=[queue.queue_id],
        priorities=[1],
        horizon_run_ats=["2000-01-01Z"],
        horizon_task_ids=["00000000-0000-0000-0000-000000000000"],
        target_ids=[queue.target_id],
        ahead_s=60.0,
    )


async def test_nothing_is_claimed_from_a_paused_queue_until_it_is_resumed(queue: Queue) -> None:
    """What runs goes on, and ends as ever; what waits keeps its attempts and its place."""
    first, second, _ = await queue.enqueue(3)
    running = await queue.claim()
    was_changed = [await _changed(queue, "howdah.pause('q')"), await _changed(queue, "howdah.pause('q')")]
    during = await queue.claim(9)
    ended = await queue.complete(running)
    was_resumed = [await _changed(queue, "howdah.resume('q')"), await _changed(queue, "howdah.resume('q')")]
    after = await queue.claim(9)

    assert (was_changed, was_resumed) == ([True, False], [True, False])
    assert during == []
    assert [run["task_id"] for run in ended] == [first]
    assert (after[0]["task_id"], after[0]["attempt"]) == (second, 1)


async def test_pause_ends_by_itself_for_claims(queue: Queue) -> None:
    """Claims judge by the time; no chore need have noticed."""
    await queue.enqueue()
    await queue.sql(PAUSE)
    during = await queue.claim()
    await queue.sql("SET howdah.clock_offset = '61 minutes'")
    after = await queue.claim()

    assert (len(during), len(after)) == (0, 1)


async def test_peek_tells_of_a_paused_lane_what_it_may_not_take_for_drained(queue: Queue) -> None:
    """It says when the pause ends, and NULL if it does not; other lanes are told as ever."""
    await queue.enqueue()
    [before] = await _peek(queue)
    await queue.sql(PAUSE)
    [ending] = await _peek(queue)
    await queue.sql("SELECT howdah.pause('q')")
    [endless] = await _peek(queue)

    assert (before["is_closed"], before["wait_s"] <= 0) == (False, True)
    assert (ending["is_closed"], round(ending["wait_s"])) == (True, 3600)
    assert (endless["is_closed"], endless["run_at"], endless["wait_s"]) == (True, None, None)


async def test_resume_wakes_each_lane_from_its_oldest_run_on(queue: Queue, database: str) -> None:
    """All that lies below a worker's horizon is found at once; parked runs have no time to be named."""
    for priority in ("low", "high", "critical"):
        await queue.enqueue(2, priority=priority)
    await queue.sql("UPDATE howdah.runs SET blocked_by = 8, run_at = 'infinity' WHERE priority = 3")
    await queue.sql("SELECT howdah.pause('q')")
    oldest = await queue.sql(
        "SELECT howdah.lane_word(queue_id, priority, min(run_at)) AS word FROM howdah.runs WHERE priority < 3 "
        "GROUP BY queue_id, priority"
    )
    async with await listen(database) as listener:
        await queue.sql("SELECT howdah.resume('q')")
        words = await heard(listener)

    assert sorted(words) == sorted(row["word"] for row in oldest)


async def test_pause_is_shown_with_its_author_reason_and_end(queue: Queue) -> None:
    """A later one replaces them; when it is over, nothing is left to see."""
    await queue.enqueue()
    await queue.sql(PAUSE)
    paused = await _shown(queue)
    await queue.sql("SELECT howdah.pause('q', '')")
    endless = await _shown(queue)
    await queue.sql("SELECT howdah.resume('q')")
    resumed = await _shown(queue)
    [role] = await queue.sql("SELECT session_user::text AS name, paused_until FROM howdah.queue_states")

    assert (paused["state"], paused["pause_reason"]) == ("paused", "the mail provider is down")
    assert paused["paused_by"] == role["name"]
    assert paused["paused_until"] > paused["paused_at"]
    assert (endless["state"], endless["pause_reason"], endless["paused_at"]) == ("paused", None, paused["paused_at"])
    assert (endless["paused_until"], role["paused_until"]) == (None, None)
    assert (resumed["state"], resumed["paused_by"], resumed["paused_at"]) == ("active", None, None)


@pytest.mark.parametrize(
    ("call", "sqlstate", "message"),
    [
        ("pause('none')", "JQ404", 'there is no queue "none"'),
        ("pause(NULL)", "JQ404", "there is no queue"),
        ("pause('q', tenant => 'none')", "JQ404", 'there is no tenant "none"'),
        ("pause('q', repeat('x', 10000))", "JQ422", "/reason must have at most 500 characters"),
        ("pause('q', until => howdah.now())", "JQ422", "/until must lie ahead"),
        ("pause('q', until => '-infinity')", "JQ422", "/until must lie ahead"),
        ("pause('q', until => howdah.now() + interval '367 days')", "JQ422", "/until must be at most 366 days ahead"),
        ("resume('none')", "JQ404", 'there is no queue "none"'),
        ("drain('none')", "JQ404", 'there is no queue "none"'),
        ("delete_queue('none')", "JQ404", 'there is no queue "none"'),
    ],
)
async def test_what_makes_no_sense_is_refused(queue: Queue, call: str, sqlstate: str, message: str) -> None:
    """With a code, and where it is a field, its name; the queue stays as it is."""
    await queue.enqueue()
    code, said = await _refusal(queue, f"SELECT howdah.{call}")

    assert (code, said.startswith(message)) == (sqlstate, True), said
    assert (await _shown(queue))["state"] == "active"


async def test_queue_of_another_tenant_is_none(queue: Queue) -> None:
    """Its name decides nothing without the tenant."""
    await queue.enqueue()
    await queue.sql("INSERT INTO howdah.tenants (name) VALUES ('other')")

    assert (await _refusal(queue, "SELECT howdah.pause('q', tenant => 'other')"))[0] == "JQ404"
    assert len(await queue.claim()) == 1


async def test_draining_queue_takes_no_new_task_and_is_worked_off(queue: Queue) -> None:
    """Each way of enqueuing is refused alike, others in a batch are not; a name is not made by what is refused."""
    await queue.enqueue()
    changed = [await _changed(queue, "howdah.drain('q')"), await _changed(queue, "howdah.drain('q')")]
    plain = await _refusal(queue, "SELECT howdah.enqueue('q', 'h')")
    full = await _refusal(queue, "SELECT howdah.enqueue('q', 'unheard', options => '{\"priority\": \"high\"}')")
    many = await _enqueue_many(queue, "q", "other", "q")
    targets = await queue.sql("SELECT handler FROM howdah.targets WHERE handler = 'unheard'")
    worked_off = await queue.claim(9)
    shown = await _shown(queue)
    await queue.sql("SELECT howdah.resume('q')")

    refusal = "/queue takes no new tasks: it is being drained"
    assert changed == [True, False]
    assert (plain, full) == (("JQ409", refusal), ("JQ409", refusal))
    assert many == [f"queue_draining {refusal}", None, f"queue_draining {refusal}"]
    assert targets == []
    assert len(worked_off) == 1
    assert (shown["state"], shown["draining_at"] is not None) == ("draining", True)
    assert await _enqueue_many(queue, "q") == [None]


async def test_repeat_of_what_was_stored_before_a_drain_is_no_new_task(queue: Queue) -> None:
    """Who lost the answer and sends the same id again is told that it is there."""
    [row] = await queue.sql("SELECT howdah.new_id()::text AS id")
    item = json.dumps([{"queue": "q", "handler": "h", "id": row["id"]}])
    await queue.sql("SELECT * FROM howdah.enqueue_many(NULL, %s::json)", item)
    await queue.sql("SELECT howdah.drain('q')")
    [again] = await queue.sql("SELECT created, error FROM howdah.enqueue_many(NULL, %s::json)", item)

    assert (again["created"], again["error"]) == (False, None)


async def test_pause_and_drain_are_two_things_and_resume_ends_both(queue: Queue) -> None:
    """What is paused may be draining underneath, and says so."""
    await queue.enqueue()
    await queue.sql("SELECT howdah.drain('q'), howdah.pause('q')")
    both = await _shown(queue)
    await queue.sql("SELECT howdah.resume('q')")
    neither = await _shown(queue)

    assert (both["state"], both["draining_at"] is not None) == ("paused", True)
    assert (neither["state"], neither["draining_at"], neither["draining_by"]) == ("active", None, None)


async def test_queue_at_a_cap_refuses_while_the_mark_counts(queue: Queue) -> None:
    """By every way of enqueuing; a mark that nobody renewed counts no more."""
    await queue.enqueue()
    await queue.sql("UPDATE howdah.queues SET pressure = 'depth', pressure_until = howdah.now() + interval '10 s'")
    plain = await _refusal(queue, "SELECT howdah.enqueue('q', 'h')")
    many = await _enqueue_many(queue, "q", "other")
    await queue.sql("UPDATE howdah.queues SET pressure = 'age' WHERE name = 'q'")
    age = await _enqueue_many(queue, "q")
    await queue.sql("UPDATE howdah.queues SET pressure_until = howdah.now() WHERE name = 'q'")
    after = await _enqueue_many(queue, "q")

    assert plain == ("JQ429", "/queue has as many waiting tasks as it may (max_depth)")
    assert many == ["backpressure /queue has as many waiting tasks as it may (max_depth)", None]
    assert age == ["backpressure /queue has a task that has waited for as long as one may (max_age)"]
    assert after == [None]


async def test_queue_that_holds_something_is_not_deleted(queue: Queue) -> None:
    """It says how much of what: tasks that wait or run, and dead letters."""
    await queue.enqueue(3, retry={"max_attempts": 1})
    await queue.fail(await queue.claim())
    await queue.claim()
    refusal = await _refusal(queue, "SELECT howdah.delete_queue('q')")
    await queue.sql(
        "INSERT INTO howdah.runs (tenant_id, task_id, queue_id, target_id, priority, run_at, queued_at, due_at) "
        "SELECT 1, howdah.new_id(n), %s, %s, 1, howdah.now(), howdah.now(), howdah.now() "
        "FROM generate_series(1, 1000) AS n",
        queue.queue_id,
        queue.target_id,
    )
    many = await _refusal(queue, "SELECT howdah.delete_queue('q')")

    assert refusal == ("JQ409", "the queue is not empty: it holds 2 live tasks and 1 dead letters")
    assert many[1] == "the queue is not empty: it holds 1000 or more live tasks and 1 dead letters"


async def test_deleted_queue_is_gone_but_for_its_history(queue: Queue) -> None:
    """No list shows it and nothing can be done to it, but its tasks can be read, and so can their runs."""
    [task] = await queue.enqueue()
    await queue.complete(await queue.claim())
    await queue.sql("SELECT howdah.delete_queue('q')")
    refusal = await _refusal(queue, "SELECT howdah.pause('q')")
    [read] = await queue.run("task.get", tenant_id=1, id=task)
    history = await queue.sql("SELECT queue FROM howdah.tasks_finished")

    assert refusal[0] == "JQ404"
    assert await queue.sql("SELECT 1 FROM howdah.queue_states UNION ALL SELECT 1 FROM howdah.queue_live") == []
    assert await queue.run("queue.list") == []
    assert (read["queue"], read["state"]) == ("q", "succeeded")
    assert [row["queue"] for row in history] == ["q"]


async def test_queue_that_was_deleted_is_made_anew_with_nothing_left_of_it(queue: Queue, database: str) -> None:
    """By its first task, by set_queue or PUT; whatever column a queue has, it is as in one that never was there."""
    settings = {
        "retry": {"max_attempts": 9}, "timeout": "7s", "keep_history": "none", "max_depth": 7, "max_age": "7s",
    }  # fmt: skip
    rows = []
    for name in ("old", "new"):
        if name == "old":
            await queue.sql("SELECT howdah.set_queue('old', %s)", json.dumps(settings))
            await queue.sql("SELECT howdah.pause('old', 'why'), howdah.drain('old')")
            await queue.sql("SELECT howdah.delete_queue('old')")
        async with await listen(database) as listener:
            errors = await _enqueue_many(queue, name)
            words = await heard(listener)
        [row] = await queue.sql(
            "SELECT to_jsonb(q) - ARRAY['id', 'name', 'created_at', 'updated_at'] AS fields, deleted_at "
            "FROM howdah.queues AS q WHERE name = %s", name
        )  # fmt: skip
        rows.append((errors, words[0], row))

    assert rows[0] == rows[1]
    assert rows[0][:2] == ([None], "c")
    assert rows[0][2]["deleted_at"] is None


async def test_set_queue_makes_one_anew_that_was_deleted(queue: Queue) -> None:
    """It says that it is new, as for any other."""
    made = [await _changed(queue, "howdah.set_queue('q')") for _ in range(2)]
    await queue.sql("SELECT howdah.delete_queue('q')")
    made.append(await _changed(queue, "howdah.set_queue('q', '{\"max_depth\": 5}')"))

    assert made == [True, False, True]
    assert ((await _shown(queue))["state"], (await _shown(queue))["max_depth"]) == ("active", 5)


async def test_task_that_was_stored_while_its_queue_was_deleted_brings_it_back(queue: Queue) -> None:
    """The enqueue began first and commits last, and neither waits for the other; what it stored is not lost."""
    await queue.sql("SELECT howdah.set_queue('q'), howdah.enqueue('other', 'h')")
    conn = await queue.connect()
    async with conn.transaction():
        [row] = await queue.sql("SELECT id FROM howdah.queues WHERE name = 'q'")
        await conn.execute("SELECT howdah.enqueue('q', 'h')")
        await queue.sql("SELECT howdah.delete_queue('q')")
        hidden = await queue.run("queue.list")
    revived = await queue.run("queue.revive", queue_ids=[row["id"]])
    again = await queue.run("queue.revive", queue_ids=[row["id"]])

    assert [each["name"] for each in hidden] == ["other"]
    assert (revived, again) == ([{"id": row["id"]}], [])
    assert [each["name"] for each in await queue.run("queue.list")] == ["q", "other"]


async def test_enqueue_that_meets_a_delete_makes_the_queue_anew(queue: Queue) -> None:
    """It waits for whoever deletes it, and then finds it gone."""
    await queue.sql("SELECT howdah.set_queue('q')")
    deleter, producer = await queue.connect(), await queue.connect()
    async with deleter.transaction():
        await deleter.execute("SELECT howdah.delete_queue('q')")
        await queue.sql("UPDATE howdah.tenants SET name = name")
        # It does not see the mark yet, and needs no lock.
        await producer.execute("SELECT howdah.enqueue('q', 'h')")
    after = await _enqueue_many(queue, "q")

    assert after == [None]
    assert [each["name"] for each in await queue.run("queue.list")] == ["q"]


async def test_two_changes_of_one_queue_follow_each_other(queue: Queue) -> None:
    """A delete waits for a pause that is not committed yet, and a resume for a delete, which it then finds."""
    await queue.sql("SELECT howdah.set_queue('q')")
    deleter, other = await queue.connect(), await queue.connect()
    async with deleter.transaction():
        await deleter.execute("SELECT howdah.delete_queue('q')")
        resume = asyncio.create_task(other.execute("SELECT howdah.resume('q')"))

        async def waits() -> bool:
            return bool(
                await queue.sql(
                    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%resume%'"
                )
            )

        await eventually_async(waits, 10, "the resume waits")
    with pytest.raises(psycopg.Error) as caught:
        await resume

    assert caught.value.sqlstate == "JQ404"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("[]", "settings must be a JSON object"),
        ({"paused": True}, "/paused is not a setting of a queue"),
        ({"retry": None}, "/retry must not be null; leave it out"),
        ({"retry": {"max_attempts": 0}}, "/retry/max_attempts must be"),
        ({"timeout": "0s"}, "/timeout must be a duration from 0.1 seconds to 24 hours"),
        ({"timeout": 5}, "/timeout must be a duration from 0.1 seconds to 24 hours"),
        ({"keep_history": "some"}, "/keep_history must be all, failures or none"),
        ({"keep_history": 1}, "/keep_history must be all, failures or none"),
        ({"max_depth": 0}, "/max_depth must be a whole number from 1 to 1000000"),
        ({"max_depth": -1}, "/max_depth must be"),
        ({"max_depth": 1.5}, "/max_depth must be"),
        ({"max_depth": 10**30}, "/max_depth must be"),
        ({"max_depth": "5"}, "/max_depth must be"),
        ({"max_age": "0s"}, "/max_age must be a duration from 1 second to 366 days"),
        ({"max_age": "367d"}, "/max_age must be"),
        ({"max_age": -5}, "/max_age must be"),
    ],
)
async def test_setting_that_is_not_allowed_is_refused(queue: Queue, settings: Any, message: str) -> None:
    """It is named, and nothing is made."""
    written = settings if isinstance(settings, str) else json.dumps(settings)
    code, said = await _refusal(queue, "SELECT howdah.set_queue('q', %s)", written)

    assert (code, said.startswith(message)) == ("JQ422", True), said
    assert (await _refusal(queue, "SELECT howdah.set_queue('Q')"))[0] == "JQ422"
    assert await queue.sql("SELECT 1 FROM howdah.queues") == []


async def test_setting_that_is_not_given_stays(queue: Queue) -> None:
    """And null takes a cap away."""
    await queue.sql('SELECT howdah.set_queue(\'q\', \'{"max_depth": 5, "max_age": "5m", "keep_history": "none"}\')')
    await queue.sql('SELECT howdah.set_queue(\'q\', \'{"max_depth": null, "timeout": "9s"}\')')
    shown = await _shown(queue)

    assert (shown["max_depth"], shown["max_age_s"], shown["keep_history"], shown["timeout_s"]) == (None, 300, "none", 9)


async def test_pause_while_claims_go_on_leaves_none_after_it(queue: Queue) -> None:
    """Once the pause has returned, and claims that were under way have ended, none finds a run until the resume."""
    await queue.enqueue(600)
    is_paused, lates = asyncio.Event(), []

    async def claim_on() -> int:
        conn, count = await queue.connect(), 0
        while True:
            began_after = is_paused.is_set()
            claimed = len(await queue.claim(1, conn=conn))
            count += claimed
            if began_after:
                lates.append(claimed)
                return count

    claimers = [asyncio.create_task(claim_on()) for _ in range(4)]

    async def are_at_it() -> bool:
        [row] = await queue.sql("SELECT count(*) AS n FROM howdah.runs WHERE lease_token IS NOT NULL")
        return bool(row["n"] > 20)

    await eventually_async(are_at_it, 20, "claims are under way")
    await queue.sql("SELECT howdah.pause('q')")
    is_paused.set()
    before = sum(await asyncio.gather(*claimers))
    await queue.sql("SELECT howdah.resume('q')")
    after = len(await queue.claim(1000))

    assert lates == [0, 0, 0, 0]
    assert (before > 20, before + after) == (True, 600)


async def test_paused_queue_is_not_said_to_be_stuck(queue: Queue) -> None:
    """Nobody is to take from it; once it is resumed, it is told again."""
    await queue.enqueue()
    await queue.sql(
        "UPDATE howdah.runs SET run_at = run_at - interval '10 minutes', due_at = due_at - interval '10 minutes'"
    )
    before = await queue.sql("SELECT problem FROM howdah.stuck")
    await queue.sql("SELECT howdah.pause('q')")
    during = await queue.sql("SELECT problem FROM howdah.stuck"), await queue.run("lane.unserved", row_count=9)
    await queue.sql("UPDATE howdah.runs SET blocked_by = 8, run_at = 'infinity'")
    parked = await queue.run("lane.unserved", row_count=9)
    await queue.sql("SELECT howdah.resume('q')")
    after = await queue.run("lane.unserved", row_count=9)

    assert [row["problem"] for row in before] == ["unserved"]
    assert (during, parked) == (([], []), [])
    assert [row["is_parked"] for row in after] == [True]


async def test_task_in_a_paused_queue_explains_so(queue: Queue) -> None:
    """By whom, why and until when; that a worker would take it next is not said, that none can is."""
    [task] = await queue.enqueue()
    await queue.sql(PAUSE)
    paused, missing = await queue.sql("SELECT * FROM howdah.explain(%s)", task)
    [role] = await queue.sql("SELECT session_user::text AS name, paused_until FROM howdah.queue_states")
    await queue.sql(
        "INSERT INTO howdah.workers (name, host, pid, version, queues, handlers, serves_http, concurrency, lease_s, "
        "started_at, heartbeat_at) VALUES ('w', 'host', 1, '0', '{*}', '{h}', false, 1, 15, howdah.now(), howdah.now())"
    )
    alone = await queue.sql("SELECT code FROM howdah.explain(%s)", task)
    await queue.sql("SELECT howdah.resume('q')")
    resumed = await queue.sql("SELECT code FROM howdah.explain(%s)", task)

    assert (paused["code"], paused["until"], missing["code"]) == ("paused", role["paused_until"], "no_worker")
    assert f"by {role['name']}: the mail provider is down" in paused["message"]
    assert [row["code"] for row in alone] == ["paused"]
    assert [row["code"] for row in resumed] == ["next"]
