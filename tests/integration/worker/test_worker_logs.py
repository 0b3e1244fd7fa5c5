"""What handlers log of their tasks: stored in order, soon, before the outcome, and never in the way of the work."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import howdah
from howdah_worker import task_logs
from tests.fix_wait import eventually_async
from tests.fix_worker import metric

if TYPE_CHECKING:
    import uuid

    from tests.fix_worker import Workbench


async def _entries(bench: Workbench, task: uuid.UUID) -> list[dict[str, Any]]:
    return await bench.sql(
        "SELECT claim_no, seq, level, fraction, message, fields FROM howdah.task_logs WHERE task_id = %s "
        "ORDER BY claim_no, seq",
        task,
    )


async def _messages(bench: Workbench, task: uuid.UUID) -> list[str]:
    return [row["message"] for row in await _entries(bench, task)]


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_entries_are_stored_in_order_before_the_outcome(bench: Workbench, is_async: bool) -> None:
    """Whoever sees that a task has ended sees all that its handler said."""

    def say(ctx: howdah.Context) -> None:
        ctx.log("begin")
        ctx.log("careful", level="warning", left=3)
        ctx.progress(0.5, "half")
        ctx.log("end", level="error")

    async def work_async(payload: Any, ctx: howdah.Context) -> None:
        say(ctx)

    def work(payload: Any, ctx: howdah.Context) -> None:
        say(ctx)

    howdah.handler("work")(work_async if is_async else work)
    await bench.start()
    tasks = await bench.enqueue("work", count=20)
    for task in tasks:
        await bench.ended(task)
        entries = await _entries(bench, task)

        assert [(row["seq"], row["level"], row["message"]) for row in entries] == [
            (1, 20, "begin"), (2, 30, "careful"), (3, 40, "end"), (4, 20, "half"),
        ]  # fmt: skip
        assert [row["fraction"] for row in entries] == [None, None, None, 0.5]
        assert entries[1]["fields"] == {"left": 3}


async def test_entries_can_be_read_while_the_handler_runs(bench: Workbench) -> None:
    """Long before its end, as can progress."""
    gate = asyncio.Event()

    @howdah.handler("work")
    async def work(payload: Any, ctx: howdah.Context) -> None:
        ctx.log("begun")
        ctx.progress(percent=10)
        await gate.wait()

    await bench.start()
    [task] = await bench.enqueue("work")

    async def are_stored() -> bool:
        return len(await _entries(bench, task)) == 2

    await eventually_async(are_stored, 5, "both entries are stored")
    is_running = await bench.is_running(task)
    gate.set()
    await bench.ended(task)

    assert is_running


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_entries_are_stored_before_a_transaction_ends(bench: Workbench, is_async: bool) -> None:
    """The success that a handler's own transaction records comes behind what was logged; later entries are not kept."""

    async def work_async(payload: Any, ctx: howdah.Context) -> None:
        ctx.log("before")
        async with ctx.transaction():
            ctx.log("inside")
        ctx.log("after")

    def work(payload: Any, ctx: howdah.Context) -> None:
        ctx.log("before")
        with ctx.transaction():
            ctx.log("inside")
        ctx.log("after")

    howdah.handler("work")(work_async if is_async else work)
    await bench.start()
    [task] = await bench.enqueue("work")
    row = await bench.ended(task)

    assert row["outcome"] == "succeeded"
    assert await _messages(bench, task) == ["before", "inside"]


async def test_each_attempt_numbers_its_own_entries(bench: Workbench) -> None:
    """What a failed attempt said stays, before what the next one says."""

    @howdah.handler("work")
    async def work(payload: Any, ctx: howdah.Context) -> None:
        ctx.log(f"attempt {ctx.attempt}")
        if ctx.attempt == 1:
            raise RuntimeError

    await bench.start()
    [task] = await bench.enqueue("work", retry={"initial": "0s"})
    await bench.ended(task)
    entries = await _entries(bench, task)

    assert [(row["claim_no"], row["seq"], row["message"]) for row in entries] == [
        (1, 1, "attempt 1"),
        (2, 1, "attempt 2"),
    ]


