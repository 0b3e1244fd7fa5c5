"""PostgreSQL goes away and comes back; an API process is killed: nothing acknowledged is lost, nothing is doubled."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx2
import psycopg
import pytest
from psycopg import sql

from howdah.api.main import create_app, listen, make_server
from howdah.core.db.migrate import migrate
from howdah.core.errors import SettingInvalid
from howdah.core.settings import Settings
from tests.fix_api import TASK, Api, assert_problem, serving
from tests.fix_db import SERVER_OPTIONS
from tests.fix_wait import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from howdah.core.db.embedded import EmbeddedPostgres
    from tests.fix_fleet import Fleet

pytestmark = [pytest.mark.slow, pytest.mark.chaos]


@pytest.fixture
def server(make_server: Callable[..., EmbeddedPostgres]) -> EmbeddedPostgres:
    """A migrated server that the test may stop."""
    made = make_server("outage", options=SERVER_OPTIONS)
    migrate(made.dsn("postgres"))
    return made


async def test_start_before_postgresql_waits_and_says_so(make_server: Callable[..., EmbeddedPostgres]) -> None:
    """A process that starts first answers 503 with the reason, and works as soon as the server does."""
    server = make_server("late", options=SERVER_OPTIONS)
    url = server.dsn("postgres")
    migrate(url)
    server.stop()
    async with serving(url, wait=False) as api:
        ready, live = await api.get("/readyz", key=""), await api.get("/healthz", key="")
        answer = await api.post("/v1/tasks", TASK, key="hwd_" + "a" * 12 + "_" + "a" * 32)
        server.start()
        await eventually_async(lambda: api.backend.database.fault is None, 5, "the server is found")
        api.key = await api.make_key("admin")

        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert ready.json()["checks"]["database"] != "ok"
        assert live.status_code == 200
        assert_problem(answer, 503, "storage_unavailable")
        assert (await api.get("/readyz")).status_code == 200
        assert (await api.post("/v1/tasks", TASK)).status_code == 201


@pytest.mark.parametrize(
    ("environment", "code", "event"),
    [
        ({}, 69, "howdah migrate"),
        ({"HOWDAH_API_HOST": "192.0.2.1"}, 64, "HOWDAH_API_PORT"),
        ({"HOWDAH_API_SOCKET": "/nowhere/api.sock"}, 64, "HOWDAH_API_SOCKET"),
    ],
)
def test_process_that_cannot_serve_ends_and_says_why(
    blank_database: str, environment: dict[str, str], code: int, event: str
) -> None:
    """A schema that does not fit, or an address that cannot be listened on, ends the process with its exit code."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("HOWDAH_")}
    ended = subprocess.run(
        [sys.executable, "-m", "howdah", "api"],
        env={**own, "HOWDAH_DATABASE_URL": blank_database, "HOWDAH_API_PORT": "0", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == code, ended.stdout + ended.stderr
    assert event in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


async def test_socket_of_the_file_system_serves_too(database: str, tmp_path: Path) -> None:
    """For a proxy on the same host; a socket that a killed process left behind is no obstacle."""
    path = tmp_path / "api.sock"
    for _ in range(2):
        settings = Settings.from_env({"HOWDAH_DATABASE_URL": database, "HOWDAH_API_SOCKET": str(path)})
        with listen(settings) as listener:
            server = make_server(create_app(settings))
            task = asyncio.create_task(server.serve(sockets=[listener]))
            async with httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(path))) as client:
                await eventually_async(lambda server=server: server.started, 10, "the server has started")
                answer = await client.get("http://localhost/healthz")
            with pytest.raises(SettingInvalid, match="another process listens"):
                listen(settings)
            server.should_exit = True
            await task

        assert answer.json() == {"status": "ok"}
        assert path.is_socket()


