"""What async handlers may rely on: their asyncio task and their context are theirs alone, whether they wait or not."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import inspect
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import howdah
from howdah.core import log
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from tests.fix_worker import Workbench


async def outcomes(bench: Workbench) -> dict[str, int]:
    """Wait until all runs have ended, and count their outcomes."""
    await bench.drained()
    rows = await bench.sql("SELECT outcome, count(*) AS n FROM howdah.finished_runs GROUP BY outcome")
    return {row["outcome"]: row["n"] for row in rows}


async def results(bench: Workbench) -> list[Any]:
    """Wait until all runs have ended, and return the different results."""
    await bench.drained()
    rows = await bench.sql("SELECT DISTINCT result::jsonb AS result FROM howdah.finished_runs ORDER BY result")
    return [row["result"] for row in rows]


async def test_timeout_in_a_handler_ends_what_it_waits_for_and_no_more(bench: Workbench) -> None:
    """`asyncio.timeout` cancels the handler's own wait; the handler goes on, and nobody else notices."""

    @howdah.handler("impatient")
    async def impatient(payload: Any) -> str:
        try:
            async with asyncio.timeout(0.05):
                await asyncio.sleep(60)
        except TimeoutError:
            await asyncio.sleep(0)
            return "in time"
        return "late"

    @howdah.handler("brief")
    async def brief(payload: Any) -> str:
        async with asyncio.timeout(0.05):  # noqa: ASYNC100 - it is entered and left without a wait
            return "in time"

    await bench.start()
    await bench.enqueue_items([{"queue": "q", "handler": name} for name in ("brief", "impatient") * 20])

    assert await results(bench) == ["in time"]


async def test_task_group_of_a_handler_waits_for_its_children(bench: Workbench) -> None:
    """A `TaskGroup` belongs to its handler: children run beside it, and the failure of one cancels the others."""

    @howdah.handler("group")
    async def group(payload: bool) -> str:
        ended: list[str] = []

        async def child(name: str) -> None:
            await asyncio.sleep(0.01)
            if payload:
                raise ValueError(name)
            ended.append(name)

        try:
            async with asyncio.TaskGroup() as children:
                children.create_task(child("a"))
                children.create_task(child("b"))
        except* ValueError:
            ended.append("failed")
        return " ".join(ended)

    await bench.start()
    await bench.enqueue("group", False, count=10)
    await bench.enqueue("group", True, count=10)

    assert await results(bench) == ["a b", "failed"]


async def test_current_task_stays_the_same_and_is_no_other_runs(bench: Workbench) -> None:
    """A handler finds the same task before and after a wait, and no two runs that wait have the same."""
    gate = asyncio.Event()
    tasks: list[asyncio.Task[Any] | None] = []

    @howdah.handler("look")
    async def look(payload: Any) -> bool:
        before = asyncio.current_task()
        tasks.append(before)
        await gate.wait()
        return asyncio.current_task() is before

    await bench.start()
    await bench.enqueue("look", count=10)
    await eventually_async(lambda: len(tasks) == 10, 10, "all have started")
    gate.set()

    assert await results(bench) == [True]
    assert len(set(tasks)) == 10


async def test_task_that_a_handler_keeps_is_not_given_to_another_run(bench: Workbench) -> None:
    """A handler that ends without a wait may have asked for its task's cancellation later: that hits nobody."""
    cancelled = 0

    @howdah.handler("keep")
    async def keep(payload: Any) -> None:
        task = asyncio.current_task()
        assert task is not None

        def cancel() -> None:
            nonlocal cancelled
            cancelled += 1
            task.cancel()

        asyncio.get_running_loop().call_later(0.05, cancel)

    @howdah.handler("wait")
    async def wait(payload: Any) -> None:
        await asyncio.sleep(0.2)

    await bench.start()
    await bench.enqueue_items([{"queue": "q", "handler": name} for name in ("keep", "wait") * 20])

    assert await outcomes(bench) == {"succeeded": 40}
    assert cancelled == 20


