"""Batches of which a worker ends the last task, or dies before it can look."""

from __future__ import annotations

import json
import signal
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import howdah
from howdah_scheduler.batches import CompleteBatches
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    import uuid

    from tests.fix_chores import Chores
    from tests.fix_hostile import HostileServer
    from tests.fix_worker import Workbench

# Dies by itself at the moment when the outcome is committed and the batch has not been looked at.
DYING = """
import os, signal
import howdah
from howdah_worker.batch_ends import BatchEnds

async def die(self, conn):
    os.kill(os.getpid(), signal.SIGKILL)

BatchEnds.complete = die

@howdah.handler("work")
async def work(payload):
    pass
"""


async def made(bench: Workbench, items: list[dict[str, Any]], **follow_ups: Any) -> uuid.UUID:
    """Make a closed batch."""
    [row] = await bench.sql("SELECT howdah.open_batch(%s::json) AS id", json.dumps(follow_ups))
    batch: uuid.UUID = row["id"]
    await bench.enqueue_items([{"queue": "q", "batch": str(batch), **item} for item in items])
    await bench.sql("SELECT howdah.close_batch(%s)", batch)
    return batch


async def completed(bench: Workbench, batch: uuid.UUID) -> dict[str, Any]:
    """Wait until a batch is complete, and return its row."""

    async def row() -> dict[str, Any] | None:
        found = await bench.sql("SELECT * FROM howdah.batch_states WHERE batch_id = %s AND state = 'complete'", batch)
        return found[0] if found else None

    found = await eventually_async(row, 20, "the batch is complete")
    assert found is not None
    return found


async def test_worker_that_ends_the_last_task_completes_the_batch(bench: Workbench, hostile: HostileServer) -> None:
    """Without a scheduler: handlers, their own transactions and callbacks, good and bad; each knows its batch."""
    seen: dict[str, Any] = {}

    @howdah.handler("work")
    async def work(payload: str, ctx: howdah.Context) -> None:
        seen[payload] = (ctx.batch_id, ctx.completes_batch_id)
        if payload == "bad":
            raise howdah.GiveUp("no")
        if payload == "grows":
            ctx.enqueue("q", "work", "grown", batch=ctx.batch_id)
        if payload == "written":
            async with ctx.transaction():
                pass

    @howdah.handler("end")
    async def end(payload: dict[str, Any], ctx: howdah.Context) -> None:
        seen["end"] = (ctx.batch_id, ctx.completes_batch_id, payload)

    await bench.start(callback_allow_cidrs=(ip_network("127.0.0.0/8"),))
    http = {"http": {"url": hostile.url("ok")}}
    handled = [{"handler": "work", "payload": payload} for payload in ("good", "bad", "grows", "written")]
    batch = await made(
        bench, [*handled, http], on_complete={"queue": "q", "handler": "end"}, on_failure={"queue": "q", **http}
    )
    row = await completed(bench, batch)
    await bench.drained()
    headers = [{name.lower(): value for name, value in each.headers} for each in hostile.requests]
    requests = [(each.get("howdah-batch"), each.get("howdah-completes-batch")) for each in headers]

    assert (row["tasks"], row["succeeded"], row["failed"]) == (6, 5, 1)
    assert {seen[name] for name in ("good", "bad", "grows", "grown", "written")} == {(batch, None)}
    assert seen["end"][:2] == (None, batch)
    assert seen["end"][2] == {
        "batch": str(batch), "tasks": 6, "succeeded": 5, "failed": 1, "cancelled": 0, "expired": 0
    }  # fmt: skip
    assert requests == [(str(batch), None), (None, str(batch))]
    assert json.loads(hostile.requests[1].body) == seen["end"][2]


async def test_worker_that_is_killed_before_it_looks_leaves_the_end_to_the_scheduler(
    bench: Workbench, chores: Chores
) -> None:
    """Its last outcome is recorded; the follow-up is enqueued once, by the chore."""
    batch = await made(bench, [{"handler": "work"}], on_complete={"queue": "ends", "handler": "end"})
    process = bench.spawn(DYING)

    async def is_dead() -> bool:
        return process.poll() is not None

    await eventually_async(is_dead, 30, "the worker has died")
    [before] = await bench.sql("SELECT state, pending FROM howdah.batch_states WHERE batch_id = %s", batch)
    await chores.take(CompleteBatches("howdah"))
    await chores.make_due("batches")
    await chores.take(CompleteBatches("howdah"))
    row = await completed(bench, batch)
    ends = await bench.sql("SELECT completes_batch_id FROM howdah.tasks WHERE completes_batch_id IS NOT NULL")

    assert process.returncode == -signal.SIGKILL
    assert (before["state"], before["pending"]) == ("running", 0)
    assert (row["tasks"], row["succeeded"]) == (1, 1)
    assert [each["completes_batch_id"] for each in ends] == [batch]
