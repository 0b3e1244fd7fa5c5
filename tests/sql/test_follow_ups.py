"""Follow-ups by SQL: what the end of a task enqueues, and what is wrong with what was asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from howdah_scheduler.expire import Expire
from tests.fix_chores import heard, listen

if TYPE_CHECKING:
    import uuid

    from tests.fix_chores import Chores
    from tests.fix_queue import Queue, Row

NEXT = {"queue": "next", "handler": "n", "payload": {"a": 1}}
SORRY = {"queue": "next", "handler": "sorry"}


async def children(queue: Queue) -> list[Row]:
    """Tasks that have a parent, in the order in which they were stored."""
    return await queue.sql(
        "SELECT t.id, t.parent_id, q.name AS queue, g.handler, t.payload::text, t.traceparent, "
        "t.run_at - t.created_at AS delay "
        "FROM howdah.tasks t JOIN howdah.queues q ON q.id = t.queue_id JOIN howdah.targets g ON g.id = t.target_id "
        "WHERE t.parent_id IS NOT NULL ORDER BY t.id"
    )


async def follow(queue: Queue, *tasks: uuid.UUID, outcome: str = "succeeded", enqueues: Any = None) -> list[Row]:
    """Do what whoever ends tasks does after it, in the same transaction."""
    [row] = await queue.sql("SELECT id FROM howdah.tenants WHERE name = 'default'")
    return await queue.run(
        "run.follow",
        tenant_ids=[row["id"]] * len(tasks),
        task_ids=list(tasks),
        outcomes=[outcome] * len(tasks),
        enqueues=[enqueues if enqueues is None else json.dumps(enqueues)] * len(tasks),
    )


@pytest.mark.parametrize(("outcome", "handler"), [("succeeded", "n"), ("failed", "sorry"), ("expired", "sorry")])
async def test_end_of_a_task_enqueues_what_was_asked_for_it(queue: Queue, outcome: str, handler: str) -> None:
    """A success enqueues on_success; a failure or expiry on_failure."""
    [task] = await queue.enqueue(on_success=NEXT, on_failure=SORRY)
    assert await children(queue) == []
    assert await follow(queue, task, outcome=outcome) == []
    [child] = await children(queue)

    assert (child["parent_id"], child["queue"], child["handler"]) == (task, "next", handler)


async def test_runs_with_follow_ups_are_marked_and_no_others(queue: Queue) -> None:
    """Whoever ends a run is told by its claim whether something follows."""
    await queue.enqueue()
    await queue.enqueue(on_failure=SORRY)
    claimed = await queue.claim(2)

    assert sorted(run["has_follow_ups"] or False for run in claimed) == [False, True]


async def test_payload_of_a_follow_up_stays_as_it_came(queue: Queue) -> None:
    """Byte for byte: spaces, the order of its keys, and numbers that no double can hold exactly."""
    follow_up = '{"queue": "q", "handler": "h", "payload": {"b":  1.10, "a": 2}}'
    items = f'[{{"queue": "q", "handler": "h", "on_success": {follow_up}}}]'
    [row] = await queue.sql("SELECT id FROM howdah.enqueue_many('default', %s::json)", items)
    await follow(queue, row["id"])
    [child] = await children(queue)

    assert child["payload"] == '{"b":  1.10, "a": 2}'


async def test_follow_up_has_follow_ups_of_its_own(queue: Queue) -> None:
    """A chain is written down at once, and goes on step by step."""
    await queue.enqueue(on_success={**NEXT, "on_success": {**NEXT, "on_success": SORRY}})
    handlers = []
    [task] = [row["id"] for row in await queue.sql("SELECT id FROM howdah.tasks")]
    for _ in range(3):
        await follow(queue, task)
        task = (child := (await children(queue))[-1])["id"]
        handlers.append(child["handler"])
    await follow(queue, task)

    assert handlers == ["n", "n", "sorry"]
    assert len(await children(queue)) == 3


async def test_delay_counts_from_the_end_and_the_trace_goes_on(queue: Queue) -> None:
    """A follow-up is due so long after its parent has ended; its parent's trace is its own unless it has one."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    [task] = await queue.enqueue(traceparent=trace, on_success={**NEXT, "delay": "90s"})
    await follow(queue, task)
    [child] = await children(queue)

    assert (child["delay"].total_seconds(), child["traceparent"]) == (90.0, trace)


