"""Batches by SQL: what joins them, when they are complete, and what follows on that, exactly once."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from howdah_scheduler.batches import CompleteBatches
from howdah_scheduler.cleanup import Cleanup
from howdah_scheduler.expire import Expire
from howdah_scheduler.operate import Operate
from howdah_scheduler.rescue import Rescue
from tests.fix_chores import heard, listen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

    from tests.fix_chores import Chores
    from tests.fix_queue import Queue, Row

DONE = {"queue": "ends", "handler": "done"}
GOOD = {"queue": "ends", "handler": "good"}
BAD = {"queue": "ends", "handler": "bad"}
ALL = {"on_complete": DONE, "on_success": GOOD, "on_failure": BAD}


async def opened(queue: Queue, follow_ups: Any = ALL) -> uuid.UUID:
    """Open a batch."""
    [row] = await queue.sql("SELECT howdah.open_batch(%s::json) AS id", json.dumps(follow_ups))
    batch: uuid.UUID = row["id"]
    return batch


async def closed(queue: Queue, batch: uuid.UUID) -> str:
    """Close a batch and return its state."""
    [row] = await queue.sql("SELECT howdah.close_batch(%s) AS state", batch)
    return str(row["state"])


async def made(queue: Queue, count: int = 1, follow_ups: Any = ALL, **fields: Any) -> tuple[uuid.UUID, list[uuid.UUID]]:
    """Make a closed batch with tasks for the handler `h`."""
    batch = await opened(queue, follow_ups)
    tasks = await queue.enqueue(count, batch=str(batch), **fields)
    await closed(queue, batch)
    return batch, tasks


async def look(queue: Queue, *batches: uuid.UUID, conn: AsyncConnection[Row] | None = None) -> list[Row]:
    """Do what whoever has ended runs of batches does after that."""
    return await queue.run("batch.complete", conn, tenant_ids=[1] * len(batches), batch_ids=list(batches))


async def ends(queue: Queue) -> list[str]:
    """Handlers of the follow-ups that were enqueued, in their order."""
    rows = await queue.sql(
        "SELECT g.handler FROM howdah.tasks t JOIN howdah.targets g ON g.id = t.target_id "
        "JOIN howdah.queues q ON q.id = t.queue_id WHERE q.name = 'ends' ORDER BY t.id"
    )
    return [row["handler"] for row in rows]


async def counts(queue: Queue, batch: uuid.UUID) -> tuple[str, dict[str, int]]:
    """State of a batch, and its counts that are not 0."""
    [row] = await queue.sql("SELECT * FROM howdah.batch_states WHERE batch_id = %s", batch)
    names = ("tasks", "pending", "succeeded", "failed", "cancelled", "expired")
    return row["state"], {name: row[name] for name in names if row[name]}


async def refusal(queue: Queue, batch: object) -> str | None:
    """Why a task may not join a batch."""
    items = [{"queue": "q", "handler": "h", "batch": batch}]
    [row] = await queue.sql("SELECT error FROM howdah.enqueue_many('default', %s::json)", json.dumps(items))
    error: str | None = row["error"]
    return error


async def test_batch_is_complete_when_it_is_closed_and_its_last_task_has_ended(queue: Queue) -> None:
    """Not before either of the two."""
    batch = await opened(queue)
    await queue.enqueue(2, batch=str(batch))
    [first, second] = await queue.claim(2)
    await queue.complete([first])
    assert (await counts(queue, batch), await look(queue, batch)) == (
        ("open", {"tasks": 2, "pending": 1, "succeeded": 1}),
        [],
    )
    assert await closed(queue, batch) == "running"
    assert (await counts(queue, batch))[0] == "running"
    await queue.complete([second])
    assert await ends(queue) == []
    [end] = await look(queue, batch)

    assert (end["batch_id"], end["is_complete"], end["error"]) == (batch, True, None)
    assert await counts(queue, batch) == ("complete", {"tasks": 2, "succeeded": 2})
    assert await ends(queue) == ["done", "good"]
    assert await look(queue, batch) == []
    assert await ends(queue) == ["done", "good"]


async def test_claims_say_to_which_batch_a_run_belongs_and_which_one_it_completes(queue: Queue) -> None:
    """A plain run has neither."""
    follow_up = {"queue": "q", "handler": "h"}
    batch, _ = await made(queue, follow_ups={"on_complete": follow_up})
    [member] = await queue.claim()
    await queue.complete([member])
    await look(queue, batch)
    [end] = await queue.claim()
    await queue.enqueue()
    [plain] = await queue.claim()

    assert (member["batch_id"], member["completes_batch_id"]) == (batch, None)
    assert (end["batch_id"], end["completes_batch_id"], end["parent_id"]) == (None, batch, None)
    assert (plain["batch_id"], plain["completes_batch_id"]) == (None, None)


async def test_batch_without_tasks_is_complete_as_it_is_closed(queue: Queue) -> None:
    """All of its tasks have succeeded; closing it again changes nothing."""
    batch = await opened(queue)
    assert (await closed(queue, batch), await closed(queue, batch)) == ("complete", "complete")

    assert await counts(queue, batch) == ("complete", {})
    assert await ends(queue) == ["done", "good"]


async def test_follow_up_without_payload_gets_the_counts(queue: Queue) -> None:
    """One that brings a payload, or null, keeps it; a GET has no body."""
    url = "https://example.com/hook"
    follow_ups = {
        "on_complete": DONE,
        "on_success": {**GOOD, "payload": None},
        "on_failure": {"queue": "ends", "http": {"url": url, "method": "GET"}},
    }
    batch = await opened(queue, follow_ups)
    await closed(queue, batch)
    failing, _ = await made(queue, follow_ups={**follow_ups, "on_complete": {**DONE, "payload": {"a": 1.10}}})
    await queue.fail(await queue.claim(), retryable=False)
    await look(queue, failing)
    rows = await queue.sql("SELECT payload::text FROM howdah.tasks WHERE completes_batch_id IS NOT NULL ORDER BY id")

    assert json.loads(rows[0]["payload"]) == {
        "batch": str(batch), "tasks": 0, "succeeded": 0, "failed": 0, "cancelled": 0, "expired": 0
    }  # fmt: skip
    assert [row["payload"] for row in rows[1:]] == [None, '{"a": 1.1}', None]


@pytest.mark.parametrize("keep_history", ["all", "failures", "none"])
async def test_counts_tell_how_the_tasks_have_ended(queue: Queue, keep_history: str) -> None:
    """Whatever history their queue keeps; one that failed and one that expired call for on_failure."""
    await queue.sql("SELECT howdah.set_queue('q', %s)", json.dumps({"keep_history": keep_history}))
    batch = await opened(queue)
    good, dead, cancelled, stopped = [(await queue.enqueue(batch=str(batch)))[0] for _ in range(4)]
    [late] = await queue.enqueue(batch=str(batch), expires_in="1m")
    await queue.sql("SELECT howdah.cancel(%s)", cancelled)
    await queue.sql("UPDATE howdah.runs SET expires_at = howdah.now() - interval '1 s' WHERE task_id = %s", late)
    await queue.outlive()
    runs = {run["task_id"]: run for run in await queue.claim(3)}
    await queue.complete([runs[good]])
    await queue.fail([runs[dead]], retryable=False)
    await queue.complete([runs[stopped]], "cancelled")
    told = {"tasks": 5, "succeeded": 1, "failed": 1, "cancelled": 2, "expired": 1}
    assert await counts(queue, batch) == ("open", told)
    await closed(queue, batch)

    assert await counts(queue, batch) == ("complete", told)
    assert await ends(queue) == ["done", "bad"]


async def test_batch_of_which_tasks_were_cancelled_is_neither_a_success_nor_a_failure(queue: Queue) -> None:
    """As for a task that is cancelled. The cancel of the last one completes it."""
    batch, [one, other] = await made(queue, 2)
    await queue.complete(await queue.claim(1))
    left = other if await queue.state(one) == "succeeded" else one
    await queue.sql("SELECT howdah.cancel(%s)", left)

    assert await counts(queue, batch) == ("complete", {"tasks": 2, "succeeded": 1, "cancelled": 1})
    assert await ends(queue) == ["done"]


async def test_retried_task_keeps_its_batch_waiting(queue: Queue) -> None:
    """Also one that was handed back, and one that was lost; each keeps its batch."""
    batch, _ = await made(queue)
    await queue.release(await queue.claim())
    await queue.fail(await queue.claim(), retry_in_s=0.0, is_decided=True)
    await queue.expire(await queue.claim())
    await queue.rescue()
    assert await look(queue, batch) == []
    [run] = await queue.claim()
    await queue.complete([run])
    await look(queue, batch)

    assert run["batch_id"] == batch
    assert await counts(queue, batch) == ("complete", {"tasks": 1, "succeeded": 1})


async def test_cancelled_run_that_is_handed_back_counts_as_cancelled(queue: Queue) -> None:
    """And so does one whose attempt fails after the request."""
    batch, _ = await made(queue, 2)
    runs = await queue.claim(2)
    for run in runs:
        await queue.sql("SELECT howdah.cancel(%s)", run["task_id"])
    await queue.release(runs[:1])
    await queue.fail(runs[1:])
    await look(queue, batch)

    assert await counts(queue, batch) == ("complete", {"tasks": 2, "cancelled": 2})


async def test_purged_dead_letter_counts_as_failed_and_a_replayed_one_as_what_it_becomes(queue: Queue) -> None:
    """Counts go by the states of the tasks, as long as the batch runs."""
    batch = await opened(queue)
    await queue.enqueue(2, batch=str(batch), retry={"max_attempts": 1})
    [gone, back] = [run["task_id"] for run in await queue.claim(2)]
    for run in await queue.sql("SELECT tenant_id, task_id, lease_token FROM howdah.runs"):
        await queue.fail([run])
    assert await counts(queue, batch) == ("open", {"tasks": 2, "failed": 2})
    await queue.sql("SELECT howdah.purge_dead_letters(1, ARRAY[%s], howdah.now())", gone)
    await queue.sql("SELECT howdah.replay(%s)", back)
    assert await counts(queue, batch) == ("open", {"tasks": 2, "failed": 1, "pending": 1})
    await queue.complete(await queue.claim())
    await closed(queue, batch)

    assert await counts(queue, batch) == ("complete", {"tasks": 2, "failed": 1, "succeeded": 1})


@pytest.mark.parametrize("edits", [None, {"payload": 1}])
async def test_replay_after_the_end_completes_no_batch_twice(queue: Queue, edits: Any) -> None:
    """The task keeps its batch, whose counts stay as they were."""
    batch, [task] = await made(queue, retry={"max_attempts": 1})
    await queue.fail(await queue.claim())
    await look(queue, batch)
    if edits is None:
        await queue.sql("SELECT howdah.replay(%s)", task)
    else:
        await queue.sql("SELECT howdah.replay_edited(%s, %s::json)", task, json.dumps(edits))
    [run] = await queue.claim()
    await queue.complete([run])

    assert (run["batch_id"], await look(queue, batch)) == (batch, [])
    assert await counts(queue, batch) == ("complete", {"tasks": 1, "failed": 1})
    assert await ends(queue) == ["done", "bad"]


async def test_task_that_replays_a_dead_letter_with_edits_is_waited_for(queue: Queue) -> None:
    """It belongs to the batch as the dead letter does, which stays one that failed."""
    batch = await opened(queue)
    [task] = await queue.enqueue(batch=str(batch), retry={"max_attempts": 1})
    await queue.fail(await queue.claim())
    await queue.sql("SELECT howdah.replay_edited(%s, '{\"payload\": 1}')", task)
    assert await closed(queue, batch) == "running"
    await queue.complete(await queue.claim())
    await look(queue, batch)

    assert await counts(queue, batch) == ("complete", {"tasks": 2, "failed": 1, "succeeded": 1})


async def test_task_that_is_replaced_counts_as_cancelled_and_the_chore_finds_that(queue: Queue, chores: Chores) -> None:
    """Its successor, with the same dedup key, belongs to the batch only if it says so."""
    batch, _ = await made(queue, dedup={"key": "k"})
    await queue.enqueue(dedup={"key": "k", "on_conflict": "replace"})
    await chores.take(CompleteBatches("howdah"))

    assert await counts(queue, batch) == ("complete", {"tasks": 1, "cancelled": 1})


async def test_successor_in_the_same_batch_is_waited_for(queue: Queue) -> None:
    """Also if the task that it replaces was the last one, and a member enqueues it as it ends."""
    batch = await opened(queue)
    [parent] = await queue.enqueue(batch=str(batch))
    await queue.enqueue(batch=str(batch), dedup={"key": "k"}, delay="1h")
    await closed(queue, batch)
    item = {"queue": "q", "handler": "h", "batch": str(batch), "dedup": {"key": "k", "on_conflict": "replace"}}
    async with queue.admin.transaction():
        await queue.complete(await queue.claim())
        await follow(queue, parent, [item])
    await look(queue, batch)

    assert await counts(queue, batch) == ("running", {"tasks": 3, "succeeded": 1, "cancelled": 1, "pending": 1})


async def test_deduplicated_task_does_not_join(queue: Queue) -> None:
    """The task that stands for it is not the batch's."""
    await queue.enqueue(dedup={"key": "k"})
    batch, _ = await made(queue, dedup={"key": "k"})

    assert await counts(queue, batch) == ("complete", {})


