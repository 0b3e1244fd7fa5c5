"""How soon the runs of a worker that was killed start again, against the lease.

Two workers hold runs; one is killed with SIGKILL. The other has free slots, a
scheduler looks for leases that ended, and the time is from the kill to each start.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING

from rig import open_rig, parser, percentile, report, until
from starts import recorded

if TYPE_CHECKING:
    from rig import Rig


def measure(rig: Rig, count: int, lease_s: float) -> dict[str, float]:
    """Kill a worker that holds `count` runs, and return when they started again."""
    environment = {"HOWDAH_LEASE_S": str(lease_s), "HOWDAH_CONCURRENCY": str(count)}
    with recorded() as starts, rig.connect() as conn, contextlib.ExitStack() as running:
        environment["BENCH_STARTS"] = starts.path
        running.enter_context(rig.process("scheduler", **environment))
        victim = running.enter_context(rig.worker(**environment))
        # Under way when the worker dies, and over when they have started again.
        payload = {"at": time.monotonic(), "until": time.monotonic() + lease_s + 5}
        items = [{"queue": "bench", "handler": "bench.mark", "payload": payload}] * count
        conn.execute("SELECT count(*) FROM howdah.enqueue_many(NULL, %s::json)", [json.dumps(items)])
        until(lambda: starts.count() == count, 60, "the first worker starts all runs")
        running.enter_context(rig.worker(**environment))
        until(lambda: conn.execute("SELECT count(*) FROM howdah.workers_live").fetchone() == (2,), 30, "both live")
        killed_at = time.monotonic()
        victim.kill()
        until(lambda: starts.count() == 2 * count, lease_s * 3 + 30, "all runs start again")
        waits = [at - killed_at for at in starts.instants(count)]
    rig.clear()
    return {
        "lease_s": lease_s,
        "again_p50_s": percentile(waits, 0.5),
        "again_max_s": max(waits),
        "past_lease_s": max(waits) - lease_s,
    }


if __name__ == "__main__":
    options = parser(__doc__ or "", n=100, lease=15.0).parse_args()
    with open_rig(options.url) as opened:
        report(measure(opened, options.n, options.lease), as_json=options.json)
