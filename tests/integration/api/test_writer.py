"""Group commit: what is acknowledged is stored, and one bad task, lock or lost answer hurts nobody else."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from howdah.api.shapes import TaskCreate
from tests.fix_api import TASK, Api, assert_problem, serving
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from howdah.core.store.tasks import Stored
    from tests.fix_proxy import CuttingProxy


async def gather(api: Api, bodies: list[dict[str, Any]], **keywords: Any) -> list[Any]:
    """Post all at once."""
    return list(await asyncio.gather(*(api.post("/v1/tasks", body, **keywords) for body in bodies)))


async def test_creates_that_come_together_are_committed_together(api: Api) -> None:
    """A hundred creates at once need a few commits, each answer is its own task, and all are stored."""
    await api.create()
    commits = 0
    store = api.backend.tasks.store

    async def counted(*arguments: Any) -> Any:
        nonlocal commits
        commits += 1
        return await store(*arguments)

    api.backend.tasks.store = counted  # type: ignore[method-assign]
    answers = await gather(api, [{**TASK, "payload": number} for number in range(100)])
    rows = dict(await api.sql("SELECT id::text, payload::text::int FROM howdah.tasks WHERE payload IS NOT NULL"))

    assert {answer.status_code for answer in answers} == {201}
    assert [rows[answer.json()["id"]] for answer in answers] == list(range(100))
    assert commits < 50


async def test_tenants_in_one_batch_get_their_own_tasks(api: Api) -> None:
    """A commit may hold tasks of many tenants; none gets another's."""
    keys = [await api.make_key("admin", tenant=f"tenant-{number}") for number in range(8)]
    for key in keys:
        await api.post("/v1/tasks", TASK, key=key)
    answers = await asyncio.gather(
        *(api.post("/v1/tasks", {**TASK, "payload": number}, key=keys[number % 8]) for number in range(80))
    )
    rows = await api.sql(
        "SELECT n.name, t.payload::text::int % 8 FROM howdah.tasks AS t JOIN howdah.tenants AS n ON n.id = t.tenant_id "
        "WHERE t.payload IS NOT NULL"
    )

    assert {answer.status_code for answer in answers} == {201}
    assert sorted(rows) == sorted((f"tenant-{number % 8}", number % 8) for number in range(80))


@pytest.mark.parametrize("tenant_count", [1, 2])
async def test_task_that_causes_an_error_fails_alone(api: Api, tenant_count: int) -> None:
    """An unexpected error of PostgreSQL (here a trigger of somebody's) is the answer to its own task only."""
    await api.sql(
        "CREATE FUNCTION public.fuss() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.payload::text = '13' THEN RAISE EXCEPTION 'bad luck'; END IF; RETURN NEW; END $$"
    )
    await api.sql("CREATE TRIGGER fuss BEFORE INSERT ON howdah.tasks FOR EACH ROW EXECUTE FUNCTION public.fuss()")
    keys = [api.key, await api.make_key("admin", tenant="other")][:tenant_count]
    for key in keys:
        await api.post("/v1/tasks", TASK, key=key)
    answers = await asyncio.gather(
        *(api.post("/v1/tasks", {**TASK, "payload": n}, key=keys[n % tenant_count]) for n in range(40))
    )
    batch = (await api.post("/v1/tasks/batch", {"tasks": [{**TASK, "payload": n} for n in (12, 13, 14)]})).json()

    assert [n for n, answer in enumerate(answers) if answer.status_code != 201] == [13]
    assert_problem(answers[13], 500, "internal_error")
    assert "bad luck" not in answers[13].text
    assert [result["status"] for result in batch["results"]] == [201, 500, 201]


async def test_name_that_another_transaction_makes_delays_only_its_own_tasks(api: Api) -> None:
    """A SQL client that keeps a new queue's name open does not hold up creates elsewhere."""
    await api.create()
    async with await psycopg.AsyncConnection.connect(api.url) as other:
        await other.execute("SELECT howdah.enqueue('fresh', 'h')")
        began = time.monotonic()
        held = asyncio.create_task(api.post("/v1/tasks", {**TASK, "queue": "fresh"}))
        elsewhere = await gather(api, [TASK] * 20)
        took_s = time.monotonic() - began
        answer = await held

    assert {each.status_code for each in elsewhere} == {201}
    assert took_s < 1
    assert_problem(answer, 503, "storage_unavailable")
    assert (await api.post("/v1/tasks", {**TASK, "queue": "fresh"})).status_code == 201


async def test_missing_partition_is_unavailable_until_it_is_made(api: Api) -> None:
    """Without a partition nothing can be stored: 503, retryable, and right again once there is one."""
    await api.create()
    names = [
        name
        for (name,) in await api.sql(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'howdah.tasks'::regclass"
        )
    ]
    for name in names:
        await api.sql(f"DROP TABLE {name}")
    single, batch = await api.post("/v1/tasks", TASK), await api.post("/v1/tasks/batch", {"tasks": [TASK]})
    keyed = await api.post("/v1/tasks", TASK, Idempotency_Key="k")
    await api.sql("SELECT howdah.make_partitions(1)")

    for answer in (single, batch, keyed):
        assert_problem(answer, 503, "storage_unavailable")
    assert (await api.post("/v1/tasks", TASK)).status_code == 201


