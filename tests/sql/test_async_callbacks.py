"""Runs that wait for their receiver's callback: each move by hand, in every order in which it may come."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from howdah.core.store.expired_runs import ExpiredRuns

if TYPE_CHECKING:
    import uuid

    from tests.fix_queue import Queue, Row

URL = "http://example.com/"


async def _enqueue(queue: Queue, **fields: Any) -> uuid.UUID:
    """Store a task whose receiver may answer 202; `retry` and fields of its target are given."""
    item = {"queue": "q", "retry": fields.pop("retry", {}), "http": {"url": URL, "mode": "async", **fields}}
    [row] = await queue.sql("SELECT * FROM howdah.enqueue_many('default', %s::json)", json.dumps([item]))
    assert row["error"] is None
    [names] = await queue.sql("SELECT id FROM howdah.queues WHERE name = 'q'")
    queue.queue_id, queue.target_id = names["id"], 0
    task: uuid.UUID = row["id"]
    return task


async def _awaiting(queue: Queue, **fields: Any) -> tuple[uuid.UUID, list[Row]]:
    """Store a task, claim it, and let its receiver answer 202."""
    task = await _enqueue(queue, **fields)
    runs = await queue.claim()
    assert [row["verdict"] for row in await queue.await_callback(runs)] == ["awaiting"]
    return task, runs


async def _run(queue: Queue) -> Row:
    [run] = await queue.sql(
        "SELECT *, lease_expires_at - awaiting_at AS silence, deadline_at - awaiting_at AS wait FROM howdah.runs"
    )
    return run


async def _rescue(queue: Queue) -> list[str]:
    """Do what the chore does; return the verdicts."""
    store = ExpiredRuns("howdah")
    async with await psycopg.AsyncConnection.connect(queue.database, autocommit=True) as conn, conn.transaction():
        expired = await store.lock(conn, None)
        rescued, unrescued = await store.fail(conn, expired) if expired else ([], [])
    assert unrescued == []
    return [each.verdict for each in rescued]


@pytest.mark.parametrize(
    ("fields", "wait_s", "silence_s"),
    [
        ({}, 3600, 3600),
        ({"callback_timeout": "5m"}, 300, 300),
        ({"callback_timeout": "P7D"}, 604800, 604800),
        ({"callback_timeout": "5m", "heartbeat_timeout": "10s"}, 300, 10),
        ({"callback_timeout": "5s", "heartbeat_timeout": "10s"}, 5, 5),
    ],
)
async def test_accepted_run_waits_as_long_as_its_task_says(
    queue: Queue, fields: Row, wait_s: float, silence_s: float
) -> None:
    """The lease stays with its token; it ends with the wait for the callback, or with that for the first heartbeat."""
    task, runs = await _awaiting(queue, **fields)
    run = await _run(queue)

    assert await queue.state(task) == "awaiting_callback"
    assert run["lease_token"] == runs[0]["lease_token"]
    assert run["worker_id"] == 1
    assert (run["wait"].total_seconds(), run["silence"].total_seconds()) == (wait_s, silence_s)


async def test_repeat_of_the_report_changes_nothing(queue: Queue) -> None:
    """A worker that lost the answer reports the 202 again, and the wait does not begin anew."""
    _, runs = await _awaiting(queue)
    before = await _run(queue)
    again = await queue.await_callback(runs)

    assert [row["verdict"] for row in again] == ["awaiting"]
    assert await _run(queue) == before


async def test_worker_has_no_part_in_the_wait(queue: Queue) -> None:
    """Neither a beat that was under way nor the end of the worker's own lease shortens or ends the wait."""
    _, runs = await _awaiting(queue)
    before = await _run(queue)
    await queue.heartbeat(runs, lease_s=5.0)

    assert (await _run(queue))["lease_expires_at"] == before["lease_expires_at"]
    assert await _rescue(queue) == []


