"""How handlers are stopped: timeouts, cancels, and the drain of the worker."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

import howdah
from howdah.core.errors import RegistrationLost, ReportsLost
from howdah_worker import drain, executor
from tests.fix_wait import eventually_async
from tests.fix_worker import metric

if TYPE_CHECKING:
    import uuid

    from tests.fix_hostile import HostileServer
    from tests.fix_proxy import CuttingProxy
    from tests.fix_worker import Workbench


async def cancel(bench: Workbench, task: uuid.UUID, mode: str) -> None:
    """Ask for a cancel as a DBA does."""
    await bench.sql("SELECT howdah.cancel(%s, %s)", task, mode)


async def test_async_handler_is_cancelled_at_its_timeout(bench: Workbench) -> None:
    """The handler is cancelled at its timeout, cleans up, and the attempt is recorded as timed out."""
    cleaned: list[bool] = []

    @howdah.handler("slow")
    async def slow(payload: Any, ctx: howdah.Context) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(ctx.cancelled)

    await bench.start()
    [task] = await bench.enqueue("slow", timeout="300ms", retry={"max_attempts": 1})
    row = await bench.ended(task)

    assert (row["outcome"], row["error"]["type"]) == ("timed_out", "timed_out")
    assert 0.3 <= row["duration_s"] < 2
    assert cleaned == [True]


async def test_timeout_of_the_handler_wins_if_it_is_shorter(bench: Workbench) -> None:
    """A handler's own timeout ends an attempt earlier than the task's."""
    from datetime import timedelta

    @howdah.handler("short", timeout=timedelta(seconds=0.2))
    async def short(payload: Any) -> None:
        await asyncio.sleep(60)

    await bench.start()
    [task] = await bench.enqueue("short", timeout="30s", retry={"max_attempts": 1})
    row = await bench.ended(task)

    assert row["outcome"] == "timed_out"
    assert row["duration_s"] < 2


async def test_handler_that_ignores_its_cancellation_is_recorded_all_the_same(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time for cleaning up the outcome is recorded without the handler, which keeps its slot."""
    monkeypatch.setattr(executor, "CLEANUP_S", 0.2)
    release = asyncio.Event()

    @howdah.handler("deaf")
    async def deaf(payload: Any) -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    await bench.start()
    [task] = await bench.enqueue("deaf", timeout="100ms", retry={"max_attempts": 1})
    row = await bench.ended(task)
    held = metric("howdah_slots_overdue")
    release.set()
    await eventually_async(lambda: metric("howdah_slots_overdue") == held - 1, 5, "the slot is free")

    assert row["outcome"] == "timed_out"
    assert held == 1


async def test_plain_function_past_its_timeout_is_recorded_and_keeps_its_thread(bench: Workbench) -> None:
    """It is told through `ctx.cancelled`, recorded as timed out at once, and its thread is busy until it returns."""
    told, release = threading.Event(), threading.Event()

    @howdah.handler("plain")
    def plain(payload: str, ctx: howdah.Context) -> None:
        if payload == "slow":
            ctx.wait_cancelled(20)
            told.set()
            release.wait(20)

    await bench.start(threads=1)
    [slow] = await bench.enqueue("plain", "slow", timeout="300ms", retry={"max_attempts": 1})
    row = await bench.ended(slow)
    held = metric("howdah_slots_overdue")
    [other] = await bench.enqueue("plain", "fast")
    await eventually_async(told.is_set, 5, "the function was told")
    waits_for_a_thread = not await bench.history(other)
    release.set()
    await bench.ended(other)

    assert row["outcome"] == "timed_out"
    assert held == 1
    assert waits_for_a_thread
    assert metric("howdah_slots_overdue") == 0


async def test_soft_cancel_is_seen_by_the_handler(bench: Workbench) -> None:
    """A handler that looks at `ctx.cancelled` and returns is recorded as cancelled, well before the next poll."""
    started = asyncio.Event()

    @howdah.handler("patient")
    async def patient(payload: Any, ctx: howdah.Context) -> None:
        started.set()
        await ctx.cancellation()

    await bench.start()
    [task] = await bench.enqueue("patient")
    await started.wait()
    asked = time.monotonic()
    await cancel(bench, task, "soft")
    row = await bench.ended(task)

    assert row["outcome"] == "cancelled"
    assert time.monotonic() - asked < 2