async def follow(queue: Queue, parent: uuid.UUID, items: Sequence[Any], conn: Any = None) -> list[Row]:
    """Enqueue what the handler of a task that has just succeeded has asked for."""
    return await queue.run(
        "run.follow", conn, tenant_ids=[1], task_ids=[parent], outcomes=["succeeded"], enqueues=[json.dumps(items)]
    )


@pytest.mark.parametrize("named", ["by its id", "parent"])
async def test_member_that_ends_adds_to_its_closed_batch(queue: Queue, named: str) -> None:
    """The batch never looks empty in between: what ends and what begins are one transaction."""
    batch, [task] = await made(queue)
    item = {"queue": "q", "handler": "h", "batch": "parent" if named == "parent" else str(batch)}
    [run] = await queue.claim()
    other = await queue.connect()
    async with queue.admin.transaction():
        await queue.complete([run])
        assert await follow(queue, task, [item]) == []
        assert await look(queue, batch, conn=other) == []
    assert await look(queue, batch, conn=other) == []
    [child] = await queue.claim()
    await queue.complete([child])
    await look(queue, batch)

    assert child["batch_id"] == batch
    assert await counts(queue, batch) == ("complete", {"tasks": 2, "succeeded": 2})


async def test_follow_up_joins_the_batch_of_its_parent(queue: Queue) -> None:
    """A batch of chains is written down before its id is known; of a task without a batch, it has none either."""
    chain = {"queue": "q", "handler": "h", "on_success": {"queue": "q", "handler": "h", "batch": "parent"}}
    batch = await opened(queue)
    await queue.enqueue(batch=str(batch), on_success=chain | {"batch": "parent"})
    await queue.enqueue(on_success={"queue": "q", "handler": "h", "batch": "parent"})
    await closed(queue, batch)
    tasks = await queue.sql("SELECT id FROM howdah.tasks ORDER BY id")
    for task in tasks:
        await follow(queue, task["id"], [])
    [child, free] = await queue.sql(
        "SELECT id, batch_id FROM howdah.tasks WHERE parent_id IS NOT NULL ORDER BY parent_id"
    )
    await follow(queue, child["id"], [])

    assert (child["batch_id"], free["batch_id"]) == (batch, None)
    assert (await counts(queue, batch))[1] == {"tasks": 3, "pending": 3}


