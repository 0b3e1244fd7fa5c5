"""Whether a drain slows down with the number of tasks that wait: as many are drained from ever larger backlogs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bare_sql import best
from drain import drain
from rig import open_rig, parser, report

if TYPE_CHECKING:
    from rig import Rig


def measure(rig: Rig, count: int, sizes: list[int]) -> dict[str, float]:
    """Drain `count` tasks with so many more behind them, for each size."""
    result = {"bare_sql_per_s": best(rig, count)}
    rates: list[float] = []
    for size in sizes:
        rig.fill(size + count)
        costs = drain(rig, count)
        rig.clear()
        rates.append(costs["per_s"])
        result |= {f"behind_{size}_{name}": figure for name, figure in costs.items()}
        result[f"behind_{size}_ratio"] = costs["per_s"] / result["bare_sql_per_s"]
    result["largest_to_smallest"] = rates[-1] / rates[0]
    return result


if __name__ == "__main__":
    options = parser(__doc__ or "", n=100_000, sizes="0,100000,1000000").parse_args()
    with open_rig(options.url) as opened:
        figures = measure(opened, options.n, [int(size) for size in options.sizes.split(",")])
    report(figures, as_json=options.json)
