"""How many durable tasks are stored a second, one by one and in batches, in SQL and over HTTP, against bare SQL.

`sql_single`: howdah.enqueue by 16 sessions, a transaction each. `sql_batch`:
howdah.enqueue_many with 1,000 tasks, one session. `http_single`: POST /v1/tasks over
64 connections, `http_batch`: POST /v1/tasks/batch with 1,000 tasks over 4, both
to one API process. The yardstick of each inserts the same rows with pgbench, in
transactions of the same size, unchecked and unannounced. Client CPU is that of the
producer in SQL, and of the API over HTTP, where the load generator's stands apart.
Each statement is one round trip to PostgreSQL. Sessions are warm; what the first
calls of a new one take is measured by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

import psycopg
import uvloop
from bare_sql import enqueue as bare_enqueue
from http_post import load, request
from meter import Meter
from rig import PAYLOAD, open_rig, parser, percentile, report

if TYPE_CHECKING:
    from collections.abc import Callable

    from meter import Reading
    from rig import Api, Rig

BATCH = 1_000
# PostgreSQL plans the first five calls of a session anew, unless it is told not to.
WARM_CALLS = 8
SINGLE = "SELECT howdah.enqueue('bench', 'bench.noop', %s::json)"
MANY = "SELECT count(*) FROM howdah.enqueue_many(NULL, %s::json)"
TASK = {"queue": "bench", "handler": "bench.noop", "payload": json.loads(PAYLOAD)}


async def _call(
    url: str, statement: str, argument: str, sessions: int, seconds: float, read: Callable[[], Reading]
) -> tuple[int, Reading, Reading]:
    """Let so many warm sessions execute a statement again and again; how often they did, and the readings around it."""

    async def repeat(conn: psycopg.AsyncConnection[Any], deadline: float) -> int:
        count = 0
        while time.monotonic() < deadline:
            await conn.execute(statement, [argument])
            count += 1
        return count

    async with contextlib.AsyncExitStack() as opened:
        conns = [await psycopg.AsyncConnection.connect(url, autocommit=True) for _ in range(sessions)]
        for conn in conns:
            await opened.enter_async_context(conn)
            for _ in range(WARM_CALLS):
                await conn.execute(statement, [argument])
        before = read()
        deadline = time.monotonic() + seconds
        counts = await asyncio.gather(*(repeat(conn, deadline) for conn in conns))
        # Before the sessions end: what they used counts for nobody between their end and its notice.
        return sum(counts), before, read()


def over_sql(rig: Rig, statement: str, argument: str, sessions: int, seconds: float, batch: int) -> dict[str, float]:
    """Enqueue in SQL and return the rate and the costs of a task."""
    with rig.connect() as conn:
        meter = Meter(conn, [os.getpid()])
        calls, before, after = uvloop.run(_call(rig.url, statement, argument, sessions, seconds, meter.read))
        return after.since(before, calls * batch)


def first_calls(rig: Rig) -> dict[str, float]:
    """Return how long the calls of a new session take: the first, and those until PostgreSQL keeps their plans."""
    waits_ms: list[list[float]] = []
    for _ in range(9):
        with rig.connect() as conn:
            conn.execute("SELECT 1")
            waits_ms.append([])
            for _ in range(WARM_CALLS):
                began = time.perf_counter()
                conn.execute(SINGLE, [PAYLOAD])
                waits_ms[-1].append((time.perf_counter() - began) * 1e3)
    medians = [percentile(list(waits), 0.5) for waits in zip(*waits_ms, strict=True)]
    return {"sql_first_call_ms": medians[0], "sql_next_calls_ms": sum(medians[1:6]) / 5, "sql_later_ms": medians[-1]}


def over_http(rig: Rig, api: Api, message: bytes, connections: int, seconds: float, batch: int) -> dict[str, float]:
    """Enqueue over HTTP and return the rate and the costs of a task."""
    load(api.port, message, connections, 1.0)  # Makes the names, and warms everybody up.
    with rig.connect() as conn:
        meter = Meter(conn, [api.pid])
        before = meter.read()
        run = load(api.port, message, connections, seconds)
        count = sum(run["statuses"].values()) * batch
        costs = meter.read().since(before, count)
    if set(run["statuses"]) - {"200", "201"} or run["lost"]:
        raise SystemExit(f"answers were {run['statuses']}, {run['lost']} connections were lost")
    return {
        **costs,
        "per_s": run["per_s"] * batch,
        "p99_ms": run["p99_ms"],
        "load_cpu_us": run["cpu_s"] / count * 1e6,
    }


def measure(rig: Rig, seconds: float) -> dict[str, Any]:
    """Measure every way of enqueueing, and its yardstick right before it."""
    many = json.dumps([TASK] * BATCH)
    result: dict[str, Any] = {}
    with rig.api() as api:
        single = request("POST", "/v1/tasks", api.key, json.dumps(TASK))
        batch = request("POST", "/v1/tasks/batch", api.key, json.dumps({"tasks": [TASK] * BATCH}))
        ways = {
            "sql_single": (1, 16, lambda: over_sql(rig, SINGLE, PAYLOAD, 16, seconds, 1)),
            "sql_batch": (BATCH, 1, lambda: over_sql(rig, MANY, many, 1, seconds, BATCH)),
            "http_single": (1, 16, lambda: over_http(rig, api, single, 64, seconds, 1)),
            "http_batch": (BATCH, 1, lambda: over_http(rig, api, batch, 4, seconds, BATCH)),
        }
        for name, (size, clients, run) in ways.items():
            bare = bare_enqueue(rig, size, clients, seconds)
            costs = run()
            result[f"{name}_bare_sql_per_s"] = bare
            result |= {f"{name}_{figure}": value for figure, value in costs.items()}
            result[f"{name}_ratio"] = costs["per_s"] / bare
            rig.clear()
    return {**result, **first_calls(rig)}


if __name__ == "__main__":
    options = parser(__doc__ or "", seconds=4.0).parse_args()
    with open_rig(options.url) as opened:
        report(measure(opened, options.seconds), as_json=options.json)