async def test_handlers_task_for_another_batch_that_is_closed_is_refused(queue: Queue) -> None:
    """Only its own batch waits for what a task enqueues; a follow-up that is refused comes back with the reason."""
    other, _ = await made(queue)
    item = {"queue": "q", "handler": "h", "batch": str(other)}
    [task] = await queue.enqueue(on_success=item)
    with pytest.raises(psycopg.Error, match="refused: state_conflict /batch is closed") as caught:
        await follow(queue, task, [item])
    assert caught.value.sqlstate == "JQ422"

    assert await follow(queue, task, []) == [
        {"task_id": task, "error": "state_conflict /batch is closed: it takes no more tasks"}
    ]


async def test_what_may_not_join_a_batch_is_refused(queue: Queue) -> None:
    """Closed, complete, unknown, another tenant's, and no id at all; enqueue says so by SQLSTATE."""
    running, _ = await made(queue)
    empty = await opened(queue)
    await closed(queue, empty)
    await queue.sql("INSERT INTO howdah.tenants (name) VALUES ('other')")
    [row] = await queue.sql("SELECT howdah.open_batch('{}', 'other') AS id")
    unknown = "018f0000-0000-7000-8000-000000000000"
    closed_text = "state_conflict /batch is closed: it takes no more tasks"

    assert [await refusal(queue, str(each)) for each in (running, empty)] == [closed_text, closed_text]
    assert await refusal(queue, unknown) == f"not_found /batch there is no batch {unknown}"
    assert await refusal(queue, str(row["id"])) == f"not_found /batch there is no batch {row['id']}"
    for nonsense in (1, "", "x", unknown.upper(), {}, str(running)[:-1]):
        assert str(await refusal(queue, nonsense)).startswith("validation /batch must be the id of a batch")
    assert str(await refusal(queue, "parent")).startswith("validation /batch must be the id of a batch")
    assert str(await refusal(queue, None)).startswith("validation /batch must not be null")
    for batch, state in ((running, "JQ409"), (unknown, "JQ404"), ("x", "JQ422")):
        options = json.dumps({"batch": str(batch)})
        with pytest.raises(psycopg.Error) as caught:
            await queue.sql("SELECT howdah.enqueue('q', 'h', options => %s::jsonb)", options)
        assert caught.value.sqlstate == state


