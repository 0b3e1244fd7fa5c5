"""Waiting for results: at once when there is one, soon when there will be, and cheap for all who wait."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from howdah.api.result_waits import LOOK_EVERY_S
from howdah.core.store.results import Results
from tests.fix_api import Api, assert_problem
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import Sequence

    from howdah.core.store.results import Asked
    from tests.fix_pull import Consumer

COUNT = 2_000


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tasks each statement that looks at results asks for."""
    seen: list[int] = []
    original = Results.find

    async def find(self: Results, conn: Any, asked: Sequence[Asked]) -> Any:
        seen.append(len(asked))
        return await original(self, conn, asked)

    monkeypatch.setattr(Results, "find", find)
    return seen


async def get(api: Api, task_id: str, wait: str = "30s", **keywords: Any) -> Any:
    """Ask for a result."""
    return await api.get(f"/v1/tasks/{task_id}/result?wait={wait}", **keywords)


async def waiting(api: Api, count: int) -> None:
    """Return once so many requests wait."""
    await eventually_async(lambda: api.backend.gate.wait_count == count, 30, f"{count} requests wait")


async def test_result_of_a_task_that_has_ended_is_there_at_once(api: Api, consumer: Consumer) -> None:
    """Every way to end has its answer: result, error, or neither."""
    ends: list[dict[str, Any]] = [
        {"outcome": "succeeded", "result": {"n": 1}},
        {"outcome": "succeeded"},
        {"outcome": "failed", "retryable": False, "error": {"type": "E", "message": "m"}},
    ]
    answers = []
    for end in ends:
        task = await api.create()
        await consumer.finish(*await consumer.claim(), **end)
        answers.append((await get(api, task["id"], "0s")).json())
    waiting_task = await api.create()
    await api.request("DELETE", f"/v1/tasks/{waiting_task['id']}")
    answers.append((await get(api, waiting_task["id"])).json())

    assert [answer["state"] for answer in answers] == ["succeeded", "succeeded", "failed", "cancelled"]
    assert [answer["outcome"] for answer in answers] == ["succeeded", "succeeded", "failed", "cancelled"]
    assert answers[0]["result"] == {"n": 1}
    assert "result" not in answers[1]
    assert answers[2]["error"] == {"type": "E", "message": "m"}
    assert answers[2]["failed_because"] == "not_retryable"
    assert all("finished_at" in answer for answer in answers)


async def test_task_that_has_not_ended_is_answered_with_its_state(api: Api, consumer: Consumer) -> None:
    """202 after the wait, and at once without one; the state is the one of that moment."""
    task = await api.create()
    now = await api.get(f"/v1/tasks/{task['id']}/result")
    later = asyncio.create_task(get(api, task["id"], "500ms"))
    await waiting(api, 1)
    await consumer.claim()
    began = time.monotonic()
    answer = await later

    assert (now.status_code, now.json()) == (202, {"id": task["id"], "state": "queued"})
    assert (answer.status_code, answer.json()) == (202, {"id": task["id"], "state": "running"})
    assert time.monotonic() - began < 5


async def test_wait_outlasts_failed_attempts(api: Api, consumer: Consumer) -> None:
    """An attempt that is repeated is no end."""
    task = await api.create()
    answer = asyncio.create_task(get(api, task["id"]))
    await waiting(api, 1)
    await consumer.finish(*await consumer.claim(), outcome="failed", retry_in="0s")
    await consumer.finish(*await consumer.claim(wait="10s"), result="done")

    assert (await answer).json()["result"] == "done"


async def test_end_that_another_process_recorded_is_seen(api: Api) -> None:
    """Workers tell nobody of a task that ended; it is found out all the same."""
    task = await api.create()
    answer = asyncio.create_task(get(api, task["id"]))
    await waiting(api, 1)
    began = time.monotonic()
    await api.sql("SELECT howdah.cancel(%s)", task["id"])

    assert (await answer).json()["state"] == "cancelled"
    assert time.monotonic() - began < 2


