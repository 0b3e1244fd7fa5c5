"""Changing tasks by SQL: run_now, change, replay, in every state."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.fix_chores import heard, listen
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from tests.fix_queue import Queue, Row

WAITS_S = "round(extract(epoch FROM run_at - howdah.now()))::int AS waits_s"


async def _task_in(queue: Queue, state: str) -> tuple[uuid.UUID, list[Row]]:
    """Make a task that stands there; with its claimed run, if it has one."""
    delay = "1h" if state in ("scheduled", "blocked") else "0s"
    retry = {"max_attempts": 1 if state == "failed" else 9, "initial": "300s"}
    [task] = await queue.enqueue(delay=delay, retry=retry)
    runs: list[Row] = []
    if state in ("retrying", "running", "succeeded", "failed"):
        runs = await queue.claim()
    if state in ("retrying", "failed"):
        await queue.fail(runs)
    elif state == "succeeded":
        await queue.complete(runs)
    elif state == "cancelled":
        await queue.sql("SELECT howdah.cancel(%s)", task)
    elif state == "blocked":
        await queue.sql("UPDATE howdah.runs SET blocked_by = 8, run_at = 'infinity'")
    assert await queue.state(task) == state
    return task, runs


async def _call(queue: Queue, function: str, task: uuid.UUID, *arguments: object) -> str:
    places = ", %s" * len(arguments)
    [row] = await queue.sql(f"SELECT howdah.{function}(%s{places}) AS state", task, *arguments)
    return str(row["state"])


async def _refusal(queue: Queue, function: str, task: uuid.UUID, *arguments: object) -> tuple[str | None, str]:
    with pytest.raises(psycopg.Error) as caught:
        await _call(queue, function, task, *arguments)
    return caught.value.sqlstate, str(caught.value).splitlines()[0]


@pytest.mark.parametrize(("state", "after"), [("scheduled", "queued"), ("retrying", "retrying"), ("queued", "queued")])
async def test_run_now_makes_a_waiting_task_claimable(queue: Queue, state: str, after: str) -> None:
    """Whatever time it waits for, it can be claimed at once, and keeps the attempts that it has spent."""
    task, _ = await _task_in(queue, state)
    answer = await _call(queue, "run_now", task)
    [run] = await queue.claim()

    assert answer == after
    assert (run["task_id"], run["attempt"]) == (task, 2 if state == "retrying" else 1)


async def test_run_now_wakes_the_workers_of_its_lane(queue: Queue, database: str) -> None:
    """A worker that sleeps until its time hears of it."""
    task, _ = await _task_in(queue, "scheduled")
    async with await listen(database) as listener:
        await _call(queue, "run_now", task)
        words = await heard(listener)

    assert [word.split(".")[:2] for word in words] == [[f"q{queue.queue_id}", "1"]]


async def test_run_now_leaves_a_due_task_in_its_place(queue: Queue) -> None:
    """One that is due already does not go behind those that came after it."""
    first, second = await queue.enqueue(2)
    await _call(queue, "run_now", first)
    claimed = await queue.claim(2)

    assert [run["task_id"] for run in claimed] == [first, second]


async def test_run_now_leaves_a_blocked_task_blocked(queue: Queue) -> None:
    """What blocks it still does; once nothing does, it is due."""
    task, _ = await _task_in(queue, "blocked")
    answer = await _call(queue, "run_now", task)
    [run] = await queue.sql(
        "SELECT due_at <= howdah.now() AS is_due, run_at = 'infinity' AS is_blocked FROM howdah.runs"
    )

    assert answer == "blocked"
    assert run == {"is_due": True, "is_blocked": True}


@pytest.mark.parametrize("function", ["run_now", "change"])
@pytest.mark.parametrize("state", ["running", "succeeded", "failed", "cancelled"])
async def test_only_waiting_tasks_are_changed(queue: Queue, function: str, state: str) -> None:
    """A task that runs or has ended stays as it is, and the error says where it stands."""
    task, _ = await _task_in(queue, state)
    arguments = ['{"priority": "high"}'] if function == "change" else []
    sqlstate, message = await _refusal(queue, function, task, *arguments)

    assert sqlstate == "JQ409"
    assert state in message
    assert await queue.state(task) == state


@pytest.mark.parametrize(("function", "arguments"), [("run_now", []), ("change", ["{}"]), ("replay", [])])
async def test_tasks_of_others_and_of_nobody_do_not_exist(queue: Queue, function: str, arguments: list[str]) -> None:
    """An unknown id, and another tenant's, are not found."""
    task, _ = await _task_in(queue, "failed" if function == "replay" else "scheduled")
    await queue.sql("INSERT INTO howdah.tenants (name) VALUES ('other')")

    assert (await _refusal(queue, function, uuid.uuid4(), *arguments))[0] == "JQ404"
    await queue.sql("SET howdah.tenant = 'other'")
    assert (await _refusal(queue, function, task, *arguments))[0] == "JQ404"


