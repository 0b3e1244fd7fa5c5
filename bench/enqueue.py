"""How many durable tasks are stored a second, one by one and in batches, in SQL and over HTTP, against bare SQL.

`sql_single`: howdah.enqueue by 16 sessions, a transaction each. `sql_batch`:
howdah.enqueue_many with 1,000 tasks, one session. `http_single`: POST /v1/tasks over
64 connections, `http_batch`: POST /v1/tasks/batch with 1,000 tasks over 4, both
to one API process. The yardstick of each inserts the same rows with pgbench, in
transactions of the same size, unchecked and unannounced. Client CPU is that of the
producer in SQL, and of the API over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING, Any

import psycopg
import uvloop
from bare_sql import enqueue as bare_enqueue
from http_post import load, request
from meter import Meter
from rig import PAYLOAD, open_rig, parser, report

if TYPE_CHECKING:
    from rig import Api, Rig

BATCH = 1_000
SINGLE = "SELECT howdah.enqueue('bench', 'bench.noop', %s::json)"
MANY = "SELECT count(*) FROM howdah.enqueue_many(NULL, %s::json)"
TASK = {"queue": "bench", "handler": "bench.noop", "payload": json.loads(PAYLOAD)}


async def _call(url: str, statement: str, argument: str, sessions: int, seconds: float) -> int:
    """Let so many sessions execute a statement again and again, and return how often they did."""

    async def session() -> int:
        count = 0
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                await conn.execute(statement, [argument])
                count += 1
        return count

    return sum(await asyncio.gather(*(session() for _ in range(sessions))))


def over_sql(rig: Rig, statement: str, argument: str, sessions: int, seconds: float, batch: int) -> dict[str, float]:
    """Enqueue in SQL and return the rate and the costs of a task."""
    with rig.connect() as conn:
        meter = Meter(conn, [os.getpid()])
        before = meter.read()
        calls = uvloop.run(_call(rig.url, statement, argument, sessions, seconds))
        return meter.read().since(before, calls * batch)


def over_http(rig: Rig, api: Api, message: bytes, connections: int, seconds: float, batch: int) -> dict[str, float]:
    """Enqueue over HTTP and return the rate and the costs of a task."""
    load(api.port, message, connections, 1.0)  # Makes the names, and warms everybody up.
    with rig.connect() as conn:
        meter = Meter(conn, [api.pid])
        before = meter.read()
        run = load(api.port, message, connections, seconds)
        costs = meter.read().since(before, sum(run["statuses"].values()) * batch)
    if set(run["statuses"]) - {"200", "201"} or run["lost"]:
        raise SystemExit(f"answers were {run['statuses']}, {run['lost']} connections were lost")
    count = sum(run["statuses"].values()) * batch
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
    return result


if __name__ == "__main__":
    options = parser(__doc__ or "", seconds=4.0).parse_args()
    with open_rig(options.url) as opened:
        report(measure(opened, options.seconds), as_json=options.json)
