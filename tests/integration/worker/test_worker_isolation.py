"""Isolated handlers: they work as others do, and whatever they do, they end when they must."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    import subprocess
    import uuid

    from tests.fix_worker import Row, Workbench

HANDLERS = '''
import asyncio, contextlib, ctypes, os, signal, subprocess, sys, threading, time
import howdah

HERE = os.path.dirname(__file__)


def mark(name, text=None):
    """Leave a file that holds a process id, whole at once."""
    with open(f"{HERE}/{name}.new", "w") as file:
        file.write(str(os.getpid()) if text is None else text)
    os.replace(f"{HERE}/{name}.new", f"{HERE}/{name}")


@howdah.handler("add", isolation="process")
def add(payload: list[int]) -> int:
    return sum(payload)


@howdah.handler("where", isolation="process")
async def where(payload: object) -> dict[str, int]:
    await asyncio.sleep(0)
    return {"pid": os.getpid(), "parent": os.getppid(), "group": os.getpgrp()}


@howdah.handler("tell", isolation="process")
def tell(payload: object, ctx: howdah.Context) -> dict[str, object]:
    ctx.log.info("isolated_log")
    sys.stdout.write("isolated_print\\n")
    sys.stdout.flush()
    left = ctx.remaining_s()
    return {
        "task": str(ctx.task_id), "tenant": ctx.tenant, "queue": ctx.queue, "handler": ctx.handler,
        "attempt": ctx.attempt, "claim_no": ctx.claim_no, "tags": dict(ctx.tags), "cancelled": ctx.cancelled,
        "left": left, "deadline": ctx.deadline_at.timestamp() - left,
    }


@howdah.handler("decide", isolation="process")
def decide(payload: str) -> object:
    if payload == "snooze":
        return howdah.Snooze(3600, "not now")
    if payload == "give_up":
        raise howdah.GiveUp("no such customer")
    if payload == "cancel":
        raise howdah.Cancel("withdrawn")
    if payload == "retry":
        raise howdah.RetryAfter(3600, "closed")
    raise ValueError("broken \\N{GREEK SMALL LETTER PI}")


@howdah.handler("stubborn", isolation="process")
def stubborn(payload: str) -> None:
    """Ignore everything that can be ignored."""
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    grandchild = subprocess.Popen(
        [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
    )
    mark("grandchild", str(grandchild.pid))
    mark("stubborn")
    while True:
        with contextlib.suppress(BaseException):
            while True:
                pass


@howdah.handler("polite", isolation="process")
async def polite(payload: object, ctx: howdah.Context) -> str:
    mark("polite")
    await ctx.cancellation()
    return "stopped"


@howdah.handler("polite.plain", isolation="process")
def polite_plain(payload: object, ctx: howdah.Context) -> str:
    mark("polite")
    ctx.wait_cancelled(60)
    return "stopped"


@howdah.handler("tidy", isolation="process")
def tidy(payload: object) -> None:
    mark("tidy_began")
    try:
        time.sleep(600)
    finally:
        mark("tidied")


@howdah.handler("tidy.async", isolation="process")
async def tidy_async(payload: object) -> None:
    mark("tidy_began")
    try:
        await asyncio.sleep(600)
    finally:
        mark("tidied")


@howdah.handler("die", isolation="process")
def die(payload: str) -> object:
    if payload == "exit":
        os._exit(3)
    if payload == "abort":
        os.abort()
    if payload == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if payload == "segfault":
        ctypes.string_at(0)
    if payload == "close":
        os.closerange(3, 256)
        return "nobody hears this"
    if payload == "garbage":
        for fd in range(3, 64):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                    os.write(fd, b"\\xff" * 100)
        time.sleep(600)
    if payload == "not json":
        return object()
    if payload == "large":
        return "x" * 10_000_000
    if payload == "fork":
        if os.fork() == 0:
            return "the copy"
        return "the original"
    raise AssertionError(payload)


@howdah.handler("say", isolation="process")
def say(payload: str, ctx: howdah.Context) -> None:
    ctx.log("begin")
    ctx.log("careful", level="warning", left=3)
    ctx.progress(0.5, "half")
    if payload == "die":
        os._exit(5)


@howdah.handler("transfer", isolation="process")
def transfer(payload: str, ctx: howdah.Context) -> None:
    ctx.log("before")
    with ctx.transaction() as conn:
        conn.execute("INSERT INTO effects (task_id) VALUES (%s)", [ctx.task_id])
        ctx.set_result({"pid": os.getpid()})
        if payload == "roll back":
            raise ValueError("no")
    if payload == "die":
        os._exit(9)


@howdah.handler("transfer.async", isolation="process")
async def transfer_async(payload: str, ctx: howdah.Context) -> None:
    async with ctx.transaction() as conn:
        await conn.execute("INSERT INTO effects (task_id) VALUES (%s)", [ctx.task_id])
        ctx.set_result("done")


@howdah.handler("inside")
async def inside(payload: object) -> int:
    return os.getpid()
'''


async def ready(bench: Workbench, **environment: str) -> subprocess.Popen[bytes]:
    """Start a worker process with the handlers above."""
    process = bench.spawn(HANDLERS, **environment)
    await eventually_async(
        lambda: bench.events("worker_ready") or process.poll() is not None, 20, "the worker is ready"
    )
    assert process.poll() is None, (bench.directory / "log").read_text()
    return process


async def pid_in(bench: Workbench, name: str) -> int:
    """Wait for a handler's mark."""
    path = bench.directory / name
    await eventually_async(path.exists, 15, f"{name} is there")
    return int(path.read_bytes())


