"""Who waits for whom: priorities, tenants and queues of one worker that all have more work than it can do."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import howdah
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from tests.fix_worker import Workbench


async def fill(bench: Workbench, count: int, **fields: Any) -> None:
    """Store many tasks of one kind."""
    items = json.dumps([fields] * min(count, 5_000))
    for _ in range(-(-count // 5_000)):
        await bench.sql("SELECT count(*) FROM howdah.enqueue_many('default', %s::json)", items)


async def starts_of(bench: Workbench, count: int, **settings: Any) -> Counter[str]:
    """Run the first `count` of the tasks that wait, and count their starts by payload."""
    starts: list[str] = []
    enough = asyncio.Event()

    @howdah.handler("count")
    async def start(payload: str) -> None:
        starts.append(payload)
        if len(starts) >= count:
            enough.set()
        await asyncio.sleep(0.002)

    worker = await bench.start(concurrency=20, **settings)
    async with asyncio.timeout(30):
        await enough.wait()
    await worker.stop()
    return Counter(starts[:count])


async def test_low_priority_is_not_kept_waiting_by_critical_work_without_end(bench: Workbench) -> None:
    """Of 1,800 runs a low lane gets one in nine, about 200, while the critical one is full all the time."""
    await fill(bench, 5_000, queue="q", handler="count", payload="low", priority="low")
    await fill(bench, 5_000, queue="q", handler="count", payload="critical", priority="critical")

    starts = await starts_of(bench, 1_800)

    assert starts["low"] == pytest.approx(200, abs=100)


async def test_queues_share_a_worker_by_the_weights_of_its_patterns(bench: Workbench) -> None:
    """Of 1,600 runs weights 5, 2 and 1 get about 1,000, 400 and 200; of entries that match, the first counts."""
    for queue in ("critical.mail", "emails", "other"):
        await fill(bench, 5_000, queue=queue, handler="count", payload=queue)

    starts = await starts_of(bench, 1_600, queues=("critical.*=5", "emails=2", "*", "other=7"))

    assert starts["critical.mail"] == pytest.approx(1_000, abs=150)
    assert starts["emails"] == pytest.approx(400, abs=120)
    assert starts["other"] == pytest.approx(200, abs=100)
    [row] = await bench.sql("SELECT queues FROM howdah.workers")
    assert row["queues"] == ["critical.*", "emails", "*", "other"]


async def test_newcomer_does_not_wait_for_what_was_claimed_ahead_for_another(bench: Workbench) -> None:
    """Beside 50,000 tasks of another tenant ten tasks end after some hundred starts of those, not after thousands.

    A worker has 1,000 runs of 10 ms claimed ahead, which went first.
    """
    greedy = newcomers = 0

    @howdah.handler("greedy")
    async def work(payload: Any) -> None:
        nonlocal greedy
        greedy += 1
        await asyncio.sleep(0.01)

    @howdah.handler("newcomer")
    async def newcomer(payload: Any) -> None:
        nonlocal newcomers
        await asyncio.sleep(0.01)
        newcomers += 1

    await bench.sql("INSERT INTO howdah.tenants (name) VALUES ('newcomer')")
    ten = json.dumps([{"queue": "q", "handler": "newcomer"}] * 10)
    passed: list[int] = []
    await fill(bench, 50_000, queue="q", handler="greedy")
    await bench.start()
    await eventually_async(lambda: greedy > 2_000, 20, "the backlog is at work")
    for _ in range(5):
        ended = newcomers + 10
        await bench.sql("SELECT count(*) FROM howdah.enqueue_many('newcomer', %s::json)", ten)
        before = greedy
        await eventually_async(lambda ended=ended: newcomers == ended, 10, "the ten have ended")
        passed.append(greedy - before)

    # In the first round the queue was new to the worker.
    assert sorted(passed)[2] < 500