async def test_refused_item_takes_no_dedup_key(queue: Queue) -> None:
    """Whoever brings the key next gets it."""
    batch, _ = await made(queue)
    items = [{"queue": "q", "handler": "h", "batch": str(batch), "dedup": {"key": "k", "until": "1h"}}]
    await queue.sql("SELECT * FROM howdah.enqueue_many('default', %s::json)", json.dumps(items))
    del items[0]["batch"]
    [row] = await queue.sql("SELECT created FROM howdah.enqueue_many('default', %s::json)", json.dumps(items))

    assert row["created"]


async def test_task_that_is_sent_again_after_its_batch_was_closed_is_not_refused(queue: Queue) -> None:
    """Its answer was lost: it is stored already."""
    batch = await opened(queue)
    [row] = await queue.sql("SELECT howdah.new_id() AS id")
    items = json.dumps([{"id": str(row["id"]), "queue": "q", "handler": "h", "batch": str(batch)}])
    await queue.sql("SELECT * FROM howdah.enqueue_many('default', %s::json)", items)
    await closed(queue, batch)
    [again] = await queue.sql("SELECT created, error FROM howdah.enqueue_many('default', %s::json)", items)

    assert again == {"created": False, "error": None}
    assert (await counts(queue, batch))[1] == {"tasks": 1, "pending": 1}


