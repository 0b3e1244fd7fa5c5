"""Leases: kept while handlers work, lost without harm, and answers that never came."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

import howdah
from tests.fix_wait import eventually_async
from tests.fix_worker import LEASE_S, metric

if TYPE_CHECKING:
    from tests.fix_proxy import CuttingProxy
    from tests.fix_worker import Workbench


async def test_handler_that_blocks_the_event_loop_keeps_its_lease(bench: Workbench) -> None:
    """An async handler that sleeps for three leases without yielding is neither lost nor run twice."""
    starts: list[int] = []

    @howdah.handler("block")
    async def block(payload: Any) -> str:
        starts.append(1)
        time.sleep(3 * LEASE_S)  # noqa: ASYNC251 - what it is for
        return "done"

    has_ended = threading.Event()

    def rescue() -> int:
        count = 0
        while not has_ended.wait(0.1):
            count += asyncio.run(bench.rescue())
        return count

    await bench.start()
    # In a thread, because this loop is blocked.
    rescuing = asyncio.create_task(asyncio.to_thread(rescue))
    [task] = await bench.enqueue("block")
    row = await bench.ended(task, timeout_s=30)
    has_ended.set()
    lost = await rescuing

    assert (row["outcome"], row["result"], row["attempt"]) == ("succeeded", "done", 1)
    assert len(starts) == 1
    assert lost == 0


async def test_lease_is_renewed_for_as_long_as_the_handler_works(bench: Workbench) -> None:
    """A handler that works for two leases holds its run all the time."""

    @howdah.handler("long")
    async def long(payload: Any) -> None:
        await asyncio.sleep(2 * LEASE_S)

    await bench.start()
    [task] = await bench.enqueue("long")
    lost = 0
    while not await bench.history(task):
        lost += await bench.rescue()
    row = await bench.ended(task)

    assert lost == 0
    assert (row["outcome"], row["attempt"]) == ("succeeded", 1)


async def test_run_whose_lease_was_taken_is_stopped_and_not_reported(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    """The keeper learns that the lease is lost; the handler is cancelled, and only the new attempt counts."""
    stopped: list[int] = []

    @howdah.handler("taken")
    async def taken(payload: Any, ctx: howdah.Context) -> int:
        if ctx.attempt == 1:
            try:
                await asyncio.sleep(60)
            finally:
                stopped.append(ctx.attempt)
        return ctx.attempt

    before = metric("howdah_lease_lost_total")
    await bench.start()
    [task] = await bench.enqueue("taken")
    await eventually_async(lambda: bench.is_running(task), 5, "it runs")
    # As if this worker had been silent for longer than its lease.
    await bench.sql("UPDATE howdah.runs SET lease_expires_at = howdah.now() - interval '1 s'")
    await bench.rescued()
    row = await bench.ended(task)
    await eventually_async(lambda: stopped == [1], LEASE_S, "the first attempt was stopped")

    assert (row["outcome"], row["result"]) == ("succeeded", 2)
    assert metric("howdah_lease_lost_total") == before + 1
    assert "lease_lost" in caplog.messages
    assert [each["outcome"] for each in await bench.history(task)] == ["lost", "succeeded"]


async def test_late_report_is_refused(bench: Workbench, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that ends after its lease was taken cannot record anything; that is counted and logged."""
    gate = asyncio.Event()

    @howdah.handler("late")
    async def late(payload: Any, ctx: howdah.Context) -> int:
        if ctx.attempt == 1:
            await gate.wait()
        return ctx.attempt

    before = metric("howdah_stale_reports_total")
    await bench.start()
    [task] = await bench.enqueue("late")
    await eventually_async(lambda: bench.is_running(task), 5, "it runs")
    await bench.sql("UPDATE howdah.runs SET lease_expires_at = howdah.now() - interval '1 s'")
    await bench.rescued()
    gate.set()
    row = await bench.ended(task)
    await eventually_async(lambda: metric("howdah_stale_reports_total") == before + 1, 5, "the report was refused")

    assert (row["outcome"], row["result"]) == ("succeeded", 2)
    assert "late_report_refused" in caplog.messages


async def test_worker_that_cannot_renew_stops_its_handlers_before_the_lease_ends(
    bench: Workbench, proxy: CuttingProxy
) -> None:
    """Cut off from PostgreSQL, a worker cancels its handlers before anybody else may run them, then hands back."""
    started = asyncio.Event()
    stopped: list[float] = []

    @howdah.handler("cut")
    async def cut(payload: Any, ctx: howdah.Context) -> None:
        started.set()
        if ctx.attempt == 1 and not stopped:
            try:
                await asyncio.sleep(60)
            finally:
                stopped.append(time.monotonic())

    await bench.start(database_url=proxy.url)
    [task] = await bench.enqueue("cut")
    await started.wait()
    # Just renewed, so that the lease ends one lease from here at the earliest.
    cut_at = time.monotonic()
    proxy.is_blackhole = True
    await eventually_async(lambda: stopped, 2 * LEASE_S, "the handler was stopped")
    run = await bench.run(task)
    assert run is not None
    [row] = await bench.sql("SELECT %s > clock_timestamp() AS is_held", run["lease_expires_at"])
    proxy.is_blackhole = False
    proxy.reset_all()
    ended = await bench.ended(task, timeout_s=40)

    assert row["is_held"]
    assert stopped[0] - cut_at < LEASE_S
    assert (ended["outcome"], ended["attempt"]) == ("succeeded", 1)
    assert [each["outcome"] for each in await bench.history(task)] == ["released", "succeeded"]


