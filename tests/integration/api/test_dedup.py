"""Dedup keys over HTTP: what is answered, and one task in force for each key, whoever comes at the same time."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.fix_api import TASK, Api, assert_problem, pointers, serving
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fix_proxy import CuttingProxy


def keyed(key: str = "k", **dedup: Any) -> dict[str, Any]:
    """A task with a dedup key."""
    return {**TASK, "dedup": {"key": key, **dedup}}


async def test_second_create_is_answered_with_the_first_task(api: Api) -> None:
    """201, then 200 with the same task as it stands, marked, without payloads; nothing more is stored."""
    first = await api.post("/v1/tasks", {**keyed(), "payload": {"secret": 1}})
    second = await api.post("/v1/tasks", {**keyed(), "priority": "high"})
    read = (await api.get(first.headers["location"])).json()

    assert (first.status_code, second.status_code) == (201, 200)
    assert "deduplicated" not in first.json()
    assert first.json()["dedup"] == {"key": "k"}
    assert second.json() == {**{k: v for k, v in read.items() if k != "payload"}, "deduplicated": True}
    assert second.headers["location"] == first.headers["location"]
    assert read == first.json()
    assert await api.task_count() == 1


async def test_reject_is_a_conflict_that_names_the_task(api: Api) -> None:
    """409, not retryable, with the holder's id and a pointer at the key."""
    first = await api.create(dedup={"key": "k"})
    answer = await api.post("/v1/tasks", keyed(on_conflict="reject"))

    assert_problem(answer, 409, "dedup_conflict")
    assert answer.json()["task_id"] == first["id"]
    assert pointers(answer) == ["/dedup/key"]
    assert not answer.json()["retryable"]


async def test_replace_cancels_the_one_that_waits(api: Api) -> None:
    """The new task is created; the old one is cancelled, and says why."""
    first = await api.create(dedup={"key": "k"})
    second = await api.create(dedup={"key": "k", "on_conflict": "replace"}, payload=2)
    old = (await api.get(f"/v1/tasks/{first['id']}")).json()

    assert (old["state"], old["error"]["type"]) == ("cancelled", "replaced")
    assert second["id"] in old["error"]["message"]
    assert second["state"] == "queued"


async def test_batch_tells_of_each_task(api: Api) -> None:
    """201, 200 with the holder, earlier in the batch or before, and 409, side by side."""
    before = await api.create(dedup={"key": "old"})
    tasks = [keyed("a"), keyed("a"), keyed("old"), keyed("old", on_conflict="reject"), TASK, keyed("a:b \\ c")]
    results = (await api.post("/v1/tasks/batch", {"tasks": tasks})).json()["results"]

    assert [result["status"] for result in results] == [201, 200, 200, 409, 201, 201]
    assert results[1]["task"] == {**results[0]["task"], "deduplicated": True}
    assert results[2]["task"]["id"] == results[3]["problem"]["task_id"] == before["id"]
    assert results[3]["problem"]["errors"][0]["pointer"] == "/tasks/3/dedup/key"


