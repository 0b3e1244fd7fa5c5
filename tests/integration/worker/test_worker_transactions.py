"""`ctx.transaction()`: a handler's writes take effect exactly once, with the run's success."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import howdah
from howdah.core.errors import TransactionUnavailable
from tests.fix_wait import eventually_async
from tests.fix_worker import LEASE_S

if TYPE_CHECKING:
    from tests.fix_worker import Workbench

INSERT = "INSERT INTO effects (task_id, claim_no) VALUES (%s, %s)"


async def effects(bench: Workbench) -> list[dict[str, Any]]:
    """What handlers have written."""
    return await bench.sql("SELECT * FROM effects ORDER BY claim_no")


@pytest.fixture
async def table(bench: Workbench) -> None:
    """A table of the user's own."""
    await bench.sql("CREATE TABLE effects (task_id uuid, claim_no int)")


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
@pytest.mark.usefixtures("table")
async def test_writes_and_success_commit_together(bench: Workbench, is_async: bool) -> None:
    """The block's end records the success, with the result that was set, in the same transaction."""

    async def write_async(payload: Any, ctx: howdah.Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute(INSERT, [ctx.task_id, ctx.claim_no])
            ctx.set_result({"rows": 1})

    def write(payload: Any, ctx: howdah.Context) -> None:
        with ctx.transaction() as conn:
            conn.execute(INSERT, [ctx.task_id, ctx.claim_no])
            ctx.set_result({"rows": 1})

    howdah.handler("write")(write_async if is_async else write)
    await bench.start()
    tasks = await bench.enqueue("write", count=20)
    rows = [await bench.ended(task) for task in tasks]
    [same] = await bench.sql(
        "SELECT count(*) AS n FROM effects e JOIN howdah.finished_runs f USING (task_id, claim_no) "
        "WHERE f.xmin = e.xmin"
    )

    assert {(row["outcome"], row["result"]["rows"]) for row in rows} == {("succeeded", 1)}
    assert same["n"] == 20


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
@pytest.mark.usefixtures("table")
async def test_exception_in_the_block_rolls_back_and_fails_the_attempt(bench: Workbench, is_async: bool) -> None:
    """What a failed attempt wrote is gone; the next one starts anew."""

    async def flaky_async(payload: Any, ctx: howdah.Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute(INSERT, [ctx.task_id, ctx.claim_no])
            if ctx.attempt == 1:
                raise ValueError("after the write")

    def flaky(payload: Any, ctx: howdah.Context) -> None:
        with ctx.transaction() as conn:
            conn.execute(INSERT, [ctx.task_id, ctx.claim_no])
            if ctx.attempt == 1:
                raise ValueError("after the write")

    howdah.handler("flaky")(flaky_async if is_async else flaky)
    await bench.start()
    [task] = await bench.enqueue("flaky", retry={"initial": "10ms"})
    await bench.ended(task)

    assert [row["claim_no"] for row in await effects(bench)] == [2]
    assert [row["outcome"] for row in await bench.history(task)] == ["failed", "succeeded"]


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
@pytest.mark.usefixtures("table")
async def test_stale_lease_raises_and_rolls_back(bench: Workbench, is_async: bool) -> None:
    """If the lease was lost while the handler ran, its writes vanish and the handler hears `LeaseLost`."""
    raised: list[type[BaseException]] = []

    async def stolen_async(payload: Any, ctx: howdah.Context) -> None:
        try:
            async with ctx.transaction() as conn:
                await conn.execute(INSERT, [ctx.task_id, ctx.claim_no])
                if ctx.attempt == 1:
                    await steal(ctx)
        except howdah.LeaseLost as error:
            raised.append(type(error))
            raise

    def stolen(payload: Any, ctx: howdah.Context) -> None:
        try:
            with ctx.transaction() as conn:
                conn.execute(INSERT, [ctx.task_id, ctx.claim_no])
                if ctx.attempt == 1:
                    asyncio.run_coroutine_threadsafe(steal(ctx), loop).result()
        except howdah.LeaseLost as error:
            raised.append(type(error))
            raise

    loop = asyncio.get_running_loop()

    async def steal(ctx: howdah.Context) -> None:
        await bench.sql("UPDATE howdah.runs SET lease_expires_at = howdah.now() - interval '1 s'")
        assert await bench.rescue() == 1

    howdah.handler("stolen")(stolen_async if is_async else stolen)
    await bench.start()
    [task] = await bench.enqueue("stolen")
    await bench.ended(task)

    assert raised == [howdah.LeaseLost]
    assert [row["claim_no"] for row in await effects(bench)] == [2]
    assert [row["outcome"] for row in await bench.history(task)] == ["lost", "succeeded"]


@pytest.mark.usefixtures("table")
async def test_run_is_not_locked_before_the_block_ends(bench: Workbench) -> None:
    """While a handler works in its transaction, heartbeats and rescue see the run's row as any other."""
    inside, leave = asyncio.Event(), asyncio.Event()

    @howdah.handler("open")
    async def open_block(payload: Any, ctx: howdah.Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute(INSERT, [ctx.task_id, ctx.claim_no])
            inside.set()
            await leave.wait()

    await bench.start()
    [task] = await bench.enqueue("open")
    await inside.wait()
    locked = await bench.sql("SELECT 1 AS free FROM howdah.runs WHERE task_id = %s FOR UPDATE SKIP LOCKED", task)
    leave.set()
    row = await bench.ended(task)

    assert locked == [{"free": 1}]
    assert row["outcome"] == "succeeded"


@pytest.mark.usefixtures("table")
async def test_lease_is_kept_during_a_long_transaction(bench: Workbench) -> None:
    """A block that lasts longer than a lease still commits once."""

    @howdah.handler("long")
    async def long(payload: Any, ctx: howdah.Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute(INSERT, [ctx.task_id, ctx.claim_no])
            await asyncio.sleep(1.5 * LEASE_S)

    await bench.start()
    [task] = await bench.enqueue("long")
    lost = 0
    while not await bench.history(task):
        lost += await bench.rescue()

    assert lost == 0
    assert [row["claim_no"] for row in await effects(bench)] == [1]


@pytest.mark.usefixtures("table")
async def test_run_has_one_transaction(bench: Workbench) -> None:
    """After the success is recorded another block is refused, for its end could record nothing."""
    raised: list[BaseException] = []

    @howdah.handler("twice")
    async def twice(payload: Any, ctx: howdah.Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute(INSERT, [ctx.task_id, ctx.claim_no])
        try:
            async with ctx.transaction():
                pass
        except TransactionUnavailable as error:
            raised.append(error)

    await bench.start()
    [task] = await bench.enqueue("twice")
    row = await bench.ended(task)
    await eventually_async(lambda: raised, 5, "the second block is refused")

    assert row["outcome"] == "succeeded"
    assert len(await effects(bench)) == 1


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
@pytest.mark.usefixtures("table")
async def test_exception_after_the_block_is_logged_and_the_success_stays(
    bench: Workbench, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What a handler raises after its transaction cannot undo the success, and is not lost either."""

    async def late_async(payload: Any, ctx: howdah.Context) -> None:
        async with ctx.transaction() as conn:
            await conn.execute(INSERT, [ctx.task_id, ctx.claim_no])
        raise ValueError("after the block")

    def late(payload: Any, ctx: howdah.Context) -> None:
        with ctx.transaction() as conn:
            conn.execute(INSERT, [ctx.task_id, ctx.claim_no])
        raise ValueError("after the block")

    def warned() -> list[Any]:
        return [record for record in caplog.records if record.message == "handler_failed_after_success"]

    howdah.handler("late")(late_async if is_async else late)
    await bench.start()
    [task] = await bench.enqueue("late")
    row = await bench.ended(task)
    await eventually_async(warned, 5, "the error is logged")
    [record] = warned()

    assert row["outcome"] == "succeeded"
    assert record.fields["task_id"] == str(task)
    assert "after the block" in record.fields["error"]


@pytest.mark.usefixtures("table")
async def test_handlers_share_few_connections(bench: Workbench) -> None:
    """However many handlers are in a transaction at once, they hold `HOWDAH_HANDLER_POOL` connections."""
    counts: list[int] = []

    async def count(conn: Any) -> int:
        cursor = await conn.execute(
            "SELECT count(*)::int FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'howdah-handler' AND state <> 'idle'"
        )
        (found,) = await cursor.fetchone()
        return int(found)

    @howdah.handler("share")
    async def share(payload: Any, ctx: howdah.Context) -> None:
        async with ctx.transaction() as conn:
            await asyncio.sleep(0.05)
            counts.append(await count(conn))

    @howdah.handler("share.plain")
    def share_plain(payload: Any, ctx: howdah.Context) -> None:
        with ctx.transaction() as conn:
            conn.execute("SELECT pg_sleep(0.05)")

    await bench.start(handler_pool=2)
    await bench.enqueue("share", count=10)
    await bench.enqueue("share.plain", count=10)
    await bench.drained()

    assert max(counts) <= 2
    assert len(counts) == 10


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
@pytest.mark.usefixtures("table")
async def test_connection_comes_back_as_it_was_opened(bench: Workbench, is_async: bool) -> None:
    """The next handler gets neither the role, settings, temporary tables nor locks of the one before."""
    states: list[tuple[Any, ...]] = []
    state = (
        "SELECT current_user, coalesce(current_setting('my.secret', true), ''), to_regclass('pg_temp.scratch'),"
        " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), pg_backend_pid()"
    )
    changes = (
        "CREATE TEMP TABLE scratch ()",
        "SET my.secret = 'x'",
        "SELECT pg_advisory_lock(1)",
        "GRANT howdah_readonly TO CURRENT_USER",
        "SET ROLE howdah_readonly",
    )

    async def change_async(payload: Any, ctx: howdah.Context) -> None:
        async with ctx.transaction() as conn:
            states.append(await (await conn.execute(state)).fetchone())
            for each in changes:
                await conn.execute(each)
            await conn.execute("SET LOCAL ROLE NONE")

    def change(payload: Any, ctx: howdah.Context) -> None:
        with ctx.transaction() as conn:
            states.append(conn.execute(state).fetchone())
            for each in changes:
                conn.execute(each)
            conn.execute("SET LOCAL ROLE NONE")

    howdah.handler("change")(change_async if is_async else change)
    await bench.start(handler_pool=1)
    for _ in range(7):
        [task] = await bench.enqueue("change")
        row = await bench.ended(task)
        assert row["outcome"] == "succeeded", row["error"]

    assert len(set(states)) == 1
    assert states[0][1] == ""
