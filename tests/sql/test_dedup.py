"""Dedup keys by SQL: of the tasks of a queue with one key, one is in force, whatever happens at the same time."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.fix_chores import heard, listen
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    import uuid

    from tests.fix_chores import Chores
    from tests.fix_queue import Queue, Row


def item(key: str = "k", **dedup: Any) -> dict[str, Any]:
    """A task with a dedup key."""
    return {"queue": "q", "handler": "h", "dedup": {"key": key, **dedup}}


async def many(queue: Queue, *items: dict[str, Any]) -> list[Row]:
    """Enqueue a batch and return its rows, in the order of the items."""
    rows = await queue.sql("SELECT * FROM howdah.enqueue_many(NULL, %s::json)", json.dumps(items))
    return sorted(rows, key=lambda row: row["ordinal"])


async def one(queue: Queue, key: str = "k", **dedup: Any) -> Row:
    """Enqueue one task and return its row."""
    [row] = await many(queue, item(key, **dedup))
    return row


async def first(queue: Queue, **dedup: Any) -> uuid.UUID:
    """Enqueue the task that takes the key, and tell the fixture its lane."""
    [task] = await queue.enqueue(dedup={"key": "k", **dedup})
    return task


@pytest.mark.parametrize("until", [None, "finished", "started", "1h"])
async def test_second_task_with_a_key_is_the_first_one(queue: Queue, until: str | None) -> None:
    """Nothing is stored, the id is the first one's, and created says so; howdah.enqueue returns the same id."""
    rule = {} if until is None else {"until": until}
    task = await first(queue, **rule)
    second = await one(queue, **rule)
    [third] = await queue.sql(
        "SELECT howdah.enqueue('q', 'h', options => jsonb_build_object('dedup', '{\"key\": \"k\"}'::jsonb)) AS id"
    )

    assert (second["id"], second["created"], second["error"]) == (task, False, None)
    assert third["id"] == task
    assert await queue.sql("SELECT id FROM howdah.tasks") == [{"id": task}]


@pytest.mark.parametrize("other", [{"key": "K"}, {"key": "k "}, {"key": "ķ"}])
async def test_another_key_is_another_task(queue: Queue, other: dict[str, str]) -> None:
    """Keys are compared byte by byte."""
    await first(queue)

    assert (await one(queue, **other))["created"]


async def test_key_belongs_to_its_queue_and_tenant(queue: Queue) -> None:
    """The same key in another queue, or of another tenant, has nothing to do with it."""
    await first(queue)
    await queue.sql("INSERT INTO howdah.tenants (name) VALUES ('other')")
    [elsewhere] = await many(queue, {**item(), "queue": "elsewhere"})
    [other] = await queue.sql("SELECT * FROM howdah.enqueue_many('other', %s::json)", json.dumps([item()]))

    assert elsewhere["created"]
    assert other["created"]


async def test_finished_holds_the_key_while_the_task_lives(queue: Queue) -> None:
    """It holds while waiting, running and between attempts, and lets go with its success or its dead letter."""
    task = await first(queue)
    runs = await queue.claim()
    held = [await one(queue)]
    await queue.fail(runs, retry_in_s=0)
    held.append(await one(queue))
    runs = await queue.claim()
    held.append(await one(queue))
    await queue.complete(runs)
    after = await one(queue)
    runs = await queue.claim()
    await queue.fail(runs, retryable=False)
    after_dead_letter = await one(queue)

    assert [row["id"] for row in held] == [task] * 3
    assert after["created"]
    assert await queue.state(after["id"]) == "failed"
    assert after_dead_letter["created"]


@pytest.mark.parametrize("end", ["claim", "release", "fail", "cancel"])
async def test_started_holds_the_key_until_the_first_claim(queue: Queue, end: str) -> None:
    """Once claimed it has started for good: handed back, or between attempts, it does not take the key again."""
    task = await first(queue, until="started")
    held = await one(queue, until="started")
    if end == "cancel":
        await queue.sql("SELECT howdah.cancel(%s)", task)
    else:
        runs = await queue.claim()
        if end == "fail":
            await queue.fail(runs, retry_in_s=300)
        elif end == "release":
            await queue.release(runs)
    after = await one(queue, until="started")

    assert held["id"] == task
    assert after["created"]


