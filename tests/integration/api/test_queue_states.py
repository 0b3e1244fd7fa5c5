"""Queues over HTTP: pause, resume, drain, delete, caps, and what each refuses."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.fix_api import TASK, assert_problem

if TYPE_CHECKING:
    import httpx2

    from tests.fix_api import Api

Q = "/v1/queues/q"
SHUT = "UPDATE howdah.queues SET pressure = 'depth', pressure_until = howdah.now() + interval '10 s' WHERE name = 'q'"


async def _put(api: Api, **settings: Any) -> httpx2.Response:
    return await api.request("PUT", Q, settings)


async def test_pause_shows_since_when_by_whom_why_and_until_when(api: Api) -> None:
    """In its own answer, in GET and in lists; the key that asked is named by its id."""
    await _put(api)
    key = await api.make_key("operator")
    answer = await api.post(f"{Q}/pause", {"reason": "the mail provider is down", "for": "2h"}, key=key)
    paused = answer.json()["queue"]["paused"]
    lasts = datetime.fromisoformat(paused["until"]) - datetime.fromisoformat(paused["since"])
    listed = (await api.get("/v1/queues")).json()["data"]

    assert (answer.status_code, answer.json()["changed"]) == (200, True)
    assert answer.json()["queue"]["state"] == "paused"
    assert (paused["by"], paused["reason"]) == (key.split("_")[1], "the mail provider is down")
    assert abs(lasts - timedelta(hours=2)) < timedelta(seconds=1)
    assert listed == [answer.json()["queue"]]
    assert (await api.get(Q)).json() == answer.json()["queue"]


async def test_pause_without_a_body_has_no_end(api: Api) -> None:
    """It replaces one that had, and says that the queue was paused already."""
    await _put(api)
    await api.post(f"{Q}/pause", {"until": "2027-06-01T00:00:00Z"})
    answer = await api.request("POST", f"{Q}/pause")

    assert answer.json()["changed"] is False
    assert (answer.json()["queue"]["paused"]["until"], answer.json()["queue"]["paused"]["reason"]) == (None, None)


async def test_resume_says_whether_there_was_anything_to_end(api: Api) -> None:
    """One of a queue that is not held is no error."""
    await _put(api)
    await api.post(f"{Q}/pause", {})
    await api.post(f"{Q}/drain", {})
    both = (await api.get(Q)).json()
    answers = [(await api.post(f"{Q}/resume", {})).json() for _ in range(2)]

    assert (both["state"], both["draining"] is not None) == ("paused", True)
    assert [answer["changed"] for answer in answers] == [True, False]
    assert [answers[1]["queue"][name] for name in ("state", "paused", "draining")] == ["active", None, None]


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"until": "2020-01-01T00:00:00Z"}, "/until"),
        ({"until": "2099-01-01T00:00:00Z"}, "/until"),
        ({"until": "soon"}, "/until"),
        ({"until": 5}, "/until"),
        ({"until": None}, "/until"),
        ({"for": "0s"}, "/for"),
        ({"for": "367d"}, "/for"),
        ({"for": "-5m"}, "/for"),
        ({"for": 60}, "/for"),
        ({"for": "1h", "until": "2027-06-01T00:00:00Z"}, "/for"),
        ({"reason": "x" * 10_000}, "/reason"),
        ({"reason": None}, "/reason"),
        ({"because": "of this"}, "/because"),
        ([], ""),
    ],
)
async def test_pause_that_makes_no_sense_is_refused(api: Api, body: Any, pointer: str) -> None:
    """It points at the field, and the queue goes on."""
    await _put(api)

    assert_problem(await api.post(f"{Q}/pause", body), 422, "validation", [pointer])
    assert (await api.get(Q)).json()["state"] == "active"


@pytest.mark.parametrize("path", ["pause", "resume", "drain"])
async def test_state_of_a_queue_that_is_not_there_is_not_changed(api: Api, path: str) -> None:
    """Another tenant's is not there either, and a viewer may not ask."""
    await _put(api)
    stranger = await api.make_key("operator", tenant="other")
    producer = await api.make_key("producer")

    assert_problem(await api.post(f"/v1/queues/none/{path}", {}), 404, "not_found")
    assert_problem(await api.post(f"/v1/queues/No/{path}", {}), 404, "not_found")
    assert_problem(await api.post(f"{Q}/{path}", {}, key=stranger), 404, "not_found")
    assert_problem(await api.post(f"{Q}/{path}", {}, key=producer), 403, "forbidden")


async def test_repeat_with_an_idempotency_key_changes_nothing_again(api: Api) -> None:
    """A pause whose answer was lost is not taken up again after a resume."""
    await _put(api)
    first = await api.post(f"{Q}/pause", {"reason": "once"}, Idempotency_Key="k")
    await api.post(f"{Q}/resume", {})
    again = await api.post(f"{Q}/pause", {"reason": "once"}, Idempotency_Key="k")

    assert again.json() == first.json()
    assert (await api.get(Q)).json()["state"] == "active"


