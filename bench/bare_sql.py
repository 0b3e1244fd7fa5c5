"""What PostgreSQL alone does of the work that Howdah does: the yardstick of all ratios.

pgbench does the row work on Howdah's own tables: `bare_sql.sql` is claim and finish
in batches of 500, `bare_enqueue.sql` enqueue in batches of any size. The best of 1,
2 and 4 clients counts.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rig import BENCH, open_rig, parser, report

if TYPE_CHECKING:
    from rig import Rig

BATCH = 500
# The settings of Howdah's own claim connection, so that both run the same plans.
PLANNER = " ".join(
    f"-c {setting}"
    for setting in (
        "jit=off",
        "plan_cache_mode=force_generic_plan",
        "enable_seqscan=off",
        "enable_hashjoin=off",
        "enable_mergejoin=off",
        "enable_bitmapscan=off",
        "enable_memoize=off",
    )
)


def measure(rig: Rig, count: int, clients: int) -> float:
    """Drain `count` waiting runs with pgbench and return runs a second."""
    [queue_id] = rig.fill(count)
    started = time.monotonic()
    _pgbench(
        rig, BENCH / "bare_sql.sql", {"queue_id": str(queue_id)}, clients, "-t", str(-(-count // BATCH // clients))
    )
    elapsed = time.monotonic() - started
    with rig.connect() as conn:
        row = conn.execute("SELECT count(*) FROM howdah.runs").fetchone()
    assert row == (0,), f"pgbench left {row} runs"
    rig.clear()
    return count / elapsed


def best(rig: Rig, count: int) -> float:
    """Return the best rate of 1, 2 and 4 clients."""
    return max(measure(rig, count, clients) for clients in (1, 2, 4))


def enqueue(rig: Rig, batch: int, clients: int, seconds: float) -> float:
    """Store tasks in batches with pgbench and return tasks a second."""
    with rig.connect() as conn:
        variables = {**rig.variables(conn), "batch": str(batch)}
    printed = _pgbench(rig, BENCH / "bare_enqueue.sql", variables, clients, "-T", str(max(1, round(seconds))))
    rig.clear()
    return batch * _figure(r"tps = ([0-9.]+)", printed)


def one_task_ms(rig: Rig, count: int) -> float:
    """Return how long it takes to enqueue, claim and finish one task: three commits, one after the other."""
    with rig.connect() as conn:
        variables = {**rig.variables(conn), "batch": "1"}
    variables["queue_id"] = variables["queue_ids"].strip("{}")
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "one_task.sql"
        script.write_text((BENCH / "bare_enqueue.sql").read_text() + (BENCH / "bare_sql.sql").read_text())
        printed = _pgbench(rig, script, variables, 1, "-t", str(count))
    rig.clear()
    return _figure(r"latency average = ([0-9.]+) ms", printed)


def _pgbench(rig: Rig, script: Path, variables: dict[str, str], clients: int, *arguments: str) -> str:
    command = [str(rig.bin_dir / "pgbench"), "-n", "-M", "prepared", "-f", str(script)]
    for name, value in variables.items():
        command += ["-D", f"{name}={value}"]
    command += ["-c", str(clients), "-j", "1", *arguments, rig.url]
    environment = rig.environment(PGOPTIONS=PLANNER)
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def _figure(pattern: str, printed: str) -> float:
    found = re.search(pattern, printed)
    assert found is not None, printed
    return float(found[1])


if __name__ == "__main__":
    options = parser(__doc__ or "", n=100_000).parse_args()
    with open_rig(options.url) as opened:
        rates = {f"clients_{clients}_per_s": measure(opened, options.n, clients) for clients in (1, 2, 4)}
    report(rates, as_json=options.json)
