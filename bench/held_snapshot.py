"""Whether a worker slows down while a transaction that somebody forgot keeps dead rows from being removed.

A feeder keeps some tasks waiting, a worker runs them, and a REPEATABLE READ snapshot
taken before all of it stays open. Reported are the rates over the first and the last
fifth of the tasks, with the snapshot (held) and without (free).
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import psycopg
from bare_sql import best
from meter import LOOK_S, Meter
from rig import open_rig, parser, report, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meter import Reading
    from rig import Rig

CHUNK = 10_000


@contextlib.contextmanager
def snapshot(url: str) -> Iterator[None]:
    """Hold a snapshot of a database open."""
    with psycopg.connect(url) as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        conn.execute("SELECT count(*) FROM howdah.queues")
        yield


def feed(rig: Rig, count: int) -> list[Reading]:
    """Run `count` tasks with between one and two chunks of them waiting; returns readings as they finish."""
    with rig.connect() as conn, rig.worker() as worker:
        meter = Meter(conn, [worker.pid])
        start = meter.finished()
        rig.fill(CHUNK, settle=False)
        until(lambda: meter.finished() > start, 60, "the worker starts", LOOK_S)
        fed, readings = CHUNK, [meter.read()]
        while (latest := readings[-1]).finished < start + count:
            if fed < count and fed - (latest.finished - start) < CHUNK:
                rig.fill(CHUNK, settle=False)
                fed += CHUNK
            else:
                time.sleep(LOOK_S)
            readings.append(meter.read())
    return readings


def summary(readings: list[Reading]) -> dict[str, float]:
    """Return the rate of the first and the last fifth, and the costs over all."""
    first, last = readings[0], readings[-1]
    fifth = (last.finished - first.finished) / 5
    after_first = next(each for each in readings if each.finished >= first.finished + fifth)
    before_last = next(each for each in readings if each.finished >= last.finished - fifth)
    rates = {
        "first_fifth_per_s": after_first.since(first)["per_s"],
        "last_fifth_per_s": last.since(before_last)["per_s"],
    }
    rates["last_to_first"] = rates["last_fifth_per_s"] / rates["first_fifth_per_s"]
    return {**last.since(first), **rates}


def measure(rig: Rig, count: int) -> dict[str, float]:
    """Measure with and without the snapshot."""
    result = {"bare_sql_per_s": best(rig, min(count, 100_000))}
    for name, holding in {"free": contextlib.nullcontext(), "held": snapshot(rig.url)}.items():
        with holding:
            figures = summary(feed(rig, count))
        rig.clear()
        result |= {f"{name}_{figure}": value for figure, value in figures.items()}
        result[f"{name}_ratio"] = figures["per_s"] / result["bare_sql_per_s"]
    return result


if __name__ == "__main__":
    options = parser(__doc__ or "", n=1_000_000).parse_args()
    with open_rig(options.url) as opened:
        report(measure(opened, options.n), as_json=options.json)