async def test_handlers_tasks_are_stored_with_a_success_only(queue: Queue) -> None:
    """They come before the follow-up, and are nothing to a failure."""
    [good, bad] = await queue.enqueue(2, on_success=SORRY)
    await follow(queue, bad, outcome="failed", enqueues=[NEXT])
    assert await children(queue) == []
    await follow(queue, good, enqueues=[NEXT, {**NEXT, "handler": "m"}])

    assert {child["handler"] for child in await children(queue)} == {"n", "m", "sorry"}


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"queue": "Q", "handler": "h"}, "validation /queue must match"),
        ({"queue": "q", "handler": "h", "colour": 1}, "validation /colour is not a field"),
        ({"queue": "q"}, "validation /handler exactly one"),
        ({"queue": "q", "handler": "h", "payload": "x" * 300_000}, "payload_too_large /payload"),
        ({"queue": "q", "handler": "h", "dedup": {"key": "k", "on_conflict": "reject"}}, "dedup_conflict /dedup/key"),
        ([], "validation / must be an object"),
    ],
)
async def test_handlers_task_that_is_refused_raises(queue: Queue, item: Any, said: str) -> None:
    """The success is not to be recorded without it; the message says which one and why. Nothing is stored."""
    await queue.enqueue(dedup={"key": "k"})
    [task] = await queue.enqueue()

    with pytest.raises(psycopg.Error, match=f"task 2 that the handler enqueued is refused: {said}") as caught:
        await follow(queue, task, enqueues=[NEXT, item])

    assert caught.value.sqlstate == "JQ422"
    assert await children(queue) == []


async def test_follow_up_whose_dedup_key_refuses_it_is_named(queue: Queue) -> None:
    """The parent ends all the same: whoever ends it gets the reason to log it."""
    [holder] = await queue.enqueue(dedup={"key": "k"})
    [task] = await queue.enqueue(
        on_success={"queue": "q", "handler": "h", "dedup": {"key": "k", "on_conflict": "reject"}}
    )

    assert await follow(queue, task) == [
        {"task_id": task, "error": f"dedup_conflict /dedup/key is held by task {holder}"}
    ]
    assert await children(queue) == []


@pytest.mark.parametrize("refusal", ["drained", "capped"])
async def test_what_was_promised_is_stored_in_a_queue_that_takes_nothing_new(queue: Queue, refusal: str) -> None:
    """No drain and no cap refuses a follow-up or a handler's task: their work was accepted before."""
    [task] = await queue.enqueue(on_success={"queue": "q", "handler": "h"})
    if refusal == "drained":
        await queue.sql("SELECT howdah.drain('q')")
    else:
        await queue.sql("UPDATE howdah.queues SET pressure = 'depth', pressure_until = 'infinity' WHERE name = 'q'")
    [row] = await queue.sql('SELECT * FROM howdah.enqueue_many(\'default\', \'[{"queue": "q", "handler": "h"}]\')')
    assert row["error"] is not None
    await follow(queue, task, enqueues=[{"queue": "q", "handler": "h"}])

    assert len(await children(queue)) == 2


async def test_workers_are_told_of_what_follows(queue: Queue, database: str) -> None:
    """The lane is announced by the transaction that stores it."""
    [task] = await queue.enqueue(on_success={"queue": "q", "handler": "h"})
    ears = await listen(database)
    await follow(queue, task)
    words = await heard(ears)
    await ears.close()

    assert [word.rsplit(".", 1)[0] for word in words] == [f"q{queue.queue_id}.1"]


