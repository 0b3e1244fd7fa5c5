"""How many tasks a second go all the way at once: accepted over HTTP in batches, run, and their outcomes stored.

One API process, one worker, a scheduler, and a producer that keeps some thousand
tasks waiting. Rate, waiting tasks, dead rows and sizes are taken every tenth of the
time, because what cannot be kept up does not show at first.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from typing import TYPE_CHECKING, Any

import uvloop
from bare_sql import best
from http_client import Client
from meter import LOOK_S, Meter
from rig import PAYLOAD, open_rig, parser, report

if TYPE_CHECKING:
    import psycopg
    from rig import Api, Rig

BATCH = 1_000
CONNECTIONS = 2
WAITING_MAX = 10_000
TASK = {"queue": "bench", "handler": "bench.noop", "payload": json.loads(PAYLOAD)}
STATE = """
SELECT /* bench */
    (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'howdah.runs'::regclass),
    pg_total_relation_size('howdah.runs') / 1e6
"""


async def _produce(api: Api, meter: Meter, until_at: float) -> None:
    """Send batches, while not too many tasks wait, until it is time."""
    client = await Client.connect(api.port, api.key, CONNECTIONS)
    message = json.dumps({"tasks": [TASK] * BATCH}).encode()
    sent, start = 0, meter.finished()

    async def send() -> None:
        nonlocal sent
        while time.monotonic() < until_at:
            if sent - (meter.finished() - start) < WAITING_MAX:
                sent += BATCH
                await client.post("/v1/tasks/batch", message)
            else:
                await asyncio.sleep(LOOK_S)

    await asyncio.gather(*(send() for _ in range(CONNECTIONS)))
    client.close()


def measure(rig: Rig, seconds: float) -> dict[str, Any]:
    """Run everything for so long, and return the rates of its tenths."""
    result: dict[str, Any] = {"bare_sql_per_s": best(rig, 100_000)}
    with contextlib.ExitStack() as running:
        conn = running.enter_context(rig.connect())
        running.enter_context(rig.process("scheduler"))
        worker = running.enter_context(rig.worker())
        api = running.enter_context(rig.api())
        meter = Meter(conn, [worker.pid, api.pid])
        # Plans, caches and the queue's name.
        uvloop.run(_produce(api, meter, time.monotonic() + 2))
        readings, states = [meter.read()], [_state(conn)]
        for _ in range(10):
            uvloop.run(_produce(api, meter, time.monotonic() + seconds / 10))
            readings.append(meter.read())
            states.append(_state(conn))
    rates = [after.since(before)["per_s"] for before, after in itertools.pairwise(readings)]
    result |= readings[-1].since(readings[0])
    result |= {"slowest_tenth_per_s": min(rates), "first_tenth_per_s": rates[0], "last_tenth_per_s": rates[-1]}
    result |= {"dead_rows_max": max(dead for dead, _ in states)}
    result |= {f"runs_mb_after_{tenths}_tenths": states[tenths][1] for tenths in (1, 4, 7, 10)}
    result["ratio"] = result["per_s"] / result["bare_sql_per_s"]
    rig.clear()
    return result


def _state(conn: psycopg.Connection[Any]) -> tuple[int, float]:
    row = conn.execute(STATE).fetchone()
    assert row is not None
    return int(row[0]), float(row[1])


if __name__ == "__main__":
    options = parser(__doc__ or "", seconds=60.0).parse_args()
    with open_rig(options.url) as opened:
        report(measure(opened, options.seconds), as_json=options.json)