def is_alive(pid: int) -> bool:
    """Whether a process does something still; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def dead(*pids: int, timeout_s: float = 5.0) -> None:
    """Wait until processes have ended."""
    await eventually_async(lambda: not any(map(is_alive, pids)), timeout_s, f"{pids} have ended")


async def result_of(bench: Workbench, handler: str, payload: object = None, **fields: Any) -> Any:
    """Run a task to its success."""
    [task_id] = await bench.enqueue(handler, payload, **fields)
    row = await bench.ended(task_id)
    assert row["outcome"] == "succeeded", (row["error"], (bench.directory / "log").read_text()[-3000:])
    return row["result"]


async def first_failure(bench: Workbench, handler: str, payload: object, **fields: Any) -> Row:
    """Run a task that has one attempt; return its row of history."""
    [task_id] = await bench.enqueue(handler, payload, retry={"max_attempts": 1}, **fields)
    return await bench.ended(task_id)


async def test_isolated_handlers_work_as_others_do(bench: Workbench) -> None:
    """Plain and async functions, context, log and standard output; both beside a handler of the worker itself."""
    process = await ready(bench)

    assert await result_of(bench, "add", [1, 2, 3]) == 6
    assert await result_of(bench, "inside") == process.pid
    where = await result_of(bench, "where")
    assert where == {"pid": where["pid"], "parent": process.pid, "group": where["pid"]}
    told = await result_of(bench, "tell", tags={"color": "red"}, timeout="20s")
    [now] = await bench.sql("SELECT extract(epoch FROM clock_timestamp())::float8 AS at")
    assert told.pop("task")
    assert 0 < told.pop("left") <= 20
    assert abs(told.pop("deadline") - now["at"]) < 3
    assert told == {
        "tenant": "default",
        "queue": "q",
        "handler": "tell",
        "attempt": 1,
        "claim_no": 1,
        "tags": {"color": "red"},
        "cancelled": False,
    }
    await eventually_async(lambda: bench.events("isolated_log"), 5, "the line has been written")
    [line] = bench.events("isolated_log")
    assert (line["pid"], line["attempt"], line["tenant"]) == (where["pid"], 1, "default")
    assert "isolated_print\n" in (bench.directory / "log").read_text()


async def test_decisions_and_errors_of_isolated_handlers_are_recorded(bench: Workbench) -> None:
    """What a handler raises or returns means the same as in the worker itself."""
    await ready(bench)

    ids = {}
    for payload in ("snooze", "give_up", "cancel", "retry", "error"):
        [ids[payload]] = await bench.enqueue("decide", payload)
    assert (await bench.ended(ids["give_up"]))["error"]["type"] == "gave_up"
    assert (await bench.ended(ids["cancel"]))["outcome"] == "cancelled"

    async def rows() -> dict[str, Row] | None:
        found = {name: await bench.history(ids[name]) for name in ("snooze", "retry", "error")}
        return {name: each[0] for name, each in found.items()} if all(found.values()) else None

    found = await eventually_async(rows, 10, "all have been recorded")
    assert found is not None
    assert (found["snooze"]["outcome"], found["snooze"]["attempt"]) == ("released", 1)
    assert (found["retry"]["outcome"], found["retry"]["error"]["type"]) == ("failed", "retry_after")
    assert found["error"]["error"]["message"] == "broken π"
    assert found["error"]["error"]["traceback"].startswith("Traceback")
    assert "howdah_worker" not in found["error"]["error"]["traceback"]


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("payload", "kind", "says"),
    [
        ("exit", "process_died", "exited with code 3"),
        ("abort", "process_died", "SIGABRT"),
        ("kill", "process_died", "SIGKILL"),
        ("segfault", "process_died", "SIGSEGV"),
        ("close", "process_died", "exited with code 70"),
        ("garbage", "process_died", "no message"),
        ("not json", "result_invalid", "cannot be written as JSON"),
        ("large", "result_invalid", "10000002 bytes"),
    ],
)
async def test_what_an_isolated_handler_breaks_is_its_own_attempt(
    bench: Workbench, payload: str, kind: str, says: str
) -> None:
    """A child that crashes or lies is a failed attempt; the worker goes on, with another child."""
    process = await ready(bench)

    row = await first_failure(bench, "die", payload)
    after = await result_of(bench, "add", [1])

    assert (row["outcome"], row["error"]["type"]) == ("failed", kind)
    assert says in row["error"]["message"]
    assert after == 1
    assert process.poll() is None


async def test_attempt_whose_process_died_is_tried_again(bench: Workbench) -> None:
    """`process_died` may be cured by another attempt, and tells the exit code apart."""
    await ready(bench)

    [task_id] = await bench.enqueue("die", "exit", retry={"max_attempts": 2, "initial": "10ms"})
    await bench.ended(task_id)

    rows = await bench.history(task_id)
    assert [(row["attempt"], row["error"]["type"], row["error"]["exit_code"]) for row in rows] == [
        (1, "process_died", 3),
        (2, "process_died", 3),
    ]


async def test_copy_that_a_handler_forks_cannot_speak_for_it(bench: Workbench) -> None:
    """A forked process that returns from the handler ends in silence."""
    await ready(bench)

    assert await result_of(bench, "die", "fork") == "the original"
    assert await result_of(bench, "add", [2]) == 2


async def test_isolated_handler_that_ignores_everything_is_killed_at_its_timeout(bench: Workbench) -> None:
    """So is what it has started; the outcome is recorded when both are dead, and the slot is free again."""
    await ready(bench, HOWDAH_PROCESSES="1")

    [task_id] = await bench.enqueue("stubborn", "", timeout="1s", retry={"max_attempts": 1})
    pids = [await pid_in(bench, name) for name in ("stubborn", "grandchild")]
    row = await bench.ended(task_id)

    assert row["outcome"] == "timed_out"
    assert not any(map(is_alive, pids))
    assert await result_of(bench, "add", [3]) == 3


async def test_hard_cancel_kills_an_isolated_handler(bench: Workbench) -> None:
    """Within a second and the time that the cancel takes to be heard."""
    await ready(bench)
    [task_id] = await bench.enqueue("stubborn", "")
    pids = [await pid_in(bench, name) for name in ("stubborn", "grandchild")]

    await bench.sql("SELECT howdah.cancel(%s, 'hard')", task_id)
    row = await bench.ended(task_id)

    assert row["outcome"] == "cancelled"
    assert not any(map(is_alive, pids))


@pytest.mark.parametrize("handler", ["polite", "polite.plain"])
async def test_soft_cancel_is_told_to_an_isolated_handler(bench: Workbench, handler: str) -> None:
    """It sees it, ends by itself, and its child serves the next run."""
    await ready(bench, HOWDAH_PROCESSES="1")
    [task_id] = await bench.enqueue(handler)
    pid = await pid_in(bench, "polite")

    await bench.sql("SELECT howdah.cancel(%s, 'soft')", task_id)
    row = await bench.ended(task_id)

    assert row["outcome"] == "cancelled"
    assert (await result_of(bench, "where"))["pid"] == pid


@pytest.mark.one_server
@pytest.mark.parametrize("handler", ["tidy", "tidy.async"])
async def test_isolated_handler_may_clean_up_before_it_is_killed(bench: Workbench, handler: str) -> None:
    """SIGTERM comes first: a plain function gets an exception, an async one is cancelled."""
    await ready(bench)
    [task_id] = await bench.enqueue(handler)
    await pid_in(bench, "tidy_began")

    await bench.sql("SELECT howdah.cancel(%s, 'hard')", task_id)
    await bench.ended(task_id)

    assert await pid_in(bench, "tidied") == await pid_in(bench, "tidy_began")


async def test_isolated_handler_whose_lease_is_lost_is_killed(bench: Workbench) -> None:
    """Nothing of it is left when another worker may run the task again."""
    await ready(bench)
    [task_id] = await bench.enqueue("stubborn", "")
    pids = [await pid_in(bench, name) for name in ("stubborn", "grandchild")]

    await bench.sql("UPDATE howdah.runs SET lease_token = gen_random_uuid() WHERE task_id = %s", task_id)

    await dead(*pids)
    assert await bench.history(task_id) == []


async def test_stop_kills_isolated_handlers_after_the_drain(bench: Workbench) -> None:
    """Their runs are handed back, without spending an attempt."""
    process = await ready(bench, HOWDAH_DRAIN_S="1")
    [task_id] = await bench.enqueue("stubborn", "")
    pids = [await pid_in(bench, name) for name in ("stubborn", "grandchild")]

    process.send_signal(signal.SIGTERM)
    code = process.wait(20)

    assert code == 0
    assert not any(map(is_alive, pids))
    [row] = await bench.history(task_id)
    assert row["outcome"] == "released"
    run = await bench.run(task_id)
    assert run is not None
    assert run["attempt"] == 0


async def test_fast_stop_leaves_no_isolated_handler(bench: Workbench) -> None:
    """The second signal ends children before their runs are handed back."""
    process = await ready(bench)
    [task_id] = await bench.enqueue("stubborn", "")
    pids = [await pid_in(bench, name) for name in ("stubborn", "grandchild")]

    process.send_signal(signal.SIGTERM)
    await eventually_async(lambda: bench.events("drain_began"), 10, "it drains")
    process.send_signal(signal.SIGTERM)
    process.wait(20)

    await dead(*pids)
    assert [row["outcome"] for row in await bench.history(task_id)] == ["released"]


async def test_isolated_handlers_end_with_a_worker_that_is_killed(bench: Workbench) -> None:
    """SIGKILL leaves a worker no time to end its children; they, and what they started, end all the same."""
    process = await ready(bench)
    await bench.enqueue("stubborn", "")
    pids = [await pid_in(bench, name) for name in ("stubborn", "grandchild")]

    process.kill()
    process.wait()

    await dead(*pids)


async def test_warden_that_was_killed_is_replaced(bench: Workbench) -> None:
    """With the next child there is another."""
    process = await ready(bench)
    [warden] = _wardens(process.pid)
    os.kill(warden, signal.SIGKILL)
    await first_failure(bench, "die", "exit")
    await bench.enqueue("stubborn", "")
    pids = [await pid_in(bench, name) for name in ("stubborn", "grandchild")]

    [another] = _wardens(process.pid)
    process.kill()
    process.wait()

    assert another != warden
    await dead(another, *pids)


def _wardens(worker: int) -> list[int]:
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with_arguments = each.read_bytes().split(b"\0")
        if with_arguments[-2:-1] == [str(worker).encode()] and any(
            arg.endswith(b"warden.py") for arg in with_arguments
        ):
            found.append(int(each.parent.name))
    return found


async def _effects(bench: Workbench) -> None:
    await bench.sql("CREATE TABLE effects (task_id uuid)")
    await bench.sql("GRANT ALL ON effects TO PUBLIC")


@pytest.mark.parametrize("handler", ["transfer", "transfer.async"])
async def test_transaction_of_an_isolated_handler_commits_with_the_success(bench: Workbench, handler: str) -> None:
    """The child has a connection of its own; the guarantee is the same."""
    await _effects(bench)
    await ready(bench)

    [task_id] = await bench.enqueue(handler, "commit")
    row = await bench.ended(task_id)

    assert row["outcome"] == "succeeded"
    assert row["result"] is not None
    assert await bench.sql("SELECT task_id FROM effects") == [{"task_id": task_id}]


async def _said(bench: Workbench, task_id: uuid.UUID) -> list[tuple[int, str, float | None]]:
    rows = await bench.sql(
        "SELECT level, message, fraction FROM howdah.task_logs WHERE task_id = %s ORDER BY claim_no, seq", task_id
    )
    return [(row["level"], row["message"], row["fraction"]) for row in rows]


@pytest.mark.parametrize("payload", ["return", "die"])
async def test_what_an_isolated_handler_says_of_its_task_is_stored(bench: Workbench, payload: str) -> None:
    """Entries and progress, before the outcome; also those of a child that dies right after."""
    await ready(bench)

    [task_id] = await bench.enqueue("say", payload, retry={"max_attempts": 1})
    await bench.ended(task_id)

    assert await _said(bench, task_id) == [(20, "begin", None), (30, "careful", None), (20, "half", 0.5)]


async def test_what_was_said_before_a_transaction_is_stored_before_its_success(bench: Workbench) -> None:
    """The worker stores it before it lets the child record."""
    await _effects(bench)
    await ready(bench)

    [task_id] = await bench.enqueue("transfer", "commit")
    await bench.ended(task_id)

    assert await _said(bench, task_id) == [(20, "before", None)]


async def test_transaction_of_an_isolated_handler_is_rolled_back(bench: Workbench) -> None:
    """An error leaves neither writes nor success."""
    await _effects(bench)
    await ready(bench)

    row = await first_failure(bench, "transfer", "roll back")

    assert (row["outcome"], row["error"]["type"]) == ("failed", "ValueError"), row["error"]
    assert await bench.sql("SELECT task_id FROM effects") == []


async def test_child_that_dies_after_its_transaction_has_succeeded(bench: Workbench) -> None:
    """What was committed is the outcome; the death is but a line of the log."""
    await _effects(bench)
    await ready(bench)

    [task_id] = await bench.enqueue("transfer", "die")
    row = await bench.ended(task_id)
    assert await result_of(bench, "add", [1]) == 1

    assert row["outcome"] == "succeeded"
    assert len(await bench.history(task_id)) == 1
    errors = [event["error"] for event in bench.events("handler_failed_after_success")]
    assert ["exited with code 9" in error for error in errors] == [True]


HIDDEN = """
import os
import howdah

