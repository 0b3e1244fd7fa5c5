"""What an idle worker process costs: memory, connections, transactions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rig import open_rig, parser, report, rss_mb, until

if TYPE_CHECKING:
    from rig import Rig


def measure(rig: Rig, settle_s: float) -> dict[str, float]:
    """Run a worker that has done one task, let it idle, and look."""
    with rig.connect() as conn, rig.worker() as worker:
        rig.seed(1)
        until(lambda: conn.execute("SELECT count(*) FROM howdah.runs").fetchone() == (0,), 60, "the worker works")
        time.sleep(settle_s)
        before = _transactions(conn)
        time.sleep(settle_s)
        connections = conn.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE application_name LIKE 'howdah%' AND datname = current_database()"
        ).fetchone()
        assert connections is not None
        result = {
            "rss_mb": rss_mb(worker.pid),
            "connections": float(connections[0]),
            "transactions_per_s": (_transactions(conn) - before) / settle_s,
        }
    rig.clear()
    return result


def _transactions(conn: object) -> int:
    row = conn.execute(  # type: ignore[attr-defined]
        "SELECT pg_stat_clear_snapshot(), xact_commit FROM pg_stat_database WHERE datname = current_database()"
    ).fetchone()
    return int(row[1])


if __name__ == "__main__":
    options = parser(__doc__ or "", settle=5.0).parse_args()
    with open_rig(options.url) as opened:
        report(measure(opened, options.settle), as_json=options.json)
