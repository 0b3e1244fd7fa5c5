"""What the hot statements write ahead: disks, replicas and backups carry every byte of it.

EXPLAIN counts the bytes of one statement, so other tests on the server do not matter. A page
that a checkpoint has just written is logged whole at its next change; such a batch is left
out, so that the figures are the same on any machine: on PostgreSQL 15, 17 and 18, claims
write 458 to 477 bytes a run, finishes 298 to 300.
"""

from __future__ import annotations

from typing import Any, Final

from howdah.core.db.queries import load
from tests.fix_queue import Queue, Row

BATCH: Final = 500
BATCHES: Final = 6


class Explained(Queue):
    """A queue whose statements answer with what EXPLAIN says of their execution."""

    async def run(self, name: str, /, conn: Any = None, **params: Any) -> list[Row]:
        """Execute one of the query files and return its only plan."""
        cursor = await (conn or self.admin).execute(
            b"EXPLAIN (ANALYZE, WAL, FORMAT JSON) " + load(name, "howdah"), params
        )
        [row] = await cursor.fetchall()
        return [row["QUERY PLAN"][0]["Plan"]]


async def test_claim_and_finish_of_a_run_write_less_than_their_budgets(queue: Queue) -> None:
    """A claim writes at most 490 bytes a run ahead, and its finish, history included, 310."""
    await queue.enqueue(BATCH * BATCHES)
    explained = Explained(queue.database, queue.admin, queue.queue_id, queue.target_id)
    claims: list[float] = []
    finishes: list[float] = []
    for _ in range(BATCHES):
        [claim] = await explained.claim(BATCH)
        [finish] = await explained.complete(await _held(queue, claim))
        for plan, figures in ((claim, claims), (finish, finishes)):
            if not plan["WAL FPI"]:
                figures.append(plan["WAL Bytes"] / BATCH)

    assert max(claims) <= 490
    assert max(finishes) <= 310


async def _held(queue: Queue, claim: Row) -> list[Row]:
    runs = await queue.sql(
        "SELECT tenant_id, task_id, lease_token FROM howdah.runs WHERE lease_token = %s", claim["lease_token"]
    )
    assert len(runs) == BATCH
    return runs