@pytest.fixture
async def cut(proxy: CuttingProxy, database: str) -> AsyncIterator[Api]:
    """An API whose connections go through a proxy that can cut answers off."""
    async with serving(proxy.url) as made:
        made.url = database
        await made.create()
        yield made


@pytest.mark.parametrize(("statement", "options"), [("task.enqueue", {"delay": "1h"}), ("task.enqueue_plain", {})])
async def test_answer_lost_after_the_commit_stores_nothing_twice(
    cut: Api, proxy: CuttingProxy, statement: str, options: dict[str, str]
) -> None:
    """The batch is sent again with its ids; every client gets its one task, as it is stored."""
    proxy.cut_answers(statement, 2)
    answers = await gather(cut, [{**TASK, "payload": number, **options} for number in range(30)])
    rows = await cut.sql("SELECT id::text, payload::text::int FROM howdah.tasks WHERE payload IS NOT NULL")
    read = [(await cut.get(answer.headers["location"])).text for answer in answers]

    assert proxy.cut_count == 2
    assert {answer.status_code for answer in answers} == {201}
    assert sorted(rows) == sorted((answer.json()["id"], n) for n, answer in enumerate(answers))
    assert read == [answer.text for answer in answers]


async def test_answer_of_a_batch_lost_after_the_commit_stores_nothing_twice(cut: Api, proxy: CuttingProxy) -> None:
    """A batch whose connection is cut is sent again, with the same ids too."""
    for _ in range(6):
        # From the fifth time on the statement is prepared, by which the proxy knows it.
        assert (await cut.post("/v1/tasks/batch", {"tasks": [TASK]})).status_code == 200
    proxy.cut_answers("task.enqueue_plain", 1)
    answer = await cut.post("/v1/tasks/batch", {"tasks": [{**TASK, "payload": n} for n in range(50)], "atomic": True})

    assert proxy.cut_count == 1
    assert answer.status_code == 200
    assert await cut.sql("SELECT count(*) FROM howdah.tasks WHERE payload IS NOT NULL") == [(50,)]


@pytest.mark.one_server
async def test_server_that_stops_answering_is_given_up_in_time(cut: Api, proxy: CuttingProxy) -> None:
    """A firewall that swallows everything costs seconds, then every answer is 503 at once."""
    proxy.is_blackhole = True
    began = time.monotonic()
    first = await asyncio.gather(
        cut.post("/v1/tasks", TASK),
        cut.post("/v1/tasks/batch", {"tasks": [TASK]}),
        cut.post("/v1/tasks", TASK, Idempotency_Key="k"),
        cut.get("/v1/queues"),
    )
    took_s = time.monotonic() - began
    began = time.monotonic()
    later = await cut.post("/v1/tasks", TASK)
    later_s = time.monotonic() - began
    proxy.is_blackhole = False
    await eventually_async(lambda: cut.backend.database.fault is None, 10, "the server is found again")

    for answer in (*first, later):
        assert_problem(answer, 503, "storage_unavailable")
    assert took_s < 10
    assert later_s < 0.5
    assert (await cut.post("/v1/tasks", TASK)).status_code == 201


async def test_created_tasks_wake_workers_after_the_commit(api: Api) -> None:
    """A listener that hears of a lane finds its task; many creates are few messages."""
    await api.create()
    async with await psycopg.AsyncConnection.connect(api.url, autocommit=True) as listener:
        await listener.execute("LISTEN howdah_wake")
        answers = await gather(api, [TASK] * 50)
        heard = [notify.payload async for notify in listener.notifies(timeout=2)]
        [(queue_id,)] = await api.sql("SELECT id FROM howdah.queues")
        [(oldest,)] = await api.sql(
            "SELECT (extract(epoch FROM min(run_at)) * 1e6)::bigint FROM howdah.runs WHERE task_id = ANY (%s::uuid[])",
            [answer.json()["id"] for answer in answers],
        )
    words = [word for message in heard for word in message.split()]

    assert {word.rpartition(".")[0] for word in words} == {f"q{queue_id}.1"}
    assert min(int(word.rpartition(".")[2]) for word in words) <= oldest
    assert len(heard) < 50


async def test_request_that_is_cancelled_leaves_the_others_alone(api: Api) -> None:
    """A client that hangs up while its task is committed costs the rest of the batch nothing."""
    await api.create()
    writer = api.backend.writer

    async def store() -> Stored:
        return await writer.store(1, TaskCreate(queue="q", handler="h"), None)

    tasks = [asyncio.create_task(store()) for _ in range(10)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert [isinstance(result, asyncio.CancelledError) for result in results] == [n == 3 for n in range(10)]
    assert await api.task_count() in (10, 11)


async def test_create_is_answered_after_its_commit(api: Api) -> None:
    """While the write waits for a lock there is no answer; once there is one, every other session sees the task."""
    await api.create()
    async with await psycopg.AsyncConnection.connect(api.url) as holder:
        await holder.execute("SET lock_timeout = '5s'")
        await holder.execute("LOCK TABLE howdah.runs IN SHARE MODE")
        create = asyncio.create_task(api.create())

        async def is_waiting() -> bool:
            return bool(
                await api.sql("SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'howdah.runs'::regclass")
            )

        await eventually_async(is_waiting, 5, "the write waits for the lock")
        assert not create.done()
    made = await create
    stored = await api.sql(
        "SELECT id::text FROM howdah.runs JOIN howdah.tasks ON id = task_id ORDER BY id DESC LIMIT 1"
    )

    assert stored == [(made["id"],)]
