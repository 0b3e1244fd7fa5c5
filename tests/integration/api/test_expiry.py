"""Tasks that expire, over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from howdah.core.store.outlived_runs import OutlivedRuns
from tests.fix_api import TASK, assert_problem

if TYPE_CHECKING:
    from tests.fix_api import Api


def _at(**ahead: float) -> str:
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


def _ahead_s(task: dict[str, Any]) -> float:
    created, expires = (datetime.fromisoformat(task[name]) for name in ("created_at", "expires_at"))
    return (expires - created).total_seconds()


async def _expire_now(api: Api, *ids: str) -> None:
    """Let the time of some tasks have passed, and a scheduler have seen it."""
    await api.sql(
        "UPDATE howdah.runs SET expires_at = howdah.now() - interval '1 s' WHERE task_id = ANY (%s::uuid[])", list(ids)
    )
    async with api.backend.database.transaction() as conn:
        await OutlivedRuns("howdah").expire(conn)


async def test_created_task_says_when_it_expires(api: Api) -> None:
    """Given as an instant or as a duration, alone or in a batch, with a key for repeats: as GET shows it."""
    at = _at(hours=1)
    made = [
        await api.create(expires_at=at),
        await api.create(expires_in="90s"),
        await api.create(delay="1h", expires_in="PT90S"),
    ]
    batch = await api.post("/v1/tasks/batch", {"tasks": [{**TASK, "expires_in": "90s"}, TASK], "atomic": True})
    keyed = await api.request("POST", "/v1/tasks", {**TASK, "expires_in": "90s"}, Idempotency_Key="k")
    results = [result["task"] for result in batch.json()["results"]]

    assert datetime.fromisoformat(made[0]["expires_at"]) == datetime.fromisoformat(at)
    assert [_ahead_s(task) for task in (*made[1:], results[0], keyed.json())] == [90, 3_690, 90, 90]
    assert "expires_at" not in results[1]
    for task in (*made, *results, keyed.json()):
        assert (await api.get(f"/v1/tasks/{task['id']}")).json() == task


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"expires_at": None}, "/expires_at"),
        ({"expires_in": None}, "/expires_in"),
        ({"expires_at": "2026-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": _at(days=400)}, "/expires_at"),
        ({"expires_at": _at(hours=1), "delay": "2h"}, "/expires_at"),
    ],
)
async def test_expiry_that_cannot_be_points_at_the_field(api: Api, fields: dict[str, Any], pointer: str) -> None:
    """In a batch at the task at fault too."""
    answer = await api.post("/v1/tasks", {**TASK, **fields})
    batch = await api.post("/v1/tasks/batch", {"tasks": [TASK, {**TASK, **fields}], "atomic": True})

    assert_problem(answer, 422, "validation", [pointer])
    assert_problem(batch, 422, "validation", [f"/tasks/1{pointer}"])


async def test_patch_changes_the_expiry_and_takes_it_away(api: Api) -> None:
    """A null is no expiry; what it may not become is told."""
    task = await api.create(delay="1h", expires_in="1h")
    path = f"/v1/tasks/{task['id']}"
    at = _at(hours=3)
    moved = await api.request("PATCH", path, {"expires_at": at})
    refused = await api.request("PATCH", path, {"expires_at": _at(minutes=5)})
    without = await api.request("PATCH", path, {"expires_at": None})

    assert datetime.fromisoformat(moved.json()["expires_at"]) == datetime.fromisoformat(at)
    assert_problem(refused, 422, "validation", ["/expires_at"])
    assert without.status_code == 200
    assert "expires_at" not in without.json()


async def test_expired_task_is_shown_listed_and_over(api: Api) -> None:
    """Its state, its only run, the list of its state; and nothing can be done with it."""
    task, other = await api.create(expires_in="1h"), await api.create(expires_in="1h")
    await _expire_now(api, task["id"])
    path = f"/v1/tasks/{task['id']}"
    shown = (await api.get(path)).json()
    runs = (await api.get(f"{path}/runs")).json()["data"]
    listed = {
        state: [each["id"] for each in (await api.get(f"/v1/tasks?state={state}")).json()["data"]]
        for state in ("expired", "queued", "cancelled")
    }

    assert (shown["state"], shown["attempt"], "finished_at" in shown) == ("expired", 0, True)
    assert [(run["claim_no"], run["outcome"], run["is_final"], run["worker"]) for run in runs] == [
        (0, "expired", True, None)
    ]
    assert listed == {"expired": [task["id"]], "queued": [other["id"]], "cancelled": []}
    for method, place, body in (
        ("POST", "/cancel", {}),
        ("POST", "/run-now", {}),
        ("POST", "/retry", {}),
        ("PATCH", "", {"expires_at": None}),
    ):
        assert_problem(await api.request(method, path + place, body), 409, "state_conflict")


async def test_explain_tells_the_expiry(api: Api) -> None:
    """Until when it may start."""
    task = await api.create(delay="1h", expires_in="1h")
    reasons = (await api.get(f"/v1/tasks/{task['id']}/explain")).json()["reasons"]

    assert reasons[-1]["code"] == "expires"
    assert reasons[-1]["until"] == task["expires_at"]
