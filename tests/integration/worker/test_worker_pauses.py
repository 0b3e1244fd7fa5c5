"""Workers and paused queues: nothing starts while one is paused, nothing is forgotten, and the end is noticed."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import howdah
from howdah.core.lane_book import LaneBook
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    import pytest

    from howdah.core.model import Due
    from tests.fix_worker import Workbench


def _count_paused_peeks(monkeypatch: pytest.MonkeyPatch) -> list[Due]:
    """Return what peeks say of paused lanes, as it comes."""
    seen: list[Due] = []
    peeked = LaneBook.peeked

    def note(self: LaneBook, asked: Any, dues: Any, now: int) -> None:
        dues = list(dues)
        seen.extend(due for due in dues if due.is_closed)
        peeked(self, asked, dues, now)

    monkeypatch.setattr(LaneBook, "peeked", note)
    return seen


async def test_resumed_queue_starts_at_once_with_all_that_waited(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with runs that were due long before the worker looked last, as those are that lie below a horizon."""
    monkeypatch.setattr("howdah_worker.claimer.POLL_S", 600.0)
    started: dict[str, float] = {}

    @howdah.handler("work")
    async def work(payload: str) -> None:
        started.setdefault(payload, time.monotonic())

    peeks = _count_paused_peeks(monkeypatch)
    await bench.start()
    await bench.enqueue("work", "first")
    await eventually_async(lambda: "first" in started, 10, "the worker knows the queue")
    await bench.sql("SELECT howdah.pause('q')")
    old = await bench.enqueue("work", "old")
    await bench.sql("UPDATE howdah.runs SET run_at = run_at - interval '1 hour' WHERE task_id = %s", old[0])
    await bench.enqueue("work", "low", priority="low")
    await eventually_async(lambda: len({due.lane for due in peeks}) >= 2, 10, "the worker has found the lanes paused")
    during = set(started)
    resumed_at = time.monotonic()
    await bench.sql("SELECT howdah.resume('q')")
    await eventually_async(lambda: {"old", "low"} <= started.keys(), 10, "what waited has started")

    assert during == {"first"}
    assert max(started.values()) - resumed_at < 5
    await bench.drained()
    assert [row["attempt"] for row in await bench.history(old[0])] == [1]


async def test_worker_wakes_by_itself_at_the_end_of_a_pause(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """No scheduler runs here, and no poll comes: it has been told when the pause ends."""
    monkeypatch.setattr("howdah_worker.claimer.POLL_S", 600.0)
    started = asyncio.Event()
    made = await bench.sql(
        "SELECT howdah.set_queue('q'), howdah.pause('q', until => howdah.now() + interval '2 seconds')"
    )
    assert made

    @howdah.handler("work")
    async def work(payload: Any) -> None:
        started.set()

    peeks = _count_paused_peeks(monkeypatch)
    await bench.start()
    [task] = await bench.enqueue("work")
    await eventually_async(lambda: peeks, 10, "the worker has found it paused")
    await eventually_async(started.is_set, 10, "it has started")
    [row] = await bench.sql(
        "SELECT claimed_at >= paused_until AS is_after FROM howdah.queues, howdah.finished_runs WHERE task_id = %s "
        "UNION ALL SELECT claimed_at >= paused_until FROM howdah.queues, howdah.runs WHERE task_id = %s", task, task
    )  # fmt: skip

    assert row["is_after"]


async def test_run_that_goes_on_when_its_queue_is_closed_ends_as_ever(bench: Workbench) -> None:
    """And a retry of it waits for the resume, without an attempt spent."""
    gate, begun = asyncio.Event(), asyncio.Event()
    attempts: list[int] = []

    @howdah.handler("work")
    async def work(payload: Any, ctx: howdah.Context) -> None:
        attempts.append(ctx.attempt)
        begun.set()
        await gate.wait()
        if ctx.attempt == 1:
            raise ValueError("once")

    await bench.start()
    [task] = await bench.enqueue("work", retry={"initial": "0s", "backoff": "fixed"})
    await eventually_async(begun.is_set, 10, "it runs")
    await bench.sql("SELECT howdah.pause('q')")
    gate.set()
    await eventually_async(lambda: bench.history(task), 10, "its failure is recorded")
    run = await bench.run(task)
    await bench.sql("SELECT howdah.resume('q')")
    last = await bench.ended(task)

    assert run is not None
    assert (run["lease_token"], run["attempt"]) == (None, 1)
    assert (last["outcome"], last["attempt"], attempts) == ("succeeded", 2, [1, 2])
