"""Follow-ups over HTTP: what a create takes and shows, and what consumers and receivers enqueue with their outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from howdah.core.callback_tokens import make_token
from howdah.core.model import LeaseKey
from tests.fix_api import Api, assert_problem
from tests.fix_pull import Consumer, lease_of, statuses

if TYPE_CHECKING:
    import uuid

NEXT = {"queue": "next", "handler": "n", "payload": {"a": 1}}
SORRY = {"queue": "next", "http": {"url": "https://example.com/sorry", "headers": {"Authorization": "secret"}}}


async def children(api: Api) -> list[tuple[str, str | None, bool]]:
    """Parent, handler, and whether the transaction that ended the parent stored it, of each task with a parent."""
    rows = await api.sql(
        "SELECT t.parent_id::text, g.handler, t.xmin = f.xmin FROM howdah.tasks t "
        "JOIN howdah.targets g ON g.id = t.target_id "
        "LEFT JOIN howdah.finished_runs f ON f.tenant_id = t.tenant_id AND f.task_id = t.parent_id AND f.is_final "
        "WHERE t.parent_id IS NOT NULL ORDER BY t.id"
    )
    return [(row[0], row[1], row[2]) for row in rows]


async def test_create_and_get_show_follow_ups_as_given(api: Api) -> None:
    """Also those of follow-ups, with payloads byte for byte."""
    body = (
        '{"queue": "q", "handler": "h", "on_success": {"queue": "n", "handler": "n", "payload": {"b":  1.10, "a": 2}, '
        '"on_failure": {"queue": "n", "handler": "m"}}}'
    )
    created = await api.post("/v1/tasks", body.encode())
    shown = await api.get(f"/v1/tasks/{created.json()['id']}")

    assert created.status_code == 201
    for answer in (created, shown):
        assert '"payload":{"b":  1.10, "a": 2}' in answer.text
        assert answer.json()["on_success"]["on_failure"] == {"queue": "n", "handler": "m"}
        assert "on_failure" not in answer.json()


async def test_payloads_and_secrets_of_follow_ups_need_their_scope(api: Api) -> None:
    """Whoever may not read payloads sees that something follows, and where."""
    task = await api.create(on_success={**NEXT, "on_success": NEXT}, on_failure=SORRY)
    shown = (await api.get(f"/v1/tasks/{task['id']}", key=await api.make_key("viewer"))).json()

    assert shown["on_success"] == {"queue": "next", "handler": "n", "on_success": {"queue": "next", "handler": "n"}}
    assert shown["on_failure"] == {"queue": "next", "http": {"url": "https://example.com/sorry"}}


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
async def test_outcome_of_a_consumer_is_followed_up(api: Api, consumer: Consumer, outcome: str) -> None:
    """As a worker's: in the transaction that records it, and the child says whose it is."""
    task = await api.create(on_success=NEXT, on_failure={**NEXT, "handler": "sorry"}, retry={"max_attempts": 1})
    [run] = await consumer.claim()
    results = await consumer.finish(run, outcome=outcome)
    stored = await children(api)
    [child] = (await api.get("/v1/tasks?queue=next")).json()["data"]

    assert statuses(results) == ["ok"]
    assert stored == [(task["id"], "n" if outcome == "succeeded" else "sorry", True)]
    assert child["parent_id"] == task["id"]


async def test_consumer_enqueues_with_its_success(api: Api, consumer: Consumer) -> None:
    """What it enqueues is stored with the outcome, once; who claims it learns its parent."""
    task = await api.create()
    [run] = await consumer.claim()
    tasks = [{"queue": "q", "handler": "h", "payload": {"x": 1}}, NEXT]
    first = await consumer.finish(run, enqueue=tasks)
    again = await consumer.finish(run, enqueue=tasks)
    [child] = await consumer.claim()

    assert (statuses(first), statuses(again)) == (["ok"], ["already_finished"])
    assert await children(api) == [(task["id"], "h", True), (task["id"], "n", True)]
    assert (child["parent_id"], child["payload"]) == (task["id"], {"x": 1})


