"""How fast one worker process drains a backlog of no-op handler tasks, against bare SQL in the same sitting."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bare_sql import best
from rig import cpu_s, open_rig, parser, report, rss_mb, until

if TYPE_CHECKING:
    from rig import Rig


def measure(rig: Rig, count: int, workers: int = 1, handler: str = "bench.noop") -> dict[str, float]:
    """Drain `count` tasks; the time runs from the first finish seen to the last.

    The tasks finished before the first look do not count, so that neither the
    start of the process nor its imports are measured.
    """
    rig.seed(count, handler)
    with rig.connect() as conn:

        def left() -> int:
            row = conn.execute("SELECT count(*) FROM howdah.runs").fetchone()
            assert row is not None
            return int(row[0])

        wal = _wal(conn)
        with rig.worker() as worker:
            until(lambda: left() < count, 60, "the worker starts")
            started, first, cpu = time.monotonic(), left(), cpu_s(worker.pid)
            until(lambda: left() == 0, 600, "the backlog is drained")
            elapsed = time.monotonic() - started
            result = {
                "per_s": first / elapsed,
                "client_cpu_us": (cpu_s(worker.pid) - cpu) / first * 1e6,
                "wal_bytes": (_wal(conn) - wal) / count,
                "rss_mb": rss_mb(worker.pid),
            }
        row = conn.execute("SELECT count(*) FROM howdah.finished_runs WHERE outcome = 'succeeded'").fetchone()
        assert row == (count,), f"{row} of {count} succeeded"
    rig.clear()
    return result


def _wal(conn: Any) -> int:
    return int(conn.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()[0])


if __name__ == "__main__":
    options = parser(__doc__ or "", n=100_000, reps=3, handler="bench.noop").parse_args()
    with open_rig(options.url) as opened:
        pairs = [
            (best(opened, options.n), measure(opened, options.n, handler=options.handler)) for _ in range(options.reps)
        ]
    bare, ours = sorted(pairs, key=lambda pair: pair[1]["per_s"] / pair[0])[len(pairs) // 2]
    report({"bare_sql_per_s": bare, **ours, "ratio": ours["per_s"] / bare}, as_json=options.json)
