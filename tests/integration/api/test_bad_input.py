"""Whatever is wrong with a request: a problem document that says where, and nothing stored."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from howdah.api.call import Call
from howdah.api.gate import BODY_S_MAX
from tests.fix_api import TASK, Api, assert_problem
from tests.fix_wait import eventually_async

VALID = json.dumps(TASK).encode()


def payload(text: str) -> bytes:
    """A task with this text as its payload."""
    return f'{{"queue": "q", "handler": "h", "payload": {text}}}'.encode()


# B1: what is no JSON by RFC 8259, wherever it stands.
NO_JSON = {
    "empty": b"",
    "brace": b"{",
    "trailing comma": b'{"queue": "q", "handler": "h",}',
    "byte order mark": b"\xef\xbb\xbf" + VALID,
    "bad utf-8": payload('"\0"').replace(b"\0", b"\xff"),
    "bad utf-8 in a name": b'{"queue": "\xc3", "handler": "h"}',
    "utf-8 surrogate": payload('"\0"').replace(b"\0", b"\xed\xa0\x80"),
    "NaN": payload("NaN"),
    "Infinity": payload("[-Infinity]"),
    "1e999": payload("1e999"),
    "lone surrogate": payload('"\\ud800"'),
    "lone surrogate in a name": b'{"queue": "\\ud800", "handler": "h"}',
    "single quotes": b"{'queue': 'q', 'handler': 'h'}",
    "comment": b'{"queue": "q" /* */, "handler": "h"}',
    "two values": VALID + VALID,
    "control character": payload('"\n"'),
    "NUL byte": b"\0" + VALID,
    "form": b"queue=q&handler=h",
}


async def test_body_that_is_no_json_is_refused(api: Api) -> None:
    """B1: 400 invalid_json, for single tasks and inside a batch."""
    for body in NO_JSON.values():
        assert_problem(await api.post("/v1/tasks", body), 400, "invalid_json", [""])
        batch = await api.post("/v1/tasks/batch", b'{"tasks": [%b, %b]}' % (VALID, body))
        assert_problem(batch, 400, "invalid_json", [""])

    assert await api.task_count() == 0


@pytest.mark.parametrize("depth", [65, 1_025, 100_000])
async def test_body_that_is_nested_too_deep_is_refused_at_once(api: Api, depth: int) -> None:
    """B2: 400 json_too_deep, before any parser has gone down into it."""
    pairs = [("[", "]"), ('{"a":', "}"), ('{"a":[', "]}"), ("[[],", "]"), ('{"[":0,"a":', "}")]
    bodies = [payload(opening * depth + "1" + closing * depth) for opening, closing in pairs]
    if depth > 1_000:
        bodies += [payload("[" * depth), payload('{"a":' * depth)]
    took_s = []
    for body in bodies:
        if len(body) < 1_000_000:
            began = time.perf_counter()
            assert_problem(await api.post("/v1/tasks", body), 400, "json_too_deep")
            took_s.append(time.perf_counter() - began)

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


async def test_payload_over_the_limit_is_refused_with_its_pointer(api: Api) -> None:
    """B6: 256 KiB and one byte, single and in a batch."""
    body = payload('"' + "x" * 262_143 + '"')
    batch = await api.post("/v1/tasks/batch", b'{"tasks": [%b]}' % body)

    assert_problem(await api.post("/v1/tasks", body), 413, "payload_too_large", ["/payload"])
    assert batch.json()["results"][0]["status"] == 413
    assert batch.json()["results"][0]["problem"]["errors"][0]["pointer"] == "/tasks/0/payload"
    assert await api.task_count() == 0


async def test_body_over_the_limit_is_refused_and_the_connection_closed(api: Api) -> None:
    """B6: 10 MB of body; what is left of it is not read."""
    answer = await api.post("/v1/tasks", b"x" * 10_000_000)

    assert_problem(answer, 413, "payload_too_large")
    assert answer.headers["connection"] == "close"


async def test_declared_length_over_the_limit_is_refused_before_the_body(api: Api) -> None:
    """B6: whoever declares 10 GB is answered at once."""
    head = f"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {api.key}\r\n"
    began = time.perf_counter()
    answer = await api.raw(f"{head}Content-Type: application/json\r\nContent-Length: 10737418240\r\n\r\n".encode())

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert time.perf_counter() - began < 5


async def test_chunked_body_over_the_limit_is_refused(api: Api) -> None:
    """B6: without a declared length the limit holds all the same."""
    head = f"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {api.key}\r\n"
    chunks = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    data = (
        f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        + chunks * 20
        + b"0\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(data)
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()

    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.slow
async def test_chunk_size_that_overflows_is_refused(api: Api) -> None:
    """B7: 16 hexadecimal digits of chunk size."""
    head = f"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {api.key}\r\n"
    answer = await api.raw(
        f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".encode()
    )

    assert answer.split(b" ")[1] in (b"400", b"408", b"413")


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_body_that_never_ends_is_given_up_within_15_s(api: Api, framing: str) -> None:
    """B7: 408, the connection is closed, and the place of the request is free again."""
    head = f"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {api.key}\r\n"
    began = time.perf_counter()
    answer = await api.raw(f"{head}Content-Type: application/json\r\n{framing}\r\n\r\n1\r\n{{".encode())

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"request_timeout"' in answer
    assert BODY_S_MAX <= time.perf_counter() - began < 15
    assert api.backend.gate.call_count == 0


async def test_client_that_hangs_up_leaves_nothing_behind(api: Api) -> None:
    """B7: half a body and a closed connection free the place of the request."""
    head = f"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {api.key}\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await eventually_async(lambda: api.backend.gate.call_count == 0, 5, "the request is gone")

    assert await api.task_count() == 0


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, gzip", "deflate", "zstd"])
async def test_compressed_body_is_refused(api: Api, encoding: str) -> None:
    """B8: what could expand a thousandfold is not looked at."""
    assert_problem(await api.post("/v1/tasks", VALID, Content_Encoding=encoding), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "multipart/form-data; boundary=a",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "application/jsonx",
        "text/json",
    ],
)
async def test_body_of_another_type_is_refused(api: Api, content_type: str) -> None:
    """B9: only application/json is read."""
    answer = await api.post("/v1/tasks", VALID, Content_Type=content_type)

    assert_problem(answer, 415, "unsupported_media_type")
    assert await api.task_count() == 0


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'])
async def test_spellings_of_json_are_read(api: Api, content_type: str) -> None:
    """B9: media types know no case, and may say what JSON is anyway."""
    assert (await api.post("/v1/tasks", VALID, Content_Type=content_type)).status_code == 201


async def test_names_have_one_alphabet(api: Api) -> None:
    """B17: queue, handler and tag names."""
    cyrillic, backwards = "qu\u0435ue", "\u202equeue"
    names = ["../x", "a/b", "%2e%2e", "x" * 256, cyrillic, backwards, "__proto__", "'; drop table", "Upper", "a b", ""]
    for name in names:
        assert_problem(await api.post("/v1/tasks", {**TASK, "queue": name}), 422, "validation", ["/queue"])
        assert_problem(await api.post("/v1/tasks", {**TASK, "handler": name}), 422, "validation", ["/handler"])
        assert_problem(await api.post("/v1/tasks", {**TASK, "tags": {name: "a"}}), 422, "validation", ["/tags"])

    assert await api.sql("SELECT name FROM howdah.queues WHERE name <> 'q'") == []


QUERIES = [
    "state=running'--",
    "state=sleeping",
    "sort=(select pg_sleep(9))",
    "order=id;drop",
    "tags[]=..",
    "tag=a",
    "limit=-1",
    "limit=0",
    "limit=201",
    "limit=1e9",
    "limit=",
    "limit=%D9%A1",
    "limit=1&limit=2",
    "state=queued&state=failed",
    "created_after=yesterday",
    "created_after=2026-01-01T00:00:00",
    "created_before=infinity",
    "queue=%00",
    "queue=%ff",
    "tenant_id=2",
    "&&&",
    "cursor=" + "a" * 5_000,
]


async def test_query_that_is_not_understood_is_refused(api: Api) -> None:
    """B18: parameters are a list of allowed ones; nothing is guessed, repeated or ignored."""
    answers = {query: await api.get(f"/v1/tasks?{query}") for query in QUERIES}

    assert {query: answer.json()["code"] for query, answer in answers.items()} == dict.fromkeys(
        QUERIES, "bad_parameter"
    )
    assert {answer.status_code for answer in answers.values()} == {400}


async def test_filter_that_fits_nothing_finds_nothing(api: Api) -> None:
    """B18: a value is only ever compared."""
    await api.create()
    for query in ("queue=q'--", "queue=..%2Fx", "handler=%25%27", "tag=a:b'%3B--", "tag=a:%22"):
        assert (await api.get(f"/v1/tasks?{query}")).json() == {"data": [], "next_cursor": None}


async def test_parameter_where_there_are_none_is_refused(api: Api) -> None:
    """B18: also where a route takes no parameters at all."""
    assert_problem(await api.post("/v1/tasks?dry_run=1", TASK), 400, "bad_parameter")
    assert await api.task_count() == 0


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


PATHS = [
    "//v1/tasks",
    "/v1//tasks",
    "/v1/tasks/",
    "/v1/../v1/tasks",
    "/v1/./tasks",
    "/v1%2ftasks",
    "/v1/tasks%2F",
    "/V1/tasks",
    "/v1/Tasks",
    "/v1/tasks;x",
    "/v1/tasks.json",
    "/v1/tasks.",
    "/v1/tasks%00",
    "/v1",
    "/",
    "/v1/queues/q%2e",
    "/v1/queues/%71",
    "/docs/",
    "/metrics/..",
    "/v2/tasks",
]


async def test_path_has_one_spelling(api: Api) -> None:
    """B30: every other one is not found, whatever a proxy before us may think of it."""
    for path in PATHS:
        request = f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {api.key}\r\nConnection: close\r\n\r\n"
        answer = await api.raw(request.encode())
        assert (path, answer[:13]) == (path, b"HTTP/1.1 404 ")
        assert b'"code":"not_found"' in answer


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/tasks", "GET, HEAD, POST"),
        ("PATCH", "/v1/tasks/batch", "POST"),
        ("TRACE", "/v1/tasks", "GET, HEAD, POST"),
        ("OPTIONS", "/v1/queues/q", "GET, HEAD, PATCH, PUT"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
async def test_method_that_is_not_allowed_names_those_that_are(api: Api, method: str, path: str, allow: str) -> None:
    """405 with all methods of the path."""
    answer = await api.request(method, path, X_HTTP_Method_Override="GET")

    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allow


async def test_fault_of_ours_says_nothing_about_us(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """B44: 500 with the request id; no stack, no SQL, no message of an exception."""

    async def broken(self: Call, bytes_max: int) -> bytes:
        raise RuntimeError("s3cret: SELECT 1")

    monkeypatch.setattr(Call, "body", broken)
    answer = await api.post("/v1/tasks", TASK, X_Request_Id="request-0001")

    assert_problem(answer, 500, "internal_error")
    assert answer.json()["request_id"] == "request-0001"
    assert "s3cret" not in answer.text
    assert "Traceback" not in answer.text


async def test_request_id_is_echoed_if_it_is_harmless(api: Api) -> None:
    """B42: an id that could forge a log line or a header is replaced."""
    harmless = ["abcdefgh", "A-b_9" * 12, "x" * 64]
    others = ["", "short", "x" * 65, "a b c d e f", "käse-käse", "<script>alert(1)", "a,b,c,d,e"]
    for given in harmless + others:
        head = f"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Request-Id: {given}\r\nConnection: close\r\n\r\n"
        answer = (await api.raw(head.encode())).decode()
        [echoed] = [line.partition(": ")[2] for line in answer.split("\r\n") if line.startswith("x-request-id")]

        assert (echoed == given) == (given in harmless)
        assert 8 <= len(echoed) <= 64


async def test_process_that_has_all_it_can_hold_says_so(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """More requests than the bound are told to come back, and counted back down."""
    monkeypatch.setattr("howdah.api.gate.CALLS_MAX", 0)
    answer = await api.get("/healthz")
    monkeypatch.undo()

    assert_problem(answer, 429, "backpressure")
    assert answer.headers["retry-after"] == "1"
    assert (await api.get("/healthz")).status_code == 200
    assert api.backend.gate.call_count == 0


async def test_process_whose_bodies_are_too_large_together_says_so(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of all bodies is bounded, and given back."""
    monkeypatch.setattr("howdah.api.gate.BODY_BYTES_MAX", 100)
    answer = await api.post("/v1/tasks", payload('"' + "x" * 100 + '"'))

    assert_problem(answer, 429, "backpressure")
    assert (await api.post("/v1/tasks", VALID)).status_code == 201
