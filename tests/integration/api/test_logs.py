"""The logs of tasks over HTTP: pages, and streams that neither lose nor repeat an entry."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from howdah.api import call, followers, logs
from tests.fix_api import Api, assert_problem, serving
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

INSERT = """
INSERT INTO howdah.task_logs (tenant_id, task_id, claim_no, seq, level, fraction, logged_at, message, fields)
SELECT 1, %s::uuid, %s, n, 10 + 10 * (n %% 4), NULL, howdah.now(), 'entry ' || n, '{"secret": 1}'
FROM generate_series(%s::int, %s::int) AS n
"""


async def _log(api: Api, task: dict[str, Any], first: int, last: int, *, claim_no: int = 1) -> None:
    """Let a handler have said something: an entry for each number, of changing level."""
    await api.sql(INSERT, task["id"], claim_no, first, last)


async def _end(api: Api, task: dict[str, Any]) -> None:
    assert (await api.post(f"/v1/tasks/{task['id']}/cancel", {})).status_code == 200


@dataclass
class Event:
    """A server-sent event; comments are events without data."""

    name: str = "message"
    id: str = ""
    data: str = ""


@contextlib.asynccontextmanager
async def _following(
    api: Api, path: str, *, key: str | None = None, **headers: str
) -> AsyncIterator[tuple[httpx2.Response, AsyncIterator[Event]]]:
    sent = {"Authorization": f"Bearer {key or api.key}", **headers}
    async with api.client.stream("GET", path, headers=sent) as answer:

        async def events() -> AsyncIterator[Event]:
            event = Event()
            async for line in answer.aiter_lines():
                if not line:
                    if event.data:
                        yield event
                    event = Event()
                    continue
                name, _, value = line.partition(": ")
                if name in ("id", "data", "event"):
                    setattr(event, "name" if name == "event" else name, value)

        yield answer, events()


def _messages(events: list[Event]) -> list[str]:
    return [json.loads(event.data)["message"] for event in events if event.name == "message"]


async def test_pages_show_every_entry_once_in_order(api: Api) -> None:
    """Claim by claim, whatever the size of a page."""
    task = await api.create()
    await _log(api, task, 1, 5)
    await _log(api, task, 1, 2, claim_no=2)
    path, cursor, seen = f"/v1/tasks/{task['id']}/logs?limit=3", "", []
    while True:
        page = (await api.get(path + cursor)).json()
        seen += [(entry["claim_no"], entry["seq"]) for entry in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert seen == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 1), (2, 2)]


async def test_level_leaves_out_what_is_below(api: Api) -> None:
    """Entries of the level and above stay."""
    task = await api.create()
    await _log(api, task, 1, 8)
    page = (await api.get(f"/v1/tasks/{task['id']}/logs?level=warning")).json()

    assert [entry["level"] for entry in page["data"]] == ["warning", "error"] * 2


async def test_fields_of_entries_need_the_scope_payloads(api: Api) -> None:
    """Messages are for all who may look at tasks, as those of errors are."""
    task = await api.create()
    await _log(api, task, 1, 1)
    path = f"/v1/tasks/{task['id']}/logs"
    seen = {
        scopes: (await api.get(path, key=await api.make_key(*scopes))).json()["data"][0]
        for scopes in (("viewer",), ("viewer", "payloads"))
    }

    assert "secret" not in str(seen["viewer",])
    assert seen["viewer", "payloads"]["fields"] == {"secret": 1}
    assert_problem(await api.get(path, key=await api.make_key("producer")), 403, "forbidden")


async def test_log_of_another_tenants_task_is_not_found(api: Api) -> None:
    """Followed or not, and as that of a task that never was."""
    task = await api.create()
    await _log(api, task, 1, 1)
    other = await api.make_key("admin", tenant="other")
    for query in ("", "?follow=true"):
        assert_problem(await api.get(f"/v1/tasks/{task['id']}/logs{query}", key=other), 404, "not_found")
        unknown = f"/v1/tasks/01980a3c-7c2e-7000-9d8b-2f6a51c0e4d7/logs{query}"
        assert_problem(await api.get(unknown), 404, "not_found")


async def test_cursor_of_another_task_is_refused(api: Api) -> None:
    """As a parameter and as the last event's id."""
    first, second = await api.create(), await api.create()
    await _log(api, first, 1, 2)
    cursor = (await api.get(f"/v1/tasks/{first['id']}/logs?limit=1")).json()["next_cursor"]
    path = f"/v1/tasks/{second['id']}/logs"

    assert_problem(await api.get(f"{path}?cursor={cursor}"), 400, "bad_cursor", ["cursor"])
    assert_problem(await api.get(f"{path}?follow=true", Last_Event_ID=cursor), 400, "bad_cursor", ["cursor"])
    assert_problem(await api.get(f"{path}?follow=true", Last_Event_ID="x"), 400, "bad_cursor", ["cursor"])