async def test_handler_that_does_not_notice_a_soft_cancel_succeeds(bench: Workbench) -> None:
    """Work that was done in full although a soft cancel came is a success."""
    started = asyncio.Event()

    @howdah.handler("busy")
    async def busy(payload: Any) -> str:
        started.set()
        await asyncio.sleep(1)
        return "done"

    await bench.start()
    [task] = await bench.enqueue("busy")
    await started.wait()
    await cancel(bench, task, "soft")
    row = await bench.ended(task)

    assert (row["outcome"], row["result"]) == ("succeeded", "done")


async def test_soft_cancel_that_is_ignored_turns_hard(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its grace a soft cancel stops the handler as a hard one does."""
    monkeypatch.setattr(executor, "SOFT_CANCEL_S", 0.3)

    @howdah.handler("stubborn")
    async def stubborn(payload: Any) -> None:
        await asyncio.sleep(60)

    await bench.start()
    [task] = await bench.enqueue("stubborn")
    await eventually_async(lambda: bench.is_running(task), 5, "it runs")
    await cancel(bench, task, "soft")
    row = await bench.ended(task)

    assert row["outcome"] == "cancelled"
    assert row["duration_s"] >= 0.3


async def test_hard_cancel_stops_an_async_handler_at_once(bench: Workbench) -> None:
    """A hard cancel cancels the handler's asyncio task and ends the task for good."""

    @howdah.handler("long")
    async def long(payload: Any) -> None:
        await asyncio.sleep(60)

    await bench.start()
    [task] = await bench.enqueue("long")
    await eventually_async(lambda: bench.is_running(task), 5, "it runs")
    asked = time.monotonic()
    await cancel(bench, task, "hard")
    row = await bench.ended(task)

    assert (row["outcome"], row["attempt"]) == ("cancelled", 1)
    assert time.monotonic() - asked < 2


async def test_hard_cancel_aborts_a_callback(bench: Workbench, hostile: HostileServer) -> None:
    """The request is aborted and its connection closed."""
    hostile.answers["half"] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    await bench.start(callback_allow_cidrs=(ip_network("127.0.0.0/8"),))
    [task] = await bench.enqueue_items([{"queue": "q", "http": {"url": hostile.url("half")}}])
    await eventually_async(lambda: hostile.requests, 10, "the request has arrived")
    await cancel(bench, task, "hard")
    row = await bench.ended(task)

    assert row["outcome"] == "cancelled"
    await eventually_async(lambda: hostile.open_count == 0, 5, "the connection is closed")


async def test_drain_finishes_what_runs_and_hands_back_the_rest(bench: Workbench) -> None:
    """A stop spends no attempt: running handlers end, what has not started waits for another worker."""
    gate, started = asyncio.Event(), asyncio.Event()

    @howdah.handler("gated")
    async def gated(payload: Any) -> None:
        started.set()
        await gate.wait()

    worker = await bench.start(concurrency=2)
    await bench.enqueue("gated", count=5)
    await started.wait()
    stopping = asyncio.create_task(worker.stop())
    await eventually_async(worker.service.stopping.is_set, 5, "the stop has begun")
    gate.set()
    await stopping
    history = await bench.sql("SELECT outcome, attempt FROM howdah.finished_runs WHERE outcome = 'succeeded'")
    left = await bench.sql("SELECT attempt, lease_token FROM howdah.runs")
    [row] = await bench.sql(
        "SELECT stopping_at IS NOT NULL AND stopped_at IS NOT NULL AS is_stopped FROM howdah.workers"
    )

    assert history == [{"outcome": "succeeded", "attempt": 1}] * 2
    assert left == [{"attempt": 0, "lease_token": None}] * 3
    assert row["is_stopped"]


async def test_drain_that_takes_too_long_releases_what_runs(bench: Workbench) -> None:
    """After the drain limit handlers are cancelled, and their runs handed back without an attempt."""

    @howdah.handler("endless")
    async def endless(payload: Any) -> None:
        await asyncio.sleep(60)

    @howdah.handler("endless.plain")
    def endless_plain(payload: Any, ctx: howdah.Context) -> None:
        ctx.wait_cancelled(20)

    worker = await bench.start(drain_s=0.3)
    tasks = [*await bench.enqueue("endless"), *await bench.enqueue("endless.plain")]
    for task in tasks:
        await eventually_async(lambda task=task: bench.is_running(task), 5, "it runs")
    await worker.stop()
    left = await bench.sql("SELECT attempt, lease_token FROM howdah.runs")

    assert left == [{"attempt": 0, "lease_token": None}] * 2
    assert [row["outcome"] for task in tasks for row in await bench.history(task)] == ["released"] * 2


async def test_second_stop_hands_back_at_once(bench: Workbench) -> None:
    """A fast stop does not wait for the drain limit."""

    @howdah.handler("endless")
    async def endless(payload: Any) -> None:
        await asyncio.sleep(60)

    worker = await bench.start(drain_s=60)
    [task] = await bench.enqueue("endless")
    await eventually_async(lambda: bench.is_running(task), 5, "it runs")
    worker.service.stop()
    worker.service.stop()
    async with asyncio.timeout(5):
        await worker.task

    assert not await bench.is_running(task)


async def test_worker_that_the_database_forgot_drains_and_ends(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its row, targets that it alone serves would be parked in silence; it finishes what runs, and fails."""
    gate = asyncio.Event()

    @howdah.handler("gated")
    async def gated(payload: Any) -> None:
        await gate.wait()

    worker = await bench.start()
    [task] = await bench.enqueue("gated")
    await eventually_async(lambda: bench.is_running(task), 5, "it runs")
    # As after a restore: the row is gone, and its id is another worker's.
    await bench.sql("UPDATE howdah.workers SET name = 'another', heartbeat_at = 'epoch', stopping_at = NULL")
    await eventually_async(lambda: "worker_forgotten" in caplog.messages, 10, "it has noticed")
    gate.set()
    with pytest.raises(RegistrationLost):
        async with asyncio.timeout(10):
            await worker.task
    [row] = await bench.sql("SELECT heartbeat_at = 'epoch' AND stopped_at IS NULL AS is_untouched FROM howdah.workers")

    assert (await bench.ended(task))["outcome"] == "succeeded"
    assert caplog.messages.count("worker_forgotten") == 1
    assert row["is_untouched"]


async def test_worker_that_cannot_record_its_last_outcomes_fails(
    bench: Workbench, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop that lost outcomes does not count as a clean one."""
    monkeypatch.setattr(drain, "_FLUSH_S", 0.3)
    gate, started = asyncio.Event(), asyncio.Event()

    @howdah.handler("gated")
    async def gated(payload: Any) -> None:
        started.set()
        await gate.wait()

    worker = await bench.start(database_url=proxy.url)
    await bench.enqueue("gated")
    await started.wait()
    proxy.is_refusing = True
    proxy.reset_all()
    worker.service.stop()
    gate.set()
    with pytest.raises(ReportsLost, match="1 outcomes"):
        async with asyncio.timeout(20):
            await worker.task


async def test_runs_of_a_claim_without_an_answer_are_handed_back_at_the_stop(
    bench: Workbench, proxy: CuttingProxy
) -> None:
    """A worker that is stopped before it has asked for them does so then; no attempt is spent, and no crash counted."""

    @howdah.handler("asked")
    async def asked(payload: Any) -> None: ...

    worker = await bench.start(database_url=proxy.url)

    def stop_when_cut() -> None:
        # At once: a few milliseconds later the worker may have connected again, and asked.
        proxy.is_refusing = True
        worker.service.stop()

    proxy.on_cut = stop_when_cut
    proxy.cut_answers("run.claim")
    tasks = await bench.enqueue("asked", count=3)
    await eventually_async(lambda: proxy.is_refusing, 10, "the answer was cut")
    held = await bench.sql("SELECT 1 FROM howdah.runs WHERE lease_token IS NOT NULL")
    proxy.is_refusing = False
    await worker.task
    left = await bench.sql("SELECT attempt, crashes, lease_token FROM howdah.runs")

    assert len(held) == 3
    assert left == [{"attempt": 0, "crashes": 0, "lease_token": None}] * 3
    assert [row["outcome"] for task in tasks for row in await bench.history(task)] == ["released"] * 3
