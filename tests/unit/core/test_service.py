"""Start, signals and end of a background process, seen from outside."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from howdah.core.service import FAST_STOP_S_MAX, ExitCode
from tests.fix_wait import eventually

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "exit-codes.md"
PRELUDE = """
import asyncio, os, sys, threading, time
from howdah.core.errors import *
from howdah.core.service import ExitCode, abort, leave, run
from howdah.core.settings import Settings
environ = {"HOWDAH_DATABASE_URL": "postgresql://u:canary@h/d"} | dict(each.split("=") for each in sys.argv[1:])
settings = Settings.from_env(environ)
"""
CALL = "\nleave(run(main, settings, 'worker'))\n"
IDLE = """
async def main(service):
    sys.stderr.write("up\\n"); sys.stderr.flush()
    await service.stopping.wait()
"""
DRAINS_FOREVER = """
async def main(service):
    sys.stderr.write("up\\n"); sys.stderr.flush()
    await service.stopping.wait()
    sys.stderr.write("draining\\n"); sys.stderr.flush()
    await service.stopping_fast.wait()
"""
BLOCKED = """
async def main(service):
    sys.stderr.write("up\\n"); sys.stderr.flush()
    time.sleep(60)
"""

Process = subprocess.Popen[str]
Start = Callable[..., Process]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process around a main coroutine; it is killed in the end if it still runs."""
    processes: list[Process] = []

    def popen(code: str, *environ: str) -> Process:
        process = subprocess.Popen(
            [sys.executable, "-Ic", PRELUDE + code + CALL, *environ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield popen
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(process: Process, word: str) -> None:
    """Wait until the process has written a word to its standard error."""
    assert process.stderr is not None
    assert process.stderr.readline() == f"{word}\n"


def wait_until_taken(process: Process, number: signal.Signals) -> None:
    """Wait until a signal is not pending any more: a second one of its kind would be merged with it."""

    def is_taken() -> bool:
        status = Path(f"/proc/{process.pid}/status").read_text()
        pending = re.findall(r"^(?:SigPnd|ShdPnd):\s+([0-9a-f]+)", status, re.MULTILINE)
        return not any(int(mask, 16) & 1 << (number - 1) for mask in pending)

    eventually(is_taken, 10, "the signal is taken")


def end_of(process: Process) -> tuple[int, list[dict[str, Any]]]:
    """Wait for the end; return the exit code and the log."""
    out, err = process.communicate(timeout=30)
    assert err == "", err
    return process.returncode, [json.loads(line) for line in out.splitlines()]


def events(entries: list[dict[str, Any]]) -> list[str]:
    """Return the events of a log."""
    return [entry["event"] for entry in entries]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_stops_gracefully(start: Start, number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C let main drain; the process says so and exits with 0."""
    process = start(IDLE)
    wait_for(process, "up")
    process.send_signal(number)
    code, entries = end_of(process)

    assert code == ExitCode.DRAINED
    assert events(entries) == ["process_started", "stop_requested", "process_stopped"]
    assert entries[0]["process"] == "worker"
    assert "canary" not in json.dumps(entries)


def test_second_signal_stops_fast(start: Start) -> None:
    """A second signal during the drain ends it, and the exit code tells that nothing was drained."""
    process = start(DRAINS_FOREVER)
    wait_for(process, "up")
    process.send_signal(signal.SIGTERM)
    wait_for(process, "draining")
    process.send_signal(signal.SIGTERM)
    code, entries = end_of(process)

    assert code == ExitCode.FAILED
    assert events(entries)[1:] == ["stop_requested", "fast_stop_requested", "process_stopped"]


@pytest.mark.slow
def test_second_signal_ends_a_process_whose_loop_is_blocked(start: Start) -> None:
    """A handler that blocks the event loop cannot hold up a fast stop; the log shows where it hung."""
    process = start(BLOCKED)
    wait_for(process, "up")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    code, entries = end_of(process)

    assert code == ExitCode.FAILED
    assert events(entries)[-1] == "fast_stop_timed_out"
    assert "time.sleep" in entries[-1]["main_thread"] or "in main" in entries[-1]["main_thread"]
    assert FAST_STOP_S_MAX - 0.5 < time.monotonic() - began < FAST_STOP_S_MAX + 5


@pytest.mark.slow
def test_signal_that_does_not_interrupt_a_blocking_call_is_heard_during_it(start: Start) -> None:
    """A signal just before a blocking call, or taken by another thread, used to wait for the end of the call."""
    process = start(
        "import signal\n"
        "async def main(service):\n"
        # What the kernel then gives to other threads leaves the main thread asleep.
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "    sys.stderr.write('up\\n'); sys.stderr.flush()\n"
        "    time.sleep(60)\n"
    )
    wait_for(process, "up")
    process.send_signal(signal.SIGTERM)
    wait_until_taken(process, signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    code, entries = end_of(process)

    assert code == ExitCode.FAILED
    assert events(entries)[-1] == "fast_stop_timed_out"


@pytest.mark.slow
def test_child_that_a_handler_forks_has_signals_of_its_own(start: Start) -> None:
    """Ending a forked child with SIGTERM ends the child, and does not stop its parent."""
    process = start(
        "import signal, warnings\n"
        "warnings.simplefilter('ignore')\n"  # Of forks beside threads.
        "async def main(service):\n"
        "    here, there = os.pipe()\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os.write(there, b'x')\n"
        "        time.sleep(60)\n"
        "    os.read(here, 1)\n"
        "    os.kill(child, signal.SIGTERM)\n"
        "    _, status = os.waitpid(child, 0)\n"
        "    sys.stderr.write(f'{os.waitstatus_to_exitcode(status)}\\n'); sys.stderr.flush()\n"
        "    await service.stopping.wait()\n"
    )
    wait_for(process, "-15")
    process.send_signal(signal.SIGTERM)
    code, entries = end_of(process)

    assert code == ExitCode.DRAINED
    assert events(entries) == ["process_started", "stop_requested", "process_stopped"]


def test_main_that_returns_ends_the_process(start: Start) -> None:
    """A main that has nothing to do exits with 0; tasks that it left are cancelled."""
    code, entries = end_of(start("async def main(service): service.left = asyncio.create_task(asyncio.sleep(99))"))

    assert code == ExitCode.DRAINED
    assert events(entries) == ["process_started", "process_stopped"]


@pytest.mark.parametrize(
    ("error", "code", "event"),
    [
        ("SettingInvalid('HOWDAH_QUEUES', 'is wrong')", ExitCode.SETTING_INVALID, "start_refused"),
        ("HandlerImportFailed('jobs', 'Traceback …')", ExitCode.SETTING_INVALID, "start_refused"),
        ("SchemaRefused('is newer')", ExitCode.SCHEMA_REFUSED, "start_refused"),
        ("ServerRefused('fsync is off')", ExitCode.SCHEMA_REFUSED, "start_refused"),
        ("ClockSkewed(9.0, 5.0)", ExitCode.SCHEMA_REFUSED, "start_refused"),
        ("LoopFailed('claimer')", ExitCode.FAILED, "loop_failed"),
        ("ReportsLost('2 outcomes')", ExitCode.FAILED, "process_failed"),
        ("ZeroDivisionError('apples')", ExitCode.FAILED, "process_crashed"),
    ],
)
def test_error_of_main_decides_the_exit_code(start: Start, error: str, code: ExitCode, event: str) -> None:
    """Each kind of refusal has its exit code; the log says why, with a traceback for what was not expected."""
    returncode, entries = end_of(start(f"async def main(service): raise {error}"))

    assert returncode == code
    assert events(entries) == ["process_started", event, "process_stopped"]
    assert ("trace" in entries[1]) == (event == "process_crashed")


def test_stop_during_a_wait_for_the_database_is_a_clean_end(start: Start) -> None:
    """A process that never reached PostgreSQL stops cleanly all the same."""
    process = start(
        "from howdah.core.backoff import retry_forever\n"
        "async def fails(): raise DatabaseUnavailable('refused')\n"
        "async def main(service):\n"
        "    sys.stderr.write('up\\n'); sys.stderr.flush()\n"
        "    await retry_forever(fails, 'connect', service.stopping)\n"
    )
    wait_for(process, "up")
    process.send_signal(signal.SIGTERM)
    code, entries = end_of(process)

    assert code == ExitCode.DRAINED
    assert events(entries)[-1] == "process_stopped"


@pytest.mark.slow
def test_abort_from_a_thread_ends_a_stuck_process(start: Start) -> None:
    """The keeper can end a process whose loop hangs; the log shows the line that hung."""
    code, entries = end_of(
        start(
            "async def main(service):\n"
            "    threading.Timer(0.2, abort, (ExitCode.LOOP_STUCK, 'loop_stuck')).start()\n"
            "    time.sleep(60)\n"
        )
    )

    assert code == ExitCode.LOOP_STUCK == 70
    assert events(entries)[-1] == "loop_stuck"
    assert "in main" in entries[-1]["main_thread"]


def test_leave_does_not_wait_for_threads_of_handlers(start: Start) -> None:
    """A plain function that never returns cannot keep a drained process alive."""
    code, entries = end_of(
        start(
            "async def main(service):\n"
            "    threading.Thread(target=time.sleep, args=(60,), name='stuck').start()\n"
            "    asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)\n"
        )
    )

    assert code == ExitCode.DRAINED
    assert entries[-1]["event"] == "threads_abandoned"
    assert "stuck" in entries[-1]["threads"]


async def test_metrics_port_serves_while_the_process_runs_and_says_when_it_stops(start: Start) -> None:
    """The port is open from the start on, and readiness goes with the first signal."""
    process = start(DRAINS_FOREVER, "HOWDAH_METRICS_PORT=0")
    wait_for(process, "up")
    assert process.stdout is not None
    opened = next(entry for line in process.stdout if (entry := json.loads(line))["event"] == "metrics_port_opened")

    async def status(path: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", opened["port"])
        writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answer

    assert b"200 OK" in await status("/readyz")
    process.send_signal(signal.SIGTERM)
    wait_for(process, "draining")

    assert b"503" in (stopping := await status("/readyz"))
    assert b"the process is to stop" in stopping
    assert b"200 OK" in await status("/healthz")
    assert b"howdah_runs_running" in await status("/metrics")


def test_metrics_port_in_use_is_a_setting_to_change(start: Start) -> None:
    """A busy port stops the start with code 64 and names the variable."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        code, entries = end_of(start(IDLE, f"HOWDAH_METRICS_PORT={busy.getsockname()[1]}"))

    assert code == ExitCode.SETTING_INVALID
    assert entries[-2]["reason"].startswith("HOWDAH_METRICS_PORT: cannot listen")


def test_reference_page_lists_the_exit_codes() -> None:
    """docs/reference/exit-codes.md has one row per code with what the code's docstring says."""
    rows = [line for line in REFERENCE.read_text().splitlines() if re.match(r"\| \d", line)]
    source = Path(sys.modules[ExitCode.__module__].__file__ or "").read_text()
    meanings = dict(re.findall(r'    ([A-Z_]+) = \d+\n    """(.*)"""', source))

    assert rows == [f"| {code.value} | {code.name.lower()} | {meanings[code.name]} |" for code in ExitCode]
