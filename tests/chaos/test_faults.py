"""One fault at a time, on real processes: what is promised about it, and that it did bite."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.chaos.history import handler_starts
from tests.fix_fleet import LEASE_S
from tests.fix_wait import eventually

if TYPE_CHECKING:
    from tests.fix_fleet import Fleet

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(180)]

# A lost run starts again within its lease, the rescue's period and the poll (guarantee 4), when a slot is free.
RECOVERY_S = LEASE_S + 2.0
# Wall-clock limits are asserted with head-room: the machine also runs PostgreSQL and other tests.
HEADROOM = 3.0


def test_worker_killed_amid_100_runs_loses_none(fleet: Fleet) -> None:
    """All runs of a worker that was killed with -9 run again, and each task ends with one recorded success."""
    fleet.add_scheduler()
    victim = fleet.add_worker("victim", HOWDAH_CONCURRENCY="100")
    tasks = fleet.enqueue(100, "chaos.sleep", {"s": 1.0})
    eventually(lambda: len(handler_starts(fleet.directory)) == 100, 20, "100 handlers run")
    victim.kill()
    killed = time.monotonic()
    fleet.add_worker("heir", HOWDAH_CONCURRENCY="100")
    eventually(lambda: len(handler_starts(fleet.directory)) == 200, 60, "100 handlers run again")
    recovered_s = time.monotonic() - killed
    eventually(fleet.drained, 30, "all tasks end")
    finals = fleet.query("SELECT task_id::text, outcome, attempt FROM howdah.finished_runs WHERE is_final")

    assert sorted(finals) == sorted((task, "succeeded", 2) for task in tasks)
    assert fleet.outcomes() == {"lost": 100, "succeeded": 100}
    assert recovered_s < RECOVERY_S * HEADROOM


def test_run_that_kills_its_worker_counts_a_crash_and_runs_again(fleet: Fleet) -> None:
    """A worker that dies between a handler's end and its report leaves a lost lease; the next attempt succeeds."""
    fleet.add_scheduler()
    worker = fleet.add_worker()
    [task] = fleet.enqueue(1, "chaos.die")
    assert worker.wait(20) == -signal.SIGKILL
    worker.start()
    eventually(fleet.drained, 30, "the task ends")
    claims = fleet.query("SELECT outcome, attempt FROM howdah.finished_runs WHERE task_id = %s ORDER BY claim_no", task)

    assert claims == [("lost", 1), ("succeeded", 2)]


def test_stopped_worker_that_goes_on_is_refused(fleet: Fleet) -> None:
    """A worker stopped for longer than its lease finds on waking that its runs belong to another, and says so."""
    fleet.add_scheduler()
    zombie = fleet.add_worker("zombie")
    fleet.enqueue(50, "chaos.plain", {"s": 0.5})
    eventually(lambda: handler_starts(fleet.directory), 20, "handlers run")
    zombie.signal(signal.SIGSTOP)
    fleet.add_worker("heir")
    eventually(fleet.drained, 60, "the other worker does all")
    before = fleet.outcomes()
    zombie.signal(signal.SIGCONT)
    eventually(lambda: zombie.events("late_report_refused") or zombie.events("lease_lost"), 20, "the zombie notices")

    assert before["succeeded"] == 50
    assert before["lost"] > 0
    assert fleet.outcomes() == before


def test_deploy_of_all_workers_spends_no_attempt(fleet: Fleet) -> None:
    """SIGTERM to every worker in turn under load loses no lease and starts no handler twice."""
    fleet.add_scheduler()
    workers = [fleet.add_worker(f"worker{number}", HOWDAH_CONCURRENCY="20") for number in range(2)]
    tasks = fleet.enqueue(600, "chaos.sleep", {"s": 0.2})
    for _ in range(2):
        for worker in workers:
            started = len(handler_starts(fleet.directory))
            eventually(lambda seen=started: len(handler_starts(fleet.directory)) > seen + 40, 30, "load runs")
            assert worker.stop() == 0
            worker.start()
    eventually(fleet.drained, 60, "all tasks end")
    outcomes = fleet.outcomes()

    assert outcomes["succeeded"] == len(tasks)
    assert set(outcomes) <= {"succeeded", "released"}
    assert max(handler_starts(fleet.directory).values()) == 1
    assert fleet.query("SELECT max(attempt) FROM howdah.finished_runs") == [(1,)]