def declare():
    @howdah.handler("hidden", isolation="process")
    def hidden(payload: object) -> None: ...

if os.getppid() == {worker_parent}:
    declare()
"""


async def test_worker_refuses_isolated_handlers_that_a_child_does_not_find(bench: Workbench) -> None:
    """At its start, with exit code 64 and the place of the handler."""
    process = bench.spawn(HIDDEN.replace("{worker_parent}", str(os.getpid())))

    code = process.wait(20)

    assert code == 64
    [refused] = bench.events("start_refused")
    assert "process_handlers.py:6: the isolated handler 'hidden' is not declared again" in refused["reason"]


BROKEN = """
import os
import howdah

@howdah.handler("fine", isolation="process")
def fine(payload: object) -> None: ...

if os.getppid() != {worker_parent}:
    raise ImportError("not here")
"""


async def test_worker_refuses_modules_that_a_child_cannot_import(bench: Workbench) -> None:
    """The reason is the child's traceback."""
    process = bench.spawn(BROKEN.replace("{worker_parent}", str(os.getpid())))

    code = process.wait(20)

    assert code == 64
    [refused] = bench.events("start_refused")
    assert "ImportError: not here" in refused["reason"]


MADE = """
import howdah

def make(factor):
    return lambda payload: factor * payload

for factor in (2, 3):
    howdah.handler(f"times.{factor}", isolation="process")(make(factor))
"""


