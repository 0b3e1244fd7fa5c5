"""Batches over HTTP: what is asked for, what is answered, and who may."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from howdah.api import bulk_create
from howdah.core.errors import DatabaseUnavailable
from tests.fix_api import assert_problem

if TYPE_CHECKING:
    from tests.fix_api import Api
    from tests.fix_pull import Consumer

TASK = {"queue": "q", "handler": "h"}
DONE = {"queue": "ends", "handler": "done"}
BATCH = {"tasks": [TASK], "on_complete": DONE}
COUNTS = ("tasks", "pending", "succeeded", "failed", "cancelled", "expired")


async def made(api: Api, **fields: Any) -> dict[str, Any]:
    """Open a batch, which must succeed, and return it."""
    answer = await api.post("/v1/batches", {**BATCH, **fields})
    assert answer.status_code == 201, answer.text
    batch: dict[str, Any] = answer.json()["batch"]
    return batch


async def read(api: Api, batch: dict[str, Any]) -> dict[str, Any]:
    """Read a batch."""
    answer = await api.get(f"/v1/batches/{batch['id']}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def counts(batch: dict[str, Any]) -> dict[str, int]:
    """The counts of a batch that are not 0."""
    return {name: batch[name] for name in COUNTS if batch[name]}


async def test_batch_is_stored_with_its_tasks(api: Api) -> None:
    """The answer has both, the tasks in their order; GET shows each of them."""
    follow_ups = {"on_complete": {**DONE, "payload": {"a": 1}}, "on_success": DONE, "on_failure": DONE}
    body = {"tasks": [TASK, {**TASK, "payload": [2], "tags": {"n": "2"}}], **follow_ups}
    answer = await api.post("/v1/batches", body)
    shown = answer.json()
    batch = shown["batch"]

    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/batches/{batch['id']}"
    assert (batch["state"], counts(batch)) == ("running", {"tasks": 2, "pending": 2})
    assert {name: batch[name] for name in follow_ups} == follow_ups
    assert "closed_at" in batch
    assert "completed_at" not in batch
    assert [task.get("payload") for task in shown["tasks"]] == [None, [2]]
    assert await read(api, batch) == batch
    for task in shown["tasks"]:
        assert task["batch"] == batch["id"]
        assert (await api.get(f"/v1/tasks/{task['id']}")).json()["batch"] == batch["id"]
    listed = {name: value for name, value in batch.items() if name not in COUNTS}
    assert (await api.get("/v1/batches")).json() == {"data": [listed], "next_cursor": None}


async def test_one_bad_task_refuses_the_whole_batch(api: Api) -> None:
    """Every fault is pointed at where it stands; nothing is stored."""
    tasks = [TASK, {**TASK, "queue": "Q!"}, TASK, {**TASK, "delay": "367d"}]
    answer = await api.post("/v1/batches", {"tasks": tasks, "on_complete": DONE})

    assert_problem(answer, 422, "validation", ["/tasks/1/queue", "/tasks/3/delay"])
    assert await api.sql("SELECT 1 FROM howdah.batches UNION ALL SELECT 1 FROM howdah.tasks") == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/tasks"),
        ({"tasks": []}, "/tasks"),
        ({"tasks": [TASK] * 1_001}, "/tasks"),
        ({"tasks": [TASK] * 1_001, "open": True}, "/tasks"),
        ({"tasks": TASK}, "/tasks"),
        ({"tasks": [TASK, 1]}, "/tasks/1"),
        ({**BATCH, "on_end": DONE}, "/on_end"),
        ({**BATCH, "open": "yes"}, "/open"),
        ({**BATCH, "on_complete": {"queue": "q"}}, "/on_complete/handler"),
        ({**BATCH, "on_complete": {**DONE, "run_at": "2030-01-01T00:00:00Z"}}, "/on_complete/run_at"),
        ({**BATCH, "on_success": {**DONE, "on_failure": {**DONE, "colour": 1}}}, "/on_success/on_failure/colour"),
        ({**BATCH, "on_failure": {**DONE, "on_failure": {**DONE, "queue": "Q"}}}, "/on_failure/on_failure/queue"),
        ({**BATCH, "on_complete": {**DONE, "batch": "parent"}}, "/on_complete/batch"),
        ({**BATCH, "tasks": [{**TASK, "batch": "018f0000-0000-7000-8000-000000000000"}]}, "/tasks/0/batch"),
        ({**BATCH, "tasks": [{**TASK, "on_success": {**TASK, "batch": "x"}}]}, "/tasks/0/on_success/batch"),
    ],
)
async def test_nonsense_is_refused_by_its_place(api: Api, body: dict[str, Any], pointer: str) -> None:
    """And nothing is stored."""
    assert_problem(await api.post("/v1/batches", body), 422, "validation", [pointer])
    assert await api.sql("SELECT 1 FROM howdah.batches") == []


async def test_payload_and_address_of_a_follow_up_are_checked(api: Api) -> None:
    """As those of a task; a key that is given twice is refused."""
    large = {**BATCH, "on_complete": {**DONE, "payload": "x" * 300_000}}
    inner = {**BATCH, "on_failure": {"queue": "q", "http": {"url": "http://169.254.169.254/x"}}}
    twice = json.dumps(BATCH).replace('"ends"', '"a", "queue": "ends"').encode()

    assert_problem(await api.post("/v1/batches", large), 413, "payload_too_large", ["/on_complete/payload"])
    assert_problem(await api.post("/v1/batches", inner), 422, "blocked_address", ["/on_failure/http/url"])
    assert_problem(await api.post("/v1/batches", twice), 400, "duplicate_key", ["/on_complete/queue"])


async def test_open_batch_takes_tasks_until_it_is_closed(api: Api) -> None:
    """One by one, many at once, and from SQL; then they are refused, and stored are none."""
    batch = await made(api, tasks=[], open=True)
    assert (batch["state"], counts(batch)) == ("open", {})
    single = {**TASK, "batch": batch["id"]}
    shown = await api.create(batch=batch["id"])
    assert shown["batch"] == batch["id"]
    keyed = await api.create(batch=batch["id"], dedup={"key": "k"})
    again = await api.post("/v1/tasks", {**single, "dedup": {"key": "k"}})
    many = await api.post("/v1/tasks/batch", {"tasks": [single, TASK]})
    await api.sql("SELECT howdah.enqueue('q', 'h', options => %s::jsonb)", json.dumps({"batch": batch["id"]}))
    closed = await api.post(f"/v1/batches/{batch['id']}/close", {})

    assert (again.status_code, again.json()["id"]) == (200, keyed["id"])
    assert [result["status"] for result in many.json()["results"]] == [201, 201]
    assert (closed.status_code, closed.json()["state"]) == (200, "running")
    assert counts(closed.json()) == {"tasks": 4, "pending": 4}
    assert_problem(await api.post("/v1/tasks", single), 409, "state_conflict", ["/batch"])
    [first, second] = (await api.post("/v1/tasks/batch", {"tasks": [single, TASK]})).json()["results"]
    assert (first["status"], first["problem"]["errors"][0]["pointer"]) == (409, "/tasks/0/batch")
    assert second["status"] == 201
    assert counts(await read(api, batch)) == {"tasks": 4, "pending": 4}
    assert (await api.post(f"/v1/batches/{batch['id']}/close", {})).json() == closed.json()


async def test_unknown_batch_and_another_tenants_are_answered_alike(api: Api) -> None:
    """Whether one exists is nobody else's business."""
    batch = await made(api, open=True)
    other = await api.make_key("admin", tenant="other")
    unknown = "018f0000-0000-7000-8000-000000000000"
    answers = []
    for each, key in ((unknown, api.key), (batch["id"], other)):
        answers.append(await api.get(f"/v1/batches/{each}", key=key))
        answers.append(await api.post(f"/v1/batches/{each}/close", {}, key=key))
        answers.append(await api.post(f"/v1/batches/{each}/cancel", {}, key=key))
        joined = await api.post("/v1/tasks", {**TASK, "batch": each}, key=key)
        assert_problem(joined, 404, "not_found", ["/batch"])
        assert joined.json()["detail"] == f"/batch there is no batch {each}"
        assert (await api.get(f"/v1/tasks?batch={each}", key=key)).json()["data"] == []
    for answer in answers:
        assert_problem(answer, 404, "not_found")
    for nonsense in ("x", batch["id"].upper(), f"{{{batch['id']}}}"):
        assert_problem(await api.get(f"/v1/batches/{nonsense}"), 404, "not_found")
        assert_problem(await api.get(f"/v1/tasks?batch={nonsense}"), 400, "bad_parameter", ["batch"])
    assert (await api.get("/v1/batches", key=other)).json() == {"data": [], "next_cursor": None}


