"""Bodies that are too large, framed wrongly, of another type, or that never end."""

from __future__ import annotations

import asyncio
import time

import pytest

from howdah.api import gate
from tests.fix_api import TASK_BYTES, Api, assert_problem, task_with
from tests.fix_wait import eventually_async

pytestmark = pytest.mark.one_server


async def test_payload_over_the_limit_is_refused_with_its_pointer(api: Api) -> None:
    """B6: 256 KiB and one byte, single and in a batch."""
    body = task_with('"' + "x" * 262_143 + '"')
    batch = await api.post("/v1/tasks/batch", b'{"tasks": [%b]}' % body)

    assert_problem(await api.post("/v1/tasks", body), 413, "payload_too_large", ["/payload"])
    assert batch.json()["results"][0]["status"] == 413
    assert batch.json()["results"][0]["problem"]["errors"][0]["pointer"] == "/tasks/0/payload"
    assert await api.task_count() == 0


async def test_body_over_the_limit_is_refused_and_the_connection_closed(api: Api) -> None:
    """B6: 10 MB of body; what is left of it is not read."""
    answer = await api.post("/v1/tasks", b"x" * 10_000_000)

    assert_problem(answer, 413, "payload_too_large", [""])
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
async def test_chunk_size_that_overflows_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """B7: 16 hexadecimal digits of chunk size; at the latest when the body should have been there."""
    monkeypatch.setattr(gate, "BODY_S_MAX", 1.0)
    head = f"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {api.key}\r\n"
    answer = await api.raw(
        f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".encode()
    )

    assert answer.split(b" ")[1] in (b"400", b"408", b"413")


@pytest.mark.slow
async def test_body_that_never_ends_is_given_up_within_15_s(api: Api) -> None:
    """B7: 408, the connection is closed, and the place of the request is free again, however the body is framed."""
    head = f"POST /v1/tasks HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {api.key}\r\n"
    began = time.perf_counter()
    answers = await asyncio.gather(
        *(
            api.raw(f"{head}Content-Type: application/json\r\n{framing}\r\n\r\n1\r\n{{".encode())
            for framing in ("Content-Length: 100", "Transfer-Encoding: chunked")
        )
    )

    assert [answer.split(b" ")[1] for answer in answers] == [b"408", b"408"]
    assert all(b'"request_timeout"' in answer for answer in answers)
    assert gate.BODY_S_MAX <= time.perf_counter() - began < 15
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
    assert_problem(
        await api.post("/v1/tasks", TASK_BYTES, Content_Encoding=encoding),
        415,
        "unsupported_media_type",
        ["Content-Encoding"],
    )


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
    answer = await api.post("/v1/tasks", TASK_BYTES, Content_Type=content_type)

    assert_problem(answer, 415, "unsupported_media_type", ["Content-Type"])
    assert await api.task_count() == 0


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'])
async def test_spellings_of_json_are_read(api: Api, content_type: str) -> None:
    """B9: media types know no case, and may say what JSON is anyway."""
    assert (await api.post("/v1/tasks", TASK_BYTES, Content_Type=content_type)).status_code == 201


async def test_process_whose_bodies_are_too_large_together_says_so(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of all bodies is bounded, and given back."""
    monkeypatch.setattr("howdah.api.gate.BODY_BYTES_MAX", 100)
    answer = await api.post("/v1/tasks", task_with('"' + "x" * 100 + '"'))

    assert_problem(answer, 429, "backpressure")
    assert (await api.post("/v1/tasks", TASK_BYTES)).status_code == 201
