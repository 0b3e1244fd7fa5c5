"""What a body must not say: a problem document that says where, and nothing stored."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.fix_api import TASK, TASK_BYTES, Api, assert_problem, task_with

pytestmark = pytest.mark.one_server

# B1: what is no JSON by RFC 8259, and the field that has it where one can be told.
NO_JSON = {
    "empty": (b"", ""),
    "brace": (b"{", ""),
    "trailing comma": (b'{"queue": "q", "handler": "h",}', ""),
    "byte order mark": (b"\xef\xbb\xbf" + TASK_BYTES, ""),
    "bad utf-8": (task_with('"\0"').replace(b"\0", b"\xff"), "/payload"),
    "bad utf-8 in a name": (b'{"queue": "\xc3", "handler": "h"}', "/queue"),
    "utf-8 surrogate": (task_with('"\0"').replace(b"\0", b"\xed\xa0\x80"), "/payload"),
    "NaN": (task_with("NaN"), "/payload"),
    "Infinity": (task_with("[-Infinity]"), "/payload"),
    "1e999": (task_with("1e999"), "/payload"),
    "lone surrogate": (task_with('"\\ud800"'), "/payload"),
    "lone surrogate in a name": (b'{"queue": "\\ud800", "handler": "h"}', "/queue"),
    "single quotes": (b"{'queue': 'q', 'handler': 'h'}", ""),
    "comment": (b'{"queue": "q" /* */, "handler": "h"}', "/queue"),
    "two values": (TASK_BYTES + TASK_BYTES, ""),
    "control character": (task_with('"\n"'), "/payload"),
    "NUL byte": (b"\0" + TASK_BYTES, ""),
    "form": (b"queue=q&handler=h", ""),
}


async def test_body_that_is_no_json_is_refused(api: Api) -> None:
    """B1: 400 invalid_json with the field, for single tasks and inside a batch."""
    for body, at in NO_JSON.values():
        assert_problem(await api.post("/v1/tasks", body), 400, "invalid_json", [at])
        batch = await api.post("/v1/tasks/batch", b'{"tasks": [%b, %b]}' % (TASK_BYTES, body))
        # Where nothing stands, the comma before it is at fault.
        assert_problem(batch, 400, "invalid_json", [f"/tasks/1{at}" if body else "/tasks"])

    assert await api.task_count() == 0


@pytest.mark.parametrize("depth", [65, 1_025, 100_000])
async def test_body_that_is_nested_too_deep_is_refused_at_once(api: Api, depth: int) -> None:
    """B2: 400 json_too_deep at the payload, before any parser has gone down into it."""
    pairs = [("[", "]"), ('{"a":', "}"), ('{"a":[', "]}"), ("[[],", "]"), ('{"[":0,"a":', "}")]
    bodies = [task_with(opening * depth + "1" + closing * depth) for opening, closing in pairs]
    if depth > 1_000:
        bodies += [task_with("[" * depth), task_with('{"a":' * depth)]
    took_s = []
    for body in bodies:
        if len(body) < 1_000_000:
            began = time.perf_counter()
            assert_problem(await api.post("/v1/tasks", body), 400, "json_too_deep", ["/payload"])
            took_s.append(time.perf_counter() - began)

        batch = b'{"tasks": [%b, %b]}' % (TASK_BYTES, body)
        if len(batch) < 1_000_000:
            deep = await api.post("/v1/tasks/batch", batch)
            assert_problem(deep, 400, "json_too_deep", ["/tasks/1/payload"])

    # 50 ms on a quiet machine; tests share theirs.
    assert max(took_s) < 0.5
    assert await api.task_count() == 0


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ('{"queue": "a", "queue": "b", "handler": "h"}', "/queue"),
        ('{"queue": "a", "\\u0071ueue": "a", "handler": "h"}', "/queue"),
        ('{"queue": "a", "handler": "h", "payload": 1, "payload": {"queue": 1}}', "/payload"),
        ('{"queue": "a", "handler": "h", "tags": {"x": "1", "x": "2"}}', "/tags/x"),
        ('{"queue": "a", "handler": "h", "retry": {"factor": 1, "factor": 2}, "payload": "::::"}', "/retry/factor"),
        ('{"queue": "a", "http": {"url": "http://a:81/:", "headers": {"A": "b:", "A": "b"}}}', "/http/headers/A"),
    ],
)
async def test_field_that_is_given_twice_is_refused(api: Api, body: str, at: str) -> None:
    """B4: 400 duplicate_key with the field: no two parsers of ours and others' may read two different tasks."""
    single = await api.post("/v1/tasks", body.encode())
    batch = await api.post("/v1/tasks/batch", f'{{"tasks": [{json.dumps(TASK)}, {body}]}}'.encode())
    twice = await api.post("/v1/tasks/batch", f'{{"tasks": [], "tasks": [{json.dumps(TASK)}]}}'.encode())

    assert_problem(single, 400, "duplicate_key", [at])
    assert batch.json()["results"][1]["problem"]["code"] == "duplicate_key"
    assert batch.json()["results"][1]["problem"]["errors"][0]["pointer"] == f"/tasks/1{at}"
    assert_problem(twice, 400, "duplicate_key", ["/tasks"])


