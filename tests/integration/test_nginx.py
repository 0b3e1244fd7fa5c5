"""nginx before a real API: what it passes on, to whom, and what it says when nobody is there."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.fix_api import Api, assert_problem
from tests.fix_nginx import CONF, Nginx
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fix_nginx import StartNginx

import pytest

pytestmark = pytest.mark.one_server


def test_configuration_is_valid(nginx_program: str, tmp_path: Path) -> None:
    """`nginx -t` accepts the whole configuration without a warning, with no change but its log and its port.

    It binds the port, which may be taken, and below 1024 is not for everybody.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for name in ("nginx.conf", "howdah-upstream.conf", "howdah.conf"):
        text = (CONF / name).read_text().replace("listen 80;", f"listen 127.0.0.1:{port};")
        (tmp_path / name).write_text(text.replace("/var/log/nginx/", f"{tmp_path}/"))
    user = "user root; " if os.geteuid() == 0 else ""
    done = subprocess.run(
        [
            nginx_program,
            "-t",
            "-p",
            str(tmp_path),
            "-c",
            str(tmp_path / "nginx.conf"),
            "-g",
            f"{user}pid {tmp_path}/pid;",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


async def test_request_reaches_the_api_and_keeps_its_id(nginx: Nginx, api: Api) -> None:
    """A task is made through nginx, and its request id is the client's in the answer and in nginx's log."""
    mine = "Root=1-67891233:a/b+c.d_e@f"
    made = await nginx.post_task(api.key, **{"X-Request-Id": mine})
    answer = await nginx.client.get(made.headers["location"], headers={"Authorization": f"Bearer {api.key}"})

    assert (made.status_code, answer.status_code) == (201, 200)
    assert made.headers["x-request-id"] == mine
    assert made.headers["server"] == "nginx"
    assert await nginx.logged(f'"request_id":"{mine}"')


async def test_log_shows_no_token_of_a_callback(nginx: Nginx) -> None:
    """It is a credential; where it stands in the path, and what was asked for, is told."""
    token = f"hcb_{'A' * 76}hcb_"
    paths = [f"/v1/callbacks/{token}/complete", f"/v1/x/{token}", f"/v1/callbacks/{token.replace('_', '%5F')}"]
    answers = [await nginx.client.post(path) for path in paths]
    log = await nginx.logged('"path":"/v1/callbacks/hcb_***"')

    assert [answer.status_code for answer in answers] == [404] * 3
    assert "AAAA" not in log
    assert '"path":"/v1/callbacks/hcb_***/complete"' in log
    assert '"path":"/v1/x/hcb_***"' in log
    assert '"path":"/v1/callbacks/hcb_***"' in log


async def test_request_with_a_hostile_id_gets_another(nginx: Nginx, api: Api) -> None:
    """An id that could forge lines in a log is replaced."""
    made = await nginx.post_task(api.key, **{"X-Request-Id": "a" * 129})

    assert made.status_code == 201
    assert re.fullmatch("[0-9a-f]{32}", made.headers["x-request-id"])


async def test_process_that_is_away_costs_no_request(nginx: Nginx, api: Api) -> None:
    """Requests meant for an API process that does not listen are answered by the other, POST too."""
    answers = [await nginx.post_task(api.key) for _ in range(10)]

    assert [answer.status_code for answer in answers] == [201] * 10
    assert await api.task_count() == 10


async def test_post_whose_answer_was_lost_is_not_sent_again(
    start_nginx: StartNginx,
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
        async with start_nginx(address, address) as nginx:
            answer = await nginx.post_task("hwd_none")

    assert taken == 1
    assert_problem(answer, 502, "api_unavailable")
    assert answer.headers["retry-after"] == "1"


async def test_get_whose_answer_was_lost_is_sent_to_another_process(start_nginx: StartNginx, api: Api) -> None:
    """What changes nothing is asked again elsewhere, and the client does not notice."""
    taken = 0

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        taken += 1
        writer.close()

    async with await asyncio.start_server(die, "127.0.0.1", 0) as dying:
        address = f"127.0.0.1:{dying.sockets[0].getsockname()[1]}"
        async with start_nginx(address, f"127.0.0.1:{api.port}") as nginx:
            answers = [await nginx.client.get("/healthz") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200] * 4
    assert taken > 0


async def test_killed_api_process_is_a_problem_document_until_it_is_back(
    start_nginx: StartNginx, database: str, server_directory: Path
) -> None:
    """After kill -9 of the only process clients get a problem document at once, and answers soon after its return."""
    # Paths of sockets must be short.
    path = server_directory / "api.sock"
    async with start_nginx(f"unix:{path}", f"unix:{path}") as nginx:
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
    start_nginx: StartNginx,
) -> None:
    """A process that hangs ends in 504 for the client, who is told what to do about a request that may be done."""
    end = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await end.wait()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as hanging:
        address = f"127.0.0.1:{hanging.sockets[0].getsockname()[1]}"
        async with start_nginx(address, address, **{"read_timeout 35s": "read_timeout 1s"}) as nginx:
            answer = await nginx.post_task("hwd_none")
            end.set()

    assert_problem(answer, 504, "api_timeout")
    assert "Idempotency-Key" in answer.json()["detail"]


async def test_only_this_hop_is_believed(start_nginx: StartNginx) -> None:
    """The API sees the client's address as nginx saw it, whatever the client wrote."""
    heads: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(note, "127.0.0.1", 0) as noting:
        address = f"127.0.0.1:{noting.sockets[0].getsockname()[1]}"
        async with start_nginx(address, address) as nginx:
            forged = {"X-Forwarded-For": "10.9.8.7", "Forwarded": "for=10.9.8.7", "X-Forwarded-Proto": "https"}
            await nginx.client.get("/healthz", headers=forged)
    [head] = heads

    assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in head
    assert b"\r\nX-Forwarded-Proto: http\r\n" in head
    assert b"10.9.8.7" not in head
    assert head.startswith(b"GET /healthz HTTP/1.1\r\n")
    assert b"\r\nConnection:" not in head


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


async def test_long_polls_outlast_other_requests(start_nginx: StartNginx, api: Api) -> None:
    """Claims and results may wait for longer than any other answer is waited for, and come back as they are."""
    address = f"127.0.0.1:{api.port}"
    task = await api.create()
    async with start_nginx(address, address, **{"read_timeout 35s": "read_timeout 1s"}) as nginx:
        headers = {"Authorization": f"Bearer {api.key}"}
        claim = {"handlers": ["nobody"], "wait": "2500ms"}
        answers = await asyncio.gather(
            nginx.client.post("/v1/queues/q/claim", json=claim, headers=headers),
            nginx.client.get(f"/v1/tasks/{task['id']}/result?wait=2500ms", headers=headers),
        )

    assert [answer.status_code for answer in answers] == [200, 202]
    assert answers[0].json() == {"runs": []}
    assert answers[1].json()["state"] == "queued"


async def test_events_of_a_followed_log_pass_at_once(nginx: Nginx, api: Api) -> None:
    """Nginx keeps none of them back until it has a bufferful; what comes first is there while the stream is open."""
    task = await api.create()
    await api.sql(
        "INSERT INTO howdah.task_logs (tenant_id, task_id, claim_no, seq, level, logged_at, message) "
        "VALUES (1, %s, 1, 1, 20, howdah.now(), 'said')",
        task["id"],
    )
    path, headers = f"/v1/tasks/{task['id']}/logs?follow=true", {"Authorization": f"Bearer {api.key}"}
    async with asyncio.timeout(10), nginx.client.stream("GET", path, headers=headers) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                break

    assert '"message":"said"' in line
