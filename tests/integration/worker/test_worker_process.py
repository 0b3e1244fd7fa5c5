"""The worker as a process: exit codes, signals, and an event loop that is blocked for good."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.fix_wait import eventually_async
from tests.fix_worker import LEASE_S

if TYPE_CHECKING:
    import subprocess

    from tests.fix_proxy import CuttingProxy
    from tests.fix_worker import Workbench

pytestmark = [pytest.mark.slow, pytest.mark.one_server]

HANDLERS = """
import asyncio, os, signal, time
import howdah

@howdah.handler("noop")
async def noop(payload): ...

@howdah.handler("sleep")
async def sleep(payload):
    await asyncio.sleep(payload)

@howdah.handler("plain")
def plain(payload, ctx):
    time.sleep(payload)
    return ctx.attempt

@howdah.handler("block")
async def block(payload):
    time.sleep(payload)

# Those that are there when the worker dies, twice.
waiting = 0

@howdah.handler("patient")
async def patient(payload, ctx):
    global waiting
    waiting += 1
    await asyncio.sleep(60 if ctx.attempt < 3 else 0.01)

@howdah.handler("patient.plain")
def patient_plain(payload, ctx):
    global waiting
    waiting += 1
    time.sleep(60 if ctx.attempt < 3 else 0.01)

@howdah.handler("poison")
async def poison(neighbours, ctx):
    while ctx.attempt < 3 and waiting < neighbours:
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""


async def exit_code(process: subprocess.Popen[bytes], timeout_s: float) -> int:
    """Wait for the process's end without blocking the event loop."""
    await eventually_async(lambda: process.poll() is not None, timeout_s, "the process has ended")
    assert process.returncode is not None
    return process.returncode


async def ready(bench: Workbench) -> None:
    """Wait until a spawned worker is ready."""
    await eventually_async(lambda: bench.events("worker_ready"), 20, "the worker is ready")


async def test_event_loop_blocked_past_a_timeout_ends_the_process(bench: Workbench) -> None:
    """The keeper records `timed_out`, hands back what has not started and what else runs, and exits with 70."""
    process = bench.spawn(HANDLERS, HOWDAH_CONCURRENCY="2")
    await ready(bench)
    [blocked] = await bench.enqueue("block", 60, timeout="1s", retry={"max_attempts": 1})
    await eventually_async(lambda: bench.is_running(blocked), 10, "the handler blocks")
    began = time.monotonic()
    row = await bench.ended(blocked, timeout_s=10)
    recorded_s = time.monotonic() - began
    code = await exit_code(process, 20)
    [stuck] = bench.events("loop_stuck")

    assert row["outcome"] == "timed_out"
    assert recorded_s < 5
    assert code == 70
    assert "time.sleep" in stuck["main_thread"]


async def test_runs_beside_a_blocking_handler_are_handed_back(bench: Workbench) -> None:
    """Runs that the process held when its loop blocked spend no attempt, started or not."""
    process = bench.spawn(HANDLERS, HOWDAH_CONCURRENCY="2")
    await ready(bench)
    [beside] = await bench.enqueue("sleep", 60)
    await eventually_async(lambda: bench.is_running(beside), 10, "it runs")
    await bench.enqueue("block", 60, timeout="1s", retry={"max_attempts": 1})
    code = await exit_code(process, 20)
    run = await bench.run(beside)

    assert code == 70
    assert run is not None
    assert (run["lease_token"], run["attempt"], run["crashes"]) == (None, 0, 0)
    assert [row["outcome"] for row in await bench.history(beside)] == ["released"]


async def test_loop_that_answers_again_after_the_timeout_goes_on(bench: Workbench) -> None:
    """A handler that blocks past its timeout but for less than 5 s more costs its own attempt only."""
    process = bench.spawn(HANDLERS)
    await ready(bench)
    [blocked] = await bench.enqueue("block", 4, timeout="1s", retry={"max_attempts": 1})
    row = await bench.ended(blocked)
    [after] = await bench.enqueue("noop")
    done = await bench.ended(after)

    assert row["outcome"] == "timed_out"
    assert done["outcome"] == "succeeded"
    assert process.poll() is None
    assert not bench.events("loop_stuck")


async def test_keeper_survives_a_report_that_is_refused(bench: Workbench) -> None:
    """What PostgreSQL refuses to record for a blocked loop costs that run its outcome, and no other its lease."""
    await bench.sql(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'refused'; END$$"
    )
    await bench.sql(
        "CREATE TRIGGER refuse BEFORE INSERT ON howdah.finished_runs FOR EACH ROW "
        "WHEN (NEW.outcome = 'timed_out') EXECUTE FUNCTION public.refuse()"
    )
    bench.spawn(HANDLERS)
    await ready(bench)
    await bench.enqueue("block", 4, timeout="1s", retry={"max_attempts": 1})
    await eventually_async(lambda: bench.events("runs_not_ended"), 15, "the report was refused")
    [after] = await bench.enqueue("sleep", 2 * LEASE_S)
    row = await bench.ended(after, timeout_s=30)

    assert (row["outcome"], row["claim_no"]) == ("succeeded", 1)
    assert not bench.events("lease_not_renewed")