async def test_atomic_batch_with_a_conflict_stores_nothing(api: Api) -> None:
    """All or none: a key that is taken fails it whole, and gives back the keys that it had taken."""
    await api.create(dedup={"key": "old"})
    body = {"tasks": [keyed("new"), keyed("old", on_conflict="reject")], "atomic": True}
    answer = await api.post("/v1/tasks/batch", body)

    assert_problem(answer, 409, "dedup_conflict")
    assert pointers(answer) == ["/tasks/1/dedup/key"]
    assert await api.task_count() == 1
    assert (await api.post("/v1/tasks", keyed("new"))).status_code == 201


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("dedup", "pointer"),
    [
        (1, "/dedup"),
        (None, "/dedup"),
        ({}, "/dedup/key"),
        ({"key": ""}, "/dedup/key"),
        ({"key": 1}, "/dedup/key"),
        ({"key": "\x07"}, "/dedup/key"),
        ({"key": "\0"}, "/dedup/key"),
        ({"key": "x" * 10_240}, "/dedup/key"),
        ({"key": "k", "until": "0s"}, "/dedup/until"),
        ({"key": "k", "until": "-1s"}, "/dedup/until"),
        ({"key": "k", "until": "9999d"}, "/dedup/until"),
        ({"key": "k", "until": "soon"}, "/dedup/until"),
        ({"key": "k", "until": 5}, "/dedup/until"),
        ({"key": "k", "on_conflict": "merge"}, "/dedup/on_conflict"),
        ({"key": "k", "on_conflict": None}, "/dedup/on_conflict"),
        ({"key": "k", "scope": "tenant"}, "/dedup/scope"),
    ],
)
async def test_dedup_that_is_not_allowed_is_pointed_at(api: Api, dedup: Any, pointer: str) -> None:
    """422 with the pointer, alone and in a batch; nothing is stored."""
    single = await api.post("/v1/tasks", {**TASK, "dedup": dedup})
    batch = await api.post("/v1/tasks/batch", {"tasks": [{**TASK, "dedup": dedup}], "atomic": True})

    assert_problem(single, 422, "validation")
    assert_problem(batch, 422, "validation")
    assert (pointers(single), pointers(batch)) == ([pointer], [f"/tasks/0{pointer}"])
    assert await api.task_count() == 0


async def test_key_given_twice_is_refused(api: Api) -> None:
    """A proxy may read the first of two, so none counts, also in a batch of plain texts."""
    text = b'{"queue":"q","handler":"h","dedup":{"key":"a:b","key":"c"}}'
    single, batch = await api.post("/v1/tasks", text), await api.post("/v1/tasks/batch", b'{"tasks":[%b]}' % text)

    assert_problem(single, 400, "duplicate_key")
    assert batch.json()["results"][0]["problem"]["code"] == "duplicate_key"


async def test_idempotency_key_keeps_the_answer_of_a_deduplicated_create(api: Api) -> None:
    """The status 200 is replayed too, when the task has long ended and its dedup key is free."""
    await api.create(dedup={"key": "k"})
    first = await api.post("/v1/tasks", keyed(), Idempotency_Key="i")
    await api.sql("DELETE FROM howdah.runs")
    again = await api.post("/v1/tasks", keyed(), Idempotency_Key="i")

    assert (first.status_code, again.status_code) == (200, 200)
    assert again.text == first.text
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"


async def test_refused_create_may_be_repeated_with_its_idempotency_key(api: Api) -> None:
    """A conflict changed nothing and is not kept: once the dedup key is free, the same request succeeds."""
    first = await api.create(dedup={"key": "k"})
    refused = await api.post("/v1/tasks", keyed(on_conflict="reject"), Idempotency_Key="i")
    await api.request("DELETE", f"/v1/tasks/{first['id']}")
    again = await api.post("/v1/tasks", keyed(on_conflict="reject"), Idempotency_Key="i")

    assert (refused.status_code, again.status_code) == (409, 201)


async def test_retry_of_a_dead_letter_whose_key_is_taken_is_a_conflict(api: Api) -> None:
    """409 dedup_conflict with the holder's id."""
    task = await api.create(dedup={"key": "k"})
    await api.sql(
        "WITH gone AS (DELETE FROM howdah.runs RETURNING *) INSERT INTO howdah.dead_letters (tenant_id, task_id, "
        "queue_id, target_id, priority, claim_no, attempt, crashes, reason, queued_at, dead_at) "
        "SELECT tenant_id, task_id, queue_id, target_id, priority, 1, 1, 0, 'attempts', queued_at, now() FROM gone"
    )
    holder = await api.create(dedup={"key": "k"})
    answer = await api.post(f"/v1/tasks/{task['id']}/retry", {})

    assert_problem(answer, 409, "dedup_conflict")
    assert answer.json()["task_id"] == holder["id"]


async def test_holder_that_is_not_kept_any_more_is_a_conflict(api: Api) -> None:
    """A key may be held for longer than tasks are kept; there is no task to answer with then."""
    task = await api.create(dedup={"key": "k", "until": "90d"})
    await api.sql("DELETE FROM howdah.runs")
    await api.sql("DELETE FROM howdah.tasks")
    single = await api.post("/v1/tasks", keyed())
    [result] = (await api.post("/v1/tasks/batch", {"tasks": [keyed()]})).json()["results"]

    assert_problem(single, 409, "dedup_conflict")
    assert single.json()["task_id"] == result["problem"]["task_id"] == task["id"]