@pytest.mark.parametrize(
    ("follow_up", "said"),
    [
        ("text", "validation /on_success must be an object"),
        ({}, "validation /on_success/queue must match"),
        ({"queue": "q"}, "validation /on_success/handler exactly one"),
        ({"queue": "Q!", "handler": "h"}, "validation /on_success/queue must match"),
        ({"queue": "q", "handler": "H!"}, "validation /on_success/handler must match"),
        ({**NEXT, "id": "018f0000-0000-7000-8000-000000000000"}, "validation /on_success/id is not a field"),
        ({**NEXT, "run_at": "2030-01-01T00:00:00Z"}, "validation /on_success/run_at is not a field"),
        ({**NEXT, "expires_at": "2030-01-01T00:00:00Z"}, "validation /on_success/expires_at is not a field"),
        ({**NEXT, "nonsense": 1}, "validation /on_success/nonsense is not a field"),
        ({**NEXT, "priority": "urgent"}, "validation /on_success/priority must be"),
        ({**NEXT, "delay": "367d"}, "validation /on_success/delay must be"),
        ({**NEXT, "retry": {"max_attempts": 0}}, "validation /on_success/retry/max_attempts"),
        ({**NEXT, "tags": None}, "validation /on_success/tags must not be null"),
        ({**NEXT, "payload": "x" * 300_000}, "payload_too_large /on_success/payload"),
        ({**NEXT, "on_failure": {"queue": "q"}}, "validation /on_success/on_failure/handler exactly one"),
    ],
)
async def test_follow_up_is_checked_with_its_parent(queue: Queue, follow_up: Any, said: str) -> None:
    """What could not be enqueued later is refused now, by the place where it stands."""
    item = {"queue": "q", "handler": "h", "on_success": follow_up}
    [row] = await queue.sql("SELECT * FROM howdah.enqueue_many('default', %s::json)", json.dumps([item]))

    assert row["error"] is not None
    assert row["error"].startswith(said)


def nested(depth: int, innermost: Any) -> Any:
    """A chain of follow-ups, one inside the other."""
    for _ in range(depth):
        innermost = {**NEXT, "on_success": innermost}
    return innermost


async def test_fault_deep_inside_of_a_chain_is_found_at_once(queue: Queue) -> None:
    """Each follow-up is checked once, however deep it lies."""
    await queue.sql("SET statement_timeout = '5s'")
    item = {"queue": "q", "handler": "h", "on_success": nested(31, {**NEXT, "priority": "urgent"})}
    [row] = await queue.sql("SELECT * FROM howdah.enqueue_many('default', %s::json)", json.dumps([item]))

    assert row["error"].startswith("validation " + "/on_success" * 32 + "/priority must be")


@pytest.mark.parametrize("depth", [32, 500])
async def test_chain_has_an_end(queue: Queue, depth: int) -> None:
    """33 follow-ups are refused, and 32 are not; words in a payload do not count."""
    words = {"queue": "q", "handler": "h", "payload": [{"on_success": 1}] * 100}
    items = [
        {"queue": "q", "handler": "h", "on_success": nested(depth, words)},
        {"queue": "q", "handler": "h", "on_success": nested(31, words)},
    ]
    rows = await queue.sql("SELECT * FROM howdah.enqueue_many('default', %s::json)", json.dumps(items))

    assert {row["ordinal"]: row["error"] for row in rows} == {
        1: "validation /on_success/ must have at most 32 follow-ups, itself among them",
        2: None,
    }


async def test_enqueue_takes_follow_ups_among_its_options(queue: Queue) -> None:
    """The one-task function has the same fields."""
    options = json.dumps({"on_success": NEXT})
    [row] = await queue.sql("SELECT howdah.enqueue('q', 'h', options => %s::jsonb) AS id", options)
    await follow(queue, row["id"])

    assert [child["handler"] for child in await children(queue)] == ["n"]


@pytest.mark.parametrize("edits", [None, {"payload": 2}])
async def test_replayed_dead_letter_keeps_its_follow_ups(queue: Queue, edits: Any) -> None:
    """It may succeed now: what follows on that was asked for once and for all."""
    [task] = await queue.enqueue(on_success=NEXT, retry={"max_attempts": 1})
    await queue.fail(await queue.claim())
    if edits is None:
        await queue.sql("SELECT howdah.replay(%s)", task)
    else:
        [row] = await queue.sql("SELECT howdah.replay_edited(%s, %s::json) AS id", task, json.dumps(edits))
        task = row["id"]
    [run] = await queue.claim()
    await follow(queue, task)

    assert run["has_follow_ups"]
    assert [child["parent_id"] for child in await children(queue)] == [task]


async def test_expired_task_enqueues_its_on_failure(queue: Queue, chores: Chores) -> None:
    """It was not done, and nobody asked for that."""
    [task] = await queue.enqueue(on_failure=SORRY, expires_in="1m")
    [plain] = await queue.enqueue(expires_in="1m")
    await queue.sql("UPDATE howdah.runs SET expires_at = howdah.now() - interval '1 second'")
    await chores.take(Expire("howdah"))
    [child] = await children(queue)

    assert (child["parent_id"], child["handler"]) == (task, "sorry")
    assert await queue.state(plain) == await queue.state(task) == "expired"