async def test_consumer_that_may_not_enqueue_may_not_do_so_with_its_outcome(api: Api, consumer: Consumer) -> None:
    """The scope `worker` ends runs; nothing of a report that wants more is recorded."""
    await api.create()
    [run] = await consumer.claim()
    body = {"runs": [{**lease_of(run), "outcome": "succeeded", "enqueue": [NEXT]}]}
    refused = await api.post("/v1/runs/finish", body, key=await api.make_key("worker"))

    assert_problem(refused, 403, "forbidden")
    assert statuses(await consumer.finish(run)) == ["ok"]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"queue": "Q", "handler": "h"}, "task 2 that the handler enqueued is refused: validation /queue must match"),
        (
            {"queue": "q", "handler": "h", "dedup": {"key": "k", "on_conflict": "reject"}},
            "task 2 that the handler enqueued is refused: dedup_conflict /dedup/key is held by",
        ),
    ],
)
async def test_refused_task_makes_the_success_a_failure(
    api: Api, consumer: Consumer, item: dict[str, Any], said: str
) -> None:
    """The result says invalid and why; the attempt has failed for good, and nothing is stored of it."""
    await api.create(queue="q", handler="other", dedup={"key": "k"})
    task = await api.create()
    good = await api.create()
    runs = {run["task_id"]: run for run in await consumer.claim()}
    [bad_result, good_result] = await consumer.call(
        "finish",
        [
            {**lease_of(runs[task["id"]]), "outcome": "succeeded", "enqueue": [NEXT, item]},
            {**lease_of(runs[good["id"]]), "outcome": "succeeded", "enqueue": [NEXT]},
        ],
    )
    shown = (await api.get(f"/v1/tasks/{task['id']}")).json()

    assert (bad_result["status"], bad_result["state"], good_result["status"]) == ("invalid", "failed", "ok")
    assert bad_result["problem"]["detail"].startswith(f"/runs/0 {said}")
    assert (shown["state"], shown["error"]["type"]) == ("failed", "enqueue_refused")
    assert [parent for parent, _, _ in await children(api)] == [good["id"]]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"outcome": "failed", "enqueue": [NEXT]}, "/runs/0/enqueue"),
        ({"outcome": "succeeded", "enqueue": [NEXT] * 1_001}, "/runs/0/enqueue"),
        ({"outcome": "succeeded", "enqueue": [{**NEXT, "colour": 1}]}, "/runs/0/enqueue/0/colour"),
        ({"outcome": "succeeded", "enqueue": [NEXT, 7]}, "/runs/0/enqueue/1"),
        ({"outcome": "succeeded", "enqueue": [{**NEXT, "payload": "x" * 300_000}]}, "/runs/0/enqueue/0/payload"),
        (
            {"outcome": "succeeded", "enqueue": [{"queue": "q", "http": {"url": "http://127.0.0.1/"}}]},
            "/runs/0/enqueue/0/http/url",
        ),
    ],
)
async def test_task_that_is_no_task_is_found_before_anything_is_recorded(
    api: Api, consumer: Consumer, fields: dict[str, Any], pointer: str
) -> None:
    """The report is invalid at the place at fault, and the lease still held."""
    await api.create()
    [run] = await consumer.claim()
    [result] = await consumer.call("finish", [{**lease_of(run), **fields}])

    assert (result["status"], result["problem"]["errors"][0]["pointer"]) == ("invalid", pointer)
    assert statuses(await consumer.finish(run)) == ["ok"]


async def test_receiver_enqueues_with_its_success(api: Api) -> None:
    """`complete` takes tasks beside the result, from those who may enqueue: the token alone does not say so."""
    target = {"url": "https://example.com/", "mode": "async"}
    task = (await api.post("/v1/tasks", {"queue": "q", "http": target, "on_success": NEXT})).json()
    [(task_id, tenant_id, token, queue_id)] = await _awaiting(api)
    path = f"/v1/callbacks/{await _token(api, tenant_id, task_id, token, queue_id)}/complete"
    body = {"result": {"a": 1}, "enqueue": [{**NEXT, "handler": "m"}]}
    producer = await api.make_key("producer")
    stranger = await api.post(path, body, key="")
    worker = await api.post(path, body, key=await api.make_key("worker"))
    other = await api.post(path, body, key=await api.make_key("producer", tenant="other"))
    refused = await api.post(path, {"enqueue": [{**NEXT, "nonsense": 1}]}, key=producer)
    done = await api.post(path, body, key=producer)

    assert_problem(stranger, 401, "unauthorized")
    assert_problem(worker, 403, "forbidden")
    assert_problem(other, 401, "unauthorized")
    assert_problem(refused, 422, "validation", ["/enqueue/0/nonsense"])
    assert done.json()["outcome"] == "succeeded"
    assert {(parent, handler) for parent, handler, _ in await children(api)} == {(task["id"], "m"), (task["id"], "n")}


