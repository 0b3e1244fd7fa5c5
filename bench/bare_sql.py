"""What PostgreSQL alone does of the work that Howdah does: the yardstick of all ratios.

pgbench runs `bare_sql.sql`, the row work of claim and finish in batches of 500 on
Howdah's own tables, with 1, 2 and 4 clients. The best of them counts.
"""

from __future__ import annotations

import subprocess
import time
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
    queue_id = rig.seed(count)
    command = [
        str(rig.bin_dir / "pgbench"), "-n", "-M", "prepared", "-f", str(BENCH / "bare_sql.sql"),
        "-D", f"queue_id={queue_id}", "-c", str(clients), "-j", "1", "-t", str(-(-count // BATCH // clients)), rig.url,
    ]  # fmt: skip
    started = time.monotonic()
    subprocess.run(command, env=rig.environment(PGOPTIONS=PLANNER), check=True, capture_output=True)
    elapsed = time.monotonic() - started
    with rig.connect() as conn:
        row = conn.execute("SELECT count(*) FROM howdah.runs").fetchone()
    assert row == (0,), f"pgbench left {row} runs"
    rig.clear()
    return count / elapsed


def best(rig: Rig, count: int) -> float:
    """Return the best rate of 1, 2 and 4 clients."""
    return max(measure(rig, count, clients) for clients in (1, 2, 4))


if __name__ == "__main__":
    options = parser(__doc__ or "", n=100_000).parse_args()
    with open_rig(options.url) as opened:
        rates = {f"clients_{clients}_per_s": measure(opened, options.n, clients) for clients in (1, 2, 4)}
    report(rates, as_json=options.json)
