"""What a worker does with tasks, from the claim to the recorded outcome."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

import howdah
from howdah_worker import finisher, judgement
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from tests.fix_hostile import HostileServer
    from tests.fix_worker import Workbench


async def test_async_handler_runs_and_its_result_is_recorded(bench: Workbench) -> None:
    """A task ends as succeeded, with what the handler returned and how long it took."""

    @howdah.handler("sum")
    async def add(payload: list[int]) -> dict[str, int]:
        await asyncio.sleep(0.05)
        return {"sum": sum(payload)}

    await bench.start()
    [task] = await bench.enqueue("sum", [1, 2, 3])
    row = await bench.ended(task)

    assert (row["outcome"], row["attempt"], row["result"], row["error"]) == ("succeeded", 1, {"sum": 6}, None)
    assert 0.05 <= row["duration_s"] < 1


async def test_plain_function_runs_in_a_thread(bench: Workbench) -> None:
    """A plain function blocks a thread of its own, not the event loop."""

    @howdah.handler("plain")
    def plain(payload: Any) -> str:
        time.sleep(0.05)
        return threading.current_thread().name

    await bench.start()
    [task] = await bench.enqueue("plain")
    row = await bench.ended(task)

    assert row["result"].startswith("howdah-handler")


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_context_says_what_the_run_is(bench: Workbench, is_async: bool) -> None:
    """The context names task, attempt, tenant, queue, tags, handler and deadline."""
    seen: dict[str, Any] = {}

    def look(payload: Any, ctx: howdah.Context) -> None:
        seen.update(
            task_id=ctx.task_id,
            attempt=ctx.attempt,
            claim_no=ctx.claim_no,
            tenant=ctx.tenant,
            queue=ctx.queue,
            handler=ctx.handler,
            tags=dict(ctx.tags),
            cancelled=ctx.cancelled,
            left_s=ctx.remaining_s(),
            deadline_at=ctx.deadline_at,
        )

    async def look_async(payload: Any, ctx: howdah.Context) -> None:
        look(payload, ctx)

    howdah.handler("look")(look_async if is_async else look)
    await bench.start()
    [task] = await bench.enqueue("look", tags={"order": "17"}, timeout="30s")
    await bench.ended(task)
    left = seen.pop("deadline_at") - datetime.now(UTC)

    assert 29 < seen.pop("left_s") <= 30
    assert timedelta(seconds=25) < left < timedelta(seconds=31)
    assert seen == {
        "task_id": task,
        "attempt": 1,
        "claim_no": 1,
        "tenant": "default",
        "queue": "q",
        "handler": "look",
        "tags": {"order": "17"},
        "cancelled": False,
    }


async def test_callback_is_delivered_and_its_answer_recorded(bench: Workbench, hostile: HostileServer) -> None:
    """An HTTP task posts its payload byte for byte, signed, and keeps status and body of the answer."""
    await bench.start(callback_allow_cidrs=(ip_network("127.0.0.0/8"),))
    payload = {"b": 1, "a": [1, 2.50, "ä"]}
    [task] = await bench.enqueue_items([{"queue": "mail", "http": {"url": hostile.url("ok")}, "payload": payload}])
    row = await bench.ended(task)
    [request] = hostile.requests

    assert (row["outcome"], row["response_status"], row["response_body"]) == ("succeeded", 200, "ok")
    assert json.loads(request.body) == payload
    assert request.header("webhook-id") == str(task)
    assert request.header("webhook-signature").startswith("v1,")
    assert (request.header("Howdah-Attempt"), request.header("Howdah-Queue")) == ("1", "mail")


async def test_failing_handler_is_retried_and_then_a_dead_letter(bench: Workbench) -> None:
    """Each attempt is recorded with its error; after the last the task is a dead letter."""

    @howdah.handler("boom")
    async def boom(payload: Any, ctx: howdah.Context) -> None:
        raise ValueError(f"attempt {ctx.attempt}")

    await bench.start()
    [task] = await bench.enqueue("boom", retry={"max_attempts": 3, "initial": "50ms"})
    row = await bench.ended(task)
    history = await bench.history(task)
    [dead] = await bench.sql("SELECT * FROM howdah.dead_letters")

    assert [each["error"]["message"] for each in history] == ["attempt 1", "attempt 2", "attempt 3"]
    assert "in boom" in row["error"]["traceback"]
    assert (dead["task_id"], dead["reason"], dead["attempt"]) == (task, "attempts", 3)


async def test_payload_of_the_wrong_type_fails_at_once(bench: Workbench) -> None:
    """No attempt is wasted on a payload that the handler cannot take."""

    @howdah.handler("typed")
    async def typed(payload: dict[str, int]) -> None:
        raise AssertionError("never called")

    await bench.start()
    [task] = await bench.enqueue("typed", {"n": "five"})
    row = await bench.ended(task)

    assert (row["outcome"], row["attempt"], row["error"]["type"]) == ("failed", 1, "payload_mismatch")


async def test_result_that_cannot_be_stored_fails_alone(bench: Workbench) -> None:
    """One outcome that PostgreSQL refuses becomes a recorded failure; the rest of its batch is recorded as it was."""
    gate = asyncio.Event()

    @howdah.handler("number")
    async def number(payload: int) -> int:
        await gate.wait()
        return payload

    await bench.sql(
        "ALTER TABLE howdah.finished_runs ADD CONSTRAINT unlucky CHECK (result IS NULL OR result::text <> '13')"
    )
    await bench.start()
    items = [{"queue": "q", "handler": "number", "payload": value} for value in range(20)]
    tasks = await bench.enqueue_items(items)
    await eventually_async(lambda: bench.is_running(tasks[-1]), 10, "all run")
    gate.set()
    rows = [await bench.ended(task) for task in tasks]
    [bad] = [row for row in rows if row["outcome"] != "succeeded"]

    assert bad["task_id"] == tasks[13]
    assert (bad["outcome"], bad["error"]["type"]) == ("failed", "result_invalid")
    assert sorted(row["result"] for row in rows if row is not bad) == [n for n in range(20) if n != 13]


async def test_only_queues_that_match_and_handlers_that_exist_are_claimed(bench: Workbench) -> None:
    """A worker leaves alone what it does not serve: other queues, other handlers."""

    @howdah.handler("known")
    async def known(payload: Any) -> None: ...

    await bench.start(queues=("mail.*",))
    items = [
        {"queue": "mail.out", "handler": "known"},
        {"queue": "reports", "handler": "known"},
        {"queue": "mail.out", "handler": "unknown"},
    ]
    mine, other_queue, other_handler = await bench.enqueue_items(items)
    await bench.ended(mine)

    assert not await bench.history(other_queue)
    assert not await bench.history(other_handler)
    assert not await bench.is_running(other_queue)


async def test_delayed_task_starts_at_its_time(bench: Workbench) -> None:
    """A task with a delay starts when it is due, neither before nor a poll later."""
    started: list[float] = []

    @howdah.handler("late")
    async def late(payload: Any) -> None:
        started.append(time.monotonic())

    await bench.start()
    [first] = await bench.enqueue("late")
    await bench.ended(first)
    asked = time.monotonic()
    tasks = [(await bench.enqueue("late", delay=delay))[0] for delay in ("300ms", "600ms", "700ms")]
    for task in tasks:
        await bench.ended(task)
    waits = [each - asked for each in started[1:]]

    assert waits == pytest.approx([0.3, 0.6, 0.7], abs=0.15)
    assert min(wait - due for wait, due in zip(waits, (0.3, 0.6, 0.7), strict=True)) > 0


@pytest.mark.parametrize("others", [0, 300], ids=["few queues", "many queues"])
async def test_work_is_found_without_notifications(bench: Workbench, others: int) -> None:
    """With NOTIFY off, tasks of known queues and of queues that nobody heard of start within the polls."""

    @howdah.handler("quiet")
    async def quiet(payload: Any) -> None: ...

    await bench.sql(
        "SELECT howdah.make_names(1, ARRAY(SELECT 'q' || n FROM generate_series(1, %s) AS n), '{}')", others
    )
    await bench.start()
    await bench.sql("SET howdah.notify = off")
    [first] = await bench.enqueue("quiet")
    await bench.ended(first)
    asked = time.monotonic()
    [known] = await bench.enqueue("quiet")
    await bench.ended(known, timeout_s=3)

    assert time.monotonic() - asked < 3


async def test_run_whose_task_is_away_is_handed_back_until_it_is_there(bench: Workbench) -> None:
    """While retention rewrites a partition a run cannot start; it is released, without an attempt, and runs later."""

    @howdah.handler("moved")
    async def moved(payload: Any) -> str:
        return "done"

    [task] = await bench.enqueue("moved")
    await bench.sql("CREATE TABLE away AS SELECT * FROM howdah.tasks")
    await bench.sql("DELETE FROM howdah.tasks")
    await bench.start()

    async def was_released() -> bool:
        return [row["outcome"] for row in await bench.history(task)] == ["released"]

    await eventually_async(was_released, 10, "the run was handed back")
    await bench.sql("INSERT INTO howdah.tasks SELECT * FROM away")
    row = await bench.ended(task)

    assert (row["outcome"], row["attempt"]) == ("succeeded", 1)


async def test_run_whose_task_is_gone_ends_in_dead_letter(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It used to be handed back once a second for ever, each time with a row of history."""
    monkeypatch.setattr(judgement, "_TASK_AWAY_S_MAX", 0.01)

    @howdah.handler("gone")
    async def gone(payload: Any) -> None: ...

    [task] = await bench.enqueue("gone")
    await bench.sql("UPDATE howdah.queues SET retry = '{\"max_attempts\": 1}'")
    await bench.sql("DELETE FROM howdah.tasks")
    await bench.start()
    row = await bench.ended(task)
    outcomes = [each["outcome"] for each in await bench.history(task)]
    [dead] = await bench.sql("SELECT reason FROM howdah.dead_letters WHERE task_id = %s", task)

    assert (row["outcome"], row["error"]["type"], row["attempt"]) == ("failed", "task_gone", 1)
    assert outcomes == ["released"] * 8 + ["failed"]
    assert dead["reason"] == "attempts"