async def test_consumer_that_ends_the_last_task_completes_the_batch(api: Api, consumer: Consumer) -> None:
    """At once, without a scheduler; what it is given next says which batch is complete."""
    batch = await made(api, tasks=[TASK, TASK], on_complete={**TASK, "queue": "ends"})
    [one, other] = await consumer.claim()
    await consumer.finish(one)
    assert counts(await read(api, batch)) == {"tasks": 2, "pending": 1, "succeeded": 1}
    await consumer.finish(other, outcome="failed", retryable=False)
    ended = await read(api, batch)
    assert (await api.get("/v1/batches")).json()["data"] == [ended]
    [end] = await consumer.claim("ends")
    shown = (await api.get(f"/v1/tasks/{end['task_id']}")).json()

    assert (one["batch"], "completes_batch" in one) == (batch["id"], False)
    assert (ended["state"], counts(ended)) == ("complete", {"tasks": 2, "succeeded": 1, "failed": 1})
    assert (end["completes_batch"], "batch" in end) == (batch["id"], False)
    assert end["payload"] == {"batch": batch["id"], **{name: ended[name] for name in COUNTS if name != "pending"}}
    assert (shown["completes_batch"], "parent_id" in shown) == (batch["id"], False)


async def test_consumer_adds_to_the_closed_batch_of_its_task(api: Api, consumer: Consumer) -> None:
    """With the success of that; by its id, or as the parent's."""
    batch = await made(api)
    [run] = await consumer.claim()
    await consumer.finish(run, enqueue=[{**TASK, "batch": run["batch"]}, {**TASK, "batch": "parent"}])
    assert counts(await read(api, batch)) == {"tasks": 3, "pending": 2, "succeeded": 1}
    await consumer.finish(*await consumer.claim())

    assert (await read(api, batch))["state"] == "complete"


