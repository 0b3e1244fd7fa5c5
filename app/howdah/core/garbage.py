"""Python's garbage collector, set for processes that make very many objects and few cycles."""

from __future__ import annotations

import gc


def tune() -> None:
    """Let the collector look less often, and never at what was imported until now, which is never garbage.

    With Python's thresholds it walked all live runs of a worker every 700 new objects, and took 40 % of the
    time of a run that does nothing: 13.8 us with them, 8.6 with these, 8.3 with none. In the API it took 5 to
    10 us of a create's 70.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