async def test_outcome_whose_day_has_no_history_waits_for_it(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Work that was done while the day's partition is missing is recorded when it is there, and not done again."""
    monkeypatch.setattr(finisher, "DAYLESS_PAUSE_S", 0.1)
    starts: list[str] = []

    @howdah.handler("dayless")
    async def dayless(payload: str) -> None:
        starts.append(payload)
        if payload == "fails":
            raise ValueError

    tasks = [(await bench.enqueue("dayless", each, retry={"max_attempts": 1}))[0] for each in ("ends", "fails")]
    [part] = await bench.sql(
        "SELECT 'howdah.finished_runs_' || day AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds FROM pg_class c, "
        "to_char(howdah.id_time(%s) AT TIME ZONE 'UTC', 'YYYYMMDD') day WHERE c.relname = 'finished_runs_' || day",
        tasks[0],
    )
    await bench.sql(f"ALTER TABLE howdah.finished_runs DETACH PARTITION {part['name']}")
    await bench.start()
    await eventually_async(lambda: caplog.messages.count("reports_wait_for_partition") > 2, 10, "it is tried again")
    await bench.sql(f"ALTER TABLE howdah.finished_runs ATTACH PARTITION {part['name']} {part['bounds']}")
    rows = [await bench.ended(task) for task in tasks]

    assert [(row["outcome"], row["claim_no"]) for row in rows] == [("succeeded", 1), ("failed", 1)]
    assert sorted(starts) == ["ends", "fails"]


async def test_what_happened_is_counted_per_queue_and_minute(bench: Workbench) -> None:
    """A worker that stops leaves its counts of successes, retries and dead letters in queue_stats."""

    @howdah.handler("mixed")
    async def mixed(payload: bool) -> None:
        if not payload:
            raise ValueError

    worker = await bench.start()
    await bench.enqueue("mixed", True, count=5)
    await bench.enqueue("mixed", False, count=2, retry={"max_attempts": 2, "initial": "0s"})
    await bench.drained()
    await worker.stop()
    [row] = await bench.sql(
        "SELECT sum(succeeded) AS good, sum(failed) AS dead, sum(retried) AS again FROM howdah.queue_stats"
    )

    assert (row["good"], row["dead"], row["again"]) == (5, 2, 2)


async def test_many_runs_end_exactly_once(bench: Workbench) -> None:
    """Two workers share 3,000 tasks of three queues and four priorities; each task is recorded once."""

    @howdah.handler("one")
    async def one(payload: Any) -> None: ...

    items = [
        {"queue": f"q{number % 3}", "handler": "one", "priority": ("low", "normal", "high", "critical")[number % 4]}
        for number in range(1000)
    ]
    for _ in range(3):
        await bench.enqueue_items(items)
    await bench.start()
    await bench.start()
    await bench.drained()
    [row] = await bench.sql(
        "SELECT count(*) AS n, count(DISTINCT task_id) AS tasks, max(attempt) AS attempt, "
        "bool_and(outcome = 'succeeded') AS good FROM howdah.finished_runs"
    )

    assert row == {"n": 3000, "tasks": 3000, "attempt": 1, "good": True}


async def test_handlers_that_never_wait_leave_the_event_loop_its_turns(bench: Workbench) -> None:
    """However much short work waits, the loop gets a turn after a hundred runs, for heartbeats and other handlers."""
    turns: list[int] = []

    @howdah.handler("brief")
    async def brief(payload: Any) -> None:
        if not turns:
            _turn()
        turns[-1] += 1

    def _turn() -> None:
        turns.append(0)
        if sum(turns) < 2_000:
            asyncio.get_running_loop().call_soon(_turn)

    for _ in range(2):
        await bench.enqueue("brief", count=1000)
    await bench.start()
    await bench.drained()

    assert sum(turns) == 2_000
    assert max(turns) <= 100


async def test_context_variables_of_one_run_are_not_seen_by_another(bench: Workbench) -> None:
    """Each run has a context of its own, also where a handler ends without ever waiting."""
    variable = contextvars.ContextVar("variable", default="fresh")

    @howdah.handler("mark")
    async def mark(payload: Any) -> str:
        found = variable.get()
        variable.set("marked")
        return found

    await bench.start()
    await bench.enqueue("mark", count=20)
    await bench.drained()
    rows = await bench.sql(
        "SELECT DISTINCT result FROM (SELECT result #>> '{}' AS result FROM howdah.finished_runs) AS r"
    )

    assert rows == [{"result": "fresh"}]


async def test_worker_that_starts_while_the_server_is_read_only_waits(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    """Started during a failover, it goes on by itself when the standby has been promoted."""

    @howdah.handler("early")
    async def early(payload: Any) -> None: ...

    name = bench.admin.info.dbname
    await bench.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    starting = asyncio.create_task(bench.start())
    await eventually_async(lambda: "database_unavailable" in caplog.messages, 10, "it waits")
    await bench.sql(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await starting
    [task] = await bench.enqueue("early")

    assert (await bench.ended(task))["outcome"] == "succeeded"
