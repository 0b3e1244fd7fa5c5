"""The figures that are promised as ratios, measured small: each bench runs, and does not fall below its gate.

Gates are those of a quiet machine times 0.8. Absolute numbers are printed, never
asserted: they say more about the machine than about the code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from howdah.core.db.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.bench, pytest.mark.slow, pytest.mark.timeout(300)]

BENCH = Path(__file__).resolve().parents[2] / "bench"
MARGIN = 0.8


class Measure(Protocol):
    """Runs a benchmark and returns what it prints."""

    def __call__(self, name: str, *arguments: str) -> dict[str, Any]:
        """Run `bench/<name>.py` with arguments."""


@pytest.fixture(scope="module")
def measure() -> Iterator[Measure]:
    """Run benchmarks on one embedded server; each makes a database of its own there."""
    options = {"shared_preload_libraries": "pg_stat_statements", "max_connections": "200", "max_wal_size": "4GB"}
    # Not below pytest's own directory, which every start of pytest closes to other accounts.
    with tempfile.TemporaryDirectory(prefix="howdah-bench-") as directory:
        Path(directory).chmod(0o755)  # The account that the server runs as must be able to enter.
        with EmbeddedPostgres(Path(directory) / "pg", options=options) as server:
            yield partial(_run, server)


def _run(server: EmbeddedPostgres, name: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCH / f"{name}.py"), "--json", "--url", server.dsn("postgres"), *arguments]
    environment = {**os.environ, "HOWDAH_PG_BIN": str(server.bin_dir)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    print(name, result)
    return result


def test_drain_reaches_half_of_bare_sql(measure: Measure) -> None:
    """One worker drains no-op tasks at half the rate of the same row work without Python, with few statements."""
    result = measure("drain", "--n", "30000", "--reps", "3", "--kinds", "noop")

    assert result["noop_ratio"] >= 0.5 * MARGIN
    # 0.003 to 0.005 were seen: one claim and one or two finishes for up to 1,000 runs, and what the minute brings.
    assert result["noop_statements"] <= 0.01


def test_drain_of_other_targets_runs(measure: Measure) -> None:
    """Plain functions and callbacks are drained too, and every one of them succeeds."""
    result = measure("drain", "--n", "10000", "--reps", "1", "--kinds", "plain,callback")

    assert result["plain_per_s"] > 0
    assert result["callback_per_s"] > 0


def test_backlog_of_a_tenant_delays_another_by_less_than_twice(measure: Measure) -> None:
    """Beside 400,000 tasks of another tenant ten tasks of 10 ms take less than twice as long as alone.

    Where handlers do nothing, the machine is the limit: it is busy.
    """
    result = measure("fairness", "--n", "400000", "--rounds", "10")

    assert result["pause_ratio"] < 2 / MARGIN
    assert result["noop_ratio"] < 4 / MARGIN


def test_sequels_cost_no_more_than_an_enqueue(measure: Measure) -> None:
    """Runs half of which another run's end has enqueued are drained at three tenths of the rate of plain ones."""
    result = measure("follow_ups", "--n", "10000")

    assert result["follow_up_ratio"] >= 0.3 * MARGIN
    assert result["enqueue_ratio"] >= 0.3 * MARGIN


def test_single_post_reaches_three_tenths_of_an_empty_handler(measure: Measure) -> None:
    """Durable single creates over HTTP come at 0.3 of the rate of an empty authenticated handler."""
    result = measure("http_post", "--seconds", "2")

    assert result["ratio"] >= 0.3 * MARGIN


def test_enqueue_stores_through_every_door(measure: Measure) -> None:
    """Tasks are stored through SQL and HTTP, one by one and in batches, at a cost that is known."""
    result = measure("enqueue", "--seconds", "1")

    for way in ("sql_single", "sql_batch", "http_single", "http_batch"):
        assert result[f"{way}_per_s"] > 0
        assert result[f"{way}_wal_bytes"] > 0


def test_consumers_over_http_reach_a_tenth_of_bare_sql(measure: Measure) -> None:
    """One API process gives out and records runs in batches of 100 at a tenth of the rate of the row work alone."""
    result = measure("pull", "--n", "20000")

    assert result["ratio"] >= 0.1 * MARGIN


def test_drain_does_not_slow_down_with_the_backlog(measure: Measure) -> None:
    """With twenty times as many tasks waiting, a worker is as fast as before."""
    result = measure("backlog", "--n", "20000", "--sizes", "10000,200000")

    assert result["largest_to_smallest"] >= 0.9 * MARGIN


def test_drain_goes_on_over_ten_thousand_queues(measure: Measure) -> None:
    """Tasks spread over 10,000 queues, four in each, are run at half the rate of one queue."""
    result = measure("lanes", "--n", "40000", "--queues", "1,10000")

    assert result["most_to_fewest"] >= 0.5 * MARGIN


def test_worker_does_not_slow_down_under_a_held_snapshot(measure: Measure) -> None:
    """While a snapshot is held open, the last fifth of the tasks is run as fast as the first."""
    result = measure("held_snapshot", "--n", "40000")

    assert result["held_last_to_first"] >= 0.9 * MARGIN


def test_expired_day_is_dropped_under_load(measure: Measure) -> None:
    """The tables of an expired day go while tasks are sent and run; the latencies belong to a quiet machine."""
    result = measure("retention", "--n", "50000", "--rate", "200", "--seconds", "2")

    assert result["dropped_s"] < 60


def test_runs_of_a_killed_worker_start_again_soon(measure: Measure) -> None:
    """The runs of a worker that was killed start again within its lease and two seconds."""
    result = measure("recovery", "--n", "20", "--lease", "3")

    assert result["past_lease_s"] <= 2


def test_idle_worker_is_small(measure: Measure) -> None:
    """An idle worker takes at most 70 MB of memory and four connections, and asks little."""
    result = measure("idle", "--settle", "1", "--seconds", "3")

    assert result["connections"] <= 4
    assert result["rss_mb"] <= 70
    assert result["statements_per_s"] <= 5


def test_latency_is_of_milliseconds(measure: Measure) -> None:
    """The latency bench runs and sees tasks start; its figures belong to a quiet machine and are only printed."""
    result = measure("latency", "--n", "30", "--rates", "200", "--seconds", "2")

    assert 0 < result["idle_p50_ms"] < 1000
    assert -5 < result["delayed_late_p50_ms"] < 1000
