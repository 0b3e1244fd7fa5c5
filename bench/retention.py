"""What dropping an expired day costs those who work meanwhile: latency before, and while a scheduler retires it.

The day holds as many ended tasks as asked for, with their history. A worker runs
tasks that arrive over HTTP at a fixed rate all the while.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from latency import loaded
from rig import open_rig, parser, report, until
from starts import recorded

if TYPE_CHECKING:
    from rig import Rig

AGE = "-40 days"
# Tasks that were sent and ended forty days ago, a million at a time.
ENDED = """
WITH sent AS (
    INSERT INTO howdah.tasks (tenant_id, id, queue_id, target_id, priority, created_at, run_at, payload)
    SELECT
        1, howdah.new_id(n), %(queue_id)s::integer, %(target_id)s::integer, 1, howdah.now(), howdah.now(),
        %(payload)s::json
    FROM generate_series(1, %(count)s::integer) AS n
    RETURNING id, queue_id
)
INSERT INTO howdah.finished_runs (
    tenant_id, task_id, claim_no, attempt, queue_id, outcome, is_final, queued_at, claimed_at, finished_at, lease_token
)
SELECT
    1, s.id, 1, 1, s.queue_id, 'succeeded', true, howdah.now(), howdah.now(), howdah.now(), gen_random_uuid()
FROM sent AS s
"""
REST = "SELECT count(*) FROM pg_class WHERE relnamespace = 'howdah'::regnamespace AND relname = ANY (%s)"


def fill_day(rig: Rig, count: int) -> list[str]:
    """Make the expired day and return the names of its tables."""
    with rig.connect() as conn:
        variables = rig.variables(conn)
        conn.execute("SELECT set_config('howdah.clock_offset', %s, false)", [AGE])
        made = [str(row[0]) for row in conn.execute("SELECT howdah.make_partitions(0)")]
        for start in range(0, count, 1_000_000):
            conn.execute(
                ENDED,
                {
                    "queue_id": variables["queue_ids"].strip("{}"),
                    "target_id": variables["target_id"],
                    "payload": variables["payload"],
                    "count": min(1_000_000, count - start),
                },
            )
        conn.execute("CHECKPOINT")
    return made


def measure(rig: Rig, count: int, rate: int, seconds: float) -> dict[str, float]:
    """Fill a day, and return the latencies of others before and while it is dropped."""
    tables = fill_day(rig, count)
    with recorded() as starts, rig.connect() as conn, contextlib.ExitStack() as running:
        worker = running.enter_context(rig.worker(BENCH_STARTS=starts.path))
        api = running.enter_context(rig.api())

        def is_gone() -> bool:
            return conn.execute(REST, [tables]).fetchone() == (0,)

        loaded(rig, starts, api, worker.pid, rate, 1.0)
        before = loaded(rig, starts, api, worker.pid, rate, seconds)
        pool = running.enter_context(ThreadPoolExecutor(1))
        running.enter_context(rig.process("scheduler", HOWDAH_RETENTION_S="1d"))
        began = time.monotonic()

        def watch() -> float:
            until(is_gone, 600, "the day is dropped", 0.02)
            return time.monotonic() - began

        dropped = pool.submit(watch)
        during = loaded(rig, starts, api, worker.pid, rate, seconds)
        dropped_s = dropped.result()
    rig.clear()
    return {
        "rows": 2.0 * count,
        "dropped_s": dropped_s,
        "before_p50_ms": before["p50_ms"],
        "before_p99_ms": before["p99_ms"],
        "before_max_ms": before["max_ms"],
        "during_p50_ms": during["p50_ms"],
        "during_p99_ms": during["p99_ms"],
        "during_max_ms": during["max_ms"],
        "p99_ratio": during["p99_ms"] / before["p99_ms"],
    }


if __name__ == "__main__":
    options = parser(__doc__ or "", n=1_000_000, rate=500, seconds=15.0).parse_args()
    with open_rig(options.url) as opened:
        report(measure(opened, options.n, options.rate, options.seconds), as_json=options.json)
