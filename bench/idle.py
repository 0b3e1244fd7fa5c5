"""What an idle worker process costs: memory, connections, statements, CPU.

Statements are counted by pg_stat_statements at the moment they run. The server's
transaction counters would not do: a session reports to them up to ten seconds late,
so they showed what the benchmark itself had asked while it waited for the worker
(seen: between 3 and 50 transactions a second for the same idle worker).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from meter import Meter
from rig import open_rig, parser, report, rss_mb, until

if TYPE_CHECKING:
    from rig import Rig

CONNECTIONS = """
SELECT /* bench */ count(*)
FROM pg_stat_activity
WHERE application_name LIKE 'howdah%' AND datname = current_database()
"""


def measure(rig: Rig, settle_s: float, seconds: float) -> dict[str, float]:
    """Run a worker that has done one task, let it come to rest, and look for so many seconds."""
    with rig.connect() as conn, rig.worker() as worker:
        meter = Meter(conn, [worker.pid])
        rig.seed(1)
        until(lambda: meter.finished() == 1, 60, "the worker works")
        time.sleep(settle_s)
        before = meter.read()
        time.sleep(seconds)
        after = meter.read()
        connections = conn.execute(CONNECTIONS).fetchone()
        assert connections is not None
        result = {
            "rss_mb": rss_mb(worker.pid),
            "connections": float(connections[0]),
            "statements_per_s": (after.statements - before.statements) / (after.at - before.at),
            "worker_cpu_share": (after.client_cpu_s - before.client_cpu_s) / (after.at - before.at),
        }
        if after.server_cpu_s is not None and before.server_cpu_s is not None:
            result["server_cpu_share"] = (after.server_cpu_s - before.server_cpu_s) / (after.at - before.at)
    rig.clear()
    return result


if __name__ == "__main__":
    options = parser(__doc__ or "", settle=2.0, seconds=10.0).parse_args()
    with open_rig(options.url) as opened:
        report(measure(opened, options.settle, options.seconds), as_json=options.json)
