"""Whether a drain slows down with the number of queues that the same tasks are spread over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bare_sql import best
from drain import drain
from rig import open_rig, parser, report

if TYPE_CHECKING:
    from rig import Rig


def measure(rig: Rig, count: int, queue_counts: list[int]) -> dict[str, float]:
    """Drain `count` tasks from so many queues, for each number of queues."""
    result = {"bare_sql_per_s": best(rig, count)}
    rates: list[float] = []
    for queues in queue_counts:
        rig.fill(count, queues=queues)
        costs = drain(rig, count)
        rig.clear()
        rates.append(costs["per_s"])
        result |= {f"queues_{queues}_{name}": figure for name, figure in costs.items()}
        result[f"queues_{queues}_ratio"] = costs["per_s"] / result["bare_sql_per_s"]
    result["most_to_fewest"] = rates[-1] / rates[0]
    return result


if __name__ == "__main__":
    options = parser(__doc__ or "", n=100_000, queues="1,100,10000").parse_args()
    with open_rig(options.url) as opened:
        figures = measure(opened, options.n, [int(queues) for queues in options.queues.split(",")])
    report(figures, as_json=options.json)
