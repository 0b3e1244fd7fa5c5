"""Limits of queues and flow keys with real workers: held, and no time lost by them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import howdah
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from tests.fix_worker import Workbench


async def drained(bench: Workbench, timeout_s: float = 30.0) -> None:
    """Wait until no task is left."""

    async def is_empty() -> bool:
        [row] = await bench.sql("SELECT count(*) AS n FROM howdah.runs")
        return bool(row["n"] == 0)

    await eventually_async(is_empty, timeout_s, "all tasks have ended")


async def test_max_running_holds_over_workers_and_wastes_no_time(bench: Workbench) -> None:
    """Two workers together run 3 at once, and each free place is filled at once, not by the next poll."""
    running = most = 0

    @howdah.handler("h")
    async def h(payload: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    await bench.sql("SELECT howdah.set_queue('q', '{\"max_running\": 3}')")
    await bench.start()
    await bench.start()
    begun = time.monotonic()
    await bench.enqueue("h", count=150)
    await drained(bench)

    assert most == 3
    # 150 / 3 rounds; if each waited for a poll it would be 50 s.
    assert time.monotonic() - begun < 15


async def test_a_limit_that_is_set_later_holds_from_then_on(bench: Workbench) -> None:
    """Workers learn of it by a wake-up; taken away, everything starts."""
    gate = asyncio.Event()
    running = 0

    @howdah.handler("h")
    async def h(payload: Any) -> None:
        nonlocal running
        running += 1
        await gate.wait()

    await bench.start(concurrency=10)
    await bench.sql("SELECT howdah.set_queue('q', '{\"max_running\": 2}')")
    await bench.enqueue("h", count=10)
    await eventually_async(lambda: running == 2, 10, "as many run as the limit allows")
    await bench.sql("SELECT howdah.set_queue('q', '{\"max_running\": null}')")
    await eventually_async(lambda: running == 10, 10, "all run")
    gate.set()
    await drained(bench)


async def test_tasks_of_a_key_run_in_order_and_one_at_a_time(bench: Workbench) -> None:
    """Ten keys of concurrency 1 over two workers, some attempts failing: no overlap, no overtaking."""
    seen: dict[str, list[int]] = defaultdict(list)
    running: Counter[str] = Counter()
    overlaps = 0

    @howdah.handler("h")
    async def h(payload: Any, ctx: howdah.Context) -> None:
        nonlocal overlaps
        key, number = payload["key"], payload["number"]
        running[key] += 1
        overlaps += running[key] > 1
        await asyncio.sleep(0.001)
        running[key] -= 1
        if number % 7 == 3 and ctx.attempt == 1:
            raise RuntimeError("the first attempt fails")
        seen[key].append(number)

    await bench.start()
    await bench.start()
    await bench.enqueue_items(
        [
            {
                "queue": "q",
                "handler": "h",
                "payload": {"key": f"k{number % 10}", "number": number // 10},
                "flow": {"key": f"k{number % 10}", "concurrency": 1},
                "retry": {"backoff": "fixed", "initial": "0.01s"},
            }
            for number in range(300)
        ]
    )
    await drained(bench)

    assert overlaps == 0
    assert dict(seen) == {f"k{key}": list(range(30)) for key in range(10)}


async def test_a_backlog_of_one_key_holds_up_no_other(bench: Workbench) -> None:
    """A thousand tasks of a busy key stand before one of another in the lane, and delay it by no poll."""
    gate = asyncio.Event()
    done = asyncio.Event()

    @howdah.handler("slow")
    async def slow(payload: Any) -> None:
        await gate.wait()

    @howdah.handler("other")
    async def other(payload: Any) -> None:
        done.set()

    await bench.start(concurrency=4)
    await bench.enqueue("slow", count=1000, flow={"key": "busy", "concurrency": 1})
    begun = time.monotonic()
    await bench.enqueue("other", flow={"key": "idle", "concurrency": 1})
    await asyncio.wait_for(done.wait(), 10)

    assert time.monotonic() - begun < 5
    gate.set()


async def test_a_rate_holds_and_is_used_up(bench: Workbench) -> None:
    """50 a second with a burst of 5: over two workers at most 5 + 50 t starts in any span of t, and not much fewer."""

    @howdah.handler("h")
    async def h(payload: Any) -> None: ...

    await bench.sql("""SELECT howdah.set_queue('q', '{"rate": {"limit": 50, "period": "1s", "burst": 5}}')""")
    await bench.start()
    await bench.start()
    await bench.enqueue("h", count=60)
    await drained(bench)
    rows = await bench.sql("SELECT extract(epoch FROM claimed_at)::float8 AS s FROM howdah.finished_runs ORDER BY s")
    starts = [row["s"] for row in rows]

    for first in range(60):
        for last in range(first, 60):
            assert last - first + 1 <= 5 + 50 * (starts[last] - starts[first]) + 1e-3
    assert starts[-1] - starts[0] < 5


async def test_a_rate_of_a_key_holds_and_is_used_up(bench: Workbench) -> None:
    """40 a second without a burst: each start 25 ms after the one before, and 40 in little more than a second."""

    @howdah.handler("h")
    async def h(payload: Any) -> None: ...

    await bench.start()
    await bench.start()
    await bench.enqueue("h", count=40, flow={"key": "k", "rate": {"limit": 40, "period": "1s", "burst": 1}})
    await drained(bench)
    rows = await bench.sql("SELECT extract(epoch FROM claimed_at)::float8 AS s FROM howdah.finished_runs ORDER BY s")
    starts = [row["s"] for row in rows]

    assert all(after - before >= 0.025 - 1e-5 for before, after in itertools.pairwise(starts))
    assert starts[-1] - starts[0] < 5


async def test_a_place_is_given_on_by_a_handlers_own_transaction(bench: Workbench) -> None:
    """An outcome that the handler's transaction recorded leaves its place free as any other does."""

    @howdah.handler("h")
    async def h(payload: Any, ctx: howdah.Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute("SELECT 1")

    await bench.start()
    begun = time.monotonic()
    await bench.enqueue("h", count=20, flow={"key": "k", "concurrency": 1})
    await drained(bench)

    assert time.monotonic() - begun < 10
