"""What is wrong with a request besides its body: path, query, method, headers, and the moment."""

from __future__ import annotations

import asyncio

import pytest

from howdah.api.call import Call
from tests.fix_api import TASK, Api, assert_problem

pytestmark = pytest.mark.one_server

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
    assert_problem(await api.post("/v1/tasks?dry_run=1", TASK), 400, "bad_parameter", ["dry_run"])
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
        ("OPTIONS", "/v1/queues/q", "DELETE, GET, HEAD, PATCH, PUT"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
async def test_method_that_is_not_allowed_names_those_that_are(api: Api, method: str, path: str, allow: str) -> None:
    """405 with all methods of the path."""
    answer = await api.request(method, path, X_HTTP_Method_Override="GET")

    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01\x00\r\n", b"BREW /v1/tasks HTTP/1.1\r\nHost: a\r\n\r\n"], ids=["TLS", "method"]
)
async def test_what_is_no_http_is_refused_in_plain_text(api: Api, sent: bytes) -> None:
    """As documented: the parser answers before the API could, in few words, and closes; nginx does it better."""
    head, _, body = (await api.raw(sent)).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: text/plain" in head
    assert body == b"Invalid HTTP request received."
    assert (await api.get("/healthz")).status_code == 200


async def test_half_of_a_head_takes_no_place_among_requests(api: Api) -> None:
    """As documented: it costs a connection, which nginx would end, and nobody's turn."""
    writers = []
    for _ in range(50):
        _, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(b"GET /v1/tasks HTTP/1.1\r\nHost:")
        await writer.drain()
        writers.append(writer)
    answer = await api.get("/v1/ping")

    assert answer.status_code == 200
    assert api.backend.gate.call_count == 0
    for writer in writers:
        writer.close()
        await writer.wait_closed()


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
    harmless = ["1", "A-b_9" * 12, "x" * 128, "Root=1-67891233-abcdef", "a:b/c+d.e@f=="]
    others = ["", "x" * 129, "a b c d e f", "käse-käse", "<script>alert(1)", "a,b,c,d,e", 'a"b', "a\\b", "%0d%0a"]
    for given in harmless + others:
        head = f"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Request-Id: {given}\r\nConnection: close\r\n\r\n"
        answer = (await api.raw(head.encode())).decode()
        [echoed] = [line.partition(": ")[2] for line in answer.split("\r\n") if line.startswith("x-request-id")]

        assert (echoed == given) == (given in harmless)
        assert 1 <= len(echoed) <= 128


async def test_process_that_has_all_it_can_hold_says_so(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """More requests than the bound are told to come back, and counted back down."""
    monkeypatch.setattr("howdah.api.gate.CALLS_MAX", 0)
    answer = await api.get("/healthz")
    monkeypatch.undo()

    assert_problem(answer, 429, "backpressure")
    assert answer.headers["retry-after"] == "1"
    assert (await api.get("/healthz")).status_code == 200
    assert api.backend.gate.call_count == 0