@pytest.mark.parametrize("takes_back", [False, True])
async def test_handler_that_cancels_itself_and_ends_hits_nobody_else(bench: Workbench, takes_back: bool) -> None:
    """A cancellation that a handler did not live to see, or has taken back, is not another run's."""

    @howdah.handler("quit")
    async def leave(payload: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if takes_back:
            task.uncancel()

    @howdah.handler("wait")
    async def wait(payload: Any) -> None:
        await asyncio.sleep(0.01)

    await bench.start()
    await bench.enqueue_items([{"queue": "q", "handler": name} for name in ("quit", "wait") * 20])

    assert await outcomes(bench) == {"succeeded": 40}


@dataclasses.dataclass
class _Exhausted:
    """A payload that cannot be made, for a reason that means "returned" elsewhere."""

    def __post_init__(self) -> None:
        next(iter(()))


class _Number(msgspec.Struct):
    value: int


@pytest.mark.parametrize("kind", ["async", "waiting", "plain"])
async def test_error_before_or_after_a_handler_fails_its_run_and_frees_its_slot(bench: Workbench, kind: str) -> None:
    """What goes wrong while a payload is read or a result is written is the run's failure, whatever it is."""

    def incomplete(payload: Any) -> _Number:
        made = _Number(1)
        del made.value
        return made

    async def incomplete_async(payload: Any) -> _Number:
        return incomplete(payload)

    async def incomplete_later(payload: Any) -> _Number:
        await asyncio.sleep(0)
        return incomplete(payload)

    howdah.handler("result")({"async": incomplete_async, "waiting": incomplete_later, "plain": incomplete}[kind])

    @howdah.handler("payload")
    async def read(payload: _Exhausted) -> None:
        """Never called."""

    await bench.start(concurrency=2)
    names = ("result", "payload") * 5
    await bench.enqueue_items(
        [{"queue": "q", "handler": name, "payload": {}, "retry": {"max_attempts": 1}} for name in names]
    )

    assert await outcomes(bench) == {"failed": 10}


async def test_event_loop_gets_its_turn_between_handlers_that_work_and_never_wait(bench: Workbench) -> None:
    """Sixty handlers that block for 20 ms each do not block the loop for more than a second in one piece."""
    turns: list[float] = []

    @howdah.handler("work")
    async def work(payload: Any) -> None:
        time.sleep(0.02)  # noqa: ASYNC251 - it stands for computing

    async def tick() -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0)
            turns.append(time.monotonic() - begun)

    await bench.start()
    ticking = asyncio.create_task(tick())
    await bench.enqueue("work", count=60)
    ended = await outcomes(bench)
    ticking.cancel()

    assert ended["succeeded"] == 60
    assert max(turns) < 0.6


@pytest.mark.parametrize("kind", ["async", "waiting", "plain"])
async def test_context_of_a_run_is_its_own_to_the_end(bench: Workbench, kind: str) -> None:
    """What a handler sets in its context it finds after a wait, and no other run finds it."""
    variable = contextvars.ContextVar("variable", default="fresh")

    def mark(payload: int) -> str:
        found = variable.get()
        variable.set(f"marked {payload}")
        return found

    async def mark_async(payload: int) -> str:
        return mark(payload)

    async def mark_and_wait(payload: int) -> str:
        found = mark(payload)
        await asyncio.sleep(0.001)
        return found if variable.get() == f"marked {payload}" else "lost"

    howdah.handler("mark")({"async": mark_async, "waiting": mark_and_wait, "plain": mark}[kind])
    await bench.start(threads=2)
    await bench.enqueue_items([{"queue": "q", "handler": "mark", "payload": number} for number in range(20)])

    assert await results(bench) == ["fresh"]


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_log_records_of_a_handler_name_its_run(bench: Workbench, kind: str) -> None:
    """Records that any logger makes in a handler, or in a task that it leaves behind, say which run it was."""
    entries: list[dict[str, object]] = []
    logger = logging.getLogger("somebody.elses")

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            entries.append(log.entry_of(record))

    left: set[asyncio.Task[None]] = set()

    async def later() -> None:
        await asyncio.sleep(0.01)
        logger.warning("later")

    async def speak(payload: Any, ctx: howdah.Context) -> str:
        logger.warning("before")
        left.add(asyncio.create_task(later()))
        await asyncio.sleep(0.001)
        logger.warning("after")
        return str(ctx.task_id)

    def speak_plainly(payload: Any, ctx: howdah.Context) -> str:
        logger.warning("before")
        return str(ctx.task_id)

    howdah.handler("speak")(speak if kind == "async" else speak_plainly)
    collect = Collect()
    logger.addHandler(collect)
    try:
        await bench.start()
        await bench.enqueue("speak", count=5)
        ids = await results(bench)
        await asyncio.gather(*left)
    finally:
        logger.removeHandler(collect)
    said = {each: sorted(str(entry["event"]) for entry in entries if entry["task_id"] == each) for each in ids}

    assert len(said) == 5
    assert said == dict.fromkeys(ids, ["after", "before", "later"] if kind == "async" else ["before"])
    assert {(entry["run"], entry["attempt"], entry["tenant"]) for entry in entries} == {(1, 1, "default")}