async def test_change_moves_a_task_to_another_lane_and_time(queue: Queue) -> None:
    """Priority, run_at and tags change on the task and on its run; what is not given stays."""
    task, _ = await _task_in(queue, "queued")
    [at] = await queue.sql("SELECT howdah.now() + interval '1 hour' AS at")
    changes = {"priority": "critical", "run_at": at["at"].isoformat(), "tags": {"a": "b"}}
    answer = await _call(queue, "change", task, json.dumps(changes))
    again = await _call(queue, "change", task, '{"tags": {}}')
    [run] = await queue.sql(f"SELECT priority, run_at = due_at AS is_due, {WAITS_S} FROM howdah.runs")
    [row] = await queue.sql(f"SELECT priority, tags, {WAITS_S} FROM howdah.tasks")

    assert (answer, again) == ("scheduled", "scheduled")
    assert run == {"priority": 3, "is_due": True, "waits_s": 3600}
    assert row == {"priority": 3, "tags": {}, "waits_s": 3600}


async def test_change_of_priority_is_seen_above_every_horizon(queue: Queue, database: str) -> None:
    """A due run that comes to a lane which was drained beyond its time is claimed there all the same."""
    [task] = await queue.enqueue()
    [horizon] = await queue.sql("SELECT howdah.now() AS at")
    async with await listen(database) as listener:
        await _call(queue, "change", task, '{"priority": "high"}')
        words = await heard(listener)
    [run] = await queue.sql("SELECT run_at >= %s AS is_above FROM howdah.runs", horizon["at"])

    assert [word.split(".")[:2] for word in words] == [[f"q{queue.queue_id}", "2"]]
    assert run["is_above"]


async def test_change_of_run_at_moves_the_next_attempt(queue: Queue) -> None:
    """Between two attempts it says when the next one is due; when the task was due stays."""
    task, _ = await _task_in(queue, "retrying")
    [at] = await queue.sql("SELECT howdah.now() + interval '60 seconds' AS at")
    answer = await _call(queue, "change", task, json.dumps({"run_at": at["at"].isoformat()}))
    [run] = await queue.sql(f"SELECT {WAITS_S}, attempt FROM howdah.runs")
    [row] = await queue.sql("SELECT run_at <= howdah.now() AS was_due FROM howdah.tasks")

    assert answer == "retrying"
    assert run == {"waits_s": 60, "attempt": 1}
    assert row["was_due"]


async def test_change_that_changes_nothing_keeps_the_place_in_the_lane(queue: Queue, database: str) -> None:
    """A repeat after a lost answer must not push the task back, nor wake anybody."""
    first, second = await queue.enqueue(2)
    async with await listen(database) as listener:
        for changes in ({"priority": "normal"}, {"tags": {"a": "b"}}, {}, {"run_at": "%s"}):
            [row] = await queue.sql("SELECT to_json(due_at) #>> '{}' AS at FROM howdah.runs WHERE task_id = %s", first)
            await _call(queue, "change", first, json.dumps(changes).replace("%s", row["at"]))
        words = await heard(listener)
    claimed = await queue.claim(2)

    assert words == []
    assert [run["task_id"] for run in claimed] == [first, second]


async def test_change_of_lane_takes_a_parked_task_along(queue: Queue, database: str) -> None:
    """The chore that releases parked runs goes from lane to lane, and would miss one that moves behind it."""
    [task] = await queue.enqueue()
    await queue.sql("UPDATE howdah.runs SET blocked_by = 8, run_at = 'infinity'")
    async with await listen(database) as listener:
        answer = await _call(queue, "change", task, '{"priority": "low"}')
        words = await heard(listener)
    [run] = await queue.sql("SELECT priority, blocked_by, run_at <= howdah.now() AS is_due FROM howdah.runs")

    assert answer == "queued"
    assert run == {"priority": 0, "blocked_by": 0, "is_due": True}
    assert [word.split(".")[:2] for word in words] == [[f"q{queue.queue_id}", "0"]]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"priority": "urgent"}, "/priority"),
        ({"priority": "granted"}, "/priority"),
        ({"priority": 2}, "/priority"),
        ({"priority": None}, "/priority"),
        ({"run_at": "soon"}, "/run_at"),
        ({"run_at": None}, "/run_at"),
        ({"run_at": 5}, "/run_at"),
        ({"run_at": "infinity"}, "/run_at"),
        ({"run_at": "2026-01-01T00:00:00"}, "/run_at"),
        ({"run_at": "9999-01-01T00:00:00Z"}, "/run_at"),
        ({"run_at": "2000-01-01T00:00:00Z"}, "/run_at"),
        ({"tags": None}, "/tags"),
        ({"tags": {"A": "b"}}, "/tags"),
        ({"tags": {"a": 1}}, "/tags/a"),
        ({"payload": {}}, "/payload"),
        ({"priority": "high", "queue": "other"}, "/queue"),
    ],
)
async def test_change_that_is_not_allowed_changes_nothing(queue: Queue, changes: dict[str, Any], pointer: str) -> None:
    """The error points at the field, also if others were good."""
    task, _ = await _task_in(queue, "scheduled")
    before = await queue.sql("SELECT priority, run_at, tags FROM howdah.tasks")
    sqlstate, message = await _refusal(queue, "change", task, json.dumps(changes))

    assert sqlstate == "JQ422"
    assert message.startswith(pointer)
    assert await queue.sql("SELECT priority, run_at, tags FROM howdah.tasks") == before


