"""What work costs: statements, WAL, and the CPU of PostgreSQL and of Howdah's processes, per task.

Statements come from pg_stat_statements, top-level ones only; those of the benchmark
itself bear the mark `/* bench */` and do not count (in front of a statement it would be
lost: PostgreSQL 18 cuts it off). Each is one round trip, BEGIN and COMMIT included,
for Howdah sends one at a time. CPU comes from /proc, and is left out if the server
runs elsewhere.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

# How long the waits are between two looks at a counter: each look costs PostgreSQL 0.05 ms, and 1.5 ms more for a
# thousand statements of other databases.
LOOK_S = 0.02

_COUNTERS = """
SELECT /* bench */
    coalesce(sum(s.calls) FILTER (WHERE s.query NOT LIKE '%/* bench */%'), 0)::bigint,
    coalesce(sum(s.rows) FILTER (WHERE s.query LIKE '%INSERT INTO howdah.finished_runs%'), 0)::bigint,
    pg_current_wal_lsn() - '0/0'
FROM pg_stat_statements AS s
JOIN pg_database AS d ON d.oid = s.dbid
WHERE d.datname = current_database() AND s.toplevel
"""


class Reading(NamedTuple):
    """Counters at one moment."""

    at: float
    finished: int
    statements: int
    wal_bytes: int
    server_cpu_s: float | None
    client_cpu_s: float

    def since(self, before: Reading, tasks: int | None = None) -> dict[str, float]:
        """Return the rate since an earlier reading and what each task cost; by default, of tasks finished."""
        count = self.finished - before.finished if tasks is None else tasks
        costs = {
            "per_s": count / (self.at - before.at),
            "statements": (self.statements - before.statements) / count,
            "wal_bytes": (self.wal_bytes - before.wal_bytes) / count,
            "client_cpu_us": (self.client_cpu_s - before.client_cpu_s) / count * 1e6,
        }
        if self.server_cpu_s is not None and before.server_cpu_s is not None:
            costs["server_cpu_us"] = (self.server_cpu_s - before.server_cpu_s) / count * 1e6
        return costs


class Meter:
    """Reads the counters of one database, and the CPU of some processes of this machine."""

    def __init__(self, conn: psycopg.Connection[Any], pids: Sequence[int] = ()) -> None:
        """Use an autocommit connection; `pids` are the processes whose CPU is the client's."""
        self._conn = conn
        self._pids = pids
        self._postmaster = _parent(conn.info.backend_pid)

    def finished(self) -> int:
        """Return how many outcomes were recorded in this database so far."""
        return self.read().finished

    def read(self) -> Reading:
        """Read all counters now."""
        row = self._conn.execute(_COUNTERS).fetchone()
        assert row is not None
        return Reading(
            time.monotonic(),
            row[1],
            row[0],
            int(row[2]),
            None if self._postmaster is None else tree_cpu_s(self._postmaster),
            sum(map(cpu_s, self._pids)),
        )


def cpu_s(pid: int, *, and_ended_children: bool = False) -> float:
    """Seconds of CPU that a process has used so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11 : 15 if and_ended_children else 13])) / os.sysconf("SC_CLK_TCK")


def tree_cpu_s(pid: int) -> float:
    """Seconds of CPU that a process and its children, also those that have ended, have used so far."""
    total = cpu_s(pid, and_ended_children=True)
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            total += cpu_s(int(child))
        except FileNotFoundError:
            continue  # It has just ended; the next reading has it among those that did.
    return total


def _parent(backend_pid: int) -> int | None:
    """Return the process that all backends descend from, or None if they are not on this machine."""
    try:
        name, fields = Path(f"/proc/{backend_pid}/stat").read_text().rsplit(")", 1)
    except FileNotFoundError:
        return None
    return int(fields.split()[1]) if "postgres" in name else None