async def test_log_of_an_attempt_is_cut_with_a_notice(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that cannot stop talking fills no table; the last entry says that there was more."""
    monkeypatch.setattr(task_logs, "ENTRIES_MAX", 50)

    @howdah.handler("work")
    async def work(payload: Any, ctx: howdah.Context) -> None:
        for number in range(200):
            ctx.log(f"entry {number}")

    await bench.start()
    [task] = await bench.enqueue("work")
    row = await bench.ended(task)
    messages = await _messages(bench, task)

    assert row["outcome"] == "succeeded"
    assert messages[:50] == [f"entry {number}" for number in range(50)]
    assert [message.startswith("the log is cut") for message in messages[50:]] == [True]


async def test_entries_that_memory_cannot_hold_are_dropped_and_counted(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While PostgreSQL is slower than the handlers memory stays bounded, and an entry tells how many are missing."""
    monkeypatch.setattr(task_logs, "WAITING_BYTES_MAX", 1_000)
    before = metric("howdah_log_entries_dropped_total", reason="backlog")

    @howdah.handler("work")
    async def work(payload: Any, ctx: howdah.Context) -> None:
        for _ in range(100):
            ctx.log("x" * 100)

    await bench.start()
    [task] = await bench.enqueue("work")
    row = await bench.ended(task)
    messages = await _messages(bench, task)
    dropped = metric("howdah_log_entries_dropped_total", reason="backlog") - before

    assert row["outcome"] == "succeeded"
    assert dropped > 90
    assert messages[-1].startswith(f"{dropped:.0f} entries were dropped")
    assert len(messages) == 101 - dropped


async def test_log_that_cannot_be_written_keeps_no_outcome_back(bench: Workbench) -> None:
    """A locked table costs the entries, not the task."""

    @howdah.handler("work")
    async def work(payload: Any, ctx: howdah.Context) -> None:
        ctx.log("lost")

    await bench.start()
    before = metric("howdah_log_entries_dropped_total", reason="refused")
    async with await psycopg.AsyncConnection.connect(bench.database) as locker:
        await locker.execute("LOCK TABLE howdah.task_logs IN ACCESS EXCLUSIVE MODE")
        [task] = await bench.enqueue("work")
        row = await bench.ended(task)

    assert row["outcome"] == "succeeded"
    assert await _messages(bench, task) == []
    assert metric("howdah_log_entries_dropped_total", reason="refused") > before


async def test_worker_that_lost_its_lease_speaks_no_more(bench: Workbench) -> None:
    """What it says then would stand among the entries of the next attempt, which followers have read already."""
    gate = asyncio.Event()

    @howdah.handler("work")
    async def work(payload: Any, ctx: howdah.Context) -> None:
        ctx.log("held")
        await gate.wait()
        ctx.log("stale")

    await bench.start()
    [task] = await bench.enqueue("work")

    async def is_stored() -> bool:
        return await _messages(bench, task) == ["held"]

    await eventually_async(is_stored, 5, "the entry is stored")
    await bench.sql("UPDATE howdah.runs SET lease_token = gen_random_uuid() WHERE task_id = %s", task)
    before = metric("howdah_log_entries_dropped_total", reason="refused")
    gate.set()
    await eventually_async(
        lambda: metric("howdah_log_entries_dropped_total", reason="refused") > before, 10, "an entry was refused"
    )

    assert await _messages(bench, task) == ["held"]


async def test_progress_is_thinned_and_its_last_word_kept(bench: Workbench) -> None:
    """However often it is told, what is stored is little, and the end is there."""

    @howdah.handler("work")
    def work(payload: Any, ctx: howdah.Context) -> None:
        for step in range(10_001):
            ctx.progress(step / 10_000, f"step {step}")

    await bench.start()
    [task] = await bench.enqueue("work")
    await bench.ended(task, 30)
    entries = await _entries(bench, task)

    assert len(entries) < 100
    assert (entries[-1]["fraction"], entries[-1]["message"]) == (1.0, "step 10000")


async def test_wrong_progress_is_an_error_of_the_handler(bench: Workbench) -> None:
    """It is told where it was made."""

    @howdah.handler("work")
    async def work(payload: Any, ctx: howdah.Context) -> None:
        ctx.progress(2)

    await bench.start()
    [task] = await bench.enqueue("work", retry={"max_attempts": 1})
    row = await bench.ended(task)

    assert row["error"]["type"] == "ValueError"


async def test_entries_that_no_json_has_are_kept_as_text(bench: Workbench) -> None:
    """NUL, half a surrogate pair, ten megabytes, circles: the task goes on, and the entry says what it can."""
    circle: list[Any] = []
    circle.append(circle)

    @howdah.handler("work")
    async def work(payload: Any, ctx: howdah.Context) -> None:
        ctx.log("nul \x00 half \ud800", nul="\x00", kept="\\u0000")
        ctx.log("x" * 10_000_000)
        ctx.log("fields", half="\ud800", circle=circle, huge=10**400, thing=object(), nan=float("nan"))
        ctx.log("much", text="y" * 100_000)

    await bench.start()
    [task] = await bench.enqueue("work")
    row = await bench.ended(task)
    first, long, odd, much = await _entries(bench, task)

    assert row["outcome"] == "succeeded"
    assert first["message"] == "nul \ufffd half ?"
    assert first["fields"] == {"nul": "\ufffd", "kept": "\\u0000"}
    assert long["message"].endswith("… (10000000 characters)")
    assert len(long["message"].encode()) <= 8_192
    assert set(odd["fields"]) == {"half", "circle", "huge", "thing", "nan"}
    assert list(much["fields"]) == ["cut"]


async def test_clean_stop_loses_no_entry(bench: Workbench) -> None:
    """What a handler said before its worker was stopped is there, also if its run was handed back."""

    @howdah.handler("work")
    async def work(payload: Any, ctx: howdah.Context) -> None:
        ctx.log("begun")
        await ctx.cancellation()
        ctx.log("told")

    worker = await bench.start(drain_s=0.1)
    [task] = await bench.enqueue("work")
    await eventually_async(lambda: bench.is_running(task), 10, "it runs")

    async def has_begun() -> bool:
        return bool(await _messages(bench, task))

    await eventually_async(has_begun, 5, "it has begun")
    await worker.stop()

    assert (await _messages(bench, task))[0] == "begun"
