"""How long a task waits for a free worker: from the call that enqueues it to the first line of its handler.

Idle: tasks come one at a time, 20 to 60 ms apart, through `howdah.enqueue` and through
the HTTP API, so that the worker sleeps at each. Under load: at a fixed rate over
HTTP, whether or not earlier requests were answered. Delayed: how late tasks start
after their time. The yardstick is what bare SQL takes to enqueue, claim and finish
one task.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from typing import TYPE_CHECKING

import uvloop
from bare_sql import one_task_ms
from http_client import Client
from meter import Meter
from rig import open_rig, parser, percentile, report, until
from starts import recorded

if TYPE_CHECKING:
    from collections.abc import Callable

    from rig import Api, Rig
    from starts import Starts

CONNECTIONS = 64


def idle(rig: Rig, starts: Starts, count: int, send: Callable[[float], object]) -> list[float]:
    """Send tasks one at a time with pauses between, and return their waits in ms."""
    spread, first = random.Random(7), starts.count()
    for _ in range(count):
        send(time.monotonic())
        time.sleep(spread.uniform(0.020, 0.060))
    until(lambda: starts.count() == first + count, 60, "all tasks start")
    return starts.waits_ms(first)


def delayed(rig: Rig, starts: Starts, count: int) -> list[float]:
    """Send tasks that are due in 0.2 to 2 s, and return how late they start in ms."""
    spread, first = random.Random(7), starts.count()
    with rig.connect() as conn:
        for _ in range(count):
            delay_ms = spread.randrange(200, 2000)
            # The delay counts from the statement, which starts a little after this moment.
            payload = json.dumps({"at": time.monotonic() + delay_ms / 1000})
            conn.execute(
                "SELECT howdah.enqueue('bench', 'bench.mark', %s::json, options => %s::jsonb)",
                [payload, json.dumps({"delay": f"{delay_ms}ms"})],
            )
    until(lambda: starts.count() == first + count, 60, "all delayed tasks start")
    return starts.waits_ms(first)


def loaded(rig: Rig, starts: Starts, api: Api, worker_pid: int, rate: int, seconds: float) -> dict[str, float]:
    """Send `rate` tasks a second, and return their waits and what each cost."""
    first, count = starts.count(), int(rate * seconds)
    with rig.connect() as conn:
        meter = Meter(conn, [api.pid, worker_pid])
        before = meter.read()
        uvloop.run(_offer(api, rate, count))
        offered_s = time.monotonic() - before.at
        until(lambda: starts.count() == first + count, 60, "all tasks start")
        costs = meter.read().since(before, count)
    waits = starts.waits_ms(first)
    return {
        "offered_per_s": count / offered_s,
        "p50_ms": percentile(waits, 0.5),
        "p99_ms": percentile(waits, 0.99),
        "max_ms": max(waits),
        **{name: costs[name] for name in costs if name != "per_s"},
    }


async def _offer(api: Api, rate: int, count: int) -> None:
    """Start each request at its time; it waits for one of the connections if all are busy."""
    client = await Client.connect(api.port, api.key, CONNECTIONS)
    began = time.monotonic()
    async with asyncio.TaskGroup() as requests:
        for number in range(count):
            ahead_s = began + number / rate - time.monotonic()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            requests.create_task(client.post("/v1/tasks", task(time.monotonic())))
    client.close()


def task(at: float) -> bytes:
    """Return the request that creates a task which records how long after `at` it starts."""
    return b'{"queue":"bench","handler":"bench.mark","payload":{"at":%.9f}}' % at


def measure(rig: Rig, count: int, rates: list[int], seconds: float) -> dict[str, float]:
    """Return percentiles in milliseconds of every kind."""
    result = {"bare_sql_task_ms": one_task_ms(rig, max(count, 100))}
    with recorded() as starts, rig.connect() as conn, contextlib.ExitStack() as running:
        worker = running.enter_context(rig.worker(BENCH_STARTS=starts.path))
        api = running.enter_context(rig.api())
        loop = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        running.enter_context(loop)
        client = loop.run(Client.connect(api.port, api.key, 1))
        running.callback(client.close)

        def over_sql(at: float) -> None:
            conn.execute("SELECT howdah.enqueue('bench', 'bench.mark', %s::json)", [json.dumps({"at": at})])

        def over_http(at: float) -> None:
            loop.run(client.post("/v1/tasks", task(at)))

        kinds = {"idle": over_sql, "idle_http": over_http}
        for send in kinds.values():
            # The first makes the names, and warms everybody up.
            idle(rig, starts, 10, send)
        waits = {name: idle(rig, starts, count, send) for name, send in kinds.items()}
        waits["delayed_late"] = delayed(rig, starts, count)
        for name, each in waits.items():
            result |= {f"{name}_p50_ms": percentile(each, 0.5), f"{name}_p99_ms": percentile(each, 0.99)}
        for rate in rates:
            figures = loaded(rig, starts, api, worker.pid, rate, seconds)
            result |= {f"at_{rate}_{name}": figure for name, figure in figures.items()}
    rig.clear()
    result["ratio"] = result["idle_p50_ms"] / result["bare_sql_task_ms"]
    return result


if __name__ == "__main__":
    options = parser(__doc__ or "", n=300, rates="500,5000", seconds=10.0).parse_args()
    with open_rig(options.url) as opened:
        rates = [int(rate) for rate in options.rates.split(",")]
        figures = measure(opened, options.n, rates, options.seconds)
    report(figures, as_json=options.json)
