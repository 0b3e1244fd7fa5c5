"""`howdah up`: everything runs after one command, and nothing is left after its end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import urllib.request
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

from howdah.up.directory import identity_of
from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fix_up import Up

pytestmark = pytest.mark.slow


def _shell(line: str) -> str:
    return subprocess.run(["sh", "-c", line], check=True, capture_output=True, text=True, timeout=30).stdout


def _post(up: Up, handler: str, payload: object) -> str:
    task = up.request("POST", "/v1/tasks", {"queue": "q", "handler": handler, "payload": payload})
    return str(task["id"])


@pytest.mark.system("curl")
def test_printed_lines_work_when_pasted(up: Callable[..., Up]) -> None:
    """The three curl lines post a task, show that it succeeded, and show its queue; its result can be read by id."""
    running = up().started()
    post, tasks, stats = running.curls
    posted = json.loads(_shell(post))
    seen = eventually(
        lambda: [task for task in json.loads(_shell(tasks))["data"] if task["state"] == "succeeded"], 10, "it succeeded"
    )

    assert [task["id"] for task in seen] == [posted["id"]]
    assert running.request("GET", f"/v1/tasks/{posted['id']}")["result"] == {"greeting": "Hello, world!"}
    assert json.loads(_shell(stats))["queue"] == "hello"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_leaves_nothing_running(up: Callable[..., Up], number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end every process, PostgreSQL last and cleanly, with exit code 0."""
    running = up("--workers", "2").started()
    pids = [*running.child_pids, running.postmaster_pid]
    code = running.stop(number)

    assert code == 0
    assert len(pids) == 5
    assert [pid for pid in pids if identity_of(pid) is not None] == []
    assert "database system is shut down" in (running.data / "pg.log").read_text()
    assert not (running.data / "up.json").exists()
    assert running.lines[-1] == "stopped"


def test_key_is_kept_for_its_owner_and_over_restarts(up: Callable[..., Up]) -> None:
    """The first API key lies in a file that only its owner reads, and the next start goes on with it and the data."""
    first = up().started()
    task = _post(first, "demo.greet", {})
    eventually(lambda: first.request("GET", f"/v1/tasks/{task}")["state"] == "succeeded", 10, "it succeeded")
    first.stop()
    second = up().started()
    file = second.data / "api-key"

    assert second.key == first.key == file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert second.request("GET", f"/v1/tasks/{task}")["state"] == "succeeded"


def test_start_after_kill_of_everything(up: Callable[..., Up]) -> None:
    """After kill -9 of all processes at once the next start recovers, and what was accepted is there."""
    first = up().started()
    task = first.request("POST", "/v1/tasks", {"queue": "q", "handler": "demo.greet", "delay": "1h"})["id"]
    first.kill_all()
    second = up().started()

    assert second.key == first.key
    assert second.request("GET", f"/v1/tasks/{task}")["state"] == "scheduled"


def test_children_and_server_end_with_a_killed_parent(up: Callable[..., Up]) -> None:
    """Kill -9 of howdah up alone takes all of its processes along, and the next start works."""
    first = up().started()
    pids = [*first.child_pids, first.postmaster_pid]
    first.process.kill()
    first.wait()
    eventually(lambda: [pid for pid in pids if identity_of(pid)] == [], 20, "its processes are gone")
    second = up().started()

    assert second.key == first.key


def test_leftovers_are_ended_by_the_next_start(up: Callable[..., Up], server_directory: Path) -> None:
    """A recorded process that outlived its howdah up is ended; one that only has the same id is not."""
    left, stranger = (subprocess.Popen(["sleep", "600"]) for _ in range(2))
    try:
        data = server_directory / "a b"
        data.mkdir(mode=0o711)
        children = [
            {"pid": left.pid, "identity": identity_of(left.pid)},
            {"pid": stranger.pid, "identity": "another boot 1"},
        ]
        (data / "up.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": 1, "children": children}))
        running = up().started()

        assert left.wait(5) == -signal.SIGKILL
        assert stranger.poll() is None
        assert "ended 1 process" in running.text
    finally:
        for each in (left, stranger):
            each.kill()
            each.wait()


