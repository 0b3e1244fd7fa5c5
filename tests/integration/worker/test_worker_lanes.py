"""Which lanes a worker looks at, and when: a backlog in one hides nothing in others, and costs no idle turns."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import howdah
from howdah.core import metrics
from howdah.core.lane_book import LaneBook
from howdah_worker.claimer import Claimer
from tests.fix_wait import eventually_async
from tests.fix_worker import metric

if TYPE_CHECKING:
    import pytest

    from tests.fix_worker import Workbench


async def test_claimer_sleeps_while_threads_are_busy(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all threads taken there is nothing to look for there; the event loop has better things to do.

    The poll made all lanes due for a look that was not taken, and the claimer turned round and round.
    """
    gate, begun = threading.Event(), threading.Event()
    rounds = polls = 0
    one_round, doubt = Claimer._round, LaneBook.doubt

    async def count_round(self: Claimer, executor: Any) -> bool:
        nonlocal rounds
        rounds += 1
        return await one_round(self, executor)

    def count_poll(self: LaneBook) -> None:
        nonlocal polls
        polls += 1
        doubt(self)

    monkeypatch.setattr(Claimer, "_round", count_round)
    monkeypatch.setattr(LaneBook, "doubt", count_poll)

    @howdah.handler("slow")
    def slow(payload: Any) -> None:
        begun.set()
        gate.wait(30)

    try:
        await bench.start(threads=1)
        await bench.enqueue("slow", count=3)
        await eventually_async(begun.is_set, 10, "the thread is busy")
        rounds = polls = 0
        # Each poll doubts the lanes of all three books.
        await eventually_async(lambda: polls >= 6, 10, "two polls have passed")
    finally:
        gate.set()

    assert rounds < 50


async def test_delayed_task_starts_in_time_beside_a_backlog(bench: Workbench) -> None:
    """A lane that always has work does not keep a worker from looking when others have some.

    A task that came meanwhile had made it forget when the delayed one was due, and it looked again only when the
    backlog was done.
    """
    started: dict[str, float] = {}

    @howdah.handler("work")
    async def work(payload: str) -> None:
        started.setdefault(payload, time.monotonic())
        await asyncio.sleep(0.02)

    await bench.start(concurrency=1)
    await bench.enqueue_items([{"queue": "deep", "handler": "work", "payload": "deep"}] * 500)
    await eventually_async(lambda: "deep" in started, 10, "the backlog is at work")
    await bench.enqueue_items([{"queue": "other", "handler": "work", "payload": "late", "delay": "1s"}])
    sent_at = time.monotonic()
    await bench.enqueue_items([{"queue": "other", "handler": "work", "payload": "now"}])
    await eventually_async(lambda: "late" in started, 8, "the delayed task has started")
    [left] = await bench.sql("SELECT count(*) AS n FROM howdah.runs")

    assert left["n"] > 0
    assert started["late"] - sent_at < 5


async def test_every_transaction_of_a_thread_is_counted_once(bench: Workbench) -> None:
    """That a run is recorded, and that its thread has ended, are told in order, also while the event loop is busy."""

    @howdah.handler("write")
    def write(payload: Any, ctx: howdah.Context) -> None:
        with ctx.transaction() as conn:
            conn.execute("SELECT 1")

    @howdah.handler("block")
    async def block(payload: Any) -> None:
        time.sleep(0.02)  # noqa: ASYNC251 - the event loop is to be busy

    before = metric("howdah_runs_finished_total", outcome="succeeded")
    seconds = metrics.REGISTRY.get_sample_value("howdah_run_duration_seconds_count") or 0.0
    await bench.start(threads=8)
    await bench.enqueue_items([{"queue": "q", "handler": name} for name in ["write"] * 10 + ["block"]] * 20)
    await bench.drained()
    await eventually_async(
        lambda: metric("howdah_runs_finished_total", outcome="succeeded") >= before + 220, 10, "all are counted"
    )

    assert metric("howdah_runs_finished_total", outcome="succeeded") == before + 220
    assert metrics.REGISTRY.get_sample_value("howdah_run_duration_seconds_count") == seconds + 220


async def test_worker_sleeps_beside_expired_tasks(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that expired, and that no scheduler has ended, neither start nor keep a worker turning.

    A peek that saw them would send it to claim, in vain, again and again.
    """
    rounds = polls = 0
    one_round, doubt = Claimer._round, LaneBook.doubt

    async def count_round(self: Claimer, executor: Any) -> bool:
        nonlocal rounds
        rounds += 1
        return await one_round(self, executor)

    def count_poll(self: LaneBook) -> None:
        nonlocal polls
        polls += 1
        doubt(self)

    started: list[str] = []

    @howdah.handler("work")
    async def work(payload: str) -> None:
        started.append(payload)

    await bench.enqueue_items([{"queue": "q", "handler": "work", "payload": "late", "expires_in": "1ms"}] * 20)
    monkeypatch.setattr(Claimer, "_round", count_round)
    monkeypatch.setattr(LaneBook, "doubt", count_poll)
    await bench.start()
    await bench.enqueue_items([{"queue": "q", "handler": "work", "payload": "in time", "expires_in": "1h"}])
    await eventually_async(lambda: started, 10, "the one behind them has started")
    rounds = polls = 0
    await eventually_async(lambda: polls >= 4, 10, "two polls have passed")

    assert started == ["in time"]
    assert rounds < 50