async def test_duration_holds_the_key_whatever_becomes_of_the_task(queue: Queue, chores: Chores) -> None:
    """It counts from the creation, also after the end; then the key is free, also of a task that still waits."""
    task = await first(queue, until="1h")
    await queue.complete(await queue.claim())
    held = await one(queue)
    await chores.travel("61 minutes")
    second = await one(queue, until="PT30M")
    await chores.travel("92 minutes")
    third = await one(queue)

    assert held["id"] == task
    assert second["created"]
    assert third["created"]
    assert await queue.state(second["id"]) == "queued"


async def test_rule_of_the_holder_counts_and_not_the_newcomers(queue: Queue) -> None:
    """Who holds the key has said until when; what becomes of the newcomer is for the newcomer to say."""
    task = await first(queue, until="finished", on_conflict="replace")
    await queue.claim()
    held = await one(queue, until="started")
    refused = await one(queue, until="1s", on_conflict="reject")

    assert held["id"] == task
    assert refused["error"] == f"dedup_conflict /dedup/key is held by task {task}"


async def test_reject_names_the_holder(queue: Queue) -> None:
    """In a batch it is an error row with the holder's id; howdah.enqueue raises JQ409, with the id as detail."""
    task = await first(queue)
    row = await one(queue, on_conflict="reject")
    with pytest.raises(psycopg.Error) as caught:
        await queue.sql(
            "SELECT howdah.enqueue('q', 'h', options => %s)", json.dumps({"dedup": item(on_conflict="reject")["dedup"]})
        )
    diagnosis = caught.value.diag

    assert (row["id"], row["created"], row["error"]) == (
        task,
        False,
        f"dedup_conflict /dedup/key is held by task {task}",
    )
    assert (caught.value.sqlstate, diagnosis.constraint_name, diagnosis.message_detail) == (
        "JQ409",
        "dedup_keys_pkey",
        str(task),
    )


@pytest.mark.parametrize("waits", ["queued", "scheduled", "retrying", "blocked"])
async def test_replace_takes_the_place_of_a_task_that_waits(queue: Queue, waits: str) -> None:
    """The new task is stored with all it says, and the one before ends as cancelled, with its successor named."""
    delay = "0s" if waits in ("queued", "retrying") else "1h"
    [task] = await queue.enqueue(dedup={"key": "k"}, delay=delay, payload=1)
    if waits == "retrying":
        await queue.fail(await queue.claim(), retry_in_s=300)
    elif waits == "blocked":
        await queue.sql("UPDATE howdah.runs SET blocked_by = 8, run_at = 'infinity'")
    assert await queue.state(task) == waits
    [row] = await many(queue, {**item(on_conflict="replace"), "payload": 2, "priority": "high"})
    [end] = await queue.sql("SELECT outcome, is_final, claim_no, error FROM howdah.finished_runs WHERE is_final")

    assert row["created"]
    assert await queue.state(task) == "cancelled"
    assert end == {
        "outcome": "cancelled",
        "is_final": True,
        "claim_no": 0,
        "error": {"type": "replaced", "message": f"task {row['id']} with the same dedup key took its place"},
    }
    assert await queue.sql("SELECT task_id, priority FROM howdah.runs") == [{"task_id": row["id"], "priority": 2}]
    assert (await one(queue))["id"] == row["id"]


@pytest.mark.parametrize("stands", ["running", "succeeded"])
async def test_replace_of_a_task_that_does_not_wait_is_refused(queue: Queue, stands: str) -> None:
    """A task that runs, or has ended and holds the key by its duration, stays as it is; two are never in force."""
    task = await first(queue, until="1h")
    runs = await queue.claim()
    if stands == "succeeded":
        await queue.complete(runs)
    row = await one(queue, on_conflict="replace")

    assert (row["id"], row["created"]) == (task, False)
    assert row["error"] == f"dedup_conflict /dedup/key is held by task {task}, which does not wait any more"
    assert await queue.state(task) == stands


