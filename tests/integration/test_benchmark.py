"""Howdah bench on a database that others use."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from tests.fix_queue import Queue

pytestmark = pytest.mark.one_server

TABLES = ("tenants", "queues", "targets", "tasks", "runs", "finished_runs", "dead_letters", "queue_stats")


def _bench(url: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOWDAH_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "howdah", "bench", "--count", "1000", *arguments],
        env={**inherited, "HOWDAH_DATABASE_URL": url, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )


async def _counts(queue: Queue) -> dict[str, int]:
    columns = ", ".join(f"(SELECT count(*) FROM howdah.{table}) AS {table}" for table in TABLES)
    [row] = await queue.sql(f"SELECT {columns}")
    return dict(row)


@pytest.mark.slow
async def test_bench_measures_and_leaves_nothing_behind(database: str, queue: Queue) -> None:
    """It prints four lines of figures above zero, and every table is as before, somebody's waiting task included."""
    await queue.enqueue(delay="1h")
    before = await _counts(queue)
    ended = _bench(database)
    figures = [float(figure.replace(",", "")) for figure in re.findall(r"[\d,.]+(?= (?:tasks/s|ms))", ended.stdout)]

    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 4
    assert len(figures) == 5
    assert min(figures) > 0
    assert await _counts(queue) == before


async def test_bench_refuses_where_runs_are_under_way(database: str, queue: Queue) -> None:
    """A server with work to do is left alone, and the refusal names the way around it."""
    await queue.enqueue()
    await queue.claim()
    before = await _counts(queue)
    refused = _bench(database)

    assert refused.returncode == 1
    assert "--disturb" in refused.stderr
    assert await _counts(queue) == before


async def test_bench_refuses_where_runs_ended_a_moment_ago(database: str, queue: Queue) -> None:
    """Work that comes and goes counts too: two minutes must have passed."""
    await queue.sql(
        "INSERT INTO howdah.queue_stats (bucket_at, queue_id, source) "
        "VALUES (date_trunc('minute', howdah.now()), 1, gen_random_uuid())"
    )
    refused = _bench(database)
    await queue.sql("UPDATE howdah.queue_stats SET bucket_at = bucket_at - interval '3 minutes'")
    [row] = await queue.run("benchmark.is_busy")

    assert refused.returncode == 1
    assert not row["is_busy"]


@pytest.mark.slow
async def test_bench_cleans_up_when_its_worker_dies(database: str, queue: Queue) -> None:
    """If the worker ends before the tasks have, that is said, and the tenant is removed with its tasks."""
    before = await _counts(queue)
    failing = asyncio.create_task(asyncio.to_thread(_bench, database, "--count", "20000"))

    async def has_registered() -> bool:
        return bool(await queue.sql("SELECT pid FROM howdah.workers"))

    await eventually_async(has_registered, 60, "the worker registers")
    [worker] = await queue.sql("SELECT pid FROM howdah.workers")
    os.kill(worker["pid"], signal.SIGKILL)
    failed = await failing

    assert failed.returncode == 1
    assert "the benchmark's worker ended with code -9" in failed.stderr
    assert await _counts(queue) == before