async def test_open_key_of_another_transaction_delays_only_its_own_tasks(api: Api) -> None:
    """Who brings the key is refused for now, soon; others with keys of their own are not."""
    await api.create()
    async with await psycopg.AsyncConnection.connect(api.url) as other:
        await other.execute("SELECT howdah.enqueue('q', 'h', options => '{\"dedup\": {\"key\": \"open\"}}')")
        held = [asyncio.create_task(api.post("/v1/tasks", keyed("open"))) for _ in range(20)]
        began = time.monotonic()
        elsewhere = await asyncio.gather(*(api.post("/v1/tasks", keyed(f"k{n}")) for n in range(50)))
        took_s = time.monotonic() - began
        answers = await asyncio.gather(*held)
        batch = await api.post(
            "/v1/tasks/batch", {"tasks": [keyed("open"), *(keyed(f"b{n}") for n in range(30)), TASK]}
        )
        atomic = await api.post("/v1/tasks/batch", {"tasks": [keyed("open"), keyed("c")], "atomic": True})
        kept = await api.post("/v1/tasks", keyed("open"), Idempotency_Key="i")
    after = await api.post("/v1/tasks", keyed("open"))

    assert {each.status_code for each in elsewhere} == {201}
    assert took_s < 2
    for answer in (*answers, atomic, kept):
        assert_problem(answer, 409, "dedup_key_in_use")
        assert answer.json()["retryable"]
        assert answer.headers["retry-after"] == "1"
    assert [result["status"] for result in batch.json()["results"]] == [409] + [201] * 31
    assert after.status_code == 200


async def test_flow_key_that_another_transaction_is_making_delays_only_its_own_tasks(api: Api) -> None:
    """As with dedup keys: who brings it is refused for now; plain tasks and those with other keys are not."""

    def flowing(key: str) -> dict[str, Any]:
        return {**TASK, "flow": {"key": key, "concurrency": 1}}

    await api.create()
    await api.post("/v1/tasks", flowing("known"))
    async with await psycopg.AsyncConnection.connect(api.url) as other:
        await other.execute(
            'SELECT howdah.enqueue(\'q\', \'h\', options => \'{"flow": {"key": "open", "concurrency": 1}}\')'
        )
        held = [asyncio.create_task(api.post("/v1/tasks", flowing("open"))) for _ in range(5)]
        began = time.monotonic()
        elsewhere = await asyncio.gather(
            *(api.post("/v1/tasks", body) for body in (TASK, flowing("known"), flowing("new")) for _ in range(10))
        )
        took_s = time.monotonic() - began
        answers = await asyncio.gather(*held)
        batch = await api.post("/v1/tasks/batch", {"tasks": [flowing("open"), flowing("b"), TASK]})
    after = await api.post("/v1/tasks", flowing("open"))

    assert {each.status_code for each in elsewhere} == {201}
    assert took_s < 2
    for answer in answers:
        assert_problem(answer, 409, "flow_key_in_use", ["/flow/key"])
    assert [result["status"] for result in batch.json()["results"]] == [409, 201, 201]
    assert after.status_code == 201


async def test_key_that_is_open_for_a_moment_is_waited_for(api: Api) -> None:
    """All that lined up behind it have their answer once it commits: one task, for all of them."""
    async with await psycopg.AsyncConnection.connect(api.url) as other:
        cursor = await other.execute("SELECT howdah.enqueue('q', 'h', options => '{\"dedup\": {\"key\": \"open\"}}')")
        [task] = await cursor.fetchone() or ()
        held = [asyncio.create_task(api.post("/v1/tasks", keyed("open"))) for _ in range(20)]
        committer = api.backend.writer.held_keys
        await eventually_async(lambda: bool(committer._under_way), 5, "the key is waited for")
        await other.commit()
        answers = await asyncio.gather(*held)

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["id"] for answer in answers} == {str(task)}