async def test_key_that_is_given_twice_inside_a_payload_is_the_clients_own(api: Api) -> None:
    """B4: payloads are not ours to judge; nor are colons in texts taken for keys."""
    body = '{"queue":"a","tags":{"a":"b:c"},"http":{"url":"http://a:8080/x:y"},"payload":{"a":1,"a":{"b":2,"b":3}}}'

    assert (await api.post("/v1/tasks", body.encode())).status_code == 201


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"queue": "q\0", "handler": "h"}, "/queue"),
        ({"queue": "q", "handler": "h\0"}, "/handler"),
        ({"queue": "q", "handler": "h", "tags": {"a": "b\0"}}, "/tags/a"),
        ({"queue": "q", "handler": "h", "tags": {"payload": "b\0"}}, "/tags/payload"),
        ({"queue": "q", "handler": "h", "tags": {"a\0": "b"}}, "/tags"),
        ({"queue": "q", "handler": "h", "traceparent": "\0"}, "/traceparent"),
        ({"queue": "q", "http": {"url": "https://example.com/\0"}}, "/http/url"),
        ({"queue": "q", "http": {"url": "https://example.com", "headers": {"A": "\0"}}}, "/http/headers/A"),
        ({"queue": "q", "http": {"url": "https://example.com", "body": "\0"}}, "/http/body"),
        ({"queue": "q", "handler": "h", "payload": {"a": ["\0"]}}, "/payload"),
    ],
)
async def test_nul_is_refused_where_it_stands(api: Api, fields: dict[str, Any], at: str) -> None:
    """B5: PostgreSQL cannot hold NUL in a text; the answer says which field has it."""
    assert_problem(await api.post("/v1/tasks", fields), 422, "validation", [at])
    assert await api.task_count() == 0


async def test_backslash_before_u0000_is_no_nul(api: Api) -> None:
    """B5: an escaped backslash and letters are stored."""
    assert (await api.post("/v1/tasks", {**TASK, "tags": {"a": "\\u0000"}, "payload": "\\u0000"})).status_code == 201


async def test_names_have_one_alphabet(api: Api) -> None:
    """B17: queue, handler and tag names."""
    cyrillic, backwards = "qu\u0435ue", "\u202equeue"
    names = ["../x", "a/b", "%2e%2e", "x" * 256, cyrillic, backwards, "__proto__", "'; drop table", "Upper", "a b", ""]
    for name in names:
        assert_problem(await api.post("/v1/tasks", {**TASK, "queue": name}), 422, "validation", ["/queue"])
        assert_problem(await api.post("/v1/tasks", {**TASK, "handler": name}), 422, "validation", ["/handler"])
        assert_problem(await api.post("/v1/tasks", {**TASK, "tags": {name: "a"}}), 422, "validation", ["/tags"])

    assert await api.sql("SELECT name FROM howdah.queues WHERE name <> 'q'") == []


async def test_field_that_is_not_the_clients_is_refused(api: Api) -> None:
    """B23: no mass assignment."""
    fields = [
        "tenant_id",
        "tenant",
        "id",
        "state",
        "attempt",
        "attempts",
        "claim_no",
        "fence",
        "created_at",
        "worker_id",
    ]
    for field in fields:
        assert_problem(await api.post("/v1/tasks", {**TASK, field: 1}), 422, "validation", [f"/{field}"])

    assert await api.task_count() == 0
