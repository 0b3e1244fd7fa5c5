"""Runs that two workers were lost with, in a worker: each is executed alone, and the worker then goes on."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

import howdah
from howdah_worker import suspects
from tests.fix_wait import eventually_async
from tests.fix_worker import metric

if TYPE_CHECKING:
    import uuid

    from tests.fix_hostile import HostileServer
    from tests.fix_worker import Workbench

pytestmark = pytest.mark.slow


class Stage:
    """What is on: handlers enter and leave, and are held until they are let go."""

    def __init__(self) -> None:
        self.on: list[str] = []
        self.seen: dict[str, list[str]] = {}
        self.held = asyncio.Event()

    def enter(self, name: str) -> None:
        """Take note of who is there already, and of who comes while somebody is."""
        self.seen[name] = list(self.on)
        for other in self.on:
            self.seen[other].append(name)
        self.on.append(name)

    def leave(self, name: str) -> None:
        """Take note of an end."""
        self.on.remove(name)


@pytest.fixture
def stage(handlers: None) -> Stage:
    """Handlers that tell the stage: `short` and `plain` end soon, `held` when it is let go."""
    made = Stage()

    @howdah.handler("short")
    async def short(name: str) -> None:
        made.enter(name)
        await asyncio.sleep(0.02)
        made.leave(name)

    @howdah.handler("held")
    async def held(name: str) -> None:
        made.enter(name)
        await made.held.wait()
        made.leave(name)

    @howdah.handler("plain")
    def plain(name: str) -> None:
        made.enter(name)
        time.sleep(0.02)
        made.leave(name)

    return made


async def suspect(bench: Workbench, handler: str, payload: object = None, **fields: Any) -> uuid.UUID:
    """Store a task that two workers were lost with."""
    [task] = await bench.enqueue(handler, payload, delay="1h", **fields)
    await bench.sql("UPDATE howdah.runs SET crashes = 2 WHERE task_id = %s", task)
    await bench.sql("SELECT howdah.run_now(%s)", task)
    return task


async def alone_state(bench: Workbench, task: uuid.UUID) -> int | None:
    """What the database knows of a run's being alone."""
    run = await bench.run(task)
    state: int | None = run["alone_state"] if run else None
    return state


@pytest.mark.parametrize("handler", ["short", "plain"])
async def test_suspect_starts_when_all_else_has_ended_and_nothing_starts_beside_it(
    bench: Workbench, stage: Stage, handler: str
) -> None:
    """What runs ends first, what is stored meanwhile waits, and afterwards the worker goes on as before."""
    await bench.start(concurrency=10)
    held = await bench.enqueue("held", "held")
    await eventually_async(lambda: "held" in stage.on, 10, "the neighbour runs")
    before = metric("howdah_runs_alone_total")
    task = await suspect(bench, handler, "suspect")
    await eventually_async(lambda: alone_state(bench, task), 10, "the suspect is set aside")
    after = [*await bench.enqueue("short", "after"), *await bench.enqueue("plain", "thread")]
    state = await alone_state(bench, task)
    started = set(stage.seen)
    stage.held.set()
    for each in (*held, task, *after):
        await bench.ended(each)

    assert (state, started) == (1, {"held"})
    assert stage.seen["suspect"] == []
    assert {row["outcome"] for row in await bench.history(task)} == {"succeeded"}
    assert metric("howdah_runs_alone_total") == before + 1


async def test_suspects_are_executed_one_after_the_other(bench: Workbench, stage: Stage) -> None:
    """Each is alone, beside ordinary tasks stored in between, on a worker with room for all of them."""
    names = [f"suspect {number}" for number in range(5)]
    tasks = [await suspect(bench, "short" if number % 2 else "plain", name) for number, name in enumerate(names)]
    tasks += await bench.enqueue("short", "ordinary", count=3)
    await bench.start(concurrency=10)
    for task in tasks:
        await bench.ended(task)

    assert [stage.seen[name] for name in names] == [[]] * 5
    assert metric("howdah_slots_overdue") == 0


