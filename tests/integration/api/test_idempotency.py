"""Idempotency-Key: a repeat gets the answer of the first request, and does nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from howdah.api import idempotency
from tests.fix_api import TASK, Api, assert_problem, serving

if TYPE_CHECKING:
    import httpx2


def seen(answer: httpx2.Response) -> tuple[int, str, str | None]:
    """What a client acts on."""
    return answer.status_code, answer.text, answer.headers.get("location")


async def test_repeat_gets_the_answer_of_the_first(api: Api) -> None:
    """Status, body and Location are the same, and a header tells that it is a replay."""
    first, again = [await api.post("/v1/tasks", {**TASK, "payload": 1.50}, Idempotency_Key="k") for _ in range(2)]

    assert first.status_code == 201
    assert seen(first) == seen(again)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert await api.task_count() == 1
    assert (await api.get(first.headers["location"])).text == first.text


@pytest.mark.parametrize("path", ["/v1/tasks/batch", "cancel"])
async def test_every_post_may_carry_a_key(api: Api, path: str) -> None:
    """Batches and cancels as well."""
    task = await api.create()
    if path == "cancel":
        path, body = f"/v1/tasks/{task['id']}/cancel", {"mode": "hard"}
    else:
        body = {"tasks": [TASK, {"queue": "Q"}, TASK]}
    first, again = [await api.post(path, body, Idempotency_Key="k") for _ in range(2)]

    assert first.status_code == 200
    assert seen(first)[0] == seen(again)[0]
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert await api.task_count() == (1 if "cancel" in path else 3)


async def test_key_with_another_request_is_refused(api: Api) -> None:
    """The same key with another body or path is a mistake of the client, and told so."""
    await api.post("/v1/tasks", TASK, Idempotency_Key="k")
    other_body = await api.post("/v1/tasks", {**TASK, "priority": "high"}, Idempotency_Key="k")
    other_path = await api.post("/v1/tasks/batch", {"tasks": [TASK]}, Idempotency_Key="k")

    for answer in (other_body, other_path):
        assert_problem(answer, 422, "idempotency_key_reused", ["Idempotency-Key"])
    assert await api.task_count() == 1


async def test_refused_request_does_not_use_its_key_up(api: Api) -> None:
    """What was refused changed nothing: corrected, it may be sent with the same key."""
    by_types = await api.post("/v1/tasks", {"queue": 5, "handler": "h"}, Idempotency_Key="k")
    by_values = await api.post("/v1/tasks", {"queue": "Q", "handler": "h"}, Idempotency_Key="k")
    atomic = await api.post("/v1/tasks/batch", {"tasks": [TASK, {"queue": "Q"}], "atomic": True}, Idempotency_Key="k")
    corrected = await api.post("/v1/tasks", TASK, Idempotency_Key="k")

    assert [answer.status_code for answer in (by_types, by_values, atomic, corrected)] == [422, 422, 422, 201]
    assert await api.task_count() == 1


async def test_keys_belong_to_a_tenant(api: Api) -> None:
    """B39: two tenants may use the same key without learning of each other."""
    stranger = await api.make_key("admin", tenant="other")
    answers = [await api.post("/v1/tasks", TASK, key=key, Idempotency_Key="k") for key in (api.key, stranger)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["id"] != answers[1].json()["id"]


async def test_key_that_is_not_allowed_is_refused(api: Api) -> None:
    """B12: 1 to 255 visible ASCII characters."""
    for key in ("x" * 256, "x" * 9_000, "a b", "\u00e9", "a\tb", ""):
        answer = await api.post("/v1/tasks", TASK, Idempotency_Key=key.encode("latin-1"))
        assert_problem(answer, 422, "validation", ["Idempotency-Key"])
    for key in ("x", "x" * 255, "!~\"'%;--"):
        assert (await api.post("/v1/tasks", TASK, Idempotency_Key=key)).status_code == 201

    assert await api.task_count() == 3


@pytest.mark.slow
async def test_thousand_requests_with_one_key_make_one_task(api: Api) -> None:
    """B11: all at once; every one is answered with the same task, none with an error."""
    answers = await asyncio.gather(*(api.post("/v1/tasks", TASK, Idempotency_Key="k") for _ in range(1000)))

    assert {seen(answer) for answer in answers} == {seen(answers[0])}
    assert answers[0].status_code == 201
    assert await api.task_count() == 1
    assert api.backend.keeper._turns == {}


async def test_one_key_in_two_processes_makes_one_task(api: Api) -> None:
    """Two API processes agree through PostgreSQL alone."""
    async with serving(api.url) as other:
        other.key = api.key
        both = [api, other] * 25
        answers = await asyncio.gather(*(each.post("/v1/tasks", TASK, Idempotency_Key="k") for each in both))

    assert {seen(answer) for answer in answers} == {seen(answers[0])}
    assert await api.task_count() == 1


async def test_key_held_by_another_transaction_is_a_retryable_conflict(api: Api) -> None:
    """A request elsewhere that takes long delays its own repeats only, and those only a quarter of a second."""
    async with await psycopg.AsyncConnection.connect(api.url) as other:
        await other.execute(
            "INSERT INTO howdah.idempotency_keys (tenant_id, key, request_hash, created_at) "
            "VALUES (1, 'k', sha256('x'), now())"
        )
        busy = asyncio.create_task(api.post("/v1/tasks", TASK, Idempotency_Key="k"))
        free = await api.post("/v1/tasks", TASK, Idempotency_Key="another")
        answer = await busy

    assert_problem(answer, 409, "idempotency_key_in_use", [])
    assert answer.json()["retryable"]
    assert answer.headers["retry-after"] == "1"
    assert free.status_code == 201


async def test_wait_for_a_connection_is_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """While all connections for keys are busy, a request with another key is told to come back, and does nothing."""
    monkeypatch.setattr(idempotency, "WAIT_S_MAX", 0.1)
    keeper = api.backend.keeper
    for _ in range(idempotency.KEPT_POOL):
        await keeper._free.acquire()
    busy = await api.post("/v1/tasks", TASK, Idempotency_Key="k")
    for _ in range(idempotency.KEPT_POOL):
        keeper._free.release()
    free = await api.post("/v1/tasks", TASK, Idempotency_Key="k")

    assert_problem(busy, 503, "storage_unavailable", [])
    assert busy.headers["retry-after"] == "1"
    assert free.status_code == 201
    assert await api.task_count() == 1


async def test_wait_for_a_request_with_the_same_key_is_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeat while the first request takes long is told to come back; the first is answered as ever."""
    monkeypatch.setattr(idempotency, "TURN_S_MAX", 0.1)
    store = api.backend.keeper._store
    answer, has_begun, gate = store.answer, asyncio.Event(), asyncio.Event()

    async def slow(*positional: Any, **keywords: Any) -> None:
        has_begun.set()
        await gate.wait()
        await answer(*positional, **keywords)

    monkeypatch.setattr(store, "answer", slow)
    first = asyncio.create_task(api.post("/v1/tasks", TASK, Idempotency_Key="k"))
    await has_begun.wait()
    repeat = await api.post("/v1/tasks", TASK, Idempotency_Key="k")
    gate.set()

    assert_problem(repeat, 409, "idempotency_key_in_use", [])
    assert (await first).status_code == 201
    assert api.backend.keeper._turns == {}


async def test_work_that_fails_keeps_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key and work are one transaction: an error after the work leaves neither."""

    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no answer today")

    monkeypatch.setattr(api.backend.keeper._store, "answer", broken)
    failed = await api.post("/v1/tasks", TASK, Idempotency_Key="k")
    monkeypatch.undo()

    assert failed.status_code == 500
    assert await api.sql("SELECT 1 FROM howdah.idempotency_keys UNION ALL SELECT 1 FROM howdah.tasks") == []
    assert (await api.post("/v1/tasks", TASK, Idempotency_Key="k")).status_code == 201
