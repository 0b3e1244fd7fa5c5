"""Lists: pages, cursors, filters."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from howdah.core.store import tasks as store
from tests.fix_api import TASK, Api, assert_problem


async def walk(api: Api, path: str, limit: int) -> list[list[Any]]:
    """Follow a list to its end and return its pages."""
    pages, cursor, separator = [], "", "&" if "?" in path else "?"
    while True:
        answer = await api.get(f"{path}{separator}limit={limit}{cursor}")
        assert answer.status_code == 200, answer.text
        pages.append(answer.json()["data"])
        if answer.json()["next_cursor"] is None:
            return pages
        cursor = f"&cursor={answer.json()['next_cursor']}"


async def fill(api: Api, count: int, **fields: Any) -> list[str]:
    """Store tasks and return their ids, newest first."""
    answer = await api.post("/v1/tasks/batch", {"tasks": [{**TASK, **fields}] * count, "atomic": True})
    return [result["task"]["id"] for result in reversed(answer.json()["results"])]


@pytest.mark.parametrize("limit", [1, 7, 200])
async def test_list_shows_each_task_once_newest_first(api: Api, limit: int) -> None:
    """Pages of any size put together are the whole list, also when tasks are added meanwhile."""
    ids = await fill(api, 21)
    pages = await walk(api, "/v1/tasks", limit)

    assert [task["id"] for page in pages for task in page] == ids
    assert all(len(page) <= limit for page in pages)


async def test_list_goes_on_where_it_was_while_tasks_are_added(api: Api) -> None:
    """New tasks come before the first page and never push a task into the next one again."""
    ids = await fill(api, 6)
    first = (await api.get("/v1/tasks?limit=3")).json()
    await fill(api, 5)
    second = (await api.get(f"/v1/tasks?limit=3&cursor={first['next_cursor']}")).json()

    assert [task["id"] for task in first["data"] + second["data"]] == ids


async def test_list_by_state_starts_where_the_state_is(api: Api) -> None:
    """Each state finds exactly its tasks, from live runs, dead letters or history."""
    made = {
        state: await fill(api, 2, **({"delay": "1h"} if state == "scheduled" else {}))
        for state in (
            "scheduled",
            "queued",
            "blocked",
            "running",
            "retrying",
            "succeeded",
            "failed",
            "cancelled",
            "expired",
        )
    }
    await api.sql(
        "UPDATE howdah.runs SET blocked_by = 8, run_at = 'infinity' WHERE task_id = ANY (%s::uuid[])", made["blocked"]
    )
    await api.sql("UPDATE howdah.runs SET attempt = 1, claim_no = 1 WHERE task_id = ANY (%s::uuid[])", made["retrying"])
    await api.sql(
        "UPDATE howdah.runs SET attempt = 1, claim_no = 1, worker_id = 1, claimed_at = now(), lease_token = "
        "gen_random_uuid(), lease_expires_at = now(), deadline_at = now() WHERE task_id = ANY (%s::uuid[])",
        made["running"],
    )
    await api.sql(
        "WITH run AS (DELETE FROM howdah.runs WHERE task_id = ANY (%s::uuid[]) RETURNING *) INSERT INTO "
        "howdah.dead_letters (tenant_id, task_id, queue_id, target_id, priority, claim_no, attempt, crashes, reason, "
        "queued_at, dead_at) SELECT tenant_id, task_id, queue_id, target_id, priority, 4, 4, 0, 'attempts', queued_at, "
        "now() FROM run",
        made["failed"],
    )
    for outcome in ("succeeded", "cancelled", "expired"):
        # An attempt that failed before, with the same task id, must not hide the final row, nor count as one.
        await api.sql(
            "WITH run AS (DELETE FROM howdah.runs WHERE task_id = ANY (%s::uuid[]) RETURNING *) INSERT INTO "
            "howdah.finished_runs (tenant_id, task_id, claim_no, attempt, queue_id, outcome, is_final, queued_at, "
            "finished_at) SELECT tenant_id, task_id, n, n, queue_id, CASE n WHEN 1 THEN 'failed' ELSE %s END, n = 2, "
            "queued_at, now() FROM run, generate_series(1, 2) AS n",
            made[outcome],
            outcome,
        )
    found = {}
    for state in made:
        tasks = [task for page in await walk(api, f"/v1/tasks?state={state}", 1) for task in page]
        found[state] = [task["id"] for task in tasks]
        assert {task["state"] for task in tasks} == {state}

    assert found == made


async def test_list_filters_by_everything_at_once(api: Api) -> None:
    """queue, handler, tag, state and time of creation are all and-ed."""
    wanted = await fill(api, 3, queue="a", handler="x", tags={"k": "v:1"})
    await fill(api, 2, queue="b", handler="x", tags={"k": "v:1"})
    await fill(api, 2, queue="a", handler="y", tags={"k": "v:1"})
    await fill(api, 2, queue="a", handler="x", tags={"k": "v"})
    for path in ("/v1/tasks?queue=a&handler=x&tag=k:v:1", "/v1/tasks?queue=a&handler=x&tag=k:v:1&state=queued"):
        pages = await walk(api, path, 2)
        assert [task["id"] for page in pages for task in page] == wanted


async def test_list_filters_by_time_of_creation(api: Api) -> None:
    """created_after includes its instant, created_before does not."""
    ids = [(await api.create())["id"] for _ in range(3)]
    created = [(await api.get(f"/v1/tasks/{task_id}")).json()["created_at"] for task_id in ids]
    after = (await api.get(f"/v1/tasks?created_after={created[1]}")).json()["data"]
    before = (await api.get(f"/v1/tasks?created_before={created[1]}&state=queued")).json()["data"]
    long_ago = (datetime.now(UTC) - timedelta(days=9_000)).isoformat().replace("+", "%2B")

    assert [task["id"] for task in after] == [ids[2], ids[1]]
    assert [task["id"] for task in before] == [ids[0]]
    assert (await api.get(f"/v1/tasks?created_before={long_ago}")).json()["data"] == []


@pytest.mark.parametrize("state", ["", "&state=queued"])
async def test_page_looks_at_a_bounded_number_of_rows(api: Api, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """A filter that fits little gives short and empty pages with a cursor; only null ends the list."""
    monkeypatch.setattr(store, "LOOK_ROWS_MAX", 10)
    first = await fill(api, 1, tags={"k": "v"})
    await fill(api, 35)
    last = await fill(api, 1, tags={"k": "v"})
    pages = await walk(api, f"/v1/tasks?tag=k:v{state}", 5)

    assert [task["id"] for page in pages for task in page] == last + first
    assert [len(page) for page in pages] == [1, 0, 0, 1]


async def test_cursor_that_is_not_ours_is_refused(api: Api) -> None:
    """B19: forged, cut, re-ordered, of another filter, list, or tenant: 400 bad_cursor."""
    await fill(api, 6)
    await api.create(queue="r")
    cursor = (await api.get("/v1/tasks?limit=2")).json()["next_cursor"]
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    stranger = await api.make_key("admin", tenant="other")
    forged = [
        "",
        "x",
        "null",
        cursor[:-1],
        cursor + "A",
        cursor + "=",
        cursor[::-1],
        cursor.swapcase(),
        base64.urlsafe_b64encode(raw[16:] + raw[:16]).decode().rstrip("="),
        base64.urlsafe_b64encode(raw[:16] + b"\xff" * 16).decode().rstrip("="),
        base64.urlsafe_b64encode(raw[:15]).decode().rstrip("="),
        "ä",
    ]
    for text in forged:
        assert_problem(await api.get(f"/v1/tasks?limit=2&cursor={text}"), 400, "bad_cursor", ["cursor"])
    for path in ("/v1/tasks?queue=q&", "/v1/tasks?state=queued&", "/v1/queues?", "/v1/workers?"):
        assert_problem(await api.get(f"{path}cursor={cursor}"), 400, "bad_cursor", ["cursor"])
    assert_problem(await api.get(f"/v1/tasks?cursor={cursor}", key=stranger), 400, "bad_cursor", ["cursor"])


async def test_cursor_serves_other_keys_of_the_tenant_and_other_page_sizes(api: Api) -> None:
    """A list that one process or key began, another may finish."""
    ids = await fill(api, 6)
    other = await api.make_key("viewer")
    cursor = (await api.get("/v1/tasks?limit=2")).json()["next_cursor"]
    rest = (await api.get(f"/v1/tasks?limit=200&cursor={cursor}", key=other)).json()

    assert [task["id"] for task in rest["data"]] == ids[2:]
    assert rest["next_cursor"] is None


async def test_runs_and_queues_and_workers_have_pages(api: Api) -> None:
    """Every list ends, and shows each row once."""
    task = await api.create()
    await api.sql(
        "INSERT INTO howdah.finished_runs (tenant_id, task_id, claim_no, attempt, queue_id, outcome, is_final, "
        "queued_at, finished_at) SELECT tenant_id, task_id, n, n, queue_id, 'failed', false, queued_at, now() "
        "FROM howdah.runs, generate_series(1, 5) AS n"
    )
    await api.sql("INSERT INTO howdah.queues (tenant_id, name) SELECT 1, 'z' || n FROM generate_series(1, 4) AS n")
    await api.sql(
        "INSERT INTO howdah.workers (name, host, pid, version, queues, handlers, serves_http, concurrency, lease_s, "
        "started_at, heartbeat_at) SELECT 'w' || n, 'h', n, '0', '{*}', '{}', true, 1, 15, now(), now() "
        "FROM generate_series(1, 5) AS n"
    )
    runs = await walk(api, f"/v1/tasks/{task['id']}/runs", 2)
    queues = await walk(api, "/v1/queues", 2)
    workers = await walk(api, "/v1/workers", 2)

    assert [run["claim_no"] for page in runs for run in page] == [1, 2, 3, 4, 5]
    assert [queue["name"] for page in queues for queue in page] == ["q", "z1", "z2", "z3", "z4"]
    assert [worker["name"] for page in workers for worker in page] == ["w5", "w4", "w3", "w2", "w1"]


async def test_instants_of_all_years_are_taken(api: Api) -> None:
    """The first and the last that can be written bound a list like any other."""
    task = await api.create()
    for first, last in (("0001-01-01T00:00:01Z", "9999-12-31T23:59:59Z"),):
        page = (await api.get(f"/v1/tasks?created_after={first}&created_before={last}")).json()
        assert [each["id"] for each in page["data"]] == [task["id"]]
        assert (await api.get(f"/v1/tasks?created_before={first}")).json()["data"] == []