@pytest.mark.parametrize(
    ("follow_ups", "said"),
    [
        ([], "/ must be an object"),
        (None, "/ must be an object"),
        ({"on_end": DONE}, "/on_end is no field of a batch"),
        ({"on_complete": 1}, "/on_complete must be an object"),
        ({"on_complete": {"queue": "q"}}, "/on_complete/handler exactly one"),
        ({"on_success": {**DONE, "run_at": "2030-01-01T00:00:00Z"}}, "/on_success/run_at is not a field"),
        ({"on_failure": {**DONE, "on_failure": {"queue": "Q", "handler": "h"}}}, "/on_failure/on_failure/queue must"),
        ({"on_complete": {**DONE, "batch": "parent"}}, "/on_complete/batch must be the id of a batch"),
        ({"on_complete": {**DONE, "payload": "\0"}}, "/ must not contain"),
    ],
)
async def test_follow_ups_are_checked_as_the_batch_is_opened(queue: Queue, follow_ups: Any, said: str) -> None:
    """What could not be enqueued later is refused now, by the place where it stands."""
    with pytest.raises(psycopg.Error) as caught:
        await opened(queue, follow_ups)

    assert caught.value.sqlstate == "JQ422"
    assert (caught.value.diag.message_primary or "").startswith(said)
    assert await queue.sql("SELECT 1 FROM howdah.batches") == []


async def test_payload_of_a_follow_up_that_is_too_large_is_refused(queue: Queue) -> None:
    """By the code that says so."""
    with pytest.raises(psycopg.Error, match="/on_complete/payload") as caught:
        await opened(queue, {"on_complete": {**DONE, "payload": "x" * 300_000}})

    assert caught.value.sqlstate == "JQ413"


