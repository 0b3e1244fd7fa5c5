"""Changing tasks over HTTP: what is answered is what GET then shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.fix_api import assert_problem

if TYPE_CHECKING:
    import httpx2

    from tests.fix_api import Api


# What a worker leaves of a task whose only attempt failed.
FAIL = """
WITH run AS (
    DELETE FROM howdah.runs WHERE task_id = %s RETURNING tenant_id, task_id, queue_id, target_id, priority, queued_at
),
history AS (
    INSERT INTO howdah.finished_runs (
        tenant_id, task_id, claim_no, attempt, queue_id, outcome, is_final, queued_at, finished_at
    )
    SELECT tenant_id, task_id, 1, 1, queue_id, 'failed', true, queued_at, howdah.now() FROM run
)
INSERT INTO howdah.dead_letters (
    tenant_id, task_id, queue_id, target_id, priority, claim_no, attempt, crashes, reason, queued_at, dead_at
)
SELECT tenant_id, task_id, queue_id, target_id, priority, 1, 1, 0, 'attempts', queued_at, howdah.now() FROM run
"""


def _without_payload(task: dict[str, Any]) -> dict[str, Any]:
    """What may be kept for a repeat, which another key may send."""
    return {name: value for name, value in task.items() if name != "payload"}


async def _patch(api: Api, task: dict[str, Any], body: Any) -> httpx2.Response:
    return await api.request("PATCH", f"/v1/tasks/{task['id']}", body)


async def test_run_now_answers_the_task_as_it_stands(api: Api) -> None:
    """A scheduled task is queued, and due now."""
    task = await api.create(delay="1h")
    answer = await api.post(f"/v1/tasks/{task['id']}/run-now", {})
    read = await api.get(f"/v1/tasks/{task['id']}")

    assert (answer.status_code, answer.json()["state"]) == (200, "queued")
    assert answer.json()["run_at"] < task["run_at"]
    assert answer.json() == _without_payload(read.json())


async def test_patch_answers_the_task_as_it_stands(api: Api) -> None:
    """What is given changes, what is not given stays."""
    task = await api.create(delay="1h", tags={"a": "b"})
    answer = await _patch(api, task, {"priority": "high"})
    moved = await _patch(api, task, {"run_at": task["created_at"], "tags": {}})

    known = _without_payload(task)
    assert answer.json() == {**known, "priority": "high"}
    assert moved.json() == {**known, "priority": "high", "state": "queued", "run_at": task["created_at"], "tags": {}}
    assert _without_payload((await api.get(f"/v1/tasks/{task['id']}")).json()) == moved.json()


async def test_retry_takes_a_dead_letter_back(api: Api) -> None:
    """It is queued again as if it had never failed, but for its runs; a second retry is a conflict."""
    task = await api.create()
    await api.sql(FAIL, task["id"])
    path = f"/v1/tasks/{task['id']}/retry"
    answer, again = await api.post(path, {}), await api.post(path, {})
    runs = (await api.get(f"/v1/tasks/{task['id']}/runs")).json()["data"]

    assert answer.status_code == 200
    assert {**answer.json(), "run_at": task["run_at"]} == _without_payload(task)
    assert_problem(again, 409, "state_conflict")
    assert [(run["claim_no"], run["outcome"]) for run in runs] == [(1, "failed")]


@pytest.mark.parametrize("path", ["run-now", "retry"])
async def test_repeat_with_an_idempotency_key_gets_the_same_answer(api: Api, path: str) -> None:
    """A lost answer can be asked for again, although the task has moved on since."""
    task = await api.create(delay="1h")
    if path == "retry":
        await api.sql(FAIL, task["id"])
    answers = [await api.request("POST", f"/v1/tasks/{task['id']}/{path}", Idempotency_Key="once") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotency-replayed"] == "true"


async def test_kept_answer_shows_no_payload_to_another_key(api: Api) -> None:
    """A key without the scope repeats the request of one that has it."""
    task = await api.create(delay="1h", payload={"secret": "s"})
    path = f"/v1/tasks/{task['id']}/run-now"
    first = await api.request("POST", path, Idempotency_Key="guessed")
    again = await api.request("POST", path, key=await api.make_key("producer"), Idempotency_Key="guessed")

    assert (first.status_code, again.status_code) == (200, 200)
    assert "secret" not in first.text + again.text


async def test_change_of_a_task_that_has_ended_is_a_conflict(api: Api) -> None:
    """What is over stays as it is."""
    task = await api.create()
    await api.post(f"/v1/tasks/{task['id']}/cancel", {})

    assert_problem(await _patch(api, task, {"priority": "high"}), 409, "state_conflict")
    for path in ("run-now", "retry"):
        assert_problem(await api.post(f"/v1/tasks/{task['id']}/{path}", {}), 409, "state_conflict")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"priority": "urgent"}, "/priority"),
        ({"priority": None}, "/priority"),
        ({"run_at": "soon"}, "/run_at"),
        ({"run_at": "9999-01-01T00:00:00Z"}, "/run_at"),
        ({"tags": {"A": "b"}}, "/tags"),
        ({"payload": 1}, "/payload"),
    ],
)
async def test_patch_that_is_not_allowed_points_at_the_field(api: Api, body: Any, pointer: str) -> None:
    """Nothing is changed then."""
    task = await api.create()

    assert_problem(await _patch(api, task, body), 422, "validation", [pointer])
    assert (await api.get(f"/v1/tasks/{task['id']}")).json() == task


async def test_another_tenants_task_is_not_found(api: Api) -> None:
    """Whatever is asked of it."""
    task = await api.create()
    await api.sql("INSERT INTO howdah.tenants (name) VALUES ('other')")
    api.key = await api.make_key("operator", tenant="other")

    assert_problem(await _patch(api, task, {}), 404, "not_found")
    for path in ("run-now", "retry"):
        assert_problem(await api.post(f"/v1/tasks/{task['id']}/{path}", {}), 404, "not_found")


async def test_retry_needs_an_operator(api: Api) -> None:
    """A producer may move its tasks, but what was given up is for people to judge."""
    task = await api.create(delay="1h")
    api.key = await api.make_key("producer")

    assert (await _patch(api, task, {"priority": "low"})).status_code == 200
    assert_problem(await api.post(f"/v1/tasks/{task['id']}/retry", {}), 403, "forbidden")


async def test_explain_says_why_a_task_does_not_run(api: Api) -> None:
    """What howdah.explain says, and the moment when it ends by itself, if that is known."""
    task = await api.create(delay="1h")
    answer = await api.get(f"/v1/tasks/{task['id']}/explain")
    unknown = await api.get("/v1/tasks/01980a3c-7c2e-7000-9d8b-2f6a51c0e4d7/explain")
    [not_due, no_worker] = answer.json()["reasons"]

    assert (answer.status_code, answer.json()["id"]) == (200, task["id"])
    assert (not_due["code"], not_due["until"]) == ("not_due", task["run_at"])
    assert (no_worker["code"], "until" in no_worker, "run_count" in no_worker) == ("no_worker", False, False)
    assert_problem(unknown, 404, "not_found")
