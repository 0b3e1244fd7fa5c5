"""What a tenant with a long backlog costs another with ten tasks, on one worker with default settings.

The newcomer enqueues ten tasks at once, again and again, first alone and then while
the other tenant's tasks wait in their hundred thousands; its latency is from the call
to the end of its tenth handler. It is measured with handlers that do nothing and with
those that last 10 ms. The ratio is that of the medians; with those that last 10 ms it is to be below 2.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from rig import open_rig, parser, percentile, report, until
from starts import recorded

if TYPE_CHECKING:
    from rig import Rig
    from starts import Starts

KINDS = {"noop": ("bench.noop", 0.0), "pause": ("bench.pause", 0.01)}
TEN = 10
# From round to round: long enough for a busy worker to have other things in hand again.
PAUSE_S = 0.1


def rounds(rig: Rig, starts: Starts, count: int, lasts_s: float) -> list[float]:
    """Enqueue ten tasks so many times, and return when the last of each ten had ended, in ms."""
    waits: list[float] = []
    with rig.connect() as conn:
        for _ in range(count):
            first = starts.count()
            payload = {"at": time.monotonic(), "lasts": lasts_s}
            items = [{"queue": "bench", "handler": "bench.marked", "payload": payload}] * TEN
            conn.execute("SELECT count(*) FROM howdah.enqueue_many('newcomer', %s::json)", [json.dumps(items)])
            until(lambda first=first: starts.count() == first + TEN, 60, "the ten end")
            waits.append(max(starts.waits_ms(first)))
            time.sleep(PAUSE_S)
    return waits


def measure(rig: Rig, kind: str, waiting: int, count: int) -> dict[str, Any]:
    """Measure the newcomer alone, then beside `waiting` tasks of another tenant."""
    handler, lasts_s = KINDS[kind]
    with recorded() as starts, rig.connect() as conn:
        conn.execute("INSERT INTO howdah.tenants (name) VALUES ('newcomer') ON CONFLICT DO NOTHING")
        with rig.worker(BENCH_STARTS=starts.path):
            rounds(rig, starts, 5, lasts_s)  # The first makes the names, and warms everybody up.
            alone = rounds(rig, starts, count, lasts_s)
        rig.clear()
        rig.fill(waiting, handler=handler)
        with rig.worker(BENCH_STARTS=starts.path):
            rounds(rig, starts, 5, lasts_s)
            beside = rounds(rig, starts, count, lasts_s)
            row = conn.execute("SELECT count(*) FROM howdah.runs").fetchone()
        assert row is not None
        assert row[0] > 0, "the other tenant's tasks did not last: take more of them"
        rig.clear()
    figures = {"alone": alone, "beside": beside}
    result = {
        f"{kind}_{name}_p{round(share * 100)}_ms": percentile(waits, share)
        for name, waits in figures.items()
        for share in (0.5, 0.9)
    }
    return {**result, f"{kind}_ratio": result[f"{kind}_beside_p50_ms"] / result[f"{kind}_alone_p50_ms"]}


def main() -> None:
    """Print figures."""
    options = parser(__doc__ or "", n=1_000_000, rounds=40, kinds="noop,pause").parse_args()
    with open_rig(options.url) as rig:
        result: dict[str, Any] = {}
        for kind in options.kinds.split(","):
            result |= measure(rig, kind, options.n, options.rounds)
    report(result, as_json=options.json)


if __name__ == "__main__":
    main()
