"""The real API on a real socket, in the test's event loop, against the test's own database."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
import psycopg
import pytest_asyncio

from howdah.api.main import create_app, listen, make_server
from howdah.core.credentials import make_key
from howdah.core.settings import Settings
from howdah.core.store.api_keys import ApiKeys
from howdah.core.store.tenants import Tenants
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from howdah.api.backend import Backend
    from howdah.api.middleware import Edge

TASK = {"queue": "q", "handler": "h"}
TASK_BYTES = json.dumps(TASK).encode()


@dataclass
class Api:
    """A served API, a client, and keys; `key` is an admin's of the tenant `default`."""

    url: str
    port: int
    app: Edge
    client: httpx2.AsyncClient
    key: str = ""
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def backend(self) -> Backend:
        """What the API works with."""
        return self.app.backend

    async def make_key(self, *scopes: str, tenant: str = "default", name: str = "test") -> str:
        """Store a new key and return its text."""
        key = make_key()
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as conn:
            await Tenants("howdah").create(conn, tenant)
            is_made = await ApiKeys("howdah").create(
                conn, key_id=key.id, tenant=tenant, secret_hash=key.secret_hash, name=name, scopes=scopes
            )
        assert is_made
        return key.text

    async def request(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **headers: str
    ) -> httpx2.Response:
        """Send a request with the admin's key, another, or none (""); a body that is not bytes is written as JSON.

        Headers are keywords with underscores: `Idempotency_Key="k"`.
        """
        sent = {} if key == "" else {"Authorization": f"Bearer {key or self.key}"}
        content: bytes | None = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.request(method, path, content=content, headers=sent)

    async def post(self, path: str, body: Any, **keywords: Any) -> httpx2.Response:
        """Send a POST."""
        return await self.request("POST", path, body, **keywords)

    async def get(self, path: str, **keywords: Any) -> httpx2.Response:
        """Send a GET."""
        return await self.request("GET", path, **keywords)

    async def create(self, **fields: Any) -> dict[str, Any]:
        """Store a task, which must succeed."""
        answer = await self.post("/v1/tasks", {**TASK, **fields})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def sql(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        """Execute SQL of the test's own."""
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as conn:
            cursor = await conn.execute(statement.encode(), params or None)
            return await cursor.fetchall() if cursor.description else []

    async def task_count(self) -> int:
        """How many tasks are stored."""
        [(count,)] = await self.sql("SELECT count(*) FROM howdah.tasks")
        return int(count)

    async def raw(self, data: bytes, *, until_closed: bool = True) -> bytes:
        """Send bytes over a connection of their own and return what comes back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(20):
                return await reader.read(-1 if until_closed else 65_536)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(url: str, *, wait: bool = True, **environment: str) -> AsyncIterator[Api]:
    """Serve the API on a free port."""
    settings = Settings.from_env({"HOWDAH_DATABASE_URL": url, "HOWDAH_API_PORT": "0", **environment})
    app = create_app(settings)
    with listen(settings) as listener:
        port = listener.getsockname()[1]
        server = make_server(app)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=30) as client:
            await eventually_async(lambda: server.started, 10, "the server has started")
            made = Api(url, port, app, client)
            if wait:
                await eventually_async(lambda: made.backend.database.fault is None, 10, "the database is found")
                made.key = await made.make_key("admin")
            try:
                yield made
            finally:
                server.should_exit = True
                await client.aclose()
                await task


@pytest_asyncio.fixture
async def api(database: str) -> AsyncIterator[Api]:
    """A served API on the test's own database."""
    async with serving(database) as made:
        yield made


def task_with(payload: str) -> bytes:
    """The JSON of a task with this text as its payload."""
    return f'{{"queue": "q", "handler": "h", "payload": {payload}}}'.encode()


def pointers(answer: httpx2.Response) -> list[str]:
    """Return what a problem document points at."""
    return [
        error.get("pointer") or error.get("parameter") or error.get("header") or "" for error in answer.json()["errors"]
    ]


def assert_problem(answer: httpx2.Response, status: int, code: str, at: Sequence[str] | None = None) -> None:
    """Check that an answer is a whole problem document with this code, pointing at these places."""
    document = answer.json()
    assert (answer.status_code, document["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    members = {"type", "title", "status", "code", "detail", "retryable", "request_id", "errors"}
    assert set(document) == (members | {"task_id"} if code == "dedup_conflict" else members)
    assert document["type"] == f"urn:howdah:problem:{code}"
    assert document["status"] == status
    assert document["request_id"] == answer.headers["x-request-id"]
    if at is not None:
        assert pointers(answer) == list(at)