async def test_tasks_are_listed_by_their_batch(api: Api) -> None:
    """Newest first, page by page, with the other filters; also after they have ended."""
    await api.create()
    tasks = [{**TASK, "tags": {"n": str(n % 2)}} for n in range(5)]
    batch = await made(api, tasks=tasks)
    await api.sql("SELECT howdah.cancel(id) FROM howdah.tasks WHERE batch_id IS NOT NULL ORDER BY id LIMIT 2")
    path = f"/v1/tasks?batch={batch['id']}"
    first = (await api.get(f"{path}&limit=3")).json()
    second = (await api.get(f"{path}&limit=3&cursor={first['next_cursor']}")).json()
    listed = [*first["data"], *second["data"]]

    assert len(listed) == 5
    assert [task["id"] for task in listed] == sorted((task["id"] for task in listed), reverse=True)
    assert {task["batch"] for task in listed} == {batch["id"]}
    assert second["next_cursor"] is None
    assert [
        len((await api.get(f"{path}&state={state}")).json()["data"]) for state in ("queued", "cancelled", "failed")
    ] == [3, 2, 0]
    assert len((await api.get(f"{path}&tag=n:1")).json()["data"]) == 2
    assert (await api.get(f"{path}&queue=other")).json()["data"] == []


async def test_cancel_is_a_bulk_operation_of_the_batch(api: Api) -> None:
    """It closes the batch; once that is complete, there is nothing to be cancelled."""
    batch = await made(api, open=True)
    answer = await api.post(f"/v1/batches/{batch['id']}/cancel", {"mode": "hard"})
    operation = answer.json()
    empty = await made(api, tasks=[], open=True)
    await api.post(f"/v1/batches/{empty['id']}/close", {})

    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/operations/{operation['id']}"
    assert (operation["kind"], operation["mode"], operation["filter"]) == (
        "cancel_tasks",
        "hard",
        {"batch": batch["id"]},
    )
    assert (await read(api, batch))["state"] == "running"
    assert_problem(await api.post(f"/v1/batches/{empty['id']}/cancel", {}), 409, "state_conflict")
    assert_problem(await api.post(f"/v1/batches/{batch['id']}/cancel", {"mode": "kind"}), 422, "validation", ["/mode"])