@pytest.mark.parametrize("statement", ["howdah.close_batch(%s)", "howdah.cancel_batch(%s)"])
async def test_unknown_batch_is_not_found(queue: Queue, statement: str) -> None:
    """Nor is another tenant's."""
    await queue.sql("INSERT INTO howdah.tenants (name) VALUES ('other')")
    [row] = await queue.sql("SELECT howdah.open_batch('{}', 'other') AS id")
    for batch in (uuid.uuid4(), row["id"]):
        with pytest.raises(psycopg.Error, match=f"there is no batch {batch}") as caught:
            await queue.sql(f"SELECT {statement}", batch)
        assert caught.value.sqlstate == "JQ404"


async def test_add_that_is_rolled_back_leaves_nothing(queue: Queue) -> None:
    """Neither a task nor a lock that keeps the batch from its end."""
    batch = await opened(queue)
    async with queue.admin.transaction() as transaction:
        await queue.enqueue(batch=str(batch))
        raise psycopg.Rollback(transaction)

    assert await closed(queue, batch) == "complete"
    assert await counts(queue, batch) == ("complete", {})


async def test_close_waits_for_an_add_that_is_under_way(queue: Queue) -> None:
    """So the batch waits for its task."""
    batch = await opened(queue)
    other = await queue.connect()
    async with queue.admin.transaction():
        await queue.enqueue(batch=str(batch))
        closing = asyncio.create_task(other.execute("SELECT howdah.close_batch(%s) AS state", [batch]))
        await _blocked(queue.database, other)
    state = await (await closing).fetchone()

    assert state == {"state": "running"}
    assert await counts(queue, batch) == ("running", {"tasks": 1, "pending": 1})


async def test_add_that_meets_a_close_is_refused_once_that_is_committed(queue: Queue) -> None:
    """And is not, if that is rolled back."""
    batch = await opened(queue)
    other = await queue.connect()
    for is_kept in (False, True):
        async with queue.admin.transaction() as transaction:
            await closed(queue, batch)
            item = json.dumps([{"queue": "q", "handler": "h", "batch": str(batch)}])
            adding = asyncio.create_task(
                other.execute("SELECT error FROM howdah.enqueue_many('default', %s::json)", [item])
            )
            await _blocked(queue.database, other)
            if not is_kept:
                raise psycopg.Rollback(transaction)
        row = await (await adding).fetchone()

        if is_kept:
            assert row == {"error": "state_conflict /batch is closed: it takes no more tasks"}
        else:
            assert row == {"error": None}
            await queue.complete(await _claim_all(queue))


async def _claim_all(queue: Queue) -> list[Row]:
    [names] = await queue.sql(
        "SELECT q.id AS queue_id, t.id AS target_id FROM howdah.queues q, howdah.targets t "
        "WHERE q.name = 'q' AND t.handler = 'h'"
    )
    queue.queue_id, queue.target_id = names["queue_id"], names["target_id"]
    return await queue.claim(100)