async def test_debounce_runs_the_last_one_beside_the_one_that_started(queue: Queue) -> None:
    """Until started with replace: one runs, at most one waits, and that is the newest."""
    task = await first(queue, until="started")
    await queue.claim()
    rows = [await one(queue, until="started", on_conflict="replace") for _ in range(3)]

    assert [row["created"] for row in rows] == [True] * 3
    assert [await queue.state(row["id"]) for row in rows] == ["cancelled", "cancelled", "queued"]
    assert await queue.state(task) == "running"


async def test_items_of_one_batch_share_a_key(queue: Queue) -> None:
    """The first one is stored, and the others are judged against it."""
    rows = await many(queue, item("a"), item("b"), item("a"), item("a", on_conflict="reject"), item("b"))
    [a, b] = rows[:2]

    assert [row["created"] for row in rows] == [True, True, False, False, False]
    assert [row["id"] for row in rows] == [a["id"], b["id"], a["id"], a["id"], b["id"]]
    assert [row["error"] for row in rows] == [
        None,
        None,
        None,
        f"dedup_conflict /dedup/key is held by task {a['id']}",
        None,
    ]


async def test_last_item_that_replaces_wins_in_a_batch(queue: Queue) -> None:
    """What it would replace at once is not stored at all; the others are judged against it, those before it too."""
    rows = await many(
        queue,
        item(on_conflict="reject"),
        item(),
        item(on_conflict="replace"),
        {**item(on_conflict="replace"), "payload": "last"},
        item(),
    )
    last = rows[3]["id"]

    assert [row["created"] for row in rows] == [False, False, False, True, False]
    assert [row["id"] for row in rows] == [last] * 5
    assert [row["error"] is None for row in rows] == [False, True, True, True, True]
    assert await queue.sql("SELECT payload FROM howdah.tasks") == [{"payload": "last"}]


async def test_refused_item_takes_no_key_and_makes_no_queue(queue: Queue) -> None:
    """A key goes to the first item that is right, and one that is wrong in its dedup leaves nothing behind."""
    wrong, right, bad = await many(
        queue, {**item(), "priority": "urgent"}, item(), {**item(until="0s"), "queue": "never"}
    )

    assert wrong["error"] == "validation /priority must be critical, high, normal or low"
    assert right["created"]
    assert bad["error"] == "validation /dedup/until must be started, finished or a duration from 1 second to 366 days"
    assert await queue.sql("SELECT name FROM howdah.queues") == [{"name": "q"}]


async def test_thousand_items_of_ten_keys_make_ten_tasks(queue: Queue) -> None:
    """A batch may repeat keys as it likes, beside items that have none."""
    items = [item(f"key {n % 10}") if n % 2 else {"queue": "q", "handler": "h"} for n in range(1000)]
    rows = await many(queue, *items)
    created = [row for row, each in zip(rows, items, strict=True) if "dedup" in each and row["created"]]

    assert len(created) == 5
    assert sum(row["created"] for row in rows) == 505
    assert {row["error"] for row in rows} == {None}
    assert len({row["id"] for row in rows}) == 505


@pytest.mark.parametrize("on_conflict", ["return_existing", "reject", "replace"])
@pytest.mark.parametrize("then", ["waits", "ended", "replaced"])
async def test_repeat_with_its_id_is_answered_with_that_id(queue: Queue, on_conflict: str, then: str) -> None:
    """Sent again after a lost answer, a task neither conflicts with itself nor takes the key again."""
    [row] = await queue.sql("SELECT howdah.new_id() AS id")
    task = {**item(until="2s", on_conflict=on_conflict), "id": str(row["id"])}
    await queue.enqueue(**task)
    if then == "ended":
        await queue.complete(await queue.claim())
        await queue.sql("DELETE FROM howdah.dedup_keys")
    elif then == "replaced":
        await one(queue, on_conflict="replace")
    [again] = await many(queue, task)
    keys = await queue.sql("SELECT task_id FROM howdah.dedup_keys")

    assert (again["id"], again["created"], again["error"]) == (row["id"], False, None)
    assert [key["task_id"] == row["id"] for key in keys] == {"waits": [True], "ended": [], "replaced": [False]}[then]


