"""Whether a drain slows down with the number of tasks that wait: as many are drained from ever larger backlogs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drain import series
from rig import open_rig, parser, report

if TYPE_CHECKING:
    from rig import Rig


def measure(rig: Rig, count: int, sizes: list[int]) -> dict[str, float]:
    """Drain `count` tasks with so many more behind them, for each size."""
    result, change = series(rig, count, "behind", sizes, lambda size: rig.fill(size + count))
    return result | {"largest_to_smallest": change}


if __name__ == "__main__":
    options = parser(__doc__ or "", n=100_000, sizes="0,100000,1000000").parse_args()
    with open_rig(options.url) as opened:
        figures = measure(opened, options.n, [int(size) for size in options.sizes.split(",")])
    report(figures, as_json=options.json)
