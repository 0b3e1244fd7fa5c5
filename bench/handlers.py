"""Handlers that the benchmarks run."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from typing import Any

import howdah


@howdah.handler("bench.noop")
async def noop(payload: Any) -> None:
    """Do nothing."""


@howdah.handler("bench.parent")
async def parent(payload: Any, ctx: howdah.Context) -> None:
    """Enqueue one that does nothing."""
    ctx.enqueue("bench0", "bench.noop")


@howdah.handler("bench.plain")
def plain(payload: Any) -> None:
    """Do nothing, in a thread."""


# Opened once per process: what is measured is the start, not the file.
_starts = (
    os.open(os.environ["BENCH_STARTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT) if "BENCH_STARTS" in os.environ else -1
)


@howdah.handler("bench.mark")
async def mark(payload: dict[str, float]) -> None:
    """Record how long after `at` (seconds of this machine's monotonic clock) it started; last until `until`."""
    now = time.monotonic()
    # Two doubles, written at once: processes share the file.
    os.write(_starts, struct.pack("dd", now, now - payload["at"]))
    if "until" in payload:
        await asyncio.sleep(payload["until"] - now)


@howdah.handler("bench.pause")
async def pause(payload: Any) -> None:
    """Last about ten milliseconds."""
    await asyncio.sleep(0.01)


@howdah.handler("bench.marked")
async def marked(payload: dict[str, float]) -> None:
    """Last `lasts` seconds, and record how long after `at` it ended."""
    if payload["lasts"]:
        await asyncio.sleep(payload["lasts"])
    now = time.monotonic()
    os.write(_starts, struct.pack("dd", now, now - payload["at"]))