@pytest.mark.parametrize("query", ["level=loud", "follow=maybe", "limit=0", "since=1"])
async def test_bad_parameters_are_named(api: Api, query: str) -> None:
    """Which one is wrong."""
    task = await api.create()
    answer = await api.get(f"/v1/tasks/{task['id']}/logs?{query}")

    assert_problem(answer, 400, "bad_parameter", [query.partition("=")[0]])


async def test_task_shows_its_latest_progress(api: Api) -> None:
    """Of its latest claim; one that failed before has nothing to say any more."""
    task = await api.create()
    path = f"/v1/tasks/{task['id']}"
    assert "progress" not in (await api.get(path)).json()
    await _log(api, task, 1, 3)
    await api.sql("UPDATE howdah.task_logs SET fraction = seq / 10.0::real WHERE seq < 3")
    await api.sql("UPDATE howdah.runs SET claim_no = 1, attempt = 1")
    shown = (await api.get(path)).json()["progress"]
    await api.sql("UPDATE howdah.runs SET claim_no = 2")

    assert (shown["fraction"], shown["message"]) == (0.2, "entry 2")
    assert "progress" not in (await api.get(path)).json()
    assert "progress" not in (await api.get("/v1/tasks")).json()["data"][0]


async def test_follower_gets_what_was_and_what_comes_and_the_end(api: Api) -> None:
    """All entries in order, then one event that says how the task ended, and the stream is over."""
    task = await api.create()
    await _log(api, task, 1, 250)
    async with _following(api, f"/v1/tasks/{task['id']}/logs?follow=true") as (answer, events):
        seen = [await anext(events) for _ in range(250)]
        await _log(api, task, 251, 260)
        seen += [await anext(events) for _ in range(10)]
        await _log(api, task, 261, 265)
        await _end(api, task)
        rest = [event async for event in events]

    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-accel-buffering"] == "no"
    assert _messages([*seen, *rest]) == [f"entry {number}" for number in range(1, 266)]
    assert (rest[-1].name, json.loads(rest[-1].data)) == ("end", {"state": "cancelled"})


async def test_follower_that_comes_back_goes_on_where_it_was(api: Api) -> None:
    """The id of the last event is enough: nothing is lost, nothing comes twice; a page's cursor will do as well."""
    task = await api.create()
    await _log(api, task, 1, 20)
    path = f"/v1/tasks/{task['id']}/logs"
    async with _following(api, f"{path}?follow=true") as (_, events):
        seen = [await anext(events) for _ in range(7)]
    await _end(api, task)
    headers = {"Last-Event-ID": seen[-1].id}
    async with _following(api, f"{path}?follow=true", **headers) as (_, events):
        rest = [event async for event in events]
    cursor = (await api.get(f"{path}?limit=19")).json()["next_cursor"]
    async with _following(api, f"{path}?follow=true&cursor={cursor}") as (_, events):
        last = [event async for event in events]

    assert _messages([*seen, *rest]) == [f"entry {number}" for number in range(1, 21)]
    assert _messages(last) == ["entry 20"]