@pytest.mark.parametrize(
    ("status", "code", "is_retryable"), [(409, "queue_draining", False), (429, "backpressure", True)]
)
async def test_queue_that_takes_no_tasks_refuses_them_one_by_one(
    api: Api, status: int, code: str, is_retryable: bool
) -> None:
    """Single ones, each of a batch for itself, or an atomic batch as a whole; a client that may repeat hears when."""
    await api.create()
    if status == 409:
        await api.post(f"{Q}/drain", {})
    else:
        await api.sql(SHUT)
    single = await api.post("/v1/tasks", TASK)
    delayed = await api.post("/v1/tasks", {**TASK, "delay": "1h"}, Idempotency_Key="k")
    tasks = [TASK, {**TASK, "queue": "other"}]
    batch = (await api.post("/v1/tasks/batch", {"tasks": tasks})).json()["results"]
    atomic = await api.post("/v1/tasks/batch", {"tasks": tasks, "atomic": True})

    assert_problem(single, status, code, ["/queue"])
    assert_problem(delayed, status, code, ["/queue"])
    assert (single.json()["retryable"], "retry-after" in single.headers) == (is_retryable, is_retryable)
    assert [result["status"] for result in batch] == [status, 201]
    assert batch[0]["problem"]["code"] == code
    assert batch[0]["problem"]["errors"][0]["pointer"] == "/tasks/0/queue"
    assert_problem(atomic, status, code, ["/tasks/0/queue"])
    assert await api.task_count() == 2


async def test_caps_and_history_are_settings(api: Api) -> None:
    """PUT sets what it does not name to none, PATCH leaves it, and null takes a cap away."""
    settings = {"max_depth": 5, "max_age": "10m", "keep_history": "failures"}
    made = (await _put(api, **settings)).json()
    left = (await api.request("PATCH", Q, {"max_age": None})).json()
    none = (await _put(api)).json()

    assert {name: made[name] for name in settings} == settings
    assert (left["max_depth"], left["max_age"], left["keep_history"]) == (5, None, "failures")
    assert (none["max_depth"], none["max_age"], none["keep_history"]) == (None, None, "all")


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"max_depth": 0}, "/max_depth"),
        ({"max_depth": -1}, "/max_depth"),
        ({"max_depth": 1_000_001}, "/max_depth"),
        ({"max_depth": 10**30}, "/max_depth"),
        ({"max_depth": 1.5}, "/max_depth"),
        ({"max_depth": "5"}, "/max_depth"),
        ({"max_age": "0s"}, "/max_age"),
        ({"max_age": "367d"}, "/max_age"),
        ({"max_age": 5}, "/max_age"),
        ({"keep_history": "some"}, "/keep_history"),
        ({"keep_history": None}, "/keep_history"),
    ],
)
async def test_setting_that_is_not_allowed_is_refused(api: Api, body: Any, pointer: str) -> None:
    """By PUT and PATCH alike."""
    await _put(api, max_depth=7)

    for method in ("PUT", "PATCH"):
        assert_problem(await api.request(method, Q, body), 422, "validation", [pointer])
    assert (await api.get(Q)).json()["max_depth"] == 7


async def test_delete_needs_an_empty_queue_and_says_what_it_holds(api: Api) -> None:
    """Then it is gone, from lists too, and a new task makes it anew."""
    await _put(api, max_depth=7)
    task = await api.create()
    refused = await api.request("DELETE", Q)
    await api.post(f"/v1/tasks/{task['id']}/cancel", {})
    deleted = await api.request("DELETE", Q)
    gone = await api.get(Q), await api.get(f"{Q}/stats"), await api.request("DELETE", Q)
    listed = (await api.get("/v1/queues")).json()["data"]
    old = (await api.get(f"/v1/tasks/{task['id']}")).json()
    await api.create()
    anew = (await api.get(Q)).json()

    assert_problem(refused, 409, "state_conflict")
    assert "it holds 1 live tasks and 0 dead letters" in refused.json()["detail"]
    assert (deleted.status_code, deleted.json()) == (200, {"name": "q", "deleted": True})
    for answer in gone:
        assert_problem(answer, 404, "not_found")
    assert (listed, old["queue"], anew["max_depth"]) == ([], "q", None)
    assert_problem(await api.request("DELETE", Q, key=await api.make_key("producer")), 403, "forbidden")


async def test_put_makes_a_deleted_queue_anew(api: Api) -> None:
    """As one that never was there: 201."""
    made = await _put(api)
    await api.request("DELETE", Q)
    again = await _put(api, timeout="7s")

    assert (made.status_code, again.status_code) == (201, 201)
    assert again.json()["created_at"] > made.json()["created_at"]
