"""Whether a drain slows down with the number of queues that the same tasks are spread over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drain import series
from rig import open_rig, parser, report

if TYPE_CHECKING:
    from rig import Rig


def measure(rig: Rig, count: int, queue_counts: list[int]) -> dict[str, float]:
    """Drain `count` tasks from so many queues, for each number of queues."""
    result, change = series(rig, count, "queues", queue_counts, lambda queues: rig.fill(count, queues=queues))
    return result | {"most_to_fewest": change}


if __name__ == "__main__":
    options = parser(__doc__ or "", n=100_000, queues="1,100,10000").parse_args()
    with open_rig(options.url) as opened:
        figures = measure(opened, options.n, [int(queues) for queues in options.queues.split(",")])
    report(figures, as_json=options.json)