async def test_worker_stopped_for_longer_than_its_lease_is_refused(bench: Workbench) -> None:
    """A process that slept through its lease (SIGSTOP) records nothing late, and says so in its log."""
    process = bench.spawn(HANDLERS)
    await ready(bench)
    tasks = await bench.enqueue("plain", LEASE_S, count=10)
    for task in tasks:
        await eventually_async(lambda task=task: bench.is_running(task), 10, "it runs")
    process.send_signal(signal.SIGSTOP)
    await bench.rescued(10)
    await bench.start(handlers=(), callbacks=False)
    process.send_signal(signal.SIGCONT)
    await eventually_async(
        lambda: len(bench.events("late_report_refused")) + len(bench.events("lease_lost")) >= 10, 15, "it noticed"
    )
    history = [row for task in tasks for row in await bench.history(task)]

    assert bench.events("late_report_refused") or bench.events("lease_lost")
    assert {row["outcome"] for row in history if row["attempt"] == 1} == {"lost"}
    assert process.poll() is None


async def test_only_the_task_that_kills_its_worker_is_given_up(bench: Workbench) -> None:
    """It dies of its third worker. Tasks that were lost with it twice are executed alone then, and succeed."""
    retry = {"max_attempts": 4, "initial": "0s"}
    good = await bench.enqueue("patient", count=20, retry=retry)
    good += await bench.enqueue("patient.plain", count=3, retry=retry)
    [poison] = await bench.enqueue("poison", len(good), retry={"max_attempts": 10, "initial": "0s"})
    processes: list[subprocess.Popen[bytes]] = []

    async def are_all_ended() -> bool:
        if not processes or processes[-1].poll() is not None:
            processes.append(bench.spawn(HANDLERS))
        await bench.rescue()
        return not await bench.sql("SELECT 1 FROM howdah.runs LIMIT 1")

    await eventually_async(are_all_ended, 60, "all tasks have ended")
    codes = [process.poll() for process in processes]
    dead = await bench.sql("SELECT task_id, reason, crashes FROM howdah.dead_letters")
    histories = {task: [row["outcome"] for row in await bench.history(task)] for task in good}

    assert codes == [-signal.SIGKILL] * 3 + [None]
    assert dead == [{"task_id": poison, "reason": "crashes", "crashes": 3}]
    assert {outcomes[-1] for outcomes in histories.values()} == {"succeeded"}
    assert {tuple(outcomes[:2]) for outcomes in histories.values()} == {("lost", "lost")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_drains_and_exits_with_0(bench: Workbench, number: signal.Signals) -> None:
    """A running handler ends and is recorded, the worker deregisters, the exit code is 0."""
    process = bench.spawn(HANDLERS)
    await ready(bench)
    [task] = await bench.enqueue("sleep", 1)
    await eventually_async(lambda: bench.is_running(task), 10, "it runs")
    process.send_signal(number)
    code = await exit_code(process, 20)
    row = await bench.ended(task)
    [worker] = await bench.sql("SELECT stopped_at FROM howdah.workers")

    assert code == 0
    assert (row["outcome"], row["attempt"]) == ("succeeded", 1)
    assert worker["stopped_at"] is not None


async def test_second_signal_ends_within_seconds(bench: Workbench) -> None:
    """Handlers are cancelled and handed back, and a thread that does not return is left behind."""
    process = bench.spawn(HANDLERS, HOWDAH_DRAIN_S="600")
    await ready(bench)
    [task] = await bench.enqueue("sleep", 600)
    [plain] = await bench.enqueue("plain", 600)
    for each in (task, plain):
        await eventually_async(lambda each=each: bench.is_running(each), 10, "it runs")
    process.send_signal(signal.SIGTERM)
    await eventually_async(lambda: bench.events("drain_began"), 10, "the drain began")
    process.send_signal(signal.SIGTERM)
    code = await exit_code(process, 6)

    assert code == 1
    assert not await bench.is_running(task)
    assert not await bench.is_running(plain)


async def test_handler_module_that_cannot_be_imported_exits_with_64(bench: Workbench) -> None:
    """The log shows the module's own traceback, and a supervisor need not try again."""
    process = bench.spawn("import howdah\nraise RuntimeError('no licence')\n")
    code = await exit_code(process, 20)
    [refused] = bench.events("start_refused")

    assert code == 64
    assert "no licence" in refused["reason"]
    assert "process_handlers.py" in refused["reason"]


async def test_worker_started_before_postgresql_waits_for_it(bench: Workbench, proxy: CuttingProxy) -> None:
    """No crash loop: the process tries again, with pauses, until the server answers."""
    proxy.is_refusing = True
    process = bench.spawn(HANDLERS, HOWDAH_DATABASE_URL=proxy.url)
    await eventually_async(lambda: bench.events("database_unavailable"), 20, "it waits")
    [task] = await bench.enqueue("noop")
    proxy.is_refusing = False
    row = await bench.ended(task, timeout_s=20)

    assert row["outcome"] == "succeeded"
    assert process.poll() is None


async def test_stop_while_postgresql_is_away_ends_at_once(bench: Workbench) -> None:
    """A worker that never reached PostgreSQL obeys SIGTERM."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"postgresql://howdah@127.0.0.1:{nobody.getsockname()[1]}/howdah"
        process = bench.spawn(HANDLERS, HOWDAH_DATABASE_URL=url)
        await eventually_async(lambda: bench.events("database_unavailable"), 20, "it waits")
        process.send_signal(signal.SIGTERM)
        code = await exit_code(process, 10)

    assert code == 0


async def test_idle_worker_is_small(bench: Workbench) -> None:
    """An idle worker has four connections and at most 70 MB of memory."""
    process = bench.spawn(HANDLERS)
    await ready(bench)
    [task] = await bench.enqueue("noop")
    await bench.ended(task)
    await asyncio.sleep(0)
    rows = await bench.sql(
        "SELECT count(*)::int AS n FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name LIKE 'howdah-%%'"
    )
    rss_mb = psutil.Process(process.pid).memory_info().rss / 2**20

    assert rows == [{"n": 4}]
    assert rss_mb <= 70
