"""The figures that are promised as ratios, measured small: each bench runs, and does not fall below its gate.

Gates are those of a quiet machine times 0.8. Absolute numbers are printed, never
asserted: they say more about the machine than about the code.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.bench, pytest.mark.slow, pytest.mark.timeout(300)]

BENCH = Path(__file__).resolve().parents[2] / "bench"
MARGIN = 0.8


def measure(name: str, *arguments: str) -> dict[str, Any]:
    """Run a benchmark and return what it prints."""
    run = subprocess.run(
        [sys.executable, str(BENCH / f"{name}.py"), "--json", *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-4000:]
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    print(name, result)
    return result


def test_drain_reaches_half_of_bare_sql() -> None:
    """One worker process drains no-op handler tasks at half the rate of the same row work without Python."""
    result = measure("drain", "--n", "30000", "--reps", "3")

    assert result["ratio"] >= 0.5 * MARGIN


def test_single_post_reaches_three_tenths_of_an_empty_handler() -> None:
    """Durable single creates over HTTP come at 0.3 of the rate of an empty authenticated handler."""
    result = measure("http_post", "--seconds", "2")

    assert result["ratio"] >= 0.3 * MARGIN


def test_idle_worker_is_small() -> None:
    """An idle worker takes at most 70 MB of memory and four connections."""
    result = measure("idle", "--settle", "2")

    assert result["connections"] <= 4
    assert result["rss_mb"] <= 70


def test_idle_latency_is_of_milliseconds() -> None:
    """The latency bench runs and sees tasks start; its figures belong to a quiet machine and are only printed."""
    result = measure("latency", "--n", "30")

    assert 0 < result["idle_p50_ms"] < 1000
    assert -5 < result["delayed_late_p50_ms"] < 1000
