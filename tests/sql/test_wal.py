"""What the hot statements write ahead: disks, replicas and backups carry every byte of it.

EXPLAIN counts the bytes of one statement, so other tests on the server do not matter. Only a
page that a checkpoint has written since its last change is logged whole, and each DROP
DATABASE of another test is a checkpoint. So a batch is claimed and finished right after it
was stored, and one that a checkpoint met is left out: the figures are the same on any
machine.
"""

from __future__ import annotations

from typing import Any, Final

from howdah.core.db.queries import load
from tests.fix_queue import Queue, Row

BATCH: Final = 500
BATCHES: Final = 6
ATTEMPTS: Final = 100


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
    explained = Explained(queue.database, queue.admin)
    claims: list[float] = []
    finishes: list[float] = []
    for _ in range(ATTEMPTS):
        await explained.enqueue(BATCH)
        [claim] = await explained.claim(BATCH)
        [finish] = await explained.complete(await _held(queue, claim))
        if not claim["WAL FPI"] and not finish["WAL FPI"]:
            claims.append(claim["WAL Bytes"] / BATCH)
            finishes.append(finish["WAL Bytes"] / BATCH)
        if len(claims) == BATCHES:
            break

    assert len(claims) == BATCHES, "a checkpoint met nearly every batch"
    assert max(claims) <= 490
    assert max(finishes) <= 310


async def _held(queue: Queue, claim: Row) -> list[Row]:
    runs = await queue.sql(
        "SELECT tenant_id, task_id, lease_token FROM howdah.runs WHERE lease_token = %s", claim["lease_token"]
    )
    assert len(runs) == BATCH
    return runs
