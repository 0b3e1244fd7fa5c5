"""Handlers that the benchmarks run."""

from __future__ import annotations

import os
import time
from typing import Any

import howdah


@howdah.handler("bench.noop")
async def noop(payload: Any) -> None:
    """Do nothing."""


@howdah.handler("bench.plain")
def plain(payload: Any) -> None:
    """Do nothing, in a thread."""


# Opened once per process: what is measured is the start, not the file.
_starts = (
    os.open(os.environ["BENCH_STARTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT) if "BENCH_STARTS" in os.environ else -1
)


@howdah.handler("bench.mark")
async def mark(payload: dict[str, float]) -> None:
    """Record how long after `payload["at"]` (CLOCK_MONOTONIC seconds of this machine) it started."""
    os.write(_starts, f"{time.monotonic() - payload['at']:.6f}\n".encode())