async def test_suspect_that_is_never_alone_is_handed_back_and_comes_again(
    bench: Workbench, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It spends no attempt and stays a suspect; meanwhile the worker does other work, and in the end it is its turn."""
    monkeypatch.setattr(suspects, "WAIT_S", 0.5)
    await bench.start(concurrency=2)
    await bench.enqueue("held", "held")
    await eventually_async(lambda: "held" in stage.on, 10, "the neighbour runs")
    task = await suspect(bench, "short", "suspect")
    [other] = await bench.enqueue("short", "other")

    async def is_back() -> bool:
        return [row["outcome"] for row in await bench.history(task)] == ["released"]

    await eventually_async(is_back, 10, "it was handed back")
    run = await bench.run(task)
    row = await bench.ended(other)
    stage.held.set()
    last = await bench.ended(task, timeout_s=30)

    assert run is not None
    assert (run["attempt"], run["crashes"], run["alone_state"]) == (0, 2, None)
    assert row["outcome"] == "succeeded"
    assert (last["outcome"], last["attempt"]) == ("succeeded", 1)
    assert stage.seen["suspect"] == []


async def test_wait_of_a_suspect_takes_nothing_from_its_timeout(bench: Workbench, stage: Stage) -> None:
    """A task of a short timeout keeps its lease while it waits for longer than that, and then has all of its time."""
    await bench.start(concurrency=2)
    await bench.enqueue("held", "held")
    await eventually_async(lambda: "held" in stage.on, 10, "the neighbour runs")
    task = await suspect(bench, "short", "suspect", timeout="1s")
    waited = time.monotonic() + 3

    async def has_waited() -> bool:
        return time.monotonic() > waited and await alone_state(bench, task) == 1

    await eventually_async(has_waited, 10, "it has waited for three times its timeout")
    stage.held.set()
    row = await bench.ended(task)

    assert (row["outcome"], row["claim_no"]) == ("succeeded", 1)


async def test_worker_that_stops_hands_its_suspects_back(bench: Workbench, stage: Stage) -> None:
    """Those that wait spend no attempt; what runs beside them ends."""
    worker = await bench.start(concurrency=2)
    [held] = await bench.enqueue("held", "held")
    await eventually_async(lambda: "held" in stage.on, 10, "the neighbour runs")
    task = await suspect(bench, "short", "suspect")
    await eventually_async(lambda: alone_state(bench, task), 10, "the suspect is set aside")
    worker.service.stop()
    await eventually_async(lambda: bench.history(task), 10, "it was handed back")
    stage.held.set()
    await worker.stop()
    run = await bench.run(task)

    assert run is not None
    assert (run["attempt"], run["crashes"], run["lease_token"]) == (0, 2, None)
    assert (await bench.ended(held))["outcome"] == "succeeded"


async def test_suspect_that_is_cancelled_while_it_waits_keeps_nobody(bench: Workbench, stage: Stage) -> None:
    """It ends as cancelled, unstarted, and the worker claims again although its neighbour goes on."""
    await bench.start(concurrency=2)
    await bench.enqueue("held", "held")
    await eventually_async(lambda: "held" in stage.on, 10, "the neighbour runs")
    task = await suspect(bench, "short", "suspect")
    await eventually_async(lambda: alone_state(bench, task), 10, "the suspect is set aside")
    await bench.sql("SELECT howdah.cancel(%s)", task)
    row = await bench.ended(task)
    [other] = await bench.enqueue("short", "other")
    after = await bench.ended(other)
    stage.held.set()

    assert row["outcome"] == "cancelled"
    assert "suspect" not in stage.seen
    assert after["outcome"] == "succeeded"


async def test_suspect_that_fails_without_harm_is_a_suspect_no_more(bench: Workbench, stage: Stage) -> None:
    """It was executed alone and its worker lives: its next attempt runs beside others again."""

    @howdah.handler("fails")
    async def fails(payload: object) -> None:
        raise RuntimeError("in vain")

    await bench.start()
    task = await suspect(bench, "fails", retry={"initial": "1h", "max": "1h"})

    async def has_failed() -> bool:
        return [row["outcome"] for row in await bench.history(task)] == ["failed"]

    await eventually_async(has_failed, 10, "it has failed")
    run = await bench.run(task)

    assert run is not None
    assert (run["attempt"], run["crashes"]) == (1, 0)


async def test_callback_is_no_suspect(bench: Workbench, stage: Stage, hostile: HostileServer) -> None:
    """It runs no code of the user's in the worker, so it need not wait for a long neighbour."""
    await bench.start(concurrency=2, callback_allow_cidrs=(ip_network("127.0.0.0/8"),))
    await bench.enqueue("held", "held")
    await eventually_async(lambda: "held" in stage.on, 10, "the neighbour runs")
    [task] = await bench.enqueue_items([{"queue": "q", "http": {"url": hostile.url("ok")}, "delay": "1h"}])
    await bench.sql("UPDATE howdah.runs SET crashes = 2 WHERE task_id = %s", task)
    await bench.sql("SELECT howdah.run_now(%s)", task)
    row = await bench.ended(task)
    on = list(stage.on)
    stage.held.set()

    assert row["outcome"] == "succeeded"
    assert on == ["held"]
