"""The port for health and metrics."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from howdah.core import health
from howdah.core.errors import SettingInvalid
from howdah.core.health import CONNECTIONS_MAX, HEAD_BYTES_MAX, HealthServer, Readiness


@pytest.fixture
def readiness() -> Readiness:
    """Give a readiness without checks."""
    return Readiness()


@pytest.fixture
async def port(readiness: Readiness) -> AsyncIterator[int]:
    """Give the port of a server."""
    server = HealthServer(readiness)
    yield await server.start("127.0.0.1", 0)
    await asyncio.wait_for(server.stop(), 10)


async def exchange(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes and return status, headers and body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    return int(line.split()[1]), {name.lower(): value for name, value in (each.split(": ") for each in headers)}, body


async def get(port: int, path: str, headers: str = "") -> tuple[int, dict[str, str], bytes]:
    """Ask for a path."""
    return await exchange(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())


async def reader_end(reader: asyncio.StreamReader) -> bytes:
    """Read to the end, however the connection ends."""
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return b""


async def test_healthz_answers_while_the_loop_turns(port: int) -> None:
    """Health does not depend on any check."""
    status, headers, body = await get(port, "/healthz?x=1")

    assert (status, body) == (200, b'{"status":"ok"}')
    assert headers["content-length"] == str(len(body))
    assert headers["connection"] == "close"


async def test_readyz_follows_the_checks(port: int, readiness: Readiness) -> None:
    """One check that is not well makes the process unready, and the answer says which and why."""
    faults: dict[str, str | None] = {"database": None}
    readiness.add("database", lambda: faults["database"])
    readiness.add("loops", lambda: None)
    readiness.warn("durability", "synchronous_commit is off")
    assert json.loads((await get(port, "/readyz"))[2]) == {
        "ready": True,
        "checks": {"database": "ok", "loops": "ok"},
        "warnings": {"durability": "synchronous_commit is off"},
    }
    faults["database"] = "no answer for 3 s"
    status, _, body = await get(port, "/readyz")

    assert status == 503
    assert json.loads(body)["checks"] == {"database": "no answer for 3 s", "loops": "ok"}


async def test_readyz_with_a_check_that_crashes_is_unready(port: int, readiness: Readiness) -> None:
    """A check that fails itself counts as not well, and its error text stays in the log."""

    def broken() -> str | None:
        raise RuntimeError("with a secret")

    readiness.add("broken", broken)
    status, _, body = await get(port, "/readyz")

    assert status == 503
    assert b"RuntimeError" in body
    assert b"secret" not in body


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("", "text/plain"), ("Accept: application/openmetrics-text; version=1.0.0\r\n", "application/openmetrics-text")],
)
async def test_metrics_are_given_in_the_format_asked_for(port: int, accept: str, content_type: str) -> None:
    """Prometheus gets the format that it asks for."""
    status, headers, body = await get(port, "/metrics", accept)

    assert status == 200
    assert headers["content-type"].startswith(content_type)
    assert b"howdah_runs_claimed_total" in body


async def test_head_answers_without_a_body(port: int) -> None:
    """HEAD has the headers of GET alone."""
    status, headers, body = await exchange(port, b"HEAD /healthz HTTP/1.1\r\n\r\n")

    assert (status, body) == (200, b"")
    assert headers["content-length"] == "15"


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /healthz/ HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/../healthz HTTP/1.1\r\n\r\n", 404),
        (b"POST /healthz HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /healthz\r\n\r\n", 400),
        (b"GET /healthz HTTP/2.0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 2 * HEAD_BYTES_MAX, 431),
    ],
)
async def test_other_requests_are_refused(port: int, request_head: bytes, status: int) -> None:
    """Whatever is not one of the three paths gets a fitting status and no more."""
    assert (await exchange(port, request_head))[0] == status


async def test_client_that_sends_too_slowly_loses_its_connection(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that does not come to its end is cut off."""
    monkeypatch.setattr(health, "EXCHANGE_S_MAX", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\n")

    assert await reader_end(reader) == b""
    writer.close()


async def test_clients_beyond_the_limit_are_turned_away(port: int) -> None:
    """Idle connections cannot use up the process's descriptors, and free places are given again."""
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS_MAX)]
    with pytest.raises((ConnectionError, IndexError)):
        await get(port, "/healthz")
    for reader, writer in idle:
        writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert b"200 OK" in await asyncio.wait_for(reader.read(), 10)
        writer.close()

    assert (await get(port, "/healthz"))[0] == 200


async def test_stop_closes_connections_and_the_port(readiness: Readiness, caplog: pytest.LogCaptureFixture) -> None:
    """A stop waits for no client, leaves no listener, and complains of nothing."""
    server = HealthServer(readiness)
    port = await server.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\n")
    assert (await get(port, "/healthz"))[0] == 200
    await asyncio.wait_for(server.stop(), 5)

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    assert await reader_end(reader) == b""
    assert caplog.records == []
    writer.close()


async def test_start_on_a_busy_port_names_the_variable(port: int, readiness: Readiness) -> None:
    """A port in use is a setting to be changed."""
    with pytest.raises(SettingInvalid, match="HOWDAH_METRICS_PORT: cannot listen on 127"):
        await HealthServer(readiness).start("127.0.0.1", port)
    await HealthServer(readiness).stop()