async def _blocked(database: str, conn: AsyncConnection[Row]) -> None:
    """Wait until a session waits for a lock."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as watcher:
        async with asyncio.timeout(10):
            while True:
                cursor = await watcher.execute(
                    "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", [conn.info.backend_pid]
                )
                if await cursor.fetchone() == (True,):
                    return


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_last_two_that_end_at_the_same_moment_complete_the_batch_once(
    queue: Queue, order: tuple[int, int]
) -> None:
    """Each records in a transaction of its own and looks after its commit, whichever commits first."""
    batch, _ = await made(queue, 2)
    runs = await queue.claim(2)
    conns = [await queue.connect(), await queue.connect()]
    for conn, run in zip(conns, runs, strict=True):
        await conn.execute("BEGIN")
        await queue.complete([run], conn=conn)
    for index in order:
        await conns[index].execute("COMMIT")
    found = await asyncio.gather(*(look(queue, batch, conn=conn) for conn in conns))

    assert sorted(map(len, found)) == [0, 1]
    assert await ends(queue) == ["done", "good"]


async def test_last_two_that_end_inside_of_transactions_are_found_by_the_chore(queue: Queue, chores: Chores) -> None:
    """Neither saw the end of the other: two clients that cancel, for example."""
    batch, tasks = await made(queue, 2)
    conns = [await queue.connect(), await queue.connect()]
    for conn, task in zip(conns, tasks, strict=True):
        await conn.execute("BEGIN")
        await conn.execute("SELECT howdah.cancel(%s)", [task])
    for conn in conns:
        await conn.execute("COMMIT")
    assert (await counts(queue, batch))[0] == "running"
    for _ in range(2):
        await chores.take(CompleteBatches("howdah"))

    assert await counts(queue, batch) == ("complete", {"tasks": 2, "cancelled": 2})
    assert await ends(queue) == ["done"]


async def test_completion_that_is_rolled_back_is_made_up_for(queue: Queue, chores: Chores) -> None:
    """A client cancels the last task, and thinks better of it; meanwhile nobody waits for him."""
    batch, [task] = await made(queue)
    other = await queue.connect()
    async with other.transaction() as transaction:
        await other.execute("SELECT howdah.cancel(%s)", [task])
        assert await look(queue, batch) == []
        raise psycopg.Rollback(transaction)
    assert await ends(queue) == []
    await queue.complete(await queue.claim())
    await chores.take(CompleteBatches("howdah"))

    assert await ends(queue) == ["done", "good"]


async def test_nothing_is_completed_with_an_old_snapshot(queue: Queue) -> None:
    """A repeatable read may see a batch without tasks that has some by now; the cancel itself is done."""
    batch, [task] = await made(queue)
    other = await queue.connect()
    await other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await other.execute("SELECT howdah.cancel(%s)", [task])
    await other.execute("COMMIT")

    assert await counts(queue, batch) == ("running", {"tasks": 1, "cancelled": 1})


async def test_held_dedup_key_of_a_follow_up_keeps_nobody_waiting(queue: Queue, chores: Chores) -> None:
    """The batch is not complete before its follow-up is stored; other batches are. The chore tries again."""
    keyed = {"on_complete": {**DONE, "dedup": {"key": "k"}}}
    stuck, _ = await made(queue, follow_ups=keyed)
    free, _ = await made(queue)
    await queue.complete(await queue.claim(2))
    await queue.sql("SELECT howdah.set_queue('ends', '{}')")
    holder = await queue.connect()
    async with holder.transaction() as transaction:
        await holder.execute("SELECT howdah.enqueue('ends', 'x', options => '{\"dedup\": {\"key\": \"k\"}}')")
        found = {end["batch_id"]: end for end in await look(queue, stuck, free)}
        assert (found[stuck]["is_complete"], found[free]["is_complete"]) == (False, True)
        assert "lock timeout" in found[stuck]["error"]
        raise psycopg.Rollback(transaction)
    await chores.take(CompleteBatches("howdah"))

    assert (await counts(queue, stuck))[0] == "complete"
    assert sorted(await ends(queue)) == ["done", "done", "good"]


async def test_follow_up_that_its_dedup_key_refuses_is_named_and_the_batch_is_complete(queue: Queue) -> None:
    """As a follow-up of a task."""
    [holder] = await queue.enqueue(dedup={"key": "k"})
    follow_up = {"queue": "q", "handler": "h", "dedup": {"key": "k", "on_conflict": "reject"}}
    batch, tasks = await made(queue, follow_ups={"on_complete": follow_up, "on_success": GOOD})
    await queue.complete([run for run in await queue.claim(2) if run["task_id"] in tasks])
    [end] = await look(queue, batch)

    assert (end["is_complete"], end["error"]) == (
        True,
        f"on_complete: dedup_conflict /dedup/key is held by task {holder}",
    )
    assert await ends(queue) == ["good"]


async def test_follow_ups_are_stored_in_a_drained_queue_and_announced(queue: Queue, database: str) -> None:
    """They were promised; workers are told by the transaction that stores them."""
    batch, _ = await made(queue, follow_ups={"on_complete": DONE})
    await queue.sql("SELECT howdah.set_queue('ends', '{}'), howdah.drain('ends')")
    await queue.complete(await queue.claim())
    ears = await listen(database)
    await look(queue, batch)
    words = await heard(ears)
    await ears.close()

    assert await ends(queue) == ["done"]
    assert len([word for word in words if word.startswith("q")]) == 1


async def test_scheduler_completes_what_it_ends(queue: Queue, chores: Chores) -> None:
    """The last task of one batch expires, that of another is lost for the last time: no chore need come by."""
    late, _ = await made(queue, expires_in="1m")
    await queue.sql("UPDATE howdah.runs SET expires_at = howdah.now() - interval '1 second'")
    await chores.take(Expire("howdah"))
    lost, _ = await made(queue, retry={"max_attempts": 1})
    await queue.expire(await queue.claim())
    await queue.sql("UPDATE howdah.runs SET crashes = 2")
    await chores.keep_well()
    await chores.take(Rescue("howdah"))

    assert await counts(queue, late) == ("complete", {"tasks": 1, "expired": 1})
    assert await counts(queue, lost) == ("complete", {"tasks": 1, "failed": 1})


async def test_cancel_of_a_batch_closes_it_and_cancels_its_tasks_only(queue: Queue, chores: Chores) -> None:
    """As a bulk operation; another tenant's task and one of no batch go on."""
    batch = await opened(queue)
    await queue.enqueue(3, batch=str(batch))
    [other] = await queue.enqueue()
    [row] = await queue.sql("SELECT howdah.cancel_batch(%s) AS id", batch)
    await chores.take(Operate("howdah"))
    [operation] = await queue.sql("SELECT * FROM howdah.bulk_operations WHERE operation_id = %s", row["id"])

    assert (operation["kind"], operation["state"], operation["done"]) == ("cancel_tasks", "done", 3)
    assert operation["filter"] == {"batch": str(batch)}
    assert await counts(queue, batch) == ("complete", {"tasks": 3, "cancelled": 3})
    assert await queue.state(other) == "queued"
    with pytest.raises(psycopg.Error, match="the batch is complete") as caught:
        await queue.sql("SELECT howdah.cancel_batch(%s)", batch)
    assert caught.value.sqlstate == "JQ409"