@pytest.mark.parametrize("stop", ["fast", "crash"])
async def test_outage_loses_nothing_and_ends_by_itself(server: EmbeddedPostgres, stop: str) -> None:
    """While PostgreSQL is stopped clients get 503 at once; once it is back creates succeed within 5 s."""
    url = server.dsn("postgres")
    async with serving(url) as api:
        client = _Client(api)
        posting = [asyncio.create_task(client.post_until_told()) for _ in range(16)]
        await eventually_async(lambda: client.counts[201] > 100, 20, "creates go on")
        if stop == "crash":
            assert server.pid is not None
            os.kill(server.pid, signal.SIGQUIT)
        server.stop()
        before = client.counts[503]
        await eventually_async(lambda: client.counts[503] > before + 200, 20, "creates are refused")
        client.waits_s.clear()
        await eventually_async(lambda: len(client.waits_s) > 200, 20, "creates are refused")
        refused_waits_s = sorted(client.waits_s)
        server.start()
        back_at = time.monotonic()
        acknowledged = client.counts[201]
        await eventually_async(lambda: client.counts[201] > acknowledged + 100, 5, "creates go on again")
        back_s = time.monotonic() - back_at
        client.is_over = True
        await asyncio.gather(*posting)
        stored = {str(task_id) for (task_id,) in await api.sql("SELECT id FROM howdah.tasks")}

    assert set(client.counts) == {201, 503}
    assert client.ids <= stored
    assert back_s < 5
    # "At once": no timeout of any kind is waited for.
    assert refused_waits_s[len(refused_waits_s) // 2] < 0.5


class _Client:
    """Creates tasks one after the other, and remembers what it was told."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.ids: set[str] = set()
        self.counts: Counter[int] = Counter()
        self.waits_s: list[float] = []
        self.is_over = False

    async def post_until_told(self) -> None:
        while not self.is_over:
            began = time.monotonic()
            answer = await self.api.post("/v1/tasks", TASK)
            self.waits_s.append(time.monotonic() - began)
            self.counts[answer.status_code] += 1
            if answer.status_code == 201:
                self.ids.add(answer.json()["id"])
            else:
                assert_problem(answer, 503, "storage_unavailable")
                assert answer.headers["retry-after"] == "1"


def test_api_killed_under_load_leaves_no_duplicates(fleet: Fleet) -> None:
    """Clients that repeat a request with its key until they are answered make one task each, whatever dies when."""
    api = fleet.add_api()
    key = fleet.make_key()
    answers: dict[int, Any] = {}

    def client(first: int) -> None:
        with httpx2.Client(timeout=10) as http:
            for number in range(first, 400, 4):
                answers[number] = _post_until_answered(http, fleet.api_ports[-1], key, number)

    threads = [threading.Thread(target=client, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for wanted in (80, 200):
        eventually(lambda wanted=wanted: len(answers) > wanted, 60, "creates go on")
        api.kill()
        api.start()
    for thread in threads:
        thread.join()
    rows = fleet.query("SELECT payload::text::int, id::text FROM howdah.tasks ORDER BY 1")

    assert [number for number, _ in rows] == list(range(400))
    assert dict(rows) == answers
    assert api.start_count == 3


def _post_until_answered(http: httpx2.Client, port: int, key: str, number: int) -> str:
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "Idempotency-Key": f"request-{number}",
    }
    body = json.dumps({**TASK, "payload": number})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx2.TransportError):
            answer = http.post(f"http://127.0.0.1:{port}/v1/tasks", content=body, headers=headers)
            if answer.status_code == 201:
                task_id: str = answer.json()["id"]
                return task_id
            assert answer.status_code in (409, 503), answer.text
        time.sleep(0.02)
    raise AssertionError(f"request {number} was not answered within 60 s")


@pytest.mark.one_server
def test_api_stops_cleanly_while_clients_post(fleet: Fleet) -> None:
    """SIGTERM: what was read is answered, nothing else is stored, and the exit code says that it drained."""
    api = fleet.add_api()
    key = fleet.make_key()
    statuses: Counter[str] = Counter()
    is_over = threading.Event()

    def client() -> None:
        with httpx2.Client(timeout=10, headers={"Authorization": f"Bearer {key}"}) as http:
            while not is_over.is_set():
                try:
                    answer = http.post(f"http://127.0.0.1:{fleet.api_ports[-1]}/v1/tasks", json=TASK)
                    statuses[str(answer.status_code)] += 1
                except httpx2.TransportError:
                    # An idle connection was closed before its next request was read.
                    return

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: statuses["201"] > 100, 30, "creates go on")
    code = api.stop()
    is_over.set()
    for thread in threads:
        thread.join()

    assert code == 0
    assert set(statuses) == {"201"}
    assert fleet.query("SELECT count(*) FROM howdah.tasks") == [(statuses["201"],)]


async def test_outage_of_one_connection_is_no_outage(database: str) -> None:
    """A DBA who ends every session of the API costs at most the requests that were on them."""
    async with serving(database) as api:
        await api.create()
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as dba:
            await dba.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'howdah-api' AND datname = current_database()"
            )
        answers = await asyncio.gather(*(api.post("/v1/tasks", TASK) for _ in range(20)))
        await eventually_async(lambda: api.backend.database.fault is None, 5, "the server is there")
        later = await asyncio.gather(*(api.post("/v1/tasks", TASK) for _ in range(20)))

        assert {answer.status_code for answer in answers} <= {201, 503}
        assert {answer.status_code for answer in later} == {201}


async def test_failover_through_a_standby_is_an_outage_and_no_end(database: str) -> None:
    """A server that is read-only for a while is answered for with 503; the process goes on when it may write again."""
    name = sql.Identifier(psycopg.conninfo.conninfo_to_dict(database)["dbname"])
    async with (
        serving(database) as api,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as dba,
    ):
        for is_read_only in ("on", "off"):
            await dba.execute("SET default_transaction_read_only = off")
            setting = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
            await dba.execute(setting.format(name, sql.SQL(is_read_only)))
            await dba.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'howdah-api' AND datname = current_database()"
            )
            if is_read_only == "on":
                await eventually_async(lambda: "read-only" in (api.backend.database.fault or ""), 5, "it is noticed")
                assert_problem(await api.post("/v1/tasks", TASK), 503, "storage_unavailable")
        await eventually_async(lambda: api.backend.database.fault is None, 5, "the primary is found")
        answer = await api.post("/v1/tasks", TASK)

        assert answer.status_code == 201