@pytest.mark.parametrize("is_first", [True, False])
async def test_callback_ends_the_task_before_and_after_the_worker_reports_the_202(queue: Queue, is_first: bool) -> None:
    """A receiver may be faster than the worker that has its 202, whose report then finds the outcome in history."""
    task = await _enqueue(queue)
    runs = await queue.claim()
    if not is_first:
        await queue.await_callback(runs)
    completed = await queue.run(
        "run.complete",
        **{f"{name}s": [runs[0][name]] for name in ("tenant_id", "task_id", "lease_token")},
        outcomes=["succeeded"],
        results=['{"a":  1}'],
        errors=[],
        response_statuses=[],
        response_bodies=[],
        durations_s=[None],
    )
    late = await queue.await_callback(runs)
    [row] = await queue.sql("SELECT outcome, is_final, result::text AS result, duration_s FROM howdah.finished_runs")

    assert len(completed) == 1
    assert late == []
    assert await queue.state(task) == "succeeded"
    assert [found["outcome"] for found in await queue.find_recorded(runs)] == ["succeeded"]
    assert (row["outcome"], row["is_final"], row["result"]) == ("succeeded", True, '{"a":  1}')
    # Only of a run that waited does the database know how long it took.
    assert (row["duration_s"] is None) == is_first


async def test_failure_is_tried_again_by_policy_with_a_lease_of_its_own(queue: Queue) -> None:
    """The next attempt is a new claim; the token of the old one ends nothing any more."""
    task, runs = await _awaiting(queue, retry={"initial": "0s", "jitter": 0})
    [verdict] = await queue.fail(runs)
    state = await queue.state(task)
    again = await queue.claim()

    assert (verdict["verdict"], state) == ("retry", "retrying")
    assert (await _run(queue))["awaiting_at"] is None
    assert again[0]["attempt"] == 2
    assert await queue.complete(runs) == []
    assert await queue.extend(runs[0]) == []
    assert len(await queue.complete(again)) == 1


@pytest.mark.parametrize("mode", ["soft", "hard"])
async def test_cancel_ends_a_run_that_waits_at_once(queue: Queue, mode: str) -> None:
    """No worker could be asked to stop it. Its history keeps the token, by which a late callback is told."""
    task, runs = await _awaiting(queue)
    [answer] = await queue.sql("SELECT howdah.cancel(%s, %s) AS state", task, mode)
    [row] = await queue.history()

    assert answer["state"] == "cancelled"
    assert await queue.state(task) == "cancelled"
    assert (row["claim_no"], row["outcome"], row["is_final"]) == (1, "cancelled", True)
    assert row["lease_token"] == runs[0]["lease_token"]
    assert await queue.complete(runs) == []
    assert await queue.extend(runs[0]) == []


@pytest.mark.parametrize("mode", ["soft", "hard"])
async def test_cancel_that_came_during_the_request_ends_the_run_with_its_202(queue: Queue, mode: str) -> None:
    """Its worker was asked to stop it; once it waits, nobody would."""
    task = await _enqueue(queue)
    runs = await queue.claim()
    await queue.sql("SELECT howdah.cancel(%s, %s)", task, mode)
    [verdict] = await queue.await_callback(runs)
    [row] = await queue.history()

    assert verdict["verdict"] == "cancelled"
    assert await queue.state(task) == "cancelled"
    assert (row["outcome"], row["is_final"], row["lease_token"]) == ("cancelled", True, runs[0]["lease_token"])


@pytest.mark.parametrize(
    ("fields", "message"), [({}, "no callback came"), ({"heartbeat_timeout": "5m"}, "no heartbeat came")]
)
async def test_receiver_that_is_silent_has_timed_out(queue: Queue, fields: Row, message: str) -> None:
    """The attempt is spent and tried again by policy; nothing crashed, and the error says what was missed."""
    task, runs = await _awaiting(queue, **fields)
    await queue.expire(runs)
    if not fields:
        await queue.sql("UPDATE howdah.runs SET deadline_at = lease_expires_at")
    verdicts = await _rescue(queue)
    [row] = await queue.history()
    run = await _run(queue)

    assert verdicts == ["retry"]
    assert await queue.state(task) == "retrying"
    assert (row["outcome"], row["error"]["type"]) == ("timed_out", "callback_timeout")
    assert message in row["error"]["message"]
    assert (run["attempt"], run["crashes"]) == (1, 0)
    # After the retry delay, unlike the first loss of a worker, which is tried again at once.
    assert run["run_at"] > run["queued_at"]


@pytest.mark.parametrize(("errors", "verdict"), [(["callback_timeout"], "retry"), (["printer_jam"], "dead")])
async def test_retry_policy_has_a_say_in_silence(queue: Queue, errors: list[str], verdict: str) -> None:
    """`errors` of a policy may name callback_timeout."""
    _, runs = await _awaiting(queue, retry={"errors": errors})
    await queue.expire(runs)

    assert await _rescue(queue) == [verdict]