async def test_plain_function_that_stops_because_its_lease_ends_runs_again(
    bench: Workbench, proxy: CuttingProxy
) -> None:
    """A function that returns early since it saw `ctx.cancelled` has not succeeded, nor was the task cancelled."""
    started = threading.Event()
    seen: list[bool] = []

    @howdah.handler("cut.plain")
    def cut(payload: Any, ctx: howdah.Context) -> None:
        started.set()
        if not seen:
            seen.append(ctx.wait_cancelled(30))

    await bench.start(database_url=proxy.url)
    [task] = await bench.enqueue("cut.plain")
    # Its row alone does not tell that: the worker may not have read the claim's answer.
    await eventually_async(started.is_set, 5, "it runs")
    proxy.is_blackhole = True
    await eventually_async(lambda: seen, 2 * LEASE_S, "the function was told")
    proxy.is_blackhole = False
    proxy.reset_all()
    ended = await bench.ended(task, timeout_s=40)

    assert seen == [True]
    assert (ended["outcome"], ended["attempt"]) == ("succeeded", 1)
    assert [each["outcome"] for each in await bench.history(task)] == ["released", "succeeded"]


async def test_claim_whose_answer_was_lost_is_found_again(bench: Workbench, proxy: CuttingProxy) -> None:
    """Runs claimed by a statement whose answer never came are executed, not left until their lease ends."""
    starts: list[int] = []

    @howdah.handler("asked")
    async def asked(payload: Any) -> None:
        starts.append(1)

    await bench.start(database_url=proxy.url)
    [first] = await bench.enqueue("asked")
    await bench.ended(first)
    proxy.cut_answers("run.claim")
    began = time.monotonic()
    tasks = await bench.enqueue("asked", count=10)
    for task in tasks:
        await bench.ended(task)

    assert proxy.cut_count == 1
    assert time.monotonic() - began < LEASE_S
    assert len(starts) == 11
    assert not [row for task in tasks for row in await bench.history(task) if row["outcome"] != "succeeded"]


async def test_finish_whose_answer_was_lost_is_repeated_and_recognised(
    bench: Workbench, proxy: CuttingProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """The repeat finds that everything is recorded; nothing is recorded twice, and nothing counts as late."""

    @howdah.handler("told")
    async def told(payload: bool) -> None:
        if not payload:
            raise ValueError

    stale = metric("howdah_stale_reports_total")
    await bench.start(database_url=proxy.url)
    await bench.enqueue("told", True)
    await bench.drained()
    proxy.cut_answers("run.complete", 2)
    items = [{"queue": "q", "handler": "told", "payload": True}] * 200
    await bench.enqueue_items(items)
    await bench.drained()
    proxy.cut_answers("run.fail", 2)
    await bench.enqueue("told", False, count=20, retry={"max_attempts": 2, "initial": "10ms"})
    await bench.drained()
    rows = await bench.sql(
        "SELECT outcome, is_final, count(*)::int AS n FROM howdah.finished_runs GROUP BY 1, 2 ORDER BY 1, 2"
    )

    assert proxy.cut_count == 4
    assert rows == [
        {"outcome": "failed", "is_final": False, "n": 20},
        {"outcome": "failed", "is_final": True, "n": 20},
        {"outcome": "succeeded", "is_final": True, "n": 201},
    ]
    assert metric("howdah_stale_reports_total") == stale
    assert "late_report_refused" not in caplog.messages


async def test_worker_resumes_by_itself_after_all_connections_were_reset(bench: Workbench, proxy: CuttingProxy) -> None:
    """Whatever was under way when every connection broke ends once, and new work starts."""

    @howdah.handler("steady")
    async def steady(payload: Any) -> None:
        await asyncio.sleep(0.01)

    await bench.start(database_url=proxy.url, concurrency=20)
    for _ in range(5):
        await bench.enqueue("steady", count=100)
        proxy.reset_all()
    await bench.drained()
    [row] = await bench.sql(
        "SELECT count(*) AS n, count(DISTINCT task_id) AS tasks FROM howdah.finished_runs WHERE outcome = 'succeeded'"
    )

    assert row == {"n": 500, "tasks": 500}
    assert proxy.cut_count > 0


@pytest.mark.parametrize(
    "statement", ["SELECT howdah.cancel(%s)", "SELECT 1 FROM howdah.runs WHERE task_id = %s FOR UPDATE"]
)
async def test_run_that_a_stranger_has_locked_keeps_no_other_waiting(
    bench: Workbench, caplog: pytest.LogCaptureFixture, statement: LiteralString
) -> None:
    """A forgotten transaction that holds a running task's row delays the record of that task only."""
    gate = asyncio.Event()

    @howdah.handler("gated")
    async def gated(payload: Any) -> None:
        await gate.wait()

    @howdah.handler("flaky")
    async def flaky(payload: Any, ctx: howdah.Context) -> None:
        if ctx.attempt == 1:
            raise ValueError

    await bench.start()
    [held] = await bench.enqueue("gated")
    await eventually_async(lambda: bench.is_running(held), 5, "it runs")
    async with await psycopg.AsyncConnection.connect(bench.database) as stranger:
        await stranger.execute(statement, [held])
        gate.set()
        others = await bench.enqueue("flaky", count=20, retry={"initial": "10ms"})
        for task in others:
            await bench.ended(task, timeout_s=10)
        before = await bench.history(held)
        await stranger.rollback()
    row = await bench.ended(held)

    assert before == []
    assert (row["outcome"], row["claim_no"]) == ("succeeded", 1)
    assert "reports_wait_for_locks" in caplog.messages