async def test_one_id_with_two_keys_holds_the_first(queue: Queue) -> None:
    """An id that comes twice in a batch is stored once, and so is its key."""
    [row] = await queue.sql("SELECT howdah.new_id()::text AS id")
    rows = await many(queue, {**item("a"), **row}, {**item("b"), **row})

    assert [each["created"] for each in rows] == [True, False]
    assert await queue.sql("SELECT key FROM howdah.dedup_keys") == [{"key": "a"}]


async def test_second_transaction_waits_for_the_first(queue: Queue) -> None:
    """Whether the key is taken is known once the first commits or rolls back; then the second has its answer."""
    task = await first(queue)
    await queue.complete(await queue.claim())
    for rolls_back in (False, True):
        one_side, other_side = await queue.connect(), await queue.connect()
        statement = b"SELECT howdah.enqueue('q', 'h', options => '{\"dedup\": {\"key\": \"k\"}}') AS id"
        async with one_side.transaction(force_rollback=rolls_back):
            taken = await (await one_side.execute(statement)).fetchone()
            waiting = asyncio.create_task(other_side.execute(statement))
            await eventually_async(lambda: _waits(queue), 10, "the second waits for the first")
        got = await (await waiting).fetchone()

        assert taken is not None
        assert got is not None
        assert (got["id"] == taken["id"]) is not rolls_back
        assert got["id"] != task
        await queue.complete(await queue.claim())


