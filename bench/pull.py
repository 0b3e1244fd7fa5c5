"""How many runs a second consumers claim and finish over HTTP, in batches, served by one API process.

Four consumers over a connection each claim and finish until nothing is left. The load
generator shares the cores, and what it takes is printed.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import uvloop
from bare_sql import best
from http_client import Client
from meter import Meter
from rig import open_rig, parser, report

if TYPE_CHECKING:
    from rig import Api, Rig

CONSUMERS = 4


async def _consume(api: Api, batch: int) -> int:
    """Claim and finish until nothing is left; how many runs it were."""
    client = await Client.connect(api.port, api.key, CONSUMERS)
    wanted = json.dumps({"handlers": ["bench.noop"], "max": batch}).encode()

    async def work() -> int:
        count = 0
        while runs := json.loads(await client.post("/v1/queues/bench0/claim", wanted))["runs"]:
            ended = [
                {"task_id": run["task_id"], "lease_token": run["lease_token"], "outcome": "succeeded"} for run in runs
            ]
            answer = json.loads(await client.post("/v1/runs/finish", json.dumps({"runs": ended}).encode()))
            count += sum(result["status"] == "ok" for result in answer["results"])
        return count

    counts = await asyncio.gather(*(work() for _ in range(CONSUMERS)))
    client.close()
    return sum(counts)


def measure(rig: Rig, count: int, batch: int) -> dict[str, Any]:
    """Let consumers drain `count` tasks, and bare SQL as many right before."""
    bare = best(rig, count)
    rig.fill(count)
    with rig.api() as api, rig.connect() as conn:
        meter = Meter(conn, [api.pid])
        before, cpu_s = meter.read(), time.process_time()
        began = time.monotonic()
        done = uvloop.run(_consume(api, batch))
        took_s = time.monotonic() - began
        costs = meter.read().since(before, count)
    if done != count:
        raise SystemExit(f"{done} of {count} runs were finished")
    rig.clear()
    load_cpu_us = (time.process_time() - cpu_s) / count * 1e6
    rate = count / took_s
    return {**costs, "per_s": rate, "bare_sql_per_s": bare, "ratio": rate / bare, "load_cpu_us": load_cpu_us}


if __name__ == "__main__":
    options = parser(__doc__ or "", n=50_000, batch=100).parse_args()
    with open_rig(options.url) as opened:
        report(measure(opened, options.n, options.batch), as_json=options.json)