async def test_last_attempt_of_a_silent_receiver_is_a_dead_letter(queue: Queue) -> None:
    """Silence spends attempts as other failures do."""
    task, runs = await _awaiting(queue, retry={"max_attempts": 1})
    await queue.expire(runs)

    assert await _rescue(queue) == ["dead"]
    assert await queue.state(task) == "failed"
    assert await queue.sql("SELECT reason FROM howdah.dead_letters") == [{"reason": "attempts"}]


@pytest.mark.parametrize(
    ("extend_s", "fields", "expected_s"),
    [
        (None, {}, 3600),
        (30.0, {}, 30),
        (None, {"heartbeat_timeout": "20s"}, 20),
        (40.0, {"heartbeat_timeout": "20s"}, 40),
        (7200.0, {}, 3600),
    ],
)
async def test_heartbeat_says_until_when_the_receiver_may_be_silent(
    queue: Queue, extend_s: float | None, fields: Row, expected_s: float
) -> None:
    """Its own word counts, then the task's; no heartbeat moves the deadline."""
    _, runs = await _awaiting(queue, **fields)
    before = await _run(queue)
    [answer] = await queue.extend(runs[0], extend_s)
    run = await _run(queue)
    silence_s = (run["lease_expires_at"] - before["awaiting_at"]).total_seconds()

    assert answer["is_awaiting"]
    assert answer["lease_expires_at"] == run["lease_expires_at"]
    assert run["deadline_at"] == before["deadline_at"] == answer["deadline_at"]
    # To the deadline, or from now on.
    assert expected_s <= silence_s < expected_s + 30
    assert run["lease_expires_at"] <= run["deadline_at"]


async def test_heartbeat_before_the_worker_reports_the_202_leaves_its_lease_alone(queue: Queue) -> None:
    """Until then, the worker keeps it."""
    await _enqueue(queue)
    runs = await queue.claim()
    before = await _run(queue)
    [answer] = await queue.extend(runs[0], 3600.0)

    assert not answer["is_awaiting"]
    assert await _run(queue) == before


async def test_run_that_waits_cannot_be_changed_or_hurried(queue: Queue) -> None:
    """It does not wait for its turn; the error says what it is."""
    task, _ = await _awaiting(queue)
    for statement in ("SELECT howdah.run_now(%s)", "SELECT howdah.change(%s, '{}')"):
        with pytest.raises(psycopg.Error, match="it is awaiting_callback") as caught:
            await queue.sql(statement, task)

        assert caught.value.sqlstate == "JQ409"


async def test_run_without_a_lease_cannot_wait_for_a_callback(queue: Queue) -> None:
    """The table refuses it: nobody could end such a run."""
    await _enqueue(queue)
    with pytest.raises(psycopg.errors.CheckViolation, match="runs_awaiting_check"):
        await queue.sql("UPDATE howdah.runs SET awaiting_at = howdah.now()")


async def test_runs_that_wait_are_shown_as_such_and_count_as_nobodys_work(queue: Queue) -> None:
    """Views, counts and lists tell them from what workers do."""
    task, runs = await _awaiting(queue, heartbeat_timeout="5m")
    [view] = await queue.sql("SELECT * FROM howdah.tasks_awaiting_callback")
    [depth] = await queue.sql("SELECT running, awaiting_callback FROM howdah.queue_depth")
    [stats] = await queue.run("queue.stats", tenant="default", queue="q")
    page = {
        "tenant_id": 1,
        "before": "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "from": "00000000-0000-0000-0000-000000000000",
        **dict.fromkeys(("queue", "handler", "tag_name", "tag_value", "created_after", "created_before")),
        "look_max": 10,
        "row_count": 10,
    }
    pages = {
        state: [row["id"] for row in await queue.run("task.page_live", state=state, **page)]
        for state in ("running", "awaiting_callback")
    }
    [shown] = await queue.run("task.get", tenant_id=1, id=task)

    assert (view["task_id"], view["target"], view["attempt"], view["claim_no"]) == (task, "http", 1, 1)
    assert 290 < view["silence_left_s"] <= 300 < view["deadline_left_s"] <= 3600
    assert (depth["running"], depth["awaiting_callback"]) == (0, 1)
    assert (stats["running"], stats["awaiting_callback"]) == (0, 1)
    assert pages == {"running": [None], "awaiting_callback": [task]}
    assert (shown["state"], shown["worker"]) == ("awaiting_callback", None)
    assert await queue.sql("SELECT 1 FROM howdah.running") == []
    assert await queue.sql("SELECT 1 FROM howdah.tasks_running") == []
    assert await queue.sql("SELECT 1 FROM howdah.stuck") == []
    [is_busy] = await queue.run("benchmark.is_busy")
    assert is_busy == {"is_busy": False}
    await queue.expire(runs)
    assert await queue.sql("SELECT problem, worker FROM howdah.stuck") == [
        {"problem": "callback_overdue", "worker": None}
    ]