async def _waits(queue: Queue) -> bool:
    [row] = await queue.sql("SELECT count(*) AS n FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
    return bool(row["n"])


async def test_holder_starts_after_the_transaction_that_was_given_it(queue: Queue, database: str) -> None:
    """Until started: what the caller's transaction writes is there when the handler starts; its lane is named."""
    task = await first(queue, until="started")
    ears = await listen(database)
    other = await queue.connect()
    await other.execute(b"SET howdah.notify = on")
    async with other.transaction():
        row = await (
            await other.execute(b"SELECT howdah.enqueue('q', 'h', options => '{\"dedup\": {\"key\": \"k\"}}') AS id")
        ).fetchone()
        meanwhile = await queue.claim()
    [lane] = await queue.sql("SELECT howdah.lane_word(queue_id, priority, run_at) AS word FROM howdah.runs")
    after = await queue.claim()
    words = await heard(ears)
    await ears.close()

    assert row == {"id": task}
    assert meanwhile == []
    assert [run["task_id"] for run in after] == [task]
    assert words == [lane["word"]]


async def test_replace_and_claim_have_one_winner(queue: Queue) -> None:
    """A replace that waits for a claim finds it running; a claim that meets a replace passes it by."""
    await first(queue)
    worker, client = await queue.connect(), await queue.connect()
    statement = json.dumps([item(on_conflict="replace")])
    call = b"SELECT * FROM howdah.enqueue_many(NULL, %s::json)"
    async with worker.transaction():
        [run] = await queue.claim(conn=worker)
        replacing = asyncio.create_task(client.execute(call, [statement]))
        await eventually_async(lambda: _waits(queue), 10, "the replace waits for the claim")
    refused = await (await replacing).fetchone()
    await queue.complete([run])
    await first(queue)
    async with client.transaction():
        replaced = await (await client.execute(call, [statement])).fetchone()
        passed_by = await queue.claim(conn=worker)
    claimed = await queue.claim(conn=worker)

    assert refused is not None
    assert refused["error"].startswith("dedup_conflict ")
    assert replaced is not None
    assert replaced["created"]
    assert passed_by == []
    assert [each["task_id"] for each in claimed] == [replaced["id"]]


async def test_replayed_task_takes_its_key_again(queue: Queue) -> None:
    """Until it has started, or finished, once more; a claim that it had before counts for nothing."""
    for until in ("started", "finished"):
        task = await first(queue, until=until)
        await queue.fail(await queue.claim(), retryable=False)
        await queue.sql("SELECT howdah.replay(%s)", task)
        held = await one(queue, until=until)
        runs = await queue.claim()
        after = await one(queue, until=until)
        await queue.complete(runs)
        await queue.sql("SELECT howdah.cancel(task_id) FROM howdah.runs")

        assert held["id"] == task
        assert after["created"] is (until == "started")


async def test_replay_of_a_task_whose_key_is_taken_is_refused(queue: Queue) -> None:
    """It stays a dead letter, and the error names who has the key; once that has ended it can be replayed."""
    task = await first(queue)
    await queue.fail(await queue.claim(), retryable=False)
    holder = await first(queue)
    with pytest.raises(psycopg.Error) as caught:
        await queue.sql("SELECT howdah.replay(%s)", task)
    state = await queue.state(task)
    await queue.complete(await queue.claim())
    [row] = await queue.sql("SELECT howdah.replay(%s) AS state", task)

    assert (caught.value.sqlstate, caught.value.diag.constraint_name) == ("JQ409", "dedup_keys_pkey")
    assert caught.value.diag.message_detail == str(holder)
    assert state == "failed"
    assert row["state"] == "queued"


@pytest.mark.parametrize(
    ("dedup", "problem"),
    [
        ("1", "/dedup must be an object"),
        ("null", "/dedup must not be null; leave it out"),
        ("{}", "/dedup/key must be"),
        ('{"key": ""}', "/dedup/key must be"),
        ('{"key": 7}', "/dedup/key must be"),
        ('{"key": null}', "/dedup/key must be"),
        ('{"key": "a\\tb"}', "/dedup/key must be"),
        ('{"key": "\\u0085"}', "/dedup/key must be"),
        ('{"key": "\\u0000"}', "/ must not contain"),
        (json.dumps({"key": "x" * 10_240}), "/dedup/key must be"),
        (json.dumps({"key": "x" * 256}), "/dedup/key must be"),
        ('{"key": "k", "until": "0s"}', "/dedup/until must be"),
        ('{"key": "k", "until": "-5m"}', "/dedup/until must be"),
        ('{"key": "k", "until": "367d"}', "/dedup/until must be"),
        ('{"key": "k", "until": "forever"}', "/dedup/until must be"),
        ('{"key": "k", "until": 60}', "/dedup/until must be"),
        ('{"key": "k", "until": 1e99999}', "/dedup/until must be"),
        ('{"key": "k", "until": null}', "/dedup/until must be"),
        ('{"key": "k", "on_conflict": "ignore"}', "/dedup/on_conflict must be"),
        ('{"key": "k", "on_conflict": null}', "/dedup/on_conflict must be"),
        ('{"key": "k", "scope": "tenant"}', "/dedup/scope is not a field of dedup"),
        ('{"key": "k", "until": 1e999999}', "/dedup/until has a number that is too large"),
    ],
)
async def test_dedup_that_is_not_allowed_is_refused(queue: Queue, dedup: str, problem: str) -> None:
    """The error points at the field and says what is allowed; nothing is stored."""
    items = f'[{{"queue": "q", "handler": "h", "dedup": {dedup}}}]'
    [row] = await queue.sql("SELECT * FROM howdah.enqueue_many(NULL, %s::json)", items)

    assert str(row["error"]).startswith(f"validation {problem}")
    assert await queue.sql("SELECT id FROM howdah.tasks") == []
    assert await queue.sql("SELECT key FROM howdah.dedup_keys") == []


@pytest.mark.parametrize("key", ["x" * 255, "€" * 255, "😀" * 255, " ", "a\\u0062", "'; DROP TABLE howdah.tasks; --"])
async def test_every_allowed_key_is_kept(queue: Queue, key: str) -> None:
    """255 characters of any script are a key."""
    await many(queue, item(key))

    assert not (await one(queue, key))["created"]
    assert await queue.sql("SELECT dedup FROM howdah.tasks") == [{"dedup": {"key": key}}]


async def test_dedup_that_is_written_with_escapes_counts(queue: Queue) -> None:
    """JSON allows to write the name of the field in another way."""
    items = '[{"queue": "q", "handler": "h", "\\u0064edup": {"key": "k"}}]'
    rows = [
        row for _ in range(2) for row in await queue.sql("SELECT * FROM howdah.enqueue_many(NULL, %s::json)", items)
    ]

    assert [row["created"] for row in rows] == [True, False]