@pytest.mark.parametrize("changes", ["[]", "null", '"x"', None])
async def test_changes_are_an_object(queue: Queue, changes: str | None) -> None:
    """Anything else is refused."""
    task, _ = await _task_in(queue, "scheduled")

    assert (await _refusal(queue, "change", task, changes))[0] == "JQ422"


async def test_replayed_task_has_all_its_attempts_and_a_fence_that_goes_on(queue: Queue) -> None:
    """The same task runs again from its first attempt; its history stays, and its claim number never falls."""
    task, _ = await _task_in(queue, "failed")
    answer = await _call(queue, "replay", task)
    state = await queue.state(task)
    runs = await queue.claim()
    await queue.complete(runs)

    assert (answer, state) == ("queued", "queued")
    assert [(run["claim_no"], run["attempt"]) for run in runs] == [(2, 1)]
    assert [(row["claim_no"], row["outcome"]) for row in await queue.history()] == [(1, "failed"), (2, "succeeded")]
    assert await queue.state(task) == "succeeded"
    assert await queue.sql("SELECT 1 FROM howdah.dead_letters") == []


async def test_replayed_task_keeps_its_age_in_lists(queue: Queue) -> None:
    """When it was accepted does not change; only the age of its attempts begins anew."""
    task, _ = await _task_in(queue, "failed")
    [before] = await queue.sql("SELECT created_at FROM howdah.tasks")
    await _call(queue, "replay", task)
    [run] = await queue.sql("SELECT queued_at, run_at > queued_at AS is_later FROM howdah.runs")

    assert run == {"queued_at": before["created_at"], "is_later": True}


async def test_age_of_a_replayed_task_counts_from_its_replay(queue: Queue) -> None:
    """A task that was given up days ago would else be given up again at its first failure."""
    task, _ = await _task_in(queue, "failed")
    await queue.sql("UPDATE howdah.tasks SET run_at = run_at - interval '10 days', retry = '{\"max_age\": \"1h\"}'")
    await _call(queue, "replay", task)
    [verdict] = await queue.fail(await queue.claim())

    assert verdict["verdict"] == "retry"


async def test_replay_of_a_task_that_is_being_replayed_waits_and_is_refused(queue: Queue) -> None:
    """Of two replays at once one succeeds; the other is told where the task stands, and no run is there twice."""
    task, _ = await _task_in(queue, "failed")
    first, second = await queue.connect(), await queue.connect()
    async with first.transaction():
        await first.execute("SELECT howdah.replay(%s)", [task])
        waiting = asyncio.create_task(second.execute("SELECT howdah.replay(%s)", [task]))

        async def is_waiting() -> bool:
            rows = await queue.sql(
                "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", second.info.backend_pid
            )
            return bool(rows)

        await eventually_async(is_waiting, 10, "the second waits for the first")
    with pytest.raises(psycopg.Error, match="no dead letter: it is queued") as caught:
        await waiting

    assert caught.value.sqlstate == "JQ409"
    assert len(await queue.sql("SELECT 1 FROM howdah.runs")) == 1


@pytest.mark.parametrize("state", ["queued", "running", "succeeded", "cancelled"])
async def test_only_dead_letters_are_replayed(queue: Queue, state: str) -> None:
    """What waits, runs or has ended otherwise stays as it is."""
    task, _ = await _task_in(queue, state)
    sqlstate, message = await _refusal(queue, "replay", task)

    assert sqlstate == "JQ409"
    assert state in message
    assert await queue.state(task) == state


async def test_dead_letter_without_its_task_is_not_replayed(queue: Queue) -> None:
    """There would be nothing to be run; the dead letter stays."""
    task, _ = await _task_in(queue, "failed")
    await queue.sql("DELETE FROM howdah.tasks")

    assert (await _refusal(queue, "replay", task))[0] == "JQ409"
    assert len(await queue.sql("SELECT 1 FROM howdah.dead_letters")) == 1