async def test_cancelled_handler_may_wait_while_it_cleans_up(bench: Workbench) -> None:
    """A cancellation is thrown in where the handler waits; what it awaits after that is awaited to its end."""
    cleaned: list[str] = []

    @howdah.handler("careful")
    async def careful(payload: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            cleaned.append("within")
            raise
        finally:
            await asyncio.sleep(0.05)
            cleaned.append("at last")

    await bench.start()
    [task] = await bench.enqueue("careful", timeout="1s")
    await eventually_async(lambda: cleaned, 10, "it cleans up")
    await eventually_async(lambda: len(cleaned) == 2, 10, "it has cleaned up")
    row = await eventually_async(lambda: bench.history(task), 10, "its end is recorded")

    assert cleaned == ["within", "at last"]
    assert row is not None
    assert [each["outcome"] for each in row] == ["timed_out"]


async def test_traceback_begins_at_the_handler_and_names_no_cause_of_ours(bench: Workbench) -> None:
    """Whether it has waited or not, the recorded error of a handler is the handler's."""

    @howdah.handler("fail")
    async def fail(payload: bool) -> None:
        if payload:
            await asyncio.sleep(0)
        raise ValueError("broken")

    await bench.start()
    tasks = [*await bench.enqueue("fail", False), *await bench.enqueue("fail", True)]
    found = [await eventually_async(lambda each=each: bench.history(each), 10, "it has failed") for each in tasks]
    traces = [rows[0]["error"]["traceback"] for rows in found if rows]

    assert len(traces) == 2
    for trace in traces:
        assert trace.count("Traceback") == trace.count("File ") == 1
        assert "in fail" in trace


async def test_plain_functions_run_at_once_up_to_the_number_of_threads(bench: Workbench) -> None:
    """So many as there are threads are under way together, each in one that others use after it."""
    barrier = threading.Barrier(3)
    names: set[str] = set()

    @howdah.handler("meet")
    def meet(payload: Any) -> None:
        names.add(threading.current_thread().name)
        barrier.wait(10)

    await bench.start(threads=3)
    await bench.enqueue("meet", count=30)

    assert await outcomes(bench) == {"succeeded": 30}
    assert len(names) == 3


@pytest.mark.skipif(sys.version_info < (3, 12), reason="functions could not be marked before Python 3.12")
async def test_function_marked_as_async_may_return_anything_that_can_be_awaited(bench: Workbench) -> None:
    """What is awaited need not be a coroutine."""

    def future(payload: Any) -> asyncio.Future[str]:
        made: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(made.set_result, "awaited")
        return made

    if sys.version_info >= (3, 12):
        howdah.handler("future")(inspect.markcoroutinefunction(future))
    await bench.start()
    await bench.enqueue("future")

    assert await results(bench) == ["awaited"]