async def test_result_is_shown_as_the_runs_are(api: Api, consumer: Consumer) -> None:
    """State and error to every reader; what the handler returned needs the scope payloads, as in the list of runs."""
    viewer, producer = await api.make_key("viewer"), await api.make_key("producer")
    task = await api.create()
    await consumer.finish(*await consumer.claim(), result={"secret": 1})
    shown = (await get(api, task["id"], key=viewer)).json()

    assert shown["state"] == "succeeded"
    assert "result" not in shown
    assert (await get(api, task["id"])).json()["result"] == {"secret": 1}
    assert_problem(await get(api, task["id"], key=producer), 403, "forbidden")


async def test_task_of_nobody_or_of_another_tenant_is_not_found(api: Api) -> None:
    """At once, whatever the wait."""
    other = await api.make_key("admin", tenant="other")
    task = await api.create()

    assert_problem(await get(api, task["id"], key=other), 404, "not_found")
    assert_problem(await get(api, "01980a3c-7c2e-7000-9d8b-2f6a51c0e4d7"), 404, "not_found")
    assert_problem(await get(api, "x"), 404, "not_found")


@pytest.mark.parametrize("wait", ["61s", "2m", "soon", "-1s", "30", ""])
async def test_wrong_wait_is_refused(api: Api, wait: str) -> None:
    """More than a minute, or what is no duration, is 400."""
    task = await api.create()

    assert_problem(await get(api, task["id"], wait), 400, "bad_parameter", ["wait"])


async def test_client_that_goes_away_is_forgotten(api: Api, looks: list[int]) -> None:
    """Nobody is looked for who is not there, and nothing is asked while nobody waits."""
    task = await api.create()
    answers = [asyncio.create_task(get(api, task["id"])) for _ in range(3)]
    await waiting(api, 3)
    for answer in answers:
        answer.cancel()
    await waiting(api, 0)
    await eventually_async(lambda: api.backend.result_waits.task_count == 0, 5, "nobody is waited for")
    count = len(looks)
    # Time in which many looks would fit, spent on requests that have nothing to do with results.
    until = time.monotonic() + 10 * LOOK_EVERY_S
    while time.monotonic() < until:
        await api.get("/v1/ping")

    assert len(looks) - count <= 1


@pytest.mark.one_server
@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_two_thousand_wait_at_the_price_of_one_statement(api: Api, looks: list[int]) -> None:
    """However many wait, a look is one statement; each hears of its task a moment after it ended."""
    rows = await api.sql(
        'SELECT id::text FROM howdah.enqueue_many(NULL, (SELECT json_agg(\'{"queue": "q", "handler": "h"}\'::json)'
        f" FROM generate_series(1, {COUNT})))"
    )
    ids = [task_id for (task_id,) in rows]
    heard_at: dict[str, float] = {}

    async def wait(task_id: str) -> None:
        answer = await get(api, task_id, "60s")
        assert answer.json()["state"] == "cancelled"
        heard_at[task_id] = time.monotonic()

    waits = [asyncio.create_task(wait(task_id)) for task_id in ids]
    await waiting(api, COUNT)
    count, began = len(looks), time.monotonic()
    late_s = []
    for task_id in ids[:: COUNT // 40]:
        await api.sql("SELECT howdah.cancel(%s)", task_id)
        ended_at = time.monotonic()
        await eventually_async(lambda task_id=task_id: task_id in heard_at, 20, "it was heard of")
        late_s.append(heard_at[task_id] - ended_at)
    looked, took_s = looks[count:], time.monotonic() - began
    await api.sql("SELECT count(howdah.cancel(task_id)) FROM howdah.runs")
    await asyncio.gather(*waits)
    late_s.sort()
    print(
        f"late: median {late_s[20] * 1e3:.1f} ms, most {late_s[-1] * 1e3:.1f} ms; {len(looked)} looks in {took_s:.1f} s"
    )

    assert max(looked) >= COUNT - 100
    assert len(looked) <= took_s / LOOK_EVERY_S + 2
    # Alone on a machine all are within 50 ms; the tests beside take their time.
    assert late_s[20] < 0.5