async def test_many_followers_cost_one_statement_a_tick(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, of however many tasks."""
    monkeypatch.setattr(followers, "TICK_S", 0.05)
    sizes: list[int] = []
    follow = api.backend.task_logs.follow

    async def counted(conn: Any, followed: Any, **more: Any) -> Any:
        sizes.append(len(followed))
        return await follow(conn, followed, **more)

    monkeypatch.setattr(api.backend.task_logs, "follow", counted)
    tasks = [await api.create() for _ in range(20)]

    async def read(task: dict[str, Any]) -> list[str]:
        async with _following(api, f"/v1/tasks/{task['id']}/logs?follow=true") as (_, events):
            return _messages([event async for event in events])

    reading = [asyncio.create_task(read(task)) for task in tasks for _ in range(5)]
    await eventually_async(lambda: sizes and sizes[-1] == 100, 10, "all followers are asked for at once")
    for task in tasks:
        await _log(api, task, 1, 3)
        await _end(api, task)

    assert await asyncio.gather(*reading) == [["entry 1", "entry 2", "entry 3"]] * 100
    assert api.backend.followers.count() == 0


async def test_client_that_goes_frees_its_place(api: Api) -> None:
    """Also while nothing is logged, so that no write would find it gone."""
    task = await api.create()
    async with _following(api, f"/v1/tasks/{task['id']}/logs?follow=true"):
        await eventually_async(lambda: api.backend.followers.count() == 1, 5, "it follows")
    await eventually_async(lambda: api.backend.followers.count() == 0, 5, "it is forgotten")
    await eventually_async(lambda: api.backend.gate.call_count == 0, 5, "its request is over")


async def test_client_that_reads_nothing_is_let_go(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds one page in memory, and that not for ever."""
    monkeypatch.setattr(call, "PART_S_MAX", 0.2)
    monkeypatch.setattr(followers, "TICK_S", 0.01)
    task = await api.create()
    await api.sql(INSERT.replace("'entry ' || n", "repeat('x', 8000)"), task["id"], 1, 1, 5_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1_024)
    try:
        writer.write(
            f"GET /v1/tasks/{task['id']}/logs?follow=true HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {api.key}\r\n\r\n".encode()
        )
        await reader.readline()
        await eventually_async(lambda: api.backend.followers.count() == 0, 20, "it is let go")
    finally:
        writer.close()


async def test_silent_stream_sends_comments(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies close what is silent."""
    monkeypatch.setattr(logs, "HEARTBEAT_S", 0.05)
    task = await api.create()
    request = (
        f"GET /v1/tasks/{task['id']}/logs?follow=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        writer.write(request.encode())
        for _ in range(3):
            await asyncio.wait_for(reader.readuntil(b": there is nothing new\n\n"), 10)
    finally:
        writer.close()


async def test_too_many_followers_are_told_to_come_back(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other requests have room beside them."""
    monkeypatch.setattr(followers, "FOLLOWERS_MAX", 1)
    task = await api.create()
    path = f"/v1/tasks/{task['id']}/logs?follow=true"
    async with _following(api, path):
        await eventually_async(lambda: api.backend.followers.count() == 1, 5, "it follows")
        assert_problem(await api.get(path), 429, "backpressure")
    await eventually_async(lambda: api.backend.followers.count() == 0, 5, "there is room again")


async def test_streams_end_when_the_process_is_to_stop(database: str) -> None:
    """Without an event that says the task has ended: clients come back to another process."""
    async with serving(database) as api:
        task = await api.create()
        async with _following(api, f"/v1/tasks/{task['id']}/logs?follow=true") as (_, events):
            await eventually_async(lambda: api.backend.followers.count() == 1, 5, "it follows")
            api.backend.followers.end()
            rest = [event async for event in events]
        late = await api.get(f"/v1/tasks/{task['id']}/logs?follow=true")

    assert rest == []
    assert (late.status_code, "event: end" in late.text) == (200, False)


async def test_stream_outlives_a_lost_connection(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was logged meanwhile is sent when PostgreSQL is back."""
    monkeypatch.setattr(followers, "TICK_S", 0.05)
    task = await api.create()
    async with _following(api, f"/v1/tasks/{task['id']}/logs?follow=true") as (_, events):
        await eventually_async(lambda: api.backend.followers.count() == 1, 5, "it follows")
        async with await psycopg.AsyncConnection.connect(api.url, autocommit=True) as admin:
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'howdah-api' AND datname = current_database()"
            )
        await _log(api, task, 1, 2)
        await asyncio.wait_for(anext(events), 15)
        await eventually_async(lambda: api.backend.database.fault is None, 15, "the database is found")
        await _end(api, task)
        rest = [event async for event in events]

    assert _messages(rest) == ["entry 2"]
