"""Handlers of the fault tests. Each writes down that it started and ended, one line an event.

A line is one `write` to a file opened for appending, so that a kill tears at most
the last one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import howdah

_journal = os.open(
    Path(os.environ["CHAOS_OUT"]) / f"handler-{os.getpid()}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT
)


def note(event: str, ctx: howdah.Context) -> None:
    """Write down an event of a run."""
    line = {
        "event": event,
        "task": str(ctx.task_id),
        "claim_no": ctx.claim_no,
        "attempt": ctx.attempt,
        "at": time.monotonic(),
    }
    os.write(_journal, json.dumps(line).encode() + b"\n")


@howdah.handler("chaos.noop")
async def noop(payload: Any, ctx: howdah.Context) -> None:
    """Do nothing."""
    note("start", ctx)


@howdah.handler("chaos.sleep")
async def sleep(payload: dict[str, float], ctx: howdah.Context) -> None:
    """Take `payload["s"]` seconds."""
    note("start", ctx)
    await asyncio.sleep(payload["s"])
    note("end", ctx)


@howdah.handler("chaos.plain")
def plain(payload: dict[str, float], ctx: howdah.Context) -> None:
    """Take `payload["s"]` seconds in a thread."""
    note("start", ctx)
    time.sleep(payload["s"])
    note("end", ctx)


@howdah.handler("chaos.block")
async def block(payload: dict[str, float], ctx: howdah.Context) -> None:
    """Block the event loop for `payload["s"]` seconds."""
    note("start", ctx)
    time.sleep(payload["s"])  # noqa: ASYNC251  What it is for.
    note("end", ctx)


@howdah.handler("chaos.flaky")
async def flaky(payload: Any, ctx: howdah.Context) -> None:
    """Fail at the first attempt."""
    note("start", ctx)
    if ctx.attempt == 1:
        raise RuntimeError("the first attempt fails")


@howdah.handler("chaos.effect")
async def effect(payload: dict[str, float], ctx: howdah.Context) -> None:
    """Write a row in the transaction that also records the outcome."""
    note("start", ctx)
    await asyncio.sleep(payload["s"])
    async with ctx.transaction() as conn:
        await conn.execute("INSERT INTO effects (task_id, claim_no) VALUES (%s, %s)", [ctx.task_id, ctx.claim_no])


@howdah.handler("chaos.die")
async def die(payload: Any, ctx: howdah.Context) -> None:
    """Kill the worker at the end of the first attempt, before the outcome can be recorded."""
    note("start", ctx)
    if ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
