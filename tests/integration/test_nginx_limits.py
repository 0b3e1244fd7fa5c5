"""What nginx keeps from the API: too many, too large, too slow, and what is no clean HTTP."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Final

import pytest

from tests.fix_api import Api, assert_problem
from tests.fix_nginx import Nginx, send_raw
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from tests.fix_nginx import StartNginx

pytestmark = pytest.mark.one_server


async def test_address_with_too_many_requests_under_way_is_refused(
    start_nginx: StartNginx,
) -> None:
    """One address has at most 50 requests under way; the next is 429, as a problem document."""
    waiting = 0
    end = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal waiting
        waiting += 1
        await end.wait()
        writer.close()

    async with await asyncio.start_server(wait, "127.0.0.1", 0) as hanging:
        address = f"127.0.0.1:{hanging.sockets[0].getsockname()[1]}"
        async with start_nginx(address, address) as nginx:
            held = [asyncio.create_task(nginx.client.get("/v1/ping")) for _ in range(50)]
            await eventually_async(lambda: waiting == 50, 10, "50 requests are under way")
            answer = await nginx.client.get("/v1/ping")
            end.set()
            await asyncio.gather(*held)

    assert_problem(answer, 429, "backpressure")
    assert answer.headers["retry-after"] == "1"


async def test_address_with_too_many_requests_a_second_is_refused(start_nginx: StartNginx, api: Api) -> None:
    """Past the rate and its burst an address gets 429, others do not."""
    upstream = f"127.0.0.1:{api.port}"
    slower = {"rate=2000r/s": "rate=1r/s", "burst=2000": "burst=4"}
    async with start_nginx(upstream, upstream, **slower) as nginx:
        codes = [(await nginx.client.get("/healthz")).status_code for _ in range(8)]
        other = await send_raw(nginx.port, b"GET /healthz HTTP/1.0\r\nHost: a\r\n\r\n", source="127.0.0.2")

    assert codes[:5] == [200] * 5
    assert 429 in codes[5:]
    assert other.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(("path", "limit"), [("/v1/tasks", 1 << 20), ("/v1/tasks/batch", 8 << 20)])
async def test_body_over_the_limit_is_refused_before_the_api(nginx: Nginx, api: Api, path: str, limit: int) -> None:
    """One byte too many is 413 as a problem document; at the limit the API decides."""
    headers = {"Authorization": f"Bearer {api.key}", "Content-Type": "application/json"}
    over = await nginx.client.post(path, content=b" " * (limit + 1), headers=headers)
    at = await nginx.client.post(path, content=b" " * limit, headers=headers)

    assert_problem(over, 413, "payload_too_large")
    assert (at.status_code, at.json()["code"]) == (400, "invalid_json")


MALFORMED: Final = {
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "no host in an old request": b"GET /healthz HTTP/1.0\r\n\r\n",
    "two lengths": b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": (
        b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "negative length": b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "long header": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    "long url": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "space before the colon": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
    "nul": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "trace": b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
}


async def test_request_that_is_not_http_never_reaches_the_api(nginx: Nginx) -> None:
    """What two servers could read in two ways is refused by the first, with a problem document."""
    for name, sent in MALFORMED.items():
        head, _, body = (await send_raw(nginx.port, sent)).partition(b"\r\n\r\n")

        assert re.match(rb"HTTP/1\.1 40[05] ", head), (name, head[:100])
        assert b"\r\nContent-Type: application/problem+json\r\n" in head, name
        assert json.loads(body)["code"] in ("malformed_request", "method_not_allowed"), name


# Beside each path: what the API answers, and what comes through nginx where that differs.
# nginx itself refuses what is no valid escape, NUL, and paths that climb above the root.
PATHS: Final = {
    "/v1/ping": (401, None),
    "/v1/tasks": (401, None),
    "/v1/tasks/batch": (405, None),
    "/healthz": (200, None),
    "//v1/tasks": (404, None),
    "/v1//tasks": (404, None),
    "/v1/tasks//batch": (404, None),
    "/v1/tasks/": (404, None),
    "/v1/../v1/tasks": (404, None),
    "/v1/./tasks": (404, None),
    "/v1/tasks/batch/..": (404, None),
    "/../v1/tasks": (404, 400),
    "/v1%2Ftasks": (404, None),
    "/v1/%74asks": (404, None),
    "/v1/tasks%2fbatch": (404, None),
    "/v1/tasks%252Fbatch": (404, None),
    "/v1/%2e%2e/v1/tasks": (404, None),
    "/v1/tasks%00": (404, 400),
    "/v1/tasks%zz": (404, 400),
    "/v1/tasks;a=b": (404, None),
    "/v1/tasks.json": (404, None),
    "/v1/tasks.": (404, None),
    "/v1/tasks\\batch": (404, None),
    "/V1/Tasks": (404, None),
    "/metrics/": (404, None),
    "//metrics": (404, None),
    "/%6detrics": (404, None),
    "/x/../metrics": (404, None),
    "/METRICS": (404, None),
    "/.howdah/malformed": (404, None),
}


async def test_odd_paths_are_understood_alike_by_nginx_and_the_api(nginx: Nginx, api: Api) -> None:
    """A trick with the path leads nowhere, neither through nginx nor without it."""
    found = {}
    for path in PATHS:
        request = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
        found[path] = tuple(
            int(answer.split()[1]) for answer in (await api.raw(request), await send_raw(nginx.port, request))
        )

    assert found == {path: (direct, through or direct) for path, (direct, through) in PATHS.items()}


async def test_inner_pages_are_for_this_host_alone(nginx: Nginx) -> None:
    """Metrics and the description of the API are hidden from other addresses, however the path is written."""
    for path in ("/metrics", "/docs", "/openapi.json"):
        here, there = [
            await send_raw(nginx.port, f"GET {path} HTTP/1.0\r\nHost: a\r\n\r\n".encode(), source=source)
            for source in ("127.0.0.1", "127.0.0.2")
        ]

        assert here.startswith(b"HTTP/1.1 200 "), path
        assert there.startswith(b"HTTP/1.1 404 "), path
        assert json.loads(there.partition(b"\r\n\r\n")[2])["code"] == "not_found"
    for path in PATHS:
        request = f"GET {path} HTTP/1.0\r\nHost: a\r\n\r\n".encode()
        assert b"howdah_" not in await send_raw(nginx.port, request, source="127.0.0.2"), path


async def test_client_that_sends_slowly_is_dropped(start_nginx: StartNginx, api: Api) -> None:
    """A header or body that does not go on is cut off, and others are answered meanwhile."""
    upstream = f"127.0.0.1:{api.port}"
    async with start_nginx(upstream, upstream, **{"timeout 10s": "timeout 1s"}) as nginx:
        slow = [
            send_raw(nginx.port, b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nX: "),
            send_raw(nginx.port, b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"),
        ]
        begun = asyncio.gather(*slow)
        healthy = await nginx.post_task(api.key)
        cut = await asyncio.wait_for(begun, 10)

    assert healthy.status_code == 201
    assert [answer for answer in cut if answer and b" 408 " not in answer] == []
