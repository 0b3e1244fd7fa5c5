"""Background loops and their restarts."""

import asyncio
import itertools
import logging

import pytest

from howdah.core import supervisor as module
from howdah.core.errors import DatabaseUnavailable, LoopFailed, SchemaRefused, Stopped
from howdah.core.supervisor import CRASHES_MAX, Supervisor


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all pauses between restarts nothing."""
    monkeypatch.setattr(module, "delays", lambda: itertools.repeat(0.0))


@pytest.fixture
def stop() -> asyncio.Event:
    """Give the event that stops the process."""
    return asyncio.Event()


async def run(supervisor: Supervisor) -> None:
    """Run it, with a deadline."""
    await asyncio.wait_for(supervisor.run(), 10)


async def test_run_ends_when_all_loops_have_stopped(stop: asyncio.Event) -> None:
    """The supervisor waits for the slowest loop."""
    ended: list[str] = []
    quick_ended = asyncio.Event()
    supervisor = Supervisor(stop)

    async def quick() -> None:
        await stop.wait()
        ended.append("quick")
        quick_ended.set()

    async def slow() -> None:
        stop.set()
        await quick_ended.wait()
        ended.append("slow")

    supervisor.add("quick", quick)
    supervisor.add("slow", slow)
    await run(supervisor)

    assert ended == ["quick", "slow"]


async def test_run_without_loops_returns(stop: asyncio.Event) -> None:
    """There is nothing to wait for."""
    await run(Supervisor(stop))

    assert Supervisor(stop).fault() is None


async def test_loop_that_crashes_starts_again_beside_the_others(
    stop: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """A crash is logged with its traceback, shows as a fault, and leaves the other loops alone."""
    starts = {"frail": 0, "sound": 0}
    faults: list[str | None] = []
    supervisor = Supervisor(stop)

    async def frail() -> None:
        starts["frail"] += 1
        if starts["frail"] < 3:
            raise ZeroDivisionError("apples")
        faults.append(supervisor.fault())
        stop.set()

    async def sound() -> None:
        starts["sound"] += 1
        await stop.wait()

    supervisor.add("frail", frail)
    supervisor.add("sound", sound)
    await run(supervisor)
    records = [record for record in caplog.records if record.getMessage() == "loop_crashed"]

    assert starts == {"frail": 3, "sound": 1}
    assert faults == ["frail: ZeroDivisionError: apples"]
    assert len(records) == 2
    assert all(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in records)


async def test_loop_that_returns_too_early_starts_again(stop: asyncio.Event) -> None:
    """A loop that ends in silence is treated like one that crashed."""
    starts = 0
    supervisor = Supervisor(stop)

    async def forgetful() -> None:
        nonlocal starts
        starts += 1
        if starts == 2:
            stop.set()

    supervisor.add("forgetful", forgetful)
    await run(supervisor)

    assert starts == 2


async def test_loop_that_crashes_again_and_again_ends_the_process(stop: asyncio.Event) -> None:
    """A broken loop does not crash for ever; the other loops are ended before the error is raised."""
    starts = 0
    cancelled = asyncio.Event()
    supervisor = Supervisor(stop)

    async def broken() -> None:
        nonlocal starts
        starts += 1
        raise ZeroDivisionError

    async def sound() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    supervisor.add("broken", broken)
    supervisor.add("sound", sound)
    with pytest.raises(LoopFailed, match="'broken' crashed"):
        await run(supervisor)
    assert starts == CRASHES_MAX
    assert cancelled.is_set()


async def test_loop_that_was_healthy_is_forgiven(stop: asyncio.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crashes with healthy times between them never add up."""
    monkeypatch.setattr(module, "HEALTHY_AFTER_S", 0.0)
    starts = 0
    supervisor = Supervisor(stop)

    async def crashes_now_and_then() -> None:
        nonlocal starts
        starts += 1
        if starts == 5 * CRASHES_MAX:
            stop.set()
        raise ZeroDivisionError

    supervisor.add("frail", crashes_now_and_then)
    await run(supervisor)

    assert starts == 5 * CRASHES_MAX


async def test_loop_bears_any_outage_of_the_database(stop: asyncio.Event, caplog: pytest.LogCaptureFixture) -> None:
    """PostgreSQL being away is never counted as a crash, and logs no traceback."""
    starts = 0
    supervisor = Supervisor(stop)

    async def waits_for_database() -> None:
        nonlocal starts
        starts += 1
        if starts == 5 * CRASHES_MAX:
            stop.set()
        raise DatabaseUnavailable("refused")

    with caplog.at_level(logging.WARNING):
        supervisor.add("claimer", waits_for_database)
        await run(supervisor)

    assert starts == 5 * CRASHES_MAX
    assert {record.getMessage() for record in caplog.records} == {"loop_interrupted"}
    assert not [record for record in caplog.records if record.exc_info]


async def test_loop_that_refuses_to_go_on_ends_the_process(stop: asyncio.Event) -> None:
    """A schema that became too new is no crash to be repeated."""
    supervisor = Supervisor(stop)

    async def refuses() -> None:
        raise SchemaRefused("the schema is newer")

    supervisor.add("listener", refuses)
    with pytest.raises(SchemaRefused):
        await run(supervisor)


async def test_loop_that_was_stopped_in_a_wait_ends_quietly(
    stop: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """A repetition that is given up because of the stop is a normal end."""
    supervisor = Supervisor(stop)

    async def waits() -> None:
        stop.set()
        raise Stopped("given up")

    supervisor.add("claimer", waits)
    await run(supervisor)

    assert caplog.records == []


async def test_cancelling_run_cancels_every_loop(stop: asyncio.Event) -> None:
    """A drain that takes too long can be cut off."""
    cancelled: list[str] = []
    started = asyncio.Event()
    supervisor = Supervisor(stop)

    async def stubborn() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append("stubborn")

    supervisor.add("stubborn", stubborn)
    running = asyncio.create_task(supervisor.run())
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 5)

    assert cancelled == ["stubborn"]