async def test_explain_says_that_the_outcome_is_owed(queue: Queue) -> None:
    """And until when; once that is over, that the attempt is about to end."""
    task, runs = await _awaiting(queue)
    [reason] = await queue.sql("SELECT * FROM howdah.explain(%s)", task)
    run = await _run(queue)
    await queue.expire(runs)
    codes = [row["code"] for row in await queue.sql("SELECT code FROM howdah.explain(%s)", task)]

    assert reason["code"] == "awaiting_callback"
    assert reason["until"] == run["deadline_at"]
    assert "accepted attempt 1" in reason["message"]
    assert codes == ["awaiting_callback", "callback_overdue"]


async def test_explain_counts_no_slot_for_a_run_that_waits(queue: Queue) -> None:
    """A task that is next hears of the runs that its workers are busy with, and of no others."""
    await _awaiting(queue)
    [worker] = await queue.sql(
        "INSERT INTO howdah.workers (name, host, pid, version, queues, handlers, serves_http, concurrency, lease_s, "
        "started_at, heartbeat_at) VALUES ('w', 'host', 1, '0', '{*}', '{}', true, 10, 15, howdah.now(), howdah.now()) "
        "RETURNING id"
    )
    await queue.sql("UPDATE howdah.runs SET worker_id = %s", worker["id"])
    [live] = await queue.sql("SELECT running FROM howdah.workers_live")
    task = await _enqueue(queue)
    [reason] = await queue.sql("SELECT * FROM howdah.explain(%s)", task)

    assert live["running"] == 0
    assert reason["message"].endswith("1 workers claim it, and hold 0 runs at 10 slots")


async def test_await_and_complete_in_opposite_orders_do_not_deadlock(queue: Queue) -> None:
    """Both lock runs in the order of their ids."""
    for _ in range(30):
        await _enqueue(queue)
    runs = await queue.claim(30)
    sessions = [await queue.connect() for _ in range(2)]
    await asyncio.wait_for(
        asyncio.gather(
            *(queue.await_callback(runs, conn=sessions[0]) for _ in range(5)),
            *(queue.await_callback(runs[::-1], conn=sessions[1]) for _ in range(5)),
        ),
        timeout=20,
    )
    done = await asyncio.gather(
        queue.complete(runs[:20][::-1], conn=sessions[0]), queue.complete(runs[10:], conn=sessions[1])
    )

    assert sum(map(len, done)) == 30


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"mode": "later"}, "/http/mode must be sync or async"),
        ({"mode": None}, "/http/mode must be sync or async"),
        ({"mode": 1}, "/http/mode must be sync or async"),
        *(
            ({"mode": "async", name: value}, f"/http/{name} must be a duration from 1 second to 7 days")
            for name in ("callback_timeout", "heartbeat_timeout")
            for value in ("0s", "999ms", "-5s", "8d", "169h", "1e9s", "9" * 40 + "s", "", "soon", 60, None, ["1h"])
        ),
        ({"callback_timeout": "1h"}, "/http/callback_timeout needs the mode async"),
        ({"mode": "sync", "heartbeat_timeout": "1h"}, "/http/heartbeat_timeout needs the mode async"),
        ({"mode": "async"}, None),
        ({"mode": "async", "callback_timeout": "1s", "heartbeat_timeout": "7d"}, None),
    ],
)
async def test_target_says_what_is_wrong_with_its_mode(queue: Queue, fields: Row, problem: str | None) -> None:
    """Words, durations out of bounds, and waits of a mode that knows none, are refused with a pointer."""
    [row] = await queue.sql(
        "SELECT howdah.http_problem(%s::jsonb, false) AS problem", json.dumps({"url": URL, **fields})
    )

    assert row["problem"] == problem