def test_directory_in_use_is_refused_with_url_and_pid(up: Callable[..., Up]) -> None:
    """A second howdah up on a directory ends with 1 and says who uses it; the first goes on."""
    first = up().started()
    second = up()
    code = second.wait()

    assert code == 1
    assert re.search(rf"in use by howdah up at {first.url} \(pid {first.process.pid}\)", second.text)
    assert first.request("GET", "/v1/queues")["data"] == []


def test_two_directories_run_side_by_side(up: Callable[..., Up]) -> None:
    """Two on two directories have nothing in common: neither port, nor key, nor tasks."""
    both = [up(name="one"), up(name="two")]
    one, two = (each.started() for each in both)
    _post(one, "demo.greet", {})

    assert one.url != two.url
    assert one.key != two.key
    assert two.request("GET", "/v1/tasks")["data"] == []


def test_busy_port_is_refused_before_anything_starts(up: Callable[..., Up]) -> None:
    """A port that is taken is named, with exit code 1, and no directory is made."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = up("--port", str(port))
        code = refused.wait()

    assert code == 1
    assert f"port {port} cannot be used" in refused.text
    assert not refused.data.exists()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"HOWDAH_CONCURRENCY": "none"}, "HOWDAH_CONCURRENCY"),
        ({"HOWDAH_METRICS_PORT": "9100"}, "HOWDAH_METRICS_PORT: must be 0 or unset for howdah up"),
        ({"HOWDAH_API_SOCKET": "/run/api.sock"}, "HOWDAH_API_SOCKET: must be unset for howdah up"),
        ({"HOWDAH_API_PORT": "80"}, "choose with --port"),
    ],
)
def test_wrong_setting_ends_everything_with_64(up: Callable[..., Up], environment: dict[str, str], words: str) -> None:
    """What no restart can cure, or cannot count here, is said once, before anything is started."""
    refused = up(**environment)
    code = refused.wait()

    assert code == 64
    assert words in refused.text
    assert len(refused.lines) == 1
    assert not refused.data.exists()


def test_handlers_that_cannot_be_imported_are_refused_before_the_greeting(
    up: Callable[..., Up], tmp_path: Path
) -> None:
    """Nobody is told that it is up: there is the traceback, which process it was, and exit code 64."""
    module = tmp_path / "broken_handlers.py"
    module.write_text("import howdah\n\n1 / 0\n")
    refused = up("--workers", "2", PYTHONPATH=str(tmp_path), HOWDAH_HANDLERS="broken_handlers")
    code = refused.wait()

    assert code == 64
    assert f'File "{module}", line 3, in <module>' in refused.text
    assert "ZeroDivisionError: division by zero" in refused.text
    reason = "cannot start because of a setting: the handler module 'broken_handlers' could not be imported"
    assert refused.lines[-1] in [f"howdah: worker-{number} {reason}" for number in (1, 2)]
    assert "is up at" not in refused.text
    assert "curl" not in refused.text


SLOW_HANDLERS: Final = """
import threading
import howdah

threading.Event().wait(3)

@howdah.handler("slow")
def slow(payload: int) -> int:
    return payload
