"""What follows on the end of a task is stored with it, whoever ends it: workers, their threads and children, rescue."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

import howdah
from howdah.core.errors import EnqueueInvalid
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    import uuid

    from tests.fix_hostile import HostileServer
    from tests.fix_worker import Row, Workbench

NEXT = {"queue": "q", "handler": "next"}
SORRY = {"queue": "q", "handler": "sorry"}

ISOLATED = """
import howdah


@howdah.handler("parent", isolation="process")
def parent(payload, ctx):
    if payload == "transaction":
        with ctx.transaction():
            return str(ctx.enqueue("q", "next", {"n": 1}))
    return str(ctx.enqueue("q", "next", {"n": 1}))


@howdah.handler("next", isolation="process")
def next_(payload, ctx):
    return {"parent": str(ctx.parent_id), "payload": payload}
"""


async def children(bench: Workbench) -> list[Row]:
    """Tasks with a parent, and whether the transaction that ended the parent stored each."""
    return await bench.sql(
        "SELECT t.id, t.parent_id, g.handler, t.payload, f.xmin = t.xmin AS is_at_once "
        "FROM howdah.tasks t JOIN howdah.targets g ON g.id = t.target_id "
        "LEFT JOIN howdah.finished_runs f ON f.tenant_id = t.tenant_id AND f.task_id = t.parent_id AND f.is_final "
        "WHERE t.parent_id IS NOT NULL ORDER BY t.id"
    )


@pytest.fixture
def seen() -> list[tuple[str, uuid.UUID | None]]:
    """Which follow-ups ran, with their parents."""
    seen: list[tuple[str, uuid.UUID | None]] = []

    @howdah.handler("next")
    async def next_(payload: Any, ctx: howdah.Context) -> None:
        seen.append(("next", ctx.parent_id))

    @howdah.handler("sorry")
    def sorry(payload: Any, ctx: howdah.Context) -> None:
        seen.append(("sorry", ctx.parent_id))

    return seen


async def test_follow_up_is_stored_with_the_outcome_and_runs(
    bench: Workbench, seen: list[tuple[str, uuid.UUID | None]]
) -> None:
    """A success is followed by on_success, the last failure by on_failure, a failure before it by nothing."""

    @howdah.handler("parent")
    async def parent(payload: str, ctx: howdah.Context) -> None:
        if payload == "bad" or (payload == "late" and ctx.attempt == 1):
            raise ValueError(payload)

    await bench.start()
    fields = {"on_success": NEXT, "on_failure": SORRY, "retry": {"max_attempts": 2, "initial": "10ms"}}
    [good], [late], [bad] = [await bench.enqueue("parent", text, **fields) for text in ("good", "late", "bad")]
    await bench.drained()
    stored = await children(bench)

    assert {(child["parent_id"], child["handler"]) for child in stored} == {
        (good, "next"),
        (late, "next"),
        (bad, "sorry"),
    }
    assert all(child["is_at_once"] for child in stored)
    assert set(seen) == {("next", good), ("next", late), ("sorry", bad)}
    assert len(seen) == 3


async def test_chain_does_not_wait_for_a_poll(bench: Workbench) -> None:
    """Each follow-up is announced: of twelve, one after the other, most start at once."""

    @howdah.handler("parent")
    async def parent(payload: Any) -> None:
        pass

    await bench.start()
    await bench.enqueue("parent")
    await bench.drained()
    item: dict[str, Any] = {"queue": "q", "handler": "parent"}
    for _ in range(12):
        item = {"queue": "q", "handler": "parent", "on_success": item}
    await bench.enqueue_items([item])
    await bench.drained()
    rows = await bench.sql(
        "SELECT extract(epoch FROM f.claimed_at - t.created_at)::float AS waited_s FROM howdah.tasks t "
        "JOIN howdah.finished_runs f ON f.task_id = t.id WHERE t.parent_id IS NOT NULL"
    )

    assert len(rows) == 12
    assert sorted(row["waited_s"] for row in rows)[6] < 0.2


async def test_cancelled_task_is_followed_by_nothing(
    bench: Workbench, seen: list[tuple[str, uuid.UUID | None]]
) -> None:
    """Whoever cancels a task has decided: neither follow-up is enqueued."""

    @howdah.handler("parent")
    async def parent(payload: Any) -> None:
        await asyncio.Event().wait()

    await bench.start()
    [task] = await bench.enqueue("parent", on_success=NEXT, on_failure=SORRY)
    await eventually_async(lambda: bench.is_running(task), 10, "it runs")
    await bench.sql("SELECT howdah.cancel(%s, 'hard')", task)
    row = await bench.ended(task)

    assert row["outcome"] == "cancelled"
    assert (await children(bench), seen) == ([], [])


async def test_callback_is_followed_up_and_told_its_parent(bench: Workbench, hostile: HostileServer) -> None:
    """HTTP tasks have follow-ups as all others do, and the receiver learns by a header what it follows on."""
    await bench.start(callback_allow_cidrs=(ip_network("127.0.0.0/8"),))
    follow_up = {"queue": "q", "http": {"url": hostile.url("ok")}, "payload": "second"}
    [task] = await bench.enqueue_items(
        [{"queue": "q", "http": {"url": hostile.url("ok")}, "payload": "first", "on_success": follow_up}]
    )
    await bench.ended(task)
    await bench.drained()
    first, second = hostile.requests

    assert [request.body for request in (first, second)] == [b'"first"', b'"second"']
    assert ("howdah-parent" in {name.lower() for name, _ in first.headers}) is False
    assert second.header("Howdah-Parent") == str(task)


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_handler_enqueues_with_its_success(
    bench: Workbench, seen: list[tuple[str, uuid.UUID | None]], is_async: bool
) -> None:
    """What a failed attempt enqueued is gone; what the successful one did is stored by the same transaction."""
    ids: list[uuid.UUID] = []

    def enqueue(ctx: howdah.Context) -> None:
        ids.extend([ctx.enqueue("q", "next", {"attempt": ctx.attempt}), ctx.enqueue("q", "sorry", delay="1h")])
        if ctx.attempt == 1:
            raise ValueError("after it enqueued")

    async def parent_async(payload: Any, ctx: howdah.Context) -> None:
        enqueue(ctx)

    def parent(payload: Any, ctx: howdah.Context) -> None:
        enqueue(ctx)

    howdah.handler("parent")(parent_async if is_async else parent)
    await bench.start()
    [task] = await bench.enqueue("parent", retry={"initial": "10ms"})
    await bench.ended(task)
    await eventually_async(lambda: bool(seen), 10, "the first one ran")
    stored = await children(bench)

    assert {child["id"] for child in stored} == set(ids[2:])
    assert [child["payload"] for child in stored if child["handler"] == "next"] == [{"attempt": 2}]
    assert all(child["is_at_once"] and child["parent_id"] == task for child in stored)
    assert seen == [("next", task)]


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_transaction_stores_what_was_enqueued(bench: Workbench, is_async: bool) -> None:
    """`ctx.transaction()` commits the handler's writes, its success and its tasks as one; later ones are refused."""
    refused: list[BaseException] = []
    await bench.sql("CREATE TABLE effects (n int)")

    def late(ctx: howdah.Context) -> None:
        try:
            ctx.enqueue("q", "next")
        except EnqueueInvalid as error:
            refused.append(error)

    async def parent_async(payload: Any, ctx: howdah.Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute("INSERT INTO effects VALUES (1)")
            ctx.enqueue("later", "next", 1)
        late(ctx)

    def parent(payload: Any, ctx: howdah.Context) -> None:
        with ctx.transaction() as conn:
            conn.execute("INSERT INTO effects VALUES (1)")
            ctx.enqueue("later", "next", 1)
        late(ctx)

    howdah.handler("parent")(parent_async if is_async else parent)
    await bench.start()
    [task] = await bench.enqueue("parent", on_success=SORRY)
    await bench.ended(task)
    [same] = await bench.sql("SELECT count(*) AS n FROM effects e JOIN howdah.tasks t ON t.xmin = e.xmin")

    assert [child["handler"] for child in await children(bench)] == ["next", "sorry"]
    assert same["n"] == 2
    assert len(refused) == 1


async def test_refused_task_fails_its_run(bench: Workbench) -> None:
    """A success without what belongs to it is none; the dead letter says which task and why."""

    @howdah.handler("parent")
    async def parent(payload: Any, ctx: howdah.Context) -> None:
        ctx.enqueue("q", "next")
        ctx.enqueue("No such name", "next")

    await bench.start()
    [task] = await bench.enqueue("parent")
    row = await bench.ended(task)

    assert row["error"]["type"] == "enqueue_refused"
    assert row["error"]["message"].startswith(
        "task 2 that the handler enqueued is refused: validation /queue must match"
    )
    assert await children(bench) == []


async def test_refused_task_rolls_the_transaction_back(bench: Workbench) -> None:
    """The handler hears of it where its block ends, and what it wrote there is gone."""

    @howdah.handler("parent")
    async def parent(payload: Any, ctx: howdah.Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute("CREATE TABLE effects ()")
            ctx.enqueue("No such name", "next")

    await bench.start()
    [task] = await bench.enqueue("parent", retry={"max_attempts": 1})
    row = await bench.ended(task)
    [found] = await bench.sql("SELECT to_regclass('effects') AS table")

    assert (row["outcome"], row["error"]["type"]) == ("failed", "EnqueueRefused")
    assert found["table"] is None


@pytest.mark.parametrize("payload", ["return", "transaction"])
async def test_isolated_handler_enqueues_as_others_do(bench: Workbench, payload: str) -> None:
    """The child hands its tasks to the worker, or records them itself at the end of its transaction."""
    bench.spawn(ISOLATED)
    [task] = await bench.enqueue("parent", payload, on_success=NEXT)
    await bench.ended(task)
    await bench.drained()
    stored = await children(bench)
    results = [(await bench.history(child["id"]))[0]["result"] for child in stored]

    assert [child["is_at_once"] for child in stored] == [True, True]
    assert results == [{"parent": str(task), "payload": {"n": 1}}, {"parent": str(task), "payload": None}]


async def test_key_of_a_clients_open_transaction_holds_up_its_own_parent_only(bench: Workbench, database: str) -> None:
    """The outcome waits for the key, with its lease renewed; others are recorded meanwhile."""
    import psycopg

    @howdah.handler("parent")
    async def parent(payload: Any) -> None:
        pass

    await bench.start()
    await bench.enqueue("other", dedup={"key": "there before"})
    async with await psycopg.AsyncConnection.connect(database) as conn:
        await conn.execute("SELECT howdah.enqueue('q', 'other', options => '{\"dedup\": {\"key\": \"k\"}}')")
        follow_up = {"queue": "q", "handler": "other", "dedup": {"key": "k"}}
        [held] = await bench.enqueue("parent", on_success=follow_up)
        free = await bench.enqueue("parent", count=50, on_success={"queue": "q", "handler": "other"})
        plain = await bench.enqueue("parent", count=50)
        for task in (*free, *plain):
            await bench.ended(task)
        assert await bench.run(held) is not None
        await conn.rollback()
    row = await bench.ended(held)

    assert (row["outcome"], row["claim_no"]) == ("succeeded", 1)
    assert held in {child["parent_id"] for child in await children(bench)}


async def test_lost_task_is_followed_by_on_failure(bench: Workbench) -> None:
    """Rescue gives a task up as any other way does."""
    [task] = await bench.enqueue("parent", on_failure=SORRY, retry={"max_attempts": 1})
    await bench.sql(
        "UPDATE howdah.runs SET claim_no = 1, attempt = 1, worker_id = 1, lease_token = gen_random_uuid(), "
        "claimed_at = howdah.now(), deadline_at = howdah.now(), lease_expires_at = howdah.now() - interval '1 second'"
    )
    await bench.rescue()
    [child] = await children(bench)

    assert (child["parent_id"], child["handler"], child["is_at_once"]) == (task, "sorry", True)


KILLED = """
import asyncio
import howdah


@howdah.handler("parent")
async def parent(payload, ctx):
    await asyncio.sleep(0.02)
    ctx.enqueue("q", "child")


@howdah.handler("child")
async def child(payload):
    pass
"""


async def test_sequels_survive_kills_exactly_once(bench: Workbench) -> None:
    """Workers are killed again and again: each parent that succeeded has its follow-up and its child, none has two."""
    tasks = await bench.enqueue("parent", count=2_000, on_success={"queue": "q", "handler": "child"})
    for n_left in (1_400, 700):  # A third loss of the same run would be a dead letter.
        process = bench.spawn(KILLED, HOWDAH_CONCURRENCY="20")

        async def has_worked(n_left: int = n_left) -> bool:
            await bench.rescue()
            [row] = await bench.sql(
                "SELECT count(*) AS n FROM howdah.runs r JOIN howdah.tasks t ON t.id = r.task_id "
                "WHERE t.parent_id IS NULL"
            )
            return bool(row["n"] <= n_left)

        await eventually_async(has_worked, 60, f"{n_left} parents are left")
        process.kill()
        process.wait()
    bench.spawn(KILLED)

    async def is_empty() -> bool:
        await bench.rescue()
        return not await bench.sql("SELECT 1 FROM howdah.runs LIMIT 1")

    await eventually_async(is_empty, 60, "all have ended")
    rows = await bench.sql("SELECT parent_id, count(*) AS n FROM howdah.tasks WHERE parent_id IS NOT NULL GROUP BY 1")
    dead = await bench.sql("SELECT task_id FROM howdah.dead_letters")

    assert dead == []
    assert {row["parent_id"]: row["n"] for row in rows} == dict.fromkeys(tasks, 2)
