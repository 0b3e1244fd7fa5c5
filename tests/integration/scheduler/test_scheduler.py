"""The scheduler as a process: it starts, stops, outlives outages, and another takes over from it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from howdah.core.db.migrate import migrate
from tests.fix_wait import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from howdah.core.db.embedded import EmbeddedPostgres
    from tests.fix_chores import Chores
    from tests.fix_queue import Queue

pytestmark = pytest.mark.slow

CHORES = {
    "batches",
    "cleanup",
    "expire",
    "operations",
    "park",
    "partitions",
    "queues",
    "rescue",
    "retention",
    "settle",
    "sweep",
}


class Scheduler:
    """A scheduler process and its log."""

    def __init__(self, url: str, log: Path, **environment: str) -> None:
        """Start it."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOWDAH_")}
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "howdah", "scheduler"],
                env={**inherited, "HOWDAH_DATABASE_URL": url, **environment},
                stdout=out,
                stderr=out,
            )

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log records with this event name."""
        records = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [record for record in records if record["event"] == name]

    def stop(self) -> int:
        """Stop it and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Callable[..., Scheduler]]:
    """Start schedulers; those that still run in the end are killed."""
    made: list[Scheduler] = []

    def start(url: str, **environment: str) -> Scheduler:
        made.append(Scheduler(url, tmp_path / f"{len(made)}.log", **environment))
        return made[-1]

    yield start
    for each in made:
        each.process.kill()
        each.process.wait()


async def _done(queue: Queue) -> set[str]:
    return {
        row["chore"] for row in await queue.sql("SELECT chore FROM howdah.maintenance WHERE last_good_at IS NOT NULL")
    }


async def test_all_chores_are_done_and_a_stop_is_clean(
    scheduler: Callable[..., Scheduler], database: str, queue: Queue
) -> None:
    """A scheduler looks after every chore that there is, opens five connections, and stops with 0 at once."""
    process = scheduler(database)

    async def all_done() -> bool:
        return await _done(queue) == CHORES

    await eventually_async(all_done, 20, "every chore was done")
    [connections] = await queue.sql(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'howdah-scheduler' "
        "AND datname = current_database()"
    )
    began = time.monotonic()
    code = process.stop()

    assert {row["chore"] for row in await queue.sql("SELECT chore FROM howdah.maintenance")} == CHORES
    assert connections["n"] == 5
    assert code == 0
    assert time.monotonic() - began < 5
    assert await queue.sql("SELECT chore, last_error FROM howdah.maintenance WHERE failures > 0") == []


async def test_survivor_of_two_goes_on_with_rescue(
    scheduler: Callable[..., Scheduler], database: str, chores: Chores, queue: Queue
) -> None:
    """When one of two schedulers is killed the other rescues within two seconds of a lease's end, as a crash."""
    both = [scheduler(database), scheduler(database)]

    async def is_done() -> bool:
        return "rescue" in await _done(queue)

    await eventually_async(is_done, 20, "rescue was done")
    await chores.register(lease_s=1.0)
    await queue.enqueue()
    await queue.claim(lease_s=1.0)
    both[0].process.kill()

    async def lost() -> list[dict[str, Any]]:
        return await queue.sql(
            "SELECT extract(epoch FROM finished_at - claimed_at)::float8 AS after_s FROM howdah.finished_runs"
        )

    [row] = await eventually_async(lost, 10, "the run was rescued")
    [run] = await queue.sql("SELECT crashes FROM howdah.runs")

    assert 1.0 <= row["after_s"] < 1.0 + 2.0
    assert run["crashes"] == 1


def test_restart_of_the_server_is_outlived_and_counts_no_crash(
    scheduler: Callable[..., Scheduler], make_server: Callable[..., EmbeddedPostgres]
) -> None:
    """After PostgreSQL was away the scheduler is back within 5 s, waits for one lease, and rescues without blame."""
    server = make_server()
    url = server.start().dsn("postgres")
    migrate(url)
    process = scheduler(url)
    with psycopg.connect(url, autocommit=True) as conn:
        eventually(
            lambda: (
                conn.execute("SELECT last_good_at FROM howdah.maintenance WHERE chore = 'rescue'").fetchone() != (None,)
            ),
            20,
            "rescue was done",
        )
        conn.execute("SELECT howdah.enqueue('q', 'h')")
        conn.execute(
            "INSERT INTO howdah.workers (name, host, pid, version, queues, handlers, serves_http, concurrency, "
            "lease_s, started_at, heartbeat_at) VALUES ('w', 'h', 1, '0', '{*}', '{h}', false, 1, 2, now(), now())"
        )
        conn.execute(
            "UPDATE howdah.runs SET lease_token = gen_random_uuid(), claimed_at = now(), worker_id = 1, claim_no = 1, "
            "attempt = 1, deadline_at = now(), lease_expires_at = now() + interval '1 second'"
        )
    server.stop()
    server.start()
    ready = time.monotonic()
    with psycopg.connect(url, autocommit=True) as conn:
        eventually(
            lambda: (
                conn.execute(
                    "SELECT hold_until > pg_postmaster_start_time() FROM howdah.maintenance WHERE chore = 'rescue'"
                ).fetchone()
                == (True,)
            ),
            10,
            "rescue is back",
        )
        back_s = time.monotonic() - ready
        row = eventually(
            lambda: conn.execute(
                "SELECT extract(epoch FROM f.finished_at - pg_postmaster_start_time())::float8, r.crashes "
                "FROM howdah.finished_runs AS f JOIN howdah.runs AS r ON r.task_id = f.task_id"
            ).fetchone(),
            20,
            "the run was rescued",
        )

    assert back_s < 5
    assert row[0] >= 2
    assert row[1] == 0
    assert process.process.poll() is None
    assert process.stop() == 0


def test_start_waits_for_a_server_that_is_not_up_yet(
    scheduler: Callable[..., Scheduler], make_server: Callable[..., EmbeddedPostgres]
) -> None:
    """A scheduler that finds no PostgreSQL tries again until there is one, and does not end."""
    server = make_server()
    url = server.start().dsn("postgres")
    migrate(url)
    server.stop()
    process = scheduler(url)
    eventually(lambda: process.events("database_unavailable"), 10, "it has tried")
    server.start()

    def is_at_work() -> bool:
        with contextlib.suppress(psycopg.Error), psycopg.connect(url) as conn:
            row = conn.execute("SELECT count(last_good_at) FROM howdah.maintenance").fetchone()
            return row == (len(CHORES),)
        return False

    eventually(is_at_work, 10, "every chore was done")

    assert process.stop() == 0