async def _awaiting(api: Api) -> list[tuple[uuid.UUID, int, uuid.UUID, int]]:
    """Let all runs be accepted by their receivers."""
    rows = await api.sql(
        "UPDATE howdah.runs SET claim_no = 1, attempt = 1, worker_id = 1, lease_token = gen_random_uuid(), "
        "claimed_at = howdah.now(), awaiting_at = howdah.now(), deadline_at = howdah.now() + interval '1 hour', "
        "lease_expires_at = howdah.now() + interval '1 hour' RETURNING task_id, tenant_id, lease_token, queue_id"
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


async def _token(api: Api, tenant_id: int, task_id: uuid.UUID, token: uuid.UUID, queue_id: int) -> str:
    [(key,)] = await api.sql("SELECT callback_key FROM howdah.tenants WHERE id = %s", tenant_id)
    return make_token(bytes(key), LeaseKey(tenant_id, task_id.bytes, token.bytes), queue_id)


@pytest.mark.parametrize(
    ("follow_up", "code", "pointer"),
    [
        ("text", "validation", "/on_success"),
        ({"queue": "q"}, "validation", "/on_success/handler"),
        ({**NEXT, "id": "x"}, "validation", "/on_success/id"),
        ({**NEXT, "run_at": "2030-01-01T00:00:00Z"}, "validation", "/on_success/run_at"),
        ({**NEXT, "delay": "soon"}, "validation", "/on_success/delay"),
        ({**NEXT, "priority": "urgent"}, "validation", "/on_success/priority"),
        ({**NEXT, "handler": "NO"}, "validation", "/on_success/handler"),
        ({**NEXT, "payload": "x" * 300_000}, "payload_too_large", "/on_success/payload"),
        ({**NEXT, "tags": {"a": 1}}, "validation", "/on_success/tags/a"),
        ({**NEXT, "payload": {"a": "\u0000"}}, "validation", "/on_success/payload/a"),
        ({"queue": "q", "http": {"url": "http://10.0.0.1/"}}, "blocked_address", "/on_success/http/url"),
        ({**NEXT, "on_failure": {**NEXT, "queue": 1}}, "validation", "/on_success/on_failure/queue"),
    ],
)
async def test_follow_up_is_refused_with_its_parent(api: Api, follow_up: Any, code: str, pointer: str) -> None:
    """One at fault stores nothing, and the pointer names the place in it."""
    answer = await api.post("/v1/tasks", {"queue": "q", "handler": "h", "on_success": follow_up})

    assert_problem(answer, 413 if code == "payload_too_large" else 422, code, [pointer])
    assert await api.task_count() == 0


async def test_key_that_is_given_twice_in_a_follow_up_is_refused(api: Api) -> None:
    """As in the task itself; in its payload that is the client's own business."""
    twice = '{"queue": "q", "handler": "h", "on_success": {"queue": "q", "handler": "h", "queue": "r"}}'
    inside = '{"queue": "q", "handler": "h", "on_success": {"queue": "q", "handler": "h", "payload": {"a": 1, "a": 2}}}'
    refused, taken = await api.post("/v1/tasks", twice.encode()), await api.post("/v1/tasks", inside.encode())

    assert_problem(refused, 400, "duplicate_key", ["/on_success/queue"])
    assert taken.status_code == 201


async def test_chain_has_an_end(api: Api) -> None:
    """33 follow-ups are refused before they reach the database, and 32 are taken."""
    chain: dict[str, Any] = {"queue": "q", "handler": "h"}
    for _ in range(32):
        chain = {"queue": "q", "handler": "h", "on_success": chain}
    taken = await api.post("/v1/tasks", chain)
    refused = await api.post("/v1/tasks", {"queue": "q", "handler": "h", "on_failure": chain})

    assert taken.status_code == 201
    assert_problem(refused, 422, "validation", [""])


async def test_batch_takes_follow_ups(api: Api) -> None:
    """Each item fails by itself, by its own place."""
    tasks = [{"queue": "q", "handler": "h", "on_success": NEXT}, {"queue": "q", "handler": "h", "on_success": {}}]
    results = (await api.post("/v1/tasks/batch", {"tasks": tasks})).json()["results"]

    assert [result["status"] for result in results] == [201, 422]
    assert results[0]["task"]["on_success"] == NEXT
    assert results[1]["problem"]["errors"][0]["pointer"].startswith("/tasks/1/on_success/")
