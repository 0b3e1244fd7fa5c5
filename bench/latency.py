"""How long a task waits for an idle worker: from the call of howdah.enqueue, or from the HTTP request, to the handler.

Tasks come one at a time, 20 to 60 ms apart, so that the worker sleeps at each.
Delayed tasks tell how late they start after their time.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rig import open_rig, parser, percentile, report, until

if TYPE_CHECKING:
    from rig import Rig


def measure(rig: Rig, count: int) -> dict[str, float]:
    """Return percentiles in milliseconds of immediate and of delayed tasks."""
    spread = random.Random(7)
    with tempfile.TemporaryDirectory() as directory, rig.connect() as conn:
        starts = Path(directory) / "starts"
        starts.touch()

        def waits() -> list[float]:
            return [float(line) * 1000 for line in starts.read_text().splitlines()]

        def enqueue(at: float, delay_ms: int = 0) -> None:
            conn.execute(
                "SELECT howdah.enqueue('bench', 'bench.mark', %s::json, options => %s::jsonb)",
                [json.dumps({"at": at}), json.dumps({"delay": f"{delay_ms}ms"})],
            )

        with rig.worker(BENCH_STARTS=str(starts)):
            enqueue(time.monotonic())
            until(lambda: len(waits()) == 1, 60, "the worker starts")
            for _ in range(count):
                enqueue(time.monotonic())
                time.sleep(spread.uniform(0.020, 0.060))
            until(lambda: len(waits()) == count + 1, 60, "all tasks start")
            immediate = waits()[1:]
            for _ in range(count):
                delay_ms = spread.randrange(200, 2000)
                # The delay counts from the statement, which starts a little after this moment.
                enqueue(time.monotonic() + delay_ms / 1000, delay_ms)
            until(lambda: len(waits()) == 2 * count + 1, 60, "all delayed tasks start")
            delayed = waits()[count + 1 :]
    rig.clear()
    return {
        "idle_p50_ms": percentile(immediate, 0.5),
        "idle_p99_ms": percentile(immediate, 0.99),
        "delayed_late_p50_ms": percentile(delayed, 0.5),
        "delayed_late_p99_ms": percentile(delayed, 0.99),
    }


if __name__ == "__main__":
    options = parser(__doc__ or "", n=300).parse_args()
    with open_rig(options.url) as opened:
        report(measure(opened, options.n), as_json=options.json)