async def test_dead_letters_of_a_batch_are_replayed_by_a_filter(queue: Queue, chores: Chores) -> None:
    """Those of no batch, and of others, stay."""
    batch, [task] = await made(queue, retry={"max_attempts": 1})
    [other] = await queue.enqueue(retry={"max_attempts": 1})
    await queue.fail(await queue.claim(2))
    await queue.sql(
        "SELECT howdah.start_operation('replay_dead_letters', 'q', %s::jsonb)", json.dumps({"batch": str(batch)})
    )
    await chores.take(Operate("howdah"))

    assert (await queue.state(task), await queue.state(other)) == ("queued", "failed")


async def test_ten_thousand_tasks_and_four_that_record_complete_a_batch_once(queue: Queue) -> None:
    """Whoever records the last of them completes it, at once; the others find it done."""
    batch = await opened(queue)
    for _ in range(10):
        await queue.enqueue(1_000, batch=str(batch))
    await closed(queue, batch)
    runs = [run for _ in range(10) for run in await queue.claim(1_000)]
    found: list[Row] = []

    async def finisher(part: Sequence[Row]) -> None:
        conn = await queue.connect()
        for begin in range(0, len(part), 250):
            await queue.complete(part[begin : begin + 250], conn=conn)
            found.extend(await look(queue, batch, conn=conn))

    await asyncio.gather(*(finisher(runs[index::4]) for index in range(4)))

    assert [end["is_complete"] for end in found] == [True]
    assert await counts(queue, batch) == ("complete", {"tasks": 10_000, "succeeded": 10_000})
    assert await ends(queue) == ["done", "good"]


async def test_batches_that_ended_long_ago_are_forgotten(queue: Queue, chores: Chores) -> None:
    """With what they had; those that run, and those of the retention, stay."""
    old, _ = await made(queue)
    recent, _ = await made(queue)
    running, _ = await made(queue)
    runs = await queue.claim(3)
    await queue.complete([run for run in runs if run["batch_id"] != running])
    await look(queue, old, recent)
    await queue.sql("UPDATE howdah.batches SET completed_at = completed_at - interval '2 hours' WHERE id = %s", old)
    await chores.take(Cleanup("howdah", 3_600.0))
    left = await queue.sql(
        "SELECT b.id, t.batch_id FROM howdah.batches b JOIN howdah.batch_tasks t ON t.batch_id = b.id"
    )

    assert {row["id"] for row in left} == {recent, running}
    assert len(await queue.sql("SELECT 1 FROM howdah.batch_tasks")) == 2