async def test_isolated_handlers_may_be_closures_that_a_module_makes(bench: Workbench) -> None:
    """A child imports the module as the worker did, so it has them too."""
    bench.spawn(MADE)

    assert await result_of(bench, "times.3", 5) == 15


async def test_at_most_so_many_isolated_runs_go_on_at_once(bench: Workbench) -> None:
    """Children are as many as there are runs at once, never more than HOWDAH_PROCESSES."""
    process = await ready(bench, HOWDAH_PROCESSES="2")

    pids = {json.dumps(await result_of(bench, "where")) for _ in range(3)}
    ids: list[uuid.UUID] = await bench.enqueue("stubborn", "", count=3)

    async def running() -> list[bool] | None:
        held = [await bench.is_running(each) for each in ids]
        return held if sum(held) == 2 else None

    await eventually_async(running, 10, "two are under way")
    # A run is under way in PostgreSQL before its child has become a program of its own.
    await eventually_async(lambda: len(_children(process.pid)) >= 2, 10, "each of them has a child")
    assert len(pids) == 1
    assert len(_children(process.pid)) == 2


def _children(worker: int) -> list[int]:
    return [
        int(each.parent.name)
        for each in Path("/proc").glob("[0-9]*/cmdline")
        if b"howdah_worker.isolation\0" in each.read_bytes()
        and f"PPid:\t{worker}\n" in (each.parent / "status").read_text()
    ]