"""


def test_greeting_waits_for_every_worker(up: Callable[..., Up], tmp_path: Path) -> None:
    """Who is told that it is up can have handlers run at once: also such as take their time to import."""
    (tmp_path / "slow_handlers.py").write_text(SLOW_HANDLERS)
    running = up("--workers", "2", PYTHONPATH=str(tmp_path), HOWDAH_HANDLERS="slow_handlers").started()
    workers = running.request("GET", "/v1/workers")["data"]

    assert [(each["state"], "slow" in each["handlers"]) for each in workers] == [("live", True)] * 2


def test_metrics_of_each_process_are_served_on_a_free_port(up: Callable[..., Up]) -> None:
    """HOWDAH_METRICS_PORT=0 counts here too: each process takes a port of its own and logs which."""
    running = up(HOWDAH_METRICS_PORT="0").started()
    opened = [
        json.loads(line)
        for name in ("scheduler", "worker-1")
        for line in (running.data / "logs" / f"{name}.log").read_text().splitlines()
        if "metrics_port_opened" in line
    ]
    answers = []
    for entry in opened:
        with urllib.request.urlopen(f"http://127.0.0.1:{entry['port']}/healthz", timeout=5) as answer:
            answers.append(answer.status)

    assert answers == [200, 200]


def test_child_that_dies_is_started_again(up: Callable[..., Up]) -> None:
    """A killed worker is replaced, which is said, and work goes on."""
    running = up().started()
    api, scheduler, worker = running.child_pids
    os.kill(worker, signal.SIGKILL)
    running.wait_for(rf"worker-1 \(pid {worker}\) was ended by SIGKILL; starting it again in 0\.5 s")
    eventually(lambda: worker not in running.child_pids, 10, "another worker is recorded")
    task = _post(running, "demo.greet", {})
    eventually(lambda: running.request("GET", f"/v1/tasks/{task}")["state"] == "succeeded", 20, "it succeeded")

    assert running.child_pids[:2] == [api, scheduler]


def test_server_that_dies_is_started_again(up: Callable[..., Up]) -> None:
    """A killed PostgreSQL is recovered, which is said, and work goes on with the same processes."""
    running = up().started()
    before = running.child_pids
    os.kill(running.postmaster_pid, signal.SIGKILL)
    running.wait_for("PostgreSQL ended; starting it again")

    def succeeds() -> bool:
        with contextlib.suppress(OSError):
            task = _post(running, "demo.greet", {})
            return eventually(lambda: running.request("GET", f"/v1/tasks/{task}")["state"] == "succeeded", 10, "it ran")
        return False

    eventually(succeeds, 30, "tasks are run again")

    assert running.child_pids == before


def test_stop_while_starting_leaves_nothing_running(up: Callable[..., Up]) -> None:
    """Ctrl-C before it is up stops as cleanly."""
    starting = up()
    eventually((starting.data / "pg").is_dir, 30, "the cluster is made")
    code = starting.stop()

    assert code == 0
    assert not (starting.data / "pg" / "postmaster.pid").exists()


def test_database_url_is_used_instead_of_an_embedded_server(up: Callable[..., Up], blank_database: str) -> None:
    """With HOWDAH_DATABASE_URL there is no server of ours: the schema and the work are in that database."""
    running = up(HOWDAH_DATABASE_URL=blank_database).started()
    task = _post(running, "demo.greet", {})
    eventually(lambda: running.request("GET", f"/v1/tasks/{task}")["state"] == "succeeded", 10, "it succeeded")
    with psycopg.connect(blank_database) as conn:
        row = conn.execute("SELECT count(*) FROM howdah.tasks").fetchone()

    assert row == (1,)
    assert not (running.data / "pg").exists()
    assert running.stop() == 0


def test_demo_shows_success_retry_and_dead_letter_within_a_minute(up: Callable[..., Up]) -> None:
    """The demo sends its load over HTTP and shows successes, some after retries, dead letters and signed callbacks."""
    running = up("--demo").started()
    shown = running.wait_for(
        r"demo: \d+ sent, .* (?P<ok>[1-9]\d*) succeeded, (?P<again>[1-9]\d*) retried, "
        r"(?P<dead>[1-9]\d*) dead; callbacks received: [1-9]\d* with a genuine signature, 0 without",
        60,
    )

    assert int(shown["ok"]) > int(shown["again"])
    assert running.stop() == 0