async def test_operations_take_a_batch_in_their_filter(api: Api) -> None:
    """A dry run counts its tasks; what is no id is refused."""
    batch = await made(api, tasks=[TASK] * 3)
    await api.create()
    body = {"filter": {"batch": batch["id"]}, "dry_run": True}

    assert (await api.post("/v1/tasks/cancel", body)).json()["matched"] == 3
    assert (await api.post("/v1/queues/q/purge", body)).json()["matched"] == 3
    assert (await api.post("/v1/queues/q/dlq/replay", body)).json()["matched"] == 0
    wrong = {"filter": {"batch": "x"}}
    assert_problem(await api.post("/v1/tasks/cancel", wrong), 422, "validation", ["/filter/batch"])


async def test_repeat_with_an_idempotency_key_opens_one_batch(api: Api) -> None:
    """It gets the first answer."""
    answers = [await api.post("/v1/batches", BATCH, Idempotency_Key="k") for _ in range(2)]

    assert answers[0].status_code == answers[1].status_code == 201
    assert answers[0].json() == answers[1].json()
    assert len(await api.sql("SELECT 1 FROM howdah.batches")) == 1


async def test_batch_whose_first_answer_was_lost_is_stored_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks after the commit: the same batch is sent again, and answered as it was stored."""
    original = bulk_create.in_transaction
    tries = 0

    async def in_transaction(*arguments: Any) -> Any:
        nonlocal tries
        tries += 1
        answer = await original(*arguments)
        if tries == 1:
            raise DatabaseUnavailable("the answer was lost")
        return answer

    monkeypatch.setattr(bulk_create, "in_transaction", in_transaction)
    answer = await api.post("/v1/batches", BATCH)
    [task] = answer.json()["tasks"]

    assert (answer.status_code, tries) == (201, 2)
    assert (task["state"], task["batch"]) == ("queued", answer.json()["batch"]["id"])
    assert counts(answer.json()["batch"]) == {"tasks": 1, "pending": 1}
    assert len(await api.sql("SELECT 1 FROM howdah.batches")) == len(await api.sql("SELECT 1 FROM howdah.tasks")) == 1


async def test_payloads_of_follow_ups_need_their_scope(api: Api) -> None:
    """As those of tasks; so do bodies and headers of callbacks."""
    http = {"url": "https://example.com/hook", "headers": {"X-Key": "secret"}}
    batch = await made(api, on_complete={**DONE, "payload": {"secret": 1}}, on_failure={"queue": "q", "http": http})
    viewer = await api.make_key("viewer")
    text = (await api.get(f"/v1/batches/{batch['id']}", key=viewer)).text

    assert "secret" not in text
    assert "https://example.com/hook" in text


async def test_batches_are_listed_page_by_page(api: Api) -> None:
    """Newest first."""
    ids = [(await made(api))["id"] for _ in range(3)]
    first = (await api.get("/v1/batches?limit=2")).json()
    second = (await api.get(f"/v1/batches?limit=2&cursor={first['next_cursor']}")).json()

    assert [batch["id"] for batch in (*first["data"], *second["data"])] == ids[::-1]
    assert second["next_cursor"] is None


async def test_client_that_is_closing_a_batch_holds_up_nobody_else(api: Api) -> None:
    """Tasks without a batch are stored meanwhile; those for it are refused for now, and stored once it is over."""
    await api.create()
    batch = await made(api, open=True)
    joins = {**TASK, "batch": batch["id"]}
    async with await psycopg.AsyncConnection.connect(api.url) as conn:
        await conn.execute("SELECT howdah.close_batch(%s)", [batch["id"]])
        joining = asyncio.create_task(api.post("/v1/tasks", joins))
        await api.create()
        assert_problem(await joining, 409, "batch_in_use", ["/batch"])
        many = await api.post("/v1/tasks/batch", {"tasks": [TASK, joins, joins]})
        await conn.rollback()

    assert [result["status"] for result in many.json()["results"]] == [201, 409, 409]
    assert (await api.post("/v1/tasks", joins)).status_code == 201
