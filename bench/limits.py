"""What limits cost: how fast a worker drains tasks with flow keys, or of a queue with limits, against tasks without.

`keys` spreads the tasks over that many flow keys of a concurrency that is reached now and then, in the order of a
round robin; `max_running` and `rate` give their queue limits that are never reached.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from drain import drain
from rig import open_rig, parser, report

if TYPE_CHECKING:
    from rig import Rig

KINDS = ("none", "keys", "max_running", "rate")


def fill(rig: Rig, kind: str, count: int, keys: int, concurrency: int) -> None:
    """Store `count` tasks of a kind; those with flow keys as a client would, in batches of 1,000."""
    if kind != "keys":
        rig.fill(count)
        limits = {
            "none": {},
            "max_running": {"max_running": 1_000_000},
            "rate": {"rate": {"limit": 1_000_000, "period": "1s"}},
        }[kind]
        with rig.connect() as conn:
            conn.execute("SELECT howdah.set_queue('bench0', %s)", [json.dumps(limits)])
        return
    with rig.connect() as conn:
        for start in range(0, count, 1_000):
            items = [
                {
                    "queue": "bench0",
                    "handler": "bench.noop",
                    "flow": {"key": f"k{number % keys}", "concurrency": concurrency},
                }
                for number in range(start, min(start + 1_000, count))
            ]
            conn.execute("SELECT count(*) FROM howdah.enqueue_many('default', %s)", [json.dumps(items)])
        conn.execute("VACUUM (ANALYZE) howdah.runs, howdah.tasks")
        conn.execute("CHECKPOINT")


def compare(rig: Rig, count: int, keys: int, concurrency: int, workers: int) -> dict[str, Any]:
    """Drain each kind once, each on empty tables."""
    result: dict[str, Any] = {}
    for kind in KINDS:
        fill(rig, kind, count, keys, concurrency)
        costs = drain(rig, count, workers=workers)
        rig.clear()
        with rig.connect() as conn:
            conn.execute("DELETE FROM howdah.queues")
            conn.execute("DELETE FROM howdah.flow_keys")
        result |= {f"{kind}_{name}": figure for name, figure in costs.items()}
        result[f"{kind}_ratio"] = costs["per_s"] / result["none_per_s"]
    return result


if __name__ == "__main__":
    given = parser(__doc__ or "", n=50_000, keys=1_000, concurrency=10, workers=1).parse_args()
    with open_rig(given.url) as opened:
        figures = compare(opened, given.n, given.keys, given.concurrency, given.workers)
    report(figures, as_json=given.json)
