"""Threads for plain functions: each run is performed once and told of once, whatever ends together."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from howdah_worker.handler_threads import HandlerThreads
from howdah_worker.run import Stage
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    import pytest


class FakeRun:
    """What the threads look at of a run."""

    def __init__(self, name: object, stage: Stage = Stage.RUNNING) -> None:
        self.name = name
        self.stage = stage


def runs_of(*names: object) -> list[Any]:
    """Runs that are to be performed."""
    return [FakeRun(name) for name in names]


class Told:
    """Collects what the event loop is told."""

    def __init__(self) -> None:
        self.runs: list[Any] = []
        self.messages = 0

    def __call__(self, ended: Any) -> None:
        """Take note of runs that ended."""
        assert threading.current_thread() is threading.main_thread()
        self.messages += 1
        self.runs += [run.name for run, _ in ended]


async def test_every_run_is_performed_and_told_of_once() -> None:
    """However many are given at once, none is lost and none comes twice."""
    told = Told()
    performed: list[Any] = []
    perform: Any = lambda run: performed.append(run.name)  # noqa: E731
    threads = HandlerThreads(4, asyncio.get_running_loop(), perform, told)
    runs = list(range(2_000))
    left = runs_of(*runs)
    try:
        while len(told.runs) < len(runs):
            while left and threads.free:
                threads.give(left.pop())
            await asyncio.sleep(0)
    finally:
        threads.end()

    assert sorted(performed) == sorted(told.runs) == runs
    assert threads.free == 4


async def test_runs_that_end_while_the_loop_is_busy_come_in_one_message() -> None:
    """One message tells of all of them."""
    told = Told()
    barrier = threading.Barrier(4)
    threads = HandlerThreads(3, asyncio.get_running_loop(), lambda run: barrier.wait(10), told)  # type: ignore[arg-type,return-value]
    for run in runs_of("a", "b", "c"):
        threads.give(run)
    barrier.wait(10)
    threads.end()
    for thread in threads._threads:
        thread.join(10)
    await eventually_async(lambda: told.runs, 10, "the loop is told")

    assert (sorted(told.runs), told.messages) == (["a", "b", "c"], 1)


async def test_threads_are_started_when_needed_and_end_when_told() -> None:
    """A worker without plain functions has no threads for them, and none is left at its end."""
    told = Told()
    threads = HandlerThreads(8, asyncio.get_running_loop(), lambda run: run, told)  # type: ignore[arg-type,return-value]
    [run] = runs_of("run")

    assert threads._threads == []

    for count in (1, 2, 3):
        threads.give(run)
        await eventually_async(lambda count=count: len(told.runs) == count, 10, "it has ended")
    [thread] = threads._threads
    threads.end()
    thread.join(10)

    assert not thread.is_alive()


async def test_end_forgets_what_no_thread_has_begun() -> None:
    """What waits for a thread at the end is not begun any more; the thread at work ends after that."""
    told = Told()
    gate = threading.Event()
    begun: list[Any] = []

    def perform(run: Any) -> Any:
        begun.append(run.name)
        gate.wait(10)

    threads = HandlerThreads(1, asyncio.get_running_loop(), perform, told)
    first, second = runs_of("first", "second")
    threads.give(first)
    await eventually_async(lambda: begun, 10, "it has begun")
    threads._runs.put(second)
    threads.end()
    gate.set()
    threads._threads[0].join(10)

    assert begun == ["first"]


async def test_run_waits_for_a_thread_where_the_system_gives_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs for which only one thread can be had are performed by it, one after the other."""
    told = Told()
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def start_one(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    threads = HandlerThreads(2, asyncio.get_running_loop(), lambda run: None, told)  # type: ignore[arg-type,return-value]
    for run in runs_of("a", "b"):
        threads.give(run)
    await eventually_async(lambda: sorted(told.runs) == ["a", "b"], 10, "both are performed")
    threads.end()

    assert threads.free == 2


async def test_run_waits_for_a_thread_where_the_system_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run for which there is no thread at all is performed once one can be had, for the next run."""
    told = Told()
    refusals = [RuntimeError("can't start new thread")]
    start = threading.Thread.start

    def start_later(thread: threading.Thread) -> None:
        if refusals:
            raise refusals.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_later)
    threads = HandlerThreads(2, asyncio.get_running_loop(), lambda run: None, told)  # type: ignore[arg-type,return-value]
    for run in runs_of("a", "b"):
        threads.give(run)
    await eventually_async(lambda: sorted(told.runs) == ["a", "b"], 10, "both are performed")
    threads.end()

    assert threads.free == 2


async def test_run_whose_outcome_is_recorded_is_not_performed_any_more() -> None:
    """Its timeout came while it waited for a thread: another worker may be at it, and only its slot is given back."""
    told = Told()
    performed: list[Any] = []
    threads = HandlerThreads(1, asyncio.get_running_loop(), performed.append, told)  # type: ignore[arg-type]
    late: Any = FakeRun("late", Stage.REPORTED)
    threads.give(late)
    await eventually_async(lambda: told.runs, 10, "the loop is told")
    threads.end()

    assert (performed, told.runs, threads.free) == ([], ["late"], 1)
