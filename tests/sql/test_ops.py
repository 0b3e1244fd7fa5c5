"""The runbook's statements: each runs in psql as it is, with no more rights than it says."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from howdah.core.db.embedded.binaries import find_binaries
from howdah.core.db.sql_files import sql_directory
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fix_queue import Queue, Row

FILES = sorted((sql_directory() / "ops").glob("*.sql"))


@pytest.fixture
def operator(database: str) -> Iterator[str]:
    """A role that holds howdah_readonly and pg_monitor, and nothing else."""
    with psycopg.connect(database, autocommit=True) as conn:
        name = f"operator_{conn.info.backend_pid}"
        conn.execute(f"CREATE ROLE {name} NOLOGIN IN ROLE howdah_readonly, pg_monitor".encode())
        yield name
        conn.execute(f"DROP ROLE {name}".encode())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_statement_runs_in_psql_as_it_is(database: str, operator: str, psql: str, file: Path) -> None:
    """Psql -f executes the file without an error for a role with the rights that it names."""
    done = subprocess.run(
        [psql, "-X", "-v", "ON_ERROR_STOP=1", "-f", str(file), database],
        env={**os.environ, "PGOPTIONS": f"-c role={operator}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"\(\d+ rows?\)", done.stdout)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_statement_says_what_it_answers_and_needs(file: Path) -> None:
    """The header begins with a question, says what to look for, and which rights are needed."""
    header = "".join(line for line in file.read_text().splitlines(keepends=True) if line.startswith("--"))

    assert header.splitlines()[0].endswith("?") or "? " in header.splitlines()[0]
    assert "Look " in header
    assert "Needs: " in header


async def test_vacuum_horizon_names_a_forgotten_transaction(queue: Queue) -> None:
    """A session that holds a snapshot is the first row, with how long it has done so."""
    forgotten = await queue.connect()
    await forgotten.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await forgotten.execute("SELECT 1")
    await queue.enqueue()
    holders = await _ask(queue, "vacuum_horizon")
    mine = [holder for holder in holders if holder["pid"] == forgotten.info.backend_pid]

    assert [(holder["kind"], holder["state"]) for holder in mine] == [("session", "idle in transaction")]
    assert mine[0]["xmin_age"] >= 1


async def test_locks_waiting_names_waiter_and_blocker(queue: Queue) -> None:
    """Who waits is shown beside the session that it waits for."""
    [task] = await queue.enqueue()
    blocker, waiter = await queue.connect(), await queue.connect()
    async with blocker.transaction():
        await blocker.execute("SELECT howdah.cancel(%s)", [task])
        waiting = asyncio.create_task(waiter.execute("SELECT 1 FROM howdah.runs FOR UPDATE"))
        [row] = await eventually_async(lambda: _ask(queue, "locks_waiting"), 10, "one session waits")
    await waiting

    assert (row["waiter"], row["blocker"]) == (waiter.info.backend_pid, blocker.info.backend_pid)
    assert row["blocker_state"] == "idle in transaction"


@pytest.mark.parametrize(
    ("queues", "handlers", "served"), [(["*"], ["h"], True), (["x"], ["h"], False), (["*"], [], False)]
)
async def test_lanes_due_tells_whether_a_live_worker_serves_them(
    queue: Queue, queues: list[str], handlers: list[str], served: bool
) -> None:
    """A lane is served if a live worker claims from its queue and has its handler."""
    [task] = await queue.enqueue()
    await queue.run(
        "worker.register",
        name="w1",
        host="localhost",
        pid=1,
        version="0",
        queues=queues,
        handlers=handlers,
        serves_http=True,
        concurrency=1,
        lease_s=15.0,
    )
    [lane] = await _ask(queue, "lanes_due")

    assert (lane["task_id"], lane["served"]) == (task, served)


async def test_partitions_finds_a_missing_day(queue: Queue) -> None:
    """All days are there after a migration; a hole is counted."""
    whole = {row["parent"]: row["missing_days"] for row in await _ask(queue, "partitions")}
    [gap] = await queue.sql(
        "SELECT 'tasks_' || to_char((howdah.now() AT TIME ZONE 'UTC')::date + 3, 'YYYYMMDD') AS name"
    )
    await queue.sql(f"DROP TABLE howdah.{gap['name']}")
    holed = {row["parent"]: row["missing_days"] for row in await _ask(queue, "partitions")}

    assert whole == {"tasks": 0, "finished_runs": 0, "task_logs": 0}
    assert holed == {"tasks": 1, "finished_runs": 0, "task_logs": 0}


async def test_partitions_counts_a_day_that_is_kept_apart(queue: Queue) -> None:
    """What retention leaves of an expired day is neither the first day nor a gap."""
    [day] = await queue.sql("SELECT to_char((howdah.now() AT TIME ZONE 'UTC')::date - 1, 'YYYYMMDD') AS name")
    await queue.sql(f"ALTER TABLE howdah.tasks_{day['name']} RENAME TO tasks_{day['name']}_kept")
    [tasks] = [row for row in await _ask(queue, "partitions") if row["parent"] == "tasks"]

    assert (tasks["kept"], tasks["missing_days"]) == (1, 0)
    assert tasks["first_day"] > tasks["last_day"] - timedelta(days=tasks["days_ahead"] + 1)


@pytest.fixture(scope="session")
def psql(pytestconfig: pytest.Config) -> str:
    """Path of psql: beside the embedded server, else the system's."""
    if not os.environ.get("TEST_DATABASE_URL"):
        beside = find_binaries(cluster_major=pytestconfig.getoption("--pg"), chosen=None).bin_dir / "psql"
        if beside.exists():
            return str(beside)
    found = shutil.which("psql")
    if found is None:
        pytest.skip("needs psql")
    return found


async def _ask(queue: Queue, name: str) -> list[Row]:
    return await queue.sql((sql_directory() / "ops" / f"{name}.sql").read_text())