def test_second_signal_stops_at_once_and_hands_back(fleet: Fleet) -> None:
    """A second SIGTERM during the drain ends a worker within seconds, with its runs handed back or lost, not gone."""
    fleet.add_scheduler()
    worker = fleet.add_worker()
    fleet.enqueue(5, "chaos.sleep", {"s": 20.0})
    eventually(lambda: len(handler_starts(fleet.directory)) == 5, 20, "handlers run")
    worker.signal(signal.SIGTERM)
    eventually(lambda: worker.events("stop_requested"), 10, "the drain begins")
    worker.signal(signal.SIGTERM)
    started = time.monotonic()
    worker.wait(20)

    assert time.monotonic() - started < 3 * HEADROOM
    assert fleet.query("SELECT count(*) FROM howdah.runs") == [(5,)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
def test_everything_resumes_after_the_server_went_away(fleet: Fleet, number: signal.Signals) -> None:
    """After a restart or a crash of PostgreSQL all processes go on by themselves, and no lease counts as lost."""
    fleet.make_key()
    fleet.add_api()
    fleet.add_scheduler()
    fleet.add_worker()
    fleet.enqueue(20, "chaos.sleep", {"s": 2.0})
    eventually(lambda: len(handler_starts(fleet.directory)) == 20, 20, "handlers run")
    assert fleet.server.pid is not None
    os.kill(fleet.server.pid, number)
    fleet.server.stop()
    eventually(lambda: fleet.status(fleet.api_ports[0], "/readyz") == 503, 10, "the API is not ready")
    fleet.server.start()
    accepting = time.monotonic()
    [task] = fleet.enqueue(1, "chaos.noop")
    eventually(lambda: any(key[0] == task for key in handler_starts(fleet.directory)), 30, "a new task starts")
    resumed_s = time.monotonic() - accepting
    eventually(lambda: fleet.status(fleet.api_ports[0], "/readyz") == 200, 15, "the API is ready")
    eventually(fleet.drained, 30, "all tasks end")

    assert resumed_s < 5.0 * HEADROOM
    assert fleet.outcomes() == {"succeeded": 21}
    assert all(process.start_count == 1 for process in fleet.processes.values())


def test_terminated_sessions_lose_nothing(fleet: Fleet) -> None:
    """Random backends terminated again and again: every task ends once, and no process ends."""
    fleet.add_scheduler()
    worker = fleet.add_worker(HOWDAH_CONCURRENCY="20")
    tasks = fleet.enqueue(1500, "chaos.sleep", {"s": 0.05})
    terminated = 0
    with fleet.connect() as conn:
        while not fleet.drained():
            rows = conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name LIKE 'howdah%' ORDER BY random() LIMIT 2"
            ).fetchall()
            terminated += len(rows)
            done = fleet.outcomes().get("succeeded", 0)
            eventually(
                lambda seen=done: fleet.drained() or fleet.outcomes().get("succeeded", 0) > seen + 50,
                60,
                "work goes on",
            )
    finals = fleet.query("SELECT count(*), count(DISTINCT task_id) FROM howdah.finished_runs WHERE is_final")

    assert terminated > 10
    assert finals == [(len(tasks), len(tasks))]
    assert worker.child is not None
    assert worker.child.poll() is None


def test_locked_rows_of_a_dead_client_do_not_stop_the_others(fleet: Fleet) -> None:
    """A client that idles in a transaction with 100 runs locked delays those runs only."""
    fleet.add_scheduler()
    locked = fleet.enqueue(100, "chaos.noop")
    with fleet.connect() as holder:
        holder.execute("BEGIN")
        holder.execute("SELECT 1 FROM howdah.runs FOR UPDATE")
        fleet.add_worker()
        others = fleet.enqueue(100, "chaos.noop")
        eventually(lambda: len(handler_starts(fleet.directory)) == 100, 30, "the other runs are done")
        started = {task for task, _ in handler_starts(fleet.directory)}

        assert started == set(others)
        holder.execute("ROLLBACK")
    eventually(fleet.drained, 30, "the locked runs are done as well")

    assert {task for task, _ in handler_starts(fleet.directory)} == {*locked, *others}


def test_work_is_found_without_notifications(fleet: Fleet) -> None:
    """Nothing depends on a notification: with all of them off, tasks of old and new queues start within the poll."""
    fleet.add_worker()
    fleet.enqueue(1, "chaos.noop")
    eventually(fleet.drained, 20, "the worker works")
    with fleet.connect() as conn:
        conn.execute("SET howdah.notify = off")
        waits = []
        for queue in ("chaos", "chaos", "chaos"):
            conn.execute("SELECT howdah.enqueue(%s, 'chaos.noop')", [queue])
            asked = time.monotonic()
            eventually(fleet.drained, 10, "the task is found")
            waits.append(time.monotonic() - asked)

    assert max(waits) < 1.0 * HEADROOM
    assert max(waits) > 0.02, "a notification seems to have arrived: the fault did not bite"


def test_missing_partition_refuses_new_tasks_until_the_chore_repairs_it(fleet: Fleet) -> None:
    """Without a partition for today the API answers 503 and stores nothing; the scheduler makes it again."""
    fleet.make_key()
    fleet.add_api()
    for parent in ("tasks", "finished_runs"):
        [(name,)] = fleet.query("SELECT %s || '_' || to_char(howdah.now() AT TIME ZONE 'UTC', 'YYYYMMDD')", parent)
        fleet.query(f"DROP TABLE howdah.{name}")

    def post() -> int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{fleet.api_ports[0]}/v1/tasks",
            json.dumps({"queue": "chaos", "handler": "chaos.noop"}).encode(),
            {"Authorization": f"Bearer {fleet.api_key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as problem:
            with problem:
                return problem.code

    assert post() == 503
    assert fleet.query("SELECT count(*) FROM howdah.runs") == [(0,)]
    fleet.add_scheduler()
    eventually(lambda: post() == 201, 30, "the partition is back")
    assert fleet.query("SELECT count(*) FROM howdah.tasks") == [(1,)]


def test_two_schedulers_do_each_chore_once(fleet: Fleet) -> None:
    """Any number of schedulers share the chores: each lost lease is recorded once."""
    for number in range(3):
        fleet.add_scheduler(f"scheduler{number}")
    victim = fleet.add_worker("victim", HOWDAH_CONCURRENCY="50")
    fleet.enqueue(50, "chaos.sleep", {"s": 30.0})
    eventually(lambda: len(handler_starts(fleet.directory)) == 50, 20, "handlers run")
    victim.kill()
    eventually(lambda: fleet.outcomes().get("lost", 0) >= 50, 30, "all leases are rescued")

    assert fleet.query("SELECT count(*), count(DISTINCT task_id) FROM howdah.finished_runs") == [(50, 50)]
    assert fleet.query("SELECT count(*) FROM howdah.runs WHERE attempt = 1 AND lease_token IS NULL") == [(50,)]