@pytest.fixture
async def cut(proxy: CuttingProxy, database: str) -> AsyncIterator[Api]:
    """An API whose connections go through a proxy that can cut answers off."""
    async with serving(proxy.url) as made:
        made.url = database
        await made.create()
        yield made


@pytest.mark.parametrize("on_conflict", ["return_existing", "reject", "replace"])
async def test_answer_lost_after_the_commit_is_no_conflict_with_itself(
    cut: Api, proxy: CuttingProxy, on_conflict: str
) -> None:
    """The batch is sent again with its ids: every client is told that its task was created, and by its own id."""
    proxy.cut_answers("task.enqueue", 2)
    answers = await asyncio.gather(
        *(cut.post("/v1/tasks", {**keyed(f"k{n}", on_conflict=on_conflict), "payload": n}) for n in range(20))
    )
    rows = await cut.sql("SELECT id::text, payload::text::int FROM howdah.tasks WHERE payload IS NOT NULL")

    assert proxy.cut_count == 2
    assert {answer.status_code for answer in answers} == {201}
    assert sorted(rows) == sorted((answer.json()["id"], n) for n, answer in enumerate(answers))


async def test_one_task_a_key_lives_whoever_comes_at_the_same_time(api: Api) -> None:
    """16 HTTP clients, 4 SQL sessions and a worker's ends, on 20 keys: no key ever has two live tasks.

    A trigger looks at every commit: it fails the transaction that would leave two.
    """
    await api.create()
    await api.sql(
        "CREATE FUNCTION public.check_key() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF (SELECT count(*) FROM howdah.runs r JOIN howdah.tasks t ON t.tenant_id = r.tenant_id AND t.id = r.task_id "
        "WHERE t.dedup ->> 'key' = (SELECT s.dedup ->> 'key' FROM howdah.tasks s WHERE s.id = NEW.task_id)) > 1 "
        "THEN RAISE EXCEPTION 'two live tasks of one key'; END IF; RETURN NULL; END $$"
    )
    await api.sql(
        "CREATE CONSTRAINT TRIGGER check_key AFTER INSERT ON howdah.runs DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION public.check_key()"
    )
    modes = ("return_existing", "reject", "replace")
    statuses: list[int] = []
    is_over = asyncio.Event()

    async def http(number: int) -> None:
        for n in range(40):
            body = keyed(f"k{(n * 7 + number) % 20}", on_conflict=modes[(n + number) % 3])
            if n % 4:
                statuses.append((await api.post("/v1/tasks", body)).status_code)
            else:
                batch = {"tasks": [keyed(f"k{m}", on_conflict=modes[(m + n) % 3]) for m in range(20)]}
                answer = (await api.post("/v1/tasks/batch", batch)).json()
                statuses.extend(result["status"] for result in answer["results"])

    async def sql(number: int) -> None:
        async with await psycopg.AsyncConnection.connect(api.url, autocommit=True) as conn:
            for n in range(60):
                items = [keyed(f"k{(m * 3 + n) % 20}", on_conflict=modes[(m + number) % 3]) for m in range(5)]
                await conn.execute("SELECT * FROM howdah.enqueue_many(NULL, %s::json)", [json.dumps(items)])

    async def end() -> None:
        async with await psycopg.AsyncConnection.connect(api.url, autocommit=True) as conn:
            while not is_over.is_set():
                await conn.execute(
                    "DELETE FROM howdah.runs WHERE task_id IN (SELECT task_id FROM howdah.runs WHERE random() < 0.2 "
                    "ORDER BY task_id FOR UPDATE SKIP LOCKED)"
                )
                await asyncio.sleep(0.005)

    ending = asyncio.create_task(end())
    await asyncio.gather(*(http(number) for number in range(16)), *(sql(number) for number in range(4)))
    is_over.set()
    await ending
    [(live, keys)] = await api.sql(
        "SELECT count(*), count(DISTINCT t.dedup ->> 'key') FROM howdah.runs r JOIN howdah.tasks t ON t.id = r.task_id "
        "WHERE t.dedup IS NOT NULL"
    )

    assert set(statuses) <= {200, 201, 409}
    assert {200, 201, 409} <= set(statuses)
    assert live == keys
