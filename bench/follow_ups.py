"""What it costs that the end of a task enqueues another: drained by one worker, against as many tasks that do not.

`plain` are twice as many tasks without a sequel; of `follow_up` each has an `on_success`, and of `enqueue` each
handler enqueues one. So each drain ends with the same number of runs; rates and costs are per run.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from drain import drain
from rig import open_rig, parser, report

if TYPE_CHECKING:
    from rig import Rig

NEXT = {"queue": "bench0", "handler": "bench.noop"}
KINDS = {
    "plain": [NEXT, NEXT],
    "follow_up": [{**NEXT, "on_success": NEXT}],
    "enqueue": [{**NEXT, "handler": "bench.parent"}],
}


def compare(rig: Rig, count: int, workers: int) -> dict[str, Any]:
    """Drain each kind once, each on empty tables."""
    result: dict[str, Any] = {}
    for kind, items in KINDS.items():
        with rig.connect() as conn:
            batch = json.dumps(items * 500)
            for _ in range(count // 1_000):
                conn.execute("SELECT count(*) FROM howdah.enqueue_many('default', %s)", [batch])
            conn.execute("VACUUM (ANALYZE) howdah.runs, howdah.tasks")
            conn.execute("CHECKPOINT")
        costs = drain(rig, count // 1_000 * 1_000, workers=workers)
        rig.clear()
        result |= {f"{kind}_{name}": figure for name, figure in costs.items()}
        result[f"{kind}_ratio"] = costs["per_s"] / result["plain_per_s"]
    return result


if __name__ == "__main__":
    given = parser(__doc__ or "", n=40_000, workers=1).parse_args()
    with open_rig(given.url) as opened:
        figures = compare(opened, given.n, given.workers)
    report(figures, as_json=given.json)
